import os
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import talk

from matsci_hpc.config.loading import read_yaml
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.find import load_site, site_names
from matsci_hpc.launch.sites.new import Answers, new_site
from matsci_hpc.launch.sites.slurm_facts import gpus_in, parse_sinfo, seconds

NOWHERE = {**os.environ, "PATH": "/nonexistent"}
"""Whatever is installed here, there is no Slurm."""
COMMAND = [sys.executable, "-m", "matsci_hpc", "site", "new"]


def make(path, overwrite=False, **answers):
    new_site(path, Answers(**answers), take_defaults=True, overwrite=overwrite)
    return load_site(str(path))


@pytest.mark.parametrize("name", site_names())
def test_a_copy_of_a_shipped_site_is_the_same_site(name, tmp_path):
    copy = make(tmp_path / "mine.yaml", base=name)
    assert copy == load_site(name)


@pytest.mark.parametrize("name", site_names())
def test_a_copy_keeps_every_comment(name, tmp_path):
    from matsci_hpc.launch.sites.find import site_path

    make(tmp_path / "mine.yaml", base=name)
    before, after = site_path(name).read_text(), (tmp_path / "mine.yaml").read_text()
    comments = [line.partition("# ")[2].strip() for line in before.splitlines() if "# " in line]
    assert comments
    assert [each for each in comments if each not in after] == []


def test_answers_win_over_the_file_that_it_begins_with(tmp_path, capsys):
    site = make(
        tmp_path / "mine.yaml",
        base="frontier",
        account="abc123",
        partition="extended",
        qos="debug",
        time_limit="12:00:00",
        ranks_per_node=4,
        cpus_per_rank=14,
        gpus_per_rank=2,
        launcher="srun --mpi=pmi2",
        setup=("module load a", "module load b"),
    )
    before = load_site("frontier")
    assert site == before.model_copy(
        update={
            "account": "abc123",
            "partition": "extended",
            "qos": "debug",
            "time_limit": "12:00:00",
            "ranks_per_node": 4,
            "cpus_per_rank": 14,
            "gpus_per_rank": 2,
            "launcher": "srun --mpi=pmi2",
            "setup": ["module load a", "module load b"],
        }
    )
    said = capsys.readouterr().out
    assert f"matsci-hpc site check {tmp_path / 'mine.yaml'}" in said
    assert "must be set" not in said


def test_it_reminds_of_the_account(tmp_path, capsys):
    make(tmp_path / "mine.yaml", base="frontier")
    assert "account  must be set" in capsys.readouterr().out


@pytest.mark.parametrize("scheduler", ["local", "slurm", "pbs", "lsf", "flux"])
def test_every_scheduler_has_a_beginning(scheduler, tmp_path):
    site = make(tmp_path / "mine.yaml", scheduler=scheduler, ranks_per_node=3, cpus_per_rank=2)
    assert (site.scheduler, site.ranks_per_node) == (scheduler, 3)


def test_times_stay_in_quotes(tmp_path):
    make(tmp_path / "mine.yaml", base="frontier")
    assert 'max_time_limit: "12:00:00"' in (tmp_path / "mine.yaml").read_text()


def test_a_file_that_is_there_stays(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    with pytest.raises(UserInputError, match="is there already"):
        make(path, scheduler="local")
    assert path.read_text() == "precious"
    assert make(path, scheduler="local", overwrite=True).scheduler == "local"


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"scheduler": "sge"}, "unknown scheduler 'sge'; choose one of slurm, pbs"),
        ({"base": "frontier", "scheduler": "pbs"}, "frontier is a site with slurm, not with pbs"),
        ({"base": "frontiers"}, "unknown site 'frontiers'"),
        ({"scheduler": "slurm", "time_limit": "soon"}, "these answers:.*time_limit"),
        ({"scheduler": "slurm", "launcher": "mpiexec {tasks}"}, "these answers:.*{tasks} is none of"),
    ],
)
def test_answers_that_make_no_site(answers, says, tmp_path):
    with pytest.raises(UserInputError, match=says):
        make(tmp_path / "mine.yaml", **answers)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_site_would_not_take_for_a_path(tmp_path):
    with pytest.raises(UserInputError, match=r"name a site file \.yaml"):
        make(tmp_path / "mine", scheduler="local")


