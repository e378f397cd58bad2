"""`matsci-hpc submit`: from a config and the name of a site to a started job."""

import os
import shlex
import subprocess
from pathlib import Path

from matsci_hpc.errors import MachineError
from matsci_hpc.launch.job import Job, describe_job
from matsci_hpc.launch.local import local_command, run_local
from matsci_hpc.launch.sbatch import render
from matsci_hpc.launch.sites import load_site


def submit(
    config: Path,
    overrides: list[str],
    site: str,
    nodes: int | None,
    ranks: int | None,
    dry_run: bool,
) -> int:
    """Start a job, or print what would be started.

    Args:
        config: A config of `prep` or `train`.
        overrides: Dotted `key=value` pairs.
        site: Name of a shipped site, or the path of a site file.
        nodes: Number of nodes; None takes as many as the ranks need.
        ranks: Ranks of the whole job; None fills the nodes as the site says.
        dry_run: Print the exact script or command, and touch nothing.

    Returns:
        Exit code: of the run itself for a local site, 0 after a submission.

    Raises:
        UserInputError: Config, overrides, site or numbers are wrong.
        MachineError: The launcher or the scheduler is missing or refuses.
    """
    machine = load_site(site)
    job = describe_job(config, overrides, machine, nodes=nodes, ranks=ranks)
    if machine.scheduler == "local":
        command = local_command(job, machine)
        if dry_run:
            print(command)
            return 0
        return run_local(command)
    script = render(job, machine)
    if dry_run:
        print(script, end="")
        return 0
    job_id = _sbatch(job, script)
    print(f"job {job_id}: {job.verb} {job.name}, nodes {job.nodes}, ranks {job.ranks}")
    print(f"  state   squeue --job {job_id}")
    print(f"  log     tail -F {shlex.quote(f'{job.run_dir}/slurm-{job_id}.out')}")
    print(f"  script  {shlex.quote(str(job.script))}")
    if job.verb == "train":
        print(f"  stop    touch {shlex.quote(f'{job.run_dir}/STOP')} (saves first), or scancel {job_id}")
    return 0


def _sbatch(job: Job, script: str) -> str:
    """Write the script, hand it to Slurm and return the number of the job."""
    try:
        # Slurm opens the log before the script runs, and a job without the folder fails without a word.
        job.run_dir.mkdir(parents=True, exist_ok=True)
        job.script.write_text(script, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise MachineError(f"cannot write {job.script}: {error}") from error
    try:
        answer = subprocess.run(  # noqa: S603 - fixed words and a path of ours
            ["sbatch", "--parsable", str(job.script)],  # noqa: S607 - clusters keep sbatch in places of their own
            capture_output=True,
            text=True,
            check=False,
            env=_outside_of_jobs(),
        )
    except FileNotFoundError:
        raise MachineError(
            "there is no sbatch on PATH: submit from a login node of the cluster, "
            f"or run `sbatch {shlex.quote(str(job.script))}` there; the site `local` runs on this machine"
        ) from None
    if answer.returncode != 0:
        raise MachineError(f"sbatch refused {job.script}: {answer.stderr.strip() or answer.stdout.strip()}")
    # --parsable answers `JOB` or `JOB;CLUSTER`.
    return answer.stdout.strip().partition(";")[0]


def _outside_of_jobs() -> dict[str, str]:
    """The environment without that of a job around us, whose node counts and memory sbatch would pass on."""
    if "SLURM_JOB_ID" not in os.environ:
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name == "SLURM_CONF"}
