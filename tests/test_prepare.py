import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from crystals import BROKEN, ROCK_SALT
from preparation import ENVIRONMENT, PROGRAM, data_set, run_on_ranks, run_program
from ranks import mpirun

from matsci_hpc.shards.manifest import read_manifest
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.shards.verify import verify
from matsci_hpc.splits import split_of

TARGETS = {
    "gap": {"column": "gap", "unit": "eV"},
    "metal": {"column": "metal", "kind": "binary"},
    "family": {"column": "family", "kind": "class"},
}


@pytest.fixture(scope="session")
def mixed(cif_folder, tmp_path_factory):
    """Good and broken files in folders, and one id twice."""
    folder = tmp_path_factory.mktemp("mixed")
    for path in sorted(cif_folder.rglob("*.*"), reverse=True):
        write(folder / path.relative_to(cif_folder), path.read_bytes())
    for name, (data, _) in BROKEN.items():
        write(folder / ("a" if name < "m" else "z") / name, data)
    write(folder / "zz/crystal-003.cif", ROCK_SALT.encode())
    return folder


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture(scope="session")
def make_config(mixed, tmp_path_factory):
    def make(out, folder=mixed, **changes):
        source = {"kind": "cif", "path": str(folder), "properties": str(folder / "properties.csv")}
        source |= {"targets": TARGETS, "split_column": "split"}
        config = {"source": source, "out": str(out), "shard_size": 9, "neighbors": {"cutoff": 4.0}} | changes
        path = tmp_path_factory.mktemp("config") / "prep.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        return path

    return make


