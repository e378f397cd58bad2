"""Preparation that is killed, stopped, out of space or started twice; and who did the work."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crystals import ROCK_SALT, write_crystals
from mortal import finished_shards, kill_randomly, rank_pids, start
from preparation import data_set, run_program
from ranks import command, environment, run_command, run_ranks

from matsci_hpc.shards.verify import verify


@pytest.fixture(scope="module")
def cifs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in") / "cifs"
    write_crystals(folder, 120)
    (folder / "broken.cif").write_text("no crystal")
    return folder


@pytest.fixture
def make_config(cifs, tmp_path):
    def make(out, folder=cifs, shard_size=3, **changes):
        config = {"source": {"kind": "cif", "path": str(folder)}, "out": str(out), "shard_size": shard_size}
        path = tmp_path / f"{out.name}.yaml"
        path.write_text(json.dumps(config | {"neighbors": {"cutoff": 6.0}} | changes))
        return path

    return make


@pytest.fixture
def endless(make_config, tmp_path):
    """A config that is not finished within any test."""
    source = {"kind": "symmetry", "samples": 50_000_000, "seed": 5}
    return make_config(tmp_path / "out", source=source, shard_size=2000)


def said(text):
    """Lines of the program itself, without those of the launcher."""
    return [line for line in text.splitlines() if line.startswith("matsci-hpc:")]


def survive(make_config, tmp_path, kills, seed):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run_program("prep", make_config(whole)).returncode == 0
    config, chance, hits, number = make_config(out), random.Random(seed), 0, 0
    while hits < kills:
        number += 1
        before = finished_shards(out)
        ranks = 1 + number % 3
        hits += kill_randomly(out, config, ranks, chance, 1.5)
        after = finished_shards(out)
        assert (out / "dataset.json").exists() or {name: after[name] for name in before} == before
        if (out / "dataset.json").exists():
            assert data_set(out) == data_set(whole) or (out / ".work").exists()
            assert run_program("prep", config).returncode == 0
            assert data_set(out) == data_set(whole)
            subprocess.run(["rm", "-r", str(out)], check=True)
    kept = finished_shards(out)
    times = {name: (out / name).stat().st_mtime_ns for name in kept}
    done = run_ranks(2, "prep", config)
    assert done.returncode == 0, done.stderr
    assert data_set(out) == data_set(whole)
    if kept:
        assert json.loads((out / "provenance.json").read_text())["reused_shards"] == len(kept)
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == times
    assert verify(out) == []


@pytest.mark.mpi
def test_a_few_random_kills(make_config, tmp_path):
    survive(make_config, tmp_path, kills=5, seed=1)


@pytest.mark.mpi
@pytest.mark.slow
def test_many_random_kills(make_config, tmp_path):
    survive(make_config, tmp_path, kills=50, seed=2)


def small_disk(folder, kilobytes, words):
    """The command on a file system of its own, which goes away with it; the folder is then seen by it alone."""
    mount = f'mount -t tmpfs -o size={kilobytes}k none "{folder}" && exec "$@"'
    alone = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]), "sh", "-c", mount, "sh"]
    if run_command([*alone, "true"]).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    return [*alone, *words]


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.97])
def test_a_full_disk(make_config, tmp_path, ranks, share):
    """`share` of what the data set needs: full within the shards, the records, or the index and manifest at the end."""
    disk, whole = tmp_path / "disk", tmp_path / "whole"
    disk.mkdir()
    assert run_program("prep", make_config(whole)).returncode == 0
    config = make_config(disk / "out")
    pages = sum(-(-path.stat().st_size // 4096) + 1 for path in whole.iterdir()) * 4
    again = (
        f'"$@"; code=$?; [ $code = 3 ] || exit 99; ls -A {disk}/out | grep -c "part$" >&2; '
        f"mount -o remount,size=64m {disk} || exit 98; "
        f'"$@" && cp -r {disk}/out {tmp_path}/copy'
    )
    words = ["sh", "-c", again, "sh", *command(ranks, "prep", config)]
    done = run_command(small_disk(disk, int(share * pages) + 8, words), timeout_s=100)
    if done.returncode == 99 and share > 0.9:
        pytest.skip("it fitted")
    assert done.returncode == 0, done.stderr
    (line,) = said(done.stderr)
    assert "No space left on device; free some space and start again" in line
    assert "Traceback" not in done.stderr
    assert "0" in done.stderr.splitlines()  # no half file
    assert data_set(tmp_path / "copy") == data_set(whole)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_folder_that_nobody_may_write_to(make_config, tmp_path, ranks):
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["sh", "-c", f'mount -o remount,ro {disk} && exec "$@"', "sh", *command(ranks, "prep", make_config(disk))]
    done = run_command(small_disk(disk, 64, words), timeout_s=60)
    assert done.returncode == 2, done.stderr
    assert said(done.stderr) == [f"matsci-hpc: error: {disk}: cannot be written: Read-only file system"]


def wait_for_shards(out, process, number=3):
    end_s = time.monotonic() + 60
    while len(list(out.glob("shard-*.h5"))) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.01)


@pytest.mark.mpi
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("ranks", "whom"), [(1, "all"), (3, "all"), (3, "one"), (3, "launcher")])
def test_signals(endless, tmp_path, number, ranks, whom):
    out = tmp_path / "out"
    process = start(ranks, endless)
    try:
        wait_for_shards(out, process)
        pids = rank_pids(process, ranks)
        for pid in {"all": pids, "one": pids[1:2], "launcher": [process.pid]}[whom]:
            os.kill(pid, number)
        _, text = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert not list(out.rglob("*.part"))
    assert {path.stem[-5:] for path in out.glob("shard-*")} == {path.stem[-5:] for path in out.glob(".work/block-*")}
    assert "Traceback" not in text
    if whom == "launcher":  # which has words and a code of its own
        assert process.returncode != 0
        return
    assert process.returncode == 128 + number, text
    words = f"matsci-hpc: error: stopped by {number.name}; what is finished is kept, and the same command goes on"
    assert said(text) == [f"{words} from there"]


def processor_s(pid):
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_rank(process, out):
    """The one of two ranks that waits while the other works, seen twice in a row; what waits for rank 0 spins."""
    end_s, found = time.monotonic() + 100, []
    while time.monotonic() < end_s:
        assert process.poll() is None, process.communicate()
        before = {pid: processor_s(pid) for pid in rank_pids(process, 2)}
        time.sleep(1.0)
        if len(before) == 2 and (out / ".work/.lock").exists():
            (less, idle), (more, _) = sorted((processor_s(pid) - start_s, pid) for pid, start_s in before.items())
            found = [*found, idle] if more > 0.1 and less < more / 4 else []
            if len(found) > 1 and found[-1] == found[-2]:
                return idle
    raise AssertionError("both ranks work, or none")


@pytest.mark.mpi
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_rank_that_waits_for_the_others(make_config, tmp_path, number):
    """There is one block for two ranks, and it takes a minute; nobody but the idle rank gets the signal."""
    frame = '1\nLattice="3 0 0 0 3 0 0 0 3"\nCu 0 0 0\n'
    (tmp_path / "frames.xyz").write_text(frame * 30_000)
    source = {"kind": "extxyz", "path": str(tmp_path / "frames.xyz")}
    out = tmp_path / "out"
    config = make_config(out, source=source, shard_size=30_000, neighbors={"cutoff": 30.0})
    process = start(2, config)
    try:
        os.kill(idle_rank(process, out), number)
        _, text = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number, text
    words = f"matsci-hpc: error: stopped by {number.name}; what is finished is kept, and the same command goes on"
    assert said(text) == [f"{words} from there"]
    assert not list(out.glob("shard-*"))


def test_two_preparations_of_one_folder(endless, make_config, tmp_path):
    out = tmp_path / "out"
    process = start(1, endless)
    try:
        wait_for_shards(out, process)
        second = run_program("prep", endless)
        assert second.returncode == 2
        (line,) = said(second.stderr)
        assert f"{out}: process {process.pid} on " in line
        assert "is preparing this data set; wait for it" in line
        process.kill()
        process.wait()
    finally:
        process.kill()
        process.communicate()
    assert (out / ".work/.lock").exists()  # of the dead
    assert run_program("prep", make_config(out)).returncode == 0
    assert not list(out.rglob(".*"))


@pytest.mark.mpi
def test_a_heavy_structure_is_begun_first_and_the_others_do_the_rest(make_config, tmp_path):
    folder, out = tmp_path / "skewed", tmp_path / "out"
    folder.mkdir()
    for number in range(60):
        (folder / f"a{number:03d}.cif").write_text(ROCK_SALT)
    edge = 16
    head, _, _ = ROCK_SALT.replace("5.64", str(3.0 * edge)).partition("Na1")
    sites = (f"N{n} Na {n % edge / edge} {n // edge % edge / edge} {n // edge**2 / edge} 1" for n in range(edge**3))
    (folder / "z.cif").write_text(head + "\n".join(sites) + "\n")
    done = run_ranks(3, "prep", make_config(out, folder, shard_size=2))
    assert done.returncode == 0, done.stderr
    work = json.loads((out / "provenance.json").read_text())["work_of_ranks"]
    assert sum(each["blocks"] for each in work) == 31
    assert sum(each["inputs"] for each in work) == 61
    heaviest = max(work, key=lambda each: each["longest_s"])
    assert heaviest["longest_block"] == 30
    assert all(each["blocks"] > heaviest["blocks"] for each in work if each is not heaviest)
    alone = tmp_path / "alone"
    assert run_program("prep", make_config(alone, folder, shard_size=2)).returncode == 0
    assert data_set(out) == data_set(alone)


SLOW = """
import sys
import time
from pathlib import Path
from matsci_hpc import prepare
out, huge, others = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
convert = prepare.convert