def test_values_that_look_like_yaml_stay_text(tmp_path):
    line = "export A='x: {y}' # $(z)"
    site = make(tmp_path / "mine.yaml", scheduler="slurm", account="on", qos="1e3", setup=(line, "true"))
    assert (site.account, site.qos, site.setup) == ("on", "1e3", [line, "true"])


def test_without_a_terminal_it_does_not_wait(tmp_path):
    with subprocess.Popen(
        [*COMMAND, tmp_path / "mine.yaml", "--scheduler", "local"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        # The pipe stays open and silent: whoever read from it would wait for ever.
        assert process.wait(timeout=60) == 0
    assert load_site(str(tmp_path / "mine.yaml")).scheduler == "local"


def test_on_a_terminal_it_asks(tmp_path):
    path = tmp_path / "mine.yaml"
    said = talk([*COMMAND, path, "--scheduler", "slurm"], lines_for_slurm_without_a_cluster(), NOWHERE)
    site = load_site(str(path))
    assert "Account that is charged" in said
    assert (site.partition, site.account, site.time_limit) == ("night", "abc123", "02:00:00")
    assert (site.ranks_per_node, site.cpus_per_rank) == (6, 4)
    assert site.setup == ["module load openmpi"]


def test_on_a_terminal_it_asks_before_it_replaces(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    said = talk([*COMMAND, path, "--scheduler", "local"], ["n"], NOWHERE)
    assert "Replace it?" in said
    assert path.read_text() == "precious"
    talk([*COMMAND, path, "--scheduler", "local"], ["y", "5"], NOWHERE)
    assert read_yaml(path)["ranks_per_node"] == 5


def lines_for_slurm_without_a_cluster():
    """Queue, account, time, ranks, cores, launcher, setup lines and their end."""
    return ["night", "abc123", "02:00:00", "6", "4", "srun --mpi=pmi2", "module load openmpi", ""]


def test_partitions_from_the_lines_of_sinfo():
    lines = [
        "batch*|1-00:00:00|100|256|512000|(null)|2|64|2",
        "batch*|1-00:00:00|4|256|1024000+|gpu:a100:4(S:0-1),nvme:1|2|64|2",
        "long|infinite|3|48|190000|(null)|2|24|2",
        "what is this",
    ]
    batch, long = parse_sinfo("\n".join(lines))
    assert (batch.name, batch.default, batch.max_time_s) == ("batch", True, 86400)
    plain, gpu = batch.nodes
    assert (plain.number, plain.cores, plain.cpus_per_core, plain.gpus) == (100, 128, 2, 0)
    assert (gpu.memory_mb, gpu.gpus) == (1024000, 4)
    assert (long.default, long.max_time_s, long.nodes[0].cpus_per_core) == (False, None, 1)


@pytest.mark.parametrize(
    ("gres", "number"),
    [("(null)", 0), ("gpu:4", 4), ("gpu:a:2,gpu:b:3(S:1)", 5), ("nvme:9,gpu:h100_1g.12gb:7", 7), ("mygpu:3", 0)],
)
def test_gpus_in_gres(gres, number):
    assert gpus_in(gres) == number


@pytest.mark.parametrize(
    ("limit", "time_s"),
    [("45", 2700), ("30:00", 1800), ("2:00:00", 7200), ("1-12", 129600), ("1-00:00:10", 86410), ("infinite", None)],
)
def test_time_limits_of_slurm(limit, time_s):
    assert seconds(limit) == time_s


def test_new_file_is_readable_by_others_as_any(tmp_path):
    make(tmp_path / "mine.yaml", scheduler="local")
    umask = os.umask(0)
    os.umask(umask)
    assert Path(tmp_path / "mine.yaml").stat().st_mode & 0o777 == 0o666 & ~umask