@pytest.fixture(scope="session")
def whole(make_config, tmp_path_factory):
    """The data set by one rank, which every other way of making it must reproduce."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = run_program("prep", make_config(out))
    assert done.returncode == 0, done.stderr
    assert "done in" in done.stdout
    return out


def reasons(out):
    return [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]


def test_counts_add_up(whole, mixed):
    manifest = read_manifest(whole)
    inputs = sorted(path.relative_to(mixed).as_posix() for path in mixed.rglob("*.cif"))
    assert manifest.counts.inputs == len(inputs) == 60 + len(BROKEN) + 1
    assert manifest.counts.quarantined == len(BROKEN) + 1
    assert manifest.counts.samples == 60 == sum(manifest.splits.values())
    assert verify(whole) == []
    assert not (whole / ".work").exists()


def test_every_broken_file_is_named_in_order(whole, mixed):
    inputs = sorted(path.relative_to(mixed).as_posix() for path in mixed.rglob("*.cif"))
    found = reasons(whole)
    assert [each["index"] for each in found] == sorted(each["index"] for each in found)
    assert [each["source"] for each in found] == [inputs[each["index"]] for each in found]
    by_name = {Path(each["source"]).name: each["reason"] for each in found}
    assert by_name.pop("crystal-003.cif") == "the id is taken by crystal-003.cif"
    assert by_name.keys() == BROKEN.keys()
    for name, (_, part) in BROKEN.items():
        assert part in by_name[name]


def test_samples_keep_their_order_targets_and_splits(whole, mixed):
    data = DataSet(whole)
    names = list(data.manifest.splits)
    identifiers, splits, gaps = [], [], []
    for number in range(len(data.manifest.shards)):
        shard = data.shard(number)
        identifiers += [name.decode() for name in shard["structures/id"]]
        splits += [names[split] for split in shard["structures/split"]]
        gaps += shard["targets/gap"].tolist()
    rejected = {each["source"] for each in reasons(whole)}
    inputs = sorted(path.relative_to(mixed).as_posix() for path in mixed.rglob("*.cif"))
    assert identifiers == [Path(name).stem for name in inputs if name not in rejected]
    shares = {"train": 0.9, "val": 0.05, "test": 0.05}
    for identifier, split, gap in zip(identifiers, splits, gaps, strict=True):
        number = int(identifier[-3:])
        listed = number % 10 != 9
        assert split == ((("train", "test", "")[number % 3] if listed else "") or split_of(identifier, shares))
        assert np.isnan(gap) == (not listed or number % 7 == 0)
        assert np.isnan(gap) or gap == np.float32(f"{number / 8:.3f}")


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_same_bytes_for_any_number_of_ranks(whole, make_config, tmp_path, ranks):
    done = run_on_ranks(ranks, ["-m", "matsci_hpc", "prep", make_config(tmp_path / "out")])
    assert done.returncode == 0, done.stderr
    assert f"by {ranks} ranks" in done.stdout
    assert data_set(tmp_path / "out") == data_set(whole)


def test_same_bytes_for_another_order_on_disk(whole, mixed, make_config, tmp_path):
    source = tmp_path / "elsewhere"
    for path in sorted(mixed.rglob("*.*"), key=lambda path: path.name[::-1]):
        write(source / path.relative_to(mixed), path.read_bytes())
    done = run_program("prep", make_config(tmp_path / "out", source))
    assert done.returncode == 0, done.stderr
    assert data_set(tmp_path / "out") == data_set(whole)


@pytest.mark.mpi
def test_more_ranks_than_shards(whole, make_config, tmp_path):
    config = make_config(tmp_path / "out", shard_size=1000)
    done = run_on_ranks(3, ["-m", "matsci_hpc", "prep", config])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/quarantine.jsonl").read_bytes() == (whole / "quarantine.jsonl").read_bytes()
    assert [path.name for path in (tmp_path / "out").glob("shard-*")] == ["shard-00000.h5"]


def descendants(pid):
    children = []
    for path in Path("/proc").glob(f"{pid}/task/*/children"):
        children += [int(child) for child in path.read_text().split()]
    return children + [each for child in children for each in descendants(child)]


def wait_for(condition, process, limit_s=60.0):
    end_s = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < end_s, "nothing happened"
        time.sleep(0.002)


@pytest.mark.mpi
def test_killed_in_the_middle_and_started_again(make_config, tmp_path):
    fine = {"shard_size": 2}
    uninterrupted, out = tmp_path / "uninterrupted", tmp_path / "out"
    assert run_program("prep", make_config(uninterrupted, **fine)).returncode == 0
    config = make_config(out, **fine)
    args = mpirun(2, *PROGRAM, "prep", config)
    with subprocess.Popen(args, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: len(list(out.glob("shard-*.h5"))) >= 8, process)
        for pid in [process.pid, *descendants(process.pid)]:
            os.kill(pid, signal.SIGKILL)
    # Beside what the kill left: a finished shard that was damaged, a half-written one, one of another config.
    finished = sorted(out.glob("shard-*.h5"))
    assert len(finished) >= 8
    assert not (out / "dataset.json").exists()
    assert "preparation was not finished" in run_program("shards", "info", out).stderr
    records = {path.stem[-5:] for path in (out / ".work").glob("block-*.json")}
    whole_shards = [path for path in finished if path.stem[-5:] in records]
    damaged = bytearray(whole_shards[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    whole_shards[0].write_bytes(damaged)
    (out / ".shard-00004.h5.123.part").write_bytes(b"half")
    (out / "shard-09999.h5").write_bytes(b"of another config")

    done = run_on_ranks(2, ["-m", "matsci_hpc", "prep", config])
    assert done.returncode == 0, done.stderr
    assert data_set(out) == data_set(uninterrupted)
    assert json.loads((out / "provenance.json").read_text())["reused_shards"] == len(whole_shards) - 1


def test_done_already(whole, make_config):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in whole.iterdir()}
    done = run_program("prep", make_config(whole))
    assert done.returncode == 0
    assert "complete already, nothing was done" in done.stdout
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in whole.iterdir()} == before


@pytest.mark.parametrize(
    "changes", [{"neighbors": {"cutoff": 4.1}}, {"shard_size": 10}, {"splits": {"train": 0.8, "val": 0.2}}]
)
def test_another_config_into_the_same_folder(whole, make_config, changes):
    before = data_set(whole)
    done = run_program("prep", make_config(whole, **changes))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "made from another input or config" in done.stderr
    assert data_set(whole) == before


def test_another_config_after_an_interruption(tmp_path, make_config):
    source = tmp_path / "in"
    for number in range(4):
        write(source / f"salt-{number}.cif", ROCK_SALT.encode())
    plain = {"source": {"kind": "cif", "path": str(source)}}
    fresh, out = tmp_path / "fresh", tmp_path / "out"
    assert run_program("prep", make_config(fresh, shard_size=2, **plain)).returncode == 0
    assert run_program("prep", make_config(out, shard_size=1, **plain)).returncode == 0
    (out / "dataset.json").unlink()  # what an interruption at the end leaves
    (out / ".work").mkdir()
    assert run_program("prep", make_config(out, shard_size=2, **plain)).returncode == 0
    assert data_set(out) == data_set(fresh)
    assert verify(out) == []


def test_a_folder_of_somebody_else(tmp_path, make_config):
    out = tmp_path / "home"
    write(out / "thesis.txt", b"years of work")
    done = run_program("prep", make_config(out))
    assert done.returncode == 2
    assert "not empty and holds no data set" in done.stderr
    assert data_set(out) == {"thesis.txt": b"years of work"}


def test_block_without_one_usable_input(tmp_path, make_config):
    source = tmp_path / "in"
    for name in ("a", "b", "c", "d"):
        write(source / f"{name}.cif", ROCK_SALT.encode() if name in "ad" else b"")
    out = tmp_path / "out"
    done = run_program("prep", make_config(out, shard_size=1, source={"kind": "cif", "path": str(source)}))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted(out.glob("shard-*"))] == ["shard-00000.h5", "shard-00003.h5"]
    assert len(DataSet(out).index) == 2
    assert verify(out) == []


@pytest.mark.parametrize("text", ["id,cif\n", ""], ids=["a header", "nothing"])
def test_an_input_without_a_structure(tmp_path, text):
    (tmp_path / "table.csv").write_text(text)
    config = tmp_path / "prep.json"
    source = {"kind": "csv", "path": str(tmp_path / "table.csv")}
    write(config, json.dumps({"source": source, "out": str(tmp_path / "out"), "neighbors": {"cutoff": 4.0}}).encode())
    done = run_program("prep", config)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "Traceback" not in line
    assert not (tmp_path / "out").exists()


def test_hash_splits_stay_when_data_are_added():
    shares = {"train": 0.7, "none": 0.0, "val": 0.2, "test": 0.1}
    found = [split_of(f"sample-{n}", shares) for n in range(5000)]
    assert found[17] == split_of("sample-17", dict(shares))
    for split, share in shares.items():
        assert abs(found.count(split) / 5000 - share) < 0.02
    # Moving the border between val and test moves nothing else.
    moved = [split_of(f"sample-{n}", shares | {"val": 0.25, "test": 0.05}) for n in range(5000)]
    assert {(a, b) for a, b in zip(found, moved, strict=True) if a != b} == {("test", "val")}


def test_one_process_needs_no_mpi(make_config, tmp_path):
    write(tmp_path / "in/salt.cif", ROCK_SALT.encode())
    config = make_config(tmp_path / "out", source={"kind": "cif", "path": str(tmp_path / "in")})
    code = (
        "import sys\nfrom matsci_hpc.cli import main\n"
        f"sys.argv = ['matsci-hpc', 'prep', {str(config)!r}]\n"
        "main()\nprint('mpi4py' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "False False"


def test_launcher_and_mpi_disagree(make_config, tmp_path):
    lying = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
    done = run_program("prep", make_config(tmp_path / "out"), environment=lying)
    assert done.returncode == 3, done.stderr
    assert "Open MPI started 2 processes, but MPI sees 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.mpi
def test_an_unexpected_error_on_the_first_rank_ends_all(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from matsci_hpc.parallel.mpi import open_world\nworld = open_world()\nworld.on_first(lambda: 1 // 0)\n"
    )
    done = run_on_ranks(2, [program], timeout=30)
    assert done.returncode != 0
    assert "matsci-hpc: rank 0 on " in done.stderr
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.mpi
def test_a_users_mistake_is_said_once(tmp_path, make_config):
    done = run_on_ranks(
        3, ["-m", "matsci_hpc", "prep", make_config(tmp_path / "out", source={"kind": "cif", "path": "/n"})]
    )
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "matsci-hpc" in line] == [
        "matsci-hpc: error: /n: no such file or folder"
    ]


@pytest.mark.mpi
def test_the_counter_hands_out_each_number_once(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from mpi4py import MPI\n"
        "from matsci_hpc.parallel.mpi import open_world\n"
        "world = open_world()\n"
        "counter = world.counter()\n"
        "mine = []\n"
        "while (number := counter.take()) < 500:\n"
        "    mine.append(number)\n"
        "counter.free()\n"
        "taken = MPI.COMM_WORLD.gather(mine)\n"
        "if world.rank == 0:\n"
        "    assert sorted(sum(taken, [])) == list(range(500)), taken\n"
        "    print(world.sum.__name__, len(taken))\n"
    )
    done = run_on_ranks(3, [program], timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["sum", "3"]