def as_long_as_all_others(config, source, start, stop, number):
    end_s = time.monotonic() + 100
    while number == huge and len(list(out.glob("shard-*.h5"))) < others:
        if time.monotonic() > end_s:
            raise RuntimeError("the other ranks leave blocks to the one with the huge structure")
        time.sleep(0.01)
    return convert(config, source, start, stop, number)

prepare.convert = as_long_as_all_others
from matsci_hpc.cli import main
sys.argv = ["matsci-hpc", "prep", sys.argv[1]]
main()
"""


@pytest.mark.mpi
def test_one_huge_structure_among_thousands_leaves_the_rest_to_the_other_ranks(make_config, tmp_path):
    """In one file, whose frames tell no sizes beforehand. The block of the huge one is held back until there are shards
    of all the others: blocks that were dealt out beforehand would never be made."""
    edge, frames, huge, size = 12, 2000, 45, 20
    small = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"\nCs 0 0 0\nCl 2 2 2\n'
    side = 3 * edge
    places = itertools.product(range(0, side, 3), repeat=3)
    head = f'{edge**3}\nLattice="{side} 0 0 0 {side} 0 0 0 {side}" Properties=species:S:1:pos:R:3 pbc="T T T"\n'
    large = head + "".join(f"Na {x} {y} {z}\n" for x, y, z in places)
    (tmp_path / "a.xyz").write_text(small * huge + large + small * (frames - huge - 1))
    out, program = tmp_path / "out", tmp_path / "slow.py"
    program.write_text(SLOW)
    source = {"kind": "extxyz", "path": str(tmp_path / "a.xyz")}
    words = [*command(3)[:-2], program, make_config(out, shard_size=size, source=source), out, huge // size]
    done = run_command([*map(str, words), str(frames // size - 1)], timeout_s=200)
    assert done.returncode == 0, done.stderr
    work = json.loads((out / "provenance.json").read_text())["work_of_ranks"]
    assert sum(each["inputs"] for each in work) == frames
    (held,) = (each for each in work if each["longest_block"] == huge // size)
    # Before it met the huge one, it can have made those before in the file.
    assert held["blocks"] <= 1 + huge // size
    assert sum(each["blocks"] for each in work) == frames // size
    alone = tmp_path / "alone"
    assert run_program("prep", make_config(alone, shard_size=size, source=source)).returncode == 0
    assert data_set(out) == data_set(alone)


BUSY = """
import time
from matsci_hpc.parallel.mpi import open_world
world = open_world()
counter = world.counter()
world.barrier()
taken = 0
end_s = time.monotonic() + 3
if world.rank == 0:
    while time.monotonic() < end_s:  # computes, and makes no call of MPI
        pass
