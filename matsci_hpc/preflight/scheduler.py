"""What the scheduler itself says to the job, without queueing it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from matsci_hpc.launch.job import Job
from matsci_hpc.launch.local import local_command
from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.script import render
from matsci_hpc.launch.script_desk import run_command
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.preflight.finding import Finding


def scheduler_findings(job: Job, site: Site) -> Iterator[Finding]:
    """Whether the job could be handed in as it is.

    Raises:
        UserInputError: It cannot be written as a script.
        MachineError: No launcher here, or the scheduler does not answer.
    """
    if site.scheduler == "local":
        command = local_command(job, site)
        yield Finding("ok", "launcher", f"{command.argv[0]} starts the ranks")
        return
    script = render(job, site, SCHEDULERS[site.scheduler])
    if site.scheduler != "slurm":
        text = f"the script can be written; {site.scheduler} has no way to try it without queueing it"
        yield Finding("note", "scheduler", text)
    elif shutil.which("sbatch") is None:
        text = "the script can be written; no sbatch on PATH here, so Slurm was not asked"
        yield Finding("note", "scheduler", text, "check again on a login node")
    else:
        yield _try_with_slurm(script)


def _try_with_slurm(script: str) -> Finding:
    """`sbatch --test-only`: whether the job could ever run, and when it would begin."""
    instead = "check again on a login node"
    if run_command(["scontrol", "ping"], instead).returncode != 0:
        return Finding("note", "scheduler", "the script can be written; Slurm does not answer here", instead)
    with tempfile.TemporaryDirectory(prefix="matsci-check-") as folder:
        path = Path(folder, "job.sbatch")
        path.write_text(script, encoding="utf-8", errors="surrogateescape")
        answer = run_command(["sbatch", "--test-only", str(path)], instead)
    words = what_slurm_says(answer.stderr or answer.stdout)
    if answer.returncode != 0:
        return Finding("error", "scheduler", f"Slurm refuses the job: {words}", "`sinfo` shows what there is")
    return Finding("ok", "scheduler", f"Slurm takes the job: {words}")


def what_slurm_says(answer: str) -> str:
    """The answer of `sbatch --test-only` in one line, without the name of the program before each."""
    lines = (line.strip().removeprefix("sbatch: ").removeprefix("error: ") for line in answer.splitlines())
    return "; ".join(line for line in lines if line) or "nothing"
