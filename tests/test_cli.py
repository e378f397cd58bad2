import json
import pickle
import subprocess
import sys

import pytest
from crystals import ROCK_SALT
from preparation import ENVIRONMENT, PROGRAM, run_program

from matsci_hpc.errors import RankError

GOOD = {"source": {"kind": "cif", "path": "cifs"}, "out": "out", "neighbors": {"cutoff": 4.0}}


@pytest.fixture
def place(tmp_path):
    """A folder with one crystal, a table and odds and ends, in which a command runs."""
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs/salt.cif").write_text(ROCK_SALT)
    (tmp_path / "atomless").mkdir()
    (tmp_path / "atomless/void.cif").write_text(ROCK_SALT.partition("Na1")[0])
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("name,gap\nsalt,5.0\n")
    (tmp_path / "damaged.tar.gz").write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\3not deflate at all")
    (tmp_path / "file").write_text("in the way")
    return tmp_path


def with_table(**changes):
    table = {"properties": "table.csv", "id_column": "name", "targets": {"gap": {"column": "gap"}}}
    return {"source": GOOD["source"] | table | changes}


PREP = [
    pytest.param({"neighbours": {}}, [], 2, "unknown key neighbours; did you mean neighbors?", id="unknown key"),
    pytest.param({}, ["neighbors.cutoff=-1"], 2, "override: neighbors.cutoff", id="negative cutoff"),
    pytest.param({}, ["neighbors.cutoff"], 2, "expected key.sub=value", id="no value"),
    pytest.param({}, ["source.path=nowhere"], 2, "nowhere: no such file or folder", id="no source"),
    pytest.param({}, ["source.path=empty"], 2, "empty: holds no .cif file", id="empty folder"),
    pytest.param({}, ["source.path=file"], 2, "file: neither a folder nor a whole tar archive", id="no archive"),
    pytest.param({}, ["source.path=damaged.tar.gz"], 2, "neither a folder nor a whole tar", id="damaged archive"),
    pytest.param({}, ["source.path=atomless"], 2, "void.cif, because: ", id="no atoms"),
    pytest.param(with_table(id_column="id"), [], 2, "no column 'id'; its columns are name, gap", id="no id column"),
    pytest.param(with_table(id_column="gap"), [], 2, "no id in column 'gap' is the name of a CIF", id="no id fits"),
    pytest.param(with_table(properties="no.csv"), [], 2, "no.csv: cannot read the properties", id="no table"),
    pytest.param({}, ["source.targets.gap.column=gap"], 2, "need source.properties", id="targets without table"),
    pytest.param({}, ["out=file"], 2, "file: cannot be written", id="out is a file"),
    pytest.param({}, ["out=file/below"], 2, "below: cannot be written: Not a directory", id="out below a file"),
    pytest.param({}, ["out=/proc/matsci"], 2, "/proc/matsci: cannot be written", id="out in /proc"),
    pytest.param({}, ["out=" + "x" * 300], 2, "cannot be written: File name too long", id="endless name"),
    pytest.param({}, ["out=cifs"], 2, "cifs: the folder is not empty and holds no data set", id="foreign out"),
]


def assert_one_line(done, code, text):
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("matsci-hpc: error: ")
    assert done.stderr.count("\n") == 1
    assert text in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("changes", "overrides", "code", "text"), PREP)
def test_wrong_preparations(place, changes, overrides, code, text):
    before = sorted(place.rglob("*"))
    (place / "prep.yaml").write_text(json.dumps(GOOD | changes))
    assert_one_line(run_program("prep", "prep.yaml", *overrides, cwd=place), code, text)
    (place / "prep.yaml").unlink()
    left = {path.relative_to(place).parts[0] for path in place.rglob("*")} - {
        path.relative_to(place).parts[0] for path in before
    }
    # Only records of inputs that were all rejected stay: the reasons are in them.
    assert left == ({"out"} if "source.path=atomless" in overrides else set())