else:
    while time.monotonic() < end_s - 1:
        taken += counter.take() >= 0
counter.free()
print(world.gather(taken)[1]) if world.rank == 0 else world.gather(taken)
"""


@pytest.mark.mpi
@pytest.mark.parametrize("nodes", [1, 2])
def test_rank_0_answers_while_it_computes(tmp_path, nodes):
    program = tmp_path / "busy.py"
    program.write_text(BUSY)
    words = command(2)[: -len([sys.executable, "-m", "matsci_hpc"])]
    if nodes == 2:
        # Two daemons on this machine that take each other for other nodes, and so talk over TCP.
        if run_command(["unshare", "--uts", "true"]).returncode or not words[0].endswith("mpirun"):
            pytest.skip("needs Open MPI, and the right to change the name of the host")
        agent = tmp_path / "agent"
        agent.write_text(
            "#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\nhost=$1; shift\n"
            'exec unshare --uts bash -c "hostname $host; $*"\n'
        )
        agent.chmod(0o755)
        words = [words[0], "-n", "2", "--map-by", "node", "--host", "node1:1,node2:1", "--bind-to", "none"]
        words += ["--prtemca", "plm_ssh_agent", str(agent), "--prtemca", "plm_ssh_no_tree_spawn", "1"]
    done = run_command([*words, sys.executable, str(program)], timeout_s=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 5


LINES = """
import sys
from matsci_hpc import work_sharing
from matsci_hpc.telemetry import progress
work_sharing.SHOW_S, progress.LINE_EVERY_S = 0.01, 0.05
from matsci_hpc.cli import main
sys.argv = ["matsci-hpc", "prep", *sys.argv[1:]]
main()
"""


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_lines_in_a_log_count_all_ranks(make_config, tmp_path, ranks):
    program = tmp_path / "lines.py"
    program.write_text(LINES)
    config = make_config(tmp_path / "out", shard_size=2)
    words = command(ranks)[:-2]
    done = run_command([*words, str(program), str(config)])
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "121 inputs" in line]
    assert len(lines) >= 2
    counts = [int(line.partition("/")[0]) for line in lines]
    assert counts == sorted(counts)
    assert 0 < counts[-1] <= 121
    assert "inputs/s, about " in lines[-1]
    assert "/61 shards, " in lines[-1]
    assert lines[-1].endswith(" rejected")


def test_a_bar_on_a_terminal(make_config, tmp_path):
    from terminal import talk

    screen = talk(command(1, "prep", make_config(tmp_path / "out")), [], environment())
    assert "/121" in screen
    assert "inputs/s" in screen
    assert "/41 shards" in screen
    assert "done in" in screen
