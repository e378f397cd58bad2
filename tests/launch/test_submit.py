import os
from pathlib import Path

import pytest

from matsci_hpc.errors import MachineError
from matsci_hpc.launch.submit import submit


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.yaml").write_text("run_dir: runs/my run\nsteps: 3\ndata: {train: [d]}\nbatch: {graphs: 4}\n")
    Path("prep.yaml").write_text("source: {kind: symmetry, samples: 9}\nout: datasets/sym\nneighbors: {cutoff: 2}\n")
    Path("site.yaml").write_text("scheduler: slurm\nranks_per_node: 2\n")
    return tmp_path


@pytest.fixture
def sbatch(here, monkeypatch):
    """A function that puts an sbatch with the given behaviour first on PATH."""

    def install(text):
        path = here / "bin/sbatch"
        path.parent.mkdir()
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)

    return install


def start(config, site="./site.yaml", *, nodes=None, ranks=None, dry_run=False):
    return submit(Path(config), [], site, nodes, ranks, dry_run)


@pytest.mark.parametrize(
    ("config", "script"), [("train.yaml", "runs/my run/job.sbatch"), ("prep.yaml", "datasets/sym.sbatch")]
)
def test_dry_run_prints_exactly_what_is_submitted(config, script, here, sbatch, capsys):
    assert start(config, nodes=3, dry_run=True) == 0
    printed = capsys.readouterr().out
    assert "#SBATCH --nodes=3\n" in printed
    assert not (here / script).exists()
    sbatch('cp "${@: -1}" submitted; echo "$1" > option; echo "1234;tiny"')
    assert start(config, nodes=3) == 0
    assert (here / "submitted").read_text() == (here / script).read_text() == printed
    assert (here / "option").read_text() == "--parsable\n"
    said = capsys.readouterr().out
    assert said.startswith("job 1234: ")
    assert "squeue --job 1234" in said
    assert "slurm-1234.out" in said


def test_no_sbatch(here, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError, match="no sbatch on PATH: submit from a login node"):
        start("train.yaml")
    assert (here / "runs/my run/job.sbatch").exists()


def test_refusal_is_told(sbatch):
    sbatch("echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    with pytest.raises(MachineError, match="invalid partition specified"):
        start("train.yaml")


@pytest.mark.usefixtures("here")
def test_run_dir_that_cannot_be():
    Path("runs").touch()
    with pytest.raises(MachineError, match="cannot write"):
        start("train.yaml")


def test_a_job_around_us_does_not_leak_in(here, sbatch, monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURM_CONF"):
        monkeypatch.setenv(name, "7")
    sbatch("env > seen; echo 1")
    assert start("train.yaml") == 0
    names = {line.partition("=")[0] for line in (here / "seen").read_text().splitlines()}
    assert {name for name in names if name.startswith("SLURM_")} == {"SLURM_CONF"}


def test_local_dry_run_prints_one_command(here, capsys):
    assert start("train.yaml", "local", ranks=1, dry_run=True) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f" -m matsci_hpc train {here}/train.yaml\n")
    assert "MALLOC_TOP_PAD_=" in printed
    assert not (here / "runs").exists()


def test_local_run_returns_the_exit_code(here):
    package = here / "matsci_hpc"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys; sys.exit(6 if sys.argv[1] == 'train' else 0)")
    assert start("train.yaml", "local", ranks=1) == 6
    assert start("prep.yaml", "local", ranks=1) == 0