CALLS = [
    pytest.param(["prep", "missing.yaml"], 2, "missing.yaml: cannot read the config: No such file", id="no config"),
    pytest.param(["train", "missing.yaml"], 2, "missing.yaml: cannot read the config", id="no config to train"),
    pytest.param(["submit", "missing.yaml", "--site", "local"], 2, "missing.yaml: cannot read", id="no job"),
    pytest.param(["prep", "data_prep/mp_gab.yaml"], 2, "data_prep/mp_gab.yaml: cannot read", id="no such recipe"),
    pytest.param(["prep", "data_prep/../x.yaml"], 2, "x.yaml: cannot read", id="above the recipes"),
    pytest.param(["prep", "cifs"], 2, "cifs: cannot read the config: Is a directory", id="config is a folder"),
    pytest.param(["prep", "file"], 2, "file: a config is a mapping", id="config is prose"),
    pytest.param(["prep", "damaged.tar.gz"], 2, "damaged.tar.gz: cannot read the config: not UTF-8", id="binary"),
    pytest.param(["prep"], 2, "Missing argument 'CONFIG'", id="no argument"),
    pytest.param(["prepp"], 2, "No such command 'prepp'", id="no command"),
    pytest.param(["prep", "--fast", "x"], 2, "No such option", id="no option"),
    pytest.param(["shards", "info", "empty"], 2, "empty: no data set here (dataset.json is missing)", id="info"),
    pytest.param(["shards", "verify", "empty"], 2, "empty: no data set here", id="verify"),
    pytest.param(["shards", "info", "nowhere"], 2, "nowhere: no data set here", id="info of nothing"),
    pytest.param(["shards", "verify", "file"], 2, "cannot be read: Not a directory", id="verify a file"),
    pytest.param(["shards", "repair", "out"], 2, "No such command 'repair'", id="no such subcommand"),
]


@pytest.mark.parametrize(("args", "code", "text"), CALLS)
def test_wrong_calls(place, args, code, text):
    assert_one_line(run_program(*args, cwd=place), code, text)


@pytest.mark.parametrize(
    "variables", [{"RANK": "x", "WORLD_SIZE": "2"}, {"SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "4"}]
)
def test_an_environment_that_names_no_rank(place, variables):
    (place / "prep.yaml").write_text(json.dumps(GOOD))
    done = run_program("prep", "prep.yaml", cwd=place, environment=variables)
    assert_one_line(done, 3, "in the environment are not a rank and the number of ranks")


def test_prepare_look_and_verify(place):
    (place / "prep.yaml").write_text(json.dumps(GOOD | with_table()))
    done = run_program("prep", "prep.yaml", cwd=place)
    assert done.returncode == 0, done.stderr
    info = run_program("shards", "info", "out", cwd=place)
    assert "out: 1 sample in 1 shard, " in info.stdout
    assert "gap (regression): 1 labelled, mean 5, std 0, range 5 to 5" in info.stdout
    assert run_program("shards", "verify", "out", cwd=place).stdout == "out: every checksum holds\n"
    (place / "out/shard-00000.h5").unlink()
    (place / "out/index.h5").write_bytes(b"")
    done = run_program("shards", "verify", "out", cwd=place)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "matsci-hpc: error: out/shard-00000.h5: missing"
    assert done.stderr.splitlines()[1].startswith("matsci-hpc: error: out/index.h5: truncated: 0 bytes, ")


@pytest.mark.parametrize("args", [[], ["shards"]])
def test_no_command_shows_the_help(args):
    done = run_program(*args)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: ")


HELP = [[], ["prep"], ["train"], ["submit"], ["report"], ["shards"], ["shards", "info"], ["shards", "verify"]]
HEAVY = ("torch", "pymatgen", "numpy", "pydantic", "h5py", "mpi4py", "plotly", "jinja2", "ruamel")


@pytest.mark.parametrize("args", HELP, ids=" ".join)
def test_help_imports_nothing_heavy(args):
    code = (
        "import sys\nfrom matsci_hpc.cli import main\n"
        f"sys.argv = ['matsci-hpc', *{args!r}, '--help']\n"
        "try:\n    main()\n"
        f"finally:\n    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("Usage: ")
    assert done.stderr == "[]\n"


def test_a_reader_that_stops_early(place):
    (place / "prep.yaml").write_text(json.dumps(GOOD))
    assert run_program("prep", "prep.yaml", cwd=place).returncode == 0
    with subprocess.Popen(
        [*PROGRAM, "shards", "info", "out"], cwd=place, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()  # as `| head -0` does
        assert b"Traceback" not in process.stderr.read()


def test_a_launcher_that_ends_the_other_ranks_does_not_change_the_exit_code(place):
    # Of the codes of all ranks srun gives the largest, and 143 would hide the 2.
    code = (
        "import atexit, os, signal, sys\nfrom matsci_hpc.cli import main\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
        "sys.argv = ['matsci-hpc', 'shards', 'info', 'nothing']\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2


def test_what_befell_a_rank_can_be_told_to_others():
    error = RankError(3, "has no GPU")
    told = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(told), told.exit_code) == (str(error), 3)
