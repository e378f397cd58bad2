"""`python -m matsci_hpc.launch.submitit_rank FOLDER`: what the launcher starts as each rank of a job of submitit's.

Submitit's own entry point does the same, but it lets every rank write four lines into the log, it exits by 1 whatever
has happened, and after an error it can wait for ever in MPI's farewell.
"""

import os
import sys
from pathlib import Path

from matsci_hpc.cli import plain_errors
from matsci_hpc.parallel.discovery import discover


def main(folder: Path) -> None:
    """Load the pickle in a folder, run it, and write its result beside it."""
    rank = discover(os.environ).rank
    if rank != 0:
        os.environ.setdefault("SUBMITIT_LOG_LEVEL", "CRITICAL")  # read when submitit is imported
    from submitit.core.submission import process_job
    from submitit.core.utils import JobPaths

    # What a life left behind that failed, or was cut off while it wrote, is not the result of this one.
    result = JobPaths(folder, job_id=os.environ["SLURM_JOB_ID"], task_id=rank).result_pickle
    for path in (result, result.with_suffix(".pkl.save_tmp")):
        path.unlink(missing_ok=True)
    with plain_errors():
        process_job(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
