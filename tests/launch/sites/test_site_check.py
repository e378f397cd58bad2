"""What can be checked without a scheduler; the rest is in tests/slurm/test_site_commands.py."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from matsci_hpc.launch.sites.check import findings
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.launch.sites.program import ask
from matsci_hpc.launch.sites.rehearse import rehearse
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.show import lines, show


def slurm(**keys):
    return Site.model_validate({"scheduler": "slurm"} | keys)


def found(site, topic):
    return [(each.level, each.text) for each in findings(site) if each.topic == topic]


def test_this_machine_has_nothing_to_complain_of():
    # As a user has it who did not activate the environment: its mpirun is beside its Python, and not on PATH.
    answer = subprocess.run(
        [sys.executable, "-m", "matsci_hpc", "site", "check", "local"],
        env=os.environ | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout
    assert f"mpirun is {Path(sys.executable).parent / 'mpirun'}" in answer.stdout
    assert "matsci-hpc can be imported" in answer.stdout


def test_errors_end_in_exit_code_2(site_file):
    path = site_file("scheduler: local\nlauncher: no_such_launcher\n")
    answer = subprocess.run(
        [sys.executable, "-m", "matsci_hpc", "site", "check", path], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert "error    launcher     no_such_launcher is neither beside" in answer.stdout
    assert answer.stderr.startswith("matsci-hpc: error:")


@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "lsf", "flux"])
def test_a_machine_without_the_scheduler(scheduler, monkeypatch, tmp_path):
    for name in ("bash", "python3"):
        (tmp_path / name).symlink_to(f"/bin/{name}" if name == "bash" else sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    [(level, text)] = found(Site.model_validate({"scheduler": scheduler}), "scheduler")
    assert level == "error"
    assert "not on PATH" in text


def test_the_file_itself_is_checked_first():
    site = slurm(account_required=True, ranks_per_node=4, cpus_per_rank=8, cores_per_node=31, gpus_per_node=0)
    assert found(site, "account")[0][0] == "error"
    assert found(site, "cores") == [("error", "4 ranks of 8 cores need 32, and cores_per_node is 31")]
    assert found(slurm(gpus_per_node=1, gpus_per_rank=2), "GPUs")[0][0] == "error"
    assert found(slurm(cores_per_node=31, ranks_per_node=3, cpus_per_rank=8), "cores")[0][0] == "note"


@pytest.mark.parametrize(
    ("setup", "line", "complaint"),
    [
        (["true", "false # here"], "false # here", "exit code 1"),
        (["true", "no_such_command_at_all x"], "no_such_command_at_all x", "command not found"),
        (["exit 0"], "exit 0", "it ends the shell"),
        (["false | true"], "false | true", "exit code 1"),
        (["echo 'what it says' >&2; false"], "echo 'what it says' >&2; false", "what it says"),
        (["sleep 60"], "sleep 60", "did not answer in 2 s"),
        (["if"], "if", "syntax error"),
    ],
)
def test_setup_lines_that_would_end_a_job(setup, line, complaint):
    seen = rehearse(slurm(setup=setup), timeout_s=2)
    assert seen.failed_line == line
    assert complaint in seen.complaint


def test_what_ends_late_takes_its_children_along(tmp_path):
    pid = tmp_path / "pid"
    reply = ask(["bash", "-c", f"sleep 600 & echo $! >{pid}; wait"], timeout_s=2)
    assert (reply.code, reply.complaint) == (None, "bash did not answer in 2 s")
    end_s = time.monotonic() + 30  # a killed process needs a processor to die
    while still_runs(pid.read_text().strip()):
        assert time.monotonic() < end_s
        time.sleep(0.05)


def still_runs(pid):
    """Whether there is such a process; one that nobody has collected yet runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_setup_lines_may_print_anything_and_use_unset_variables():
    seen = rehearse(slurm(setup=["echo @matsci-hpc@launcher=/fake; echo $NOT_SET_AT_ALL", "printf 'a\\0b'"]))
    assert seen.failed_line is None
    assert seen.python == ""
    assert seen.launcher != "/fake"


def test_a_launcher_that_setup_brings(tmp_path):
    program = tmp_path / "bin/my_mpiexec"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    site = slurm(launcher="my_mpiexec -n {ranks}", setup=[f"export PATH={program.parent}:$PATH"])
    assert found(site, "launcher") == [("ok", f"my_mpiexec is {program}")]
    assert found(slurm(launcher="my_mpiexec"), "launcher")[0][0] == "error"


def test_a_module_that_hides_the_package(tmp_path):
    (tmp_path / "matsci_hpc.py").write_text("raise ImportError('the wrong one')")
    [(level, text)] = found(slurm(environment={"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": 1}), "python")
    assert level == "error"
    assert text.endswith("ImportError: the wrong one")


def test_folders_are_expanded_as_in_a_job(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SCRATCH", str(tmp_path))
    (tmp_path / "runs").mkdir()
    assert found(slurm(scratch="$MY_SCRATCH/runs"), "scratch") == [("ok", f"{tmp_path}/runs")]
    assert found(slurm(scratch="$MY_SCRATCH/none"), "scratch") == [("error", f"{tmp_path}/none is not a folder")]
    [(level, text)] = found(slurm(scratch="${NOT_SET_AT_ALL}/runs"), "scratch")
    assert (level, "'/runs'" in text) == ("warning", True)
    assert found(slurm(node_local="$MY_SCRATCH/x"), "node local")[0][0] == "note"
    site = slurm(scratch="$FROM_SETUP", setup=[f"FROM_SETUP={tmp_path}"])
    assert found(site, "scratch") == [("ok", str(tmp_path))]


def test_a_scratch_of_somebody_else(monkeypatch):
    monkeypatch.chdir("/")
    root = os.getuid() == 0
    if root:
        os.setresuid(65534, 0, 0)  # root may write everywhere; access(2) goes by the real user
    try:
        assert found(slurm(scratch="/usr"), "scratch")[0][0] == "warning"
    finally:
        if root:
            os.setresuid(0, 0, 0)


def test_container_image_and_program(tmp_path):
    image = tmp_path / "x.sif"
    site = slurm(container={"image": str(image), "command": ["bash"]})
    assert found(site, "container") == [("ok", "bash is on PATH"), ("error", f"{image} is not there")]
    image.touch()
    assert found(site, "container")[1] == ("ok", f"{image} is there")
    missing = slurm(container={"image": "docker://x/y", "command": ["no_such_runner"]})
    assert [level for level, _ in found(missing, "container")] == ["warning"]


def test_findings_stand_in_columns(capsys):
    one = Finding("error", "memory", "too much\nby far", "ask for less")
    assert lines(one) == [
        "error    memory       too much",
        "                      by far",
        "                      -> ask for less",
    ]
    assert show([one, Finding("ok", "a", "b")])[1].level == "ok"
    assert capsys.readouterr().out.count("\n") == 4
