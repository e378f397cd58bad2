"""What a run's folder may hold before its first life, and what a resumed run may change.

Nothing here needs torch: these rules are also asked before a job is queued.
"""

from pathlib import Path
from typing import Any

from matsci_hpc.config.data import Staging
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError

FIXED = ("seed", "data", "init_from", "fine_tune", "batch", "targets", "weighting", "model", "precision")
"""Sections that a resumed run may not change: they decide what was learned from and what the parameters mean."""
FREE = {"data": {"staging"}, "batch": {"micro_batches", "micro_cost"}}
"""Keys in them that decide neither."""
JOB_NAMES = {"STOP", "STOPPED", ".lock"}
JOB_SUFFIXES = {".sbatch", ".pbs", ".lsf", ".flux", ".submitit", ".out", ".err", ".log", ".status", ".env"}
"""What a launcher, or who waits for the job, may put into the folder before the run begins."""


def holds_something_else(run_dir: Path) -> bool:
    """Whether a folder holds anything but a run, or what a launcher puts there before the run begins.

    Raises:
        OSError: it cannot be read.
    """
    if not run_dir.is_dir() or (run_dir / "config.yaml").is_file():
        return False
    return not all(each.name in JOB_NAMES or each.suffix in JOB_SUFFIXES for each in run_dir.iterdir())


def refuse_changes(config: TrainConfig, before: TrainConfig, where: Path) -> None:
    """See to it that a resumed run goes on with what decides its numbers.

    Args:
        config: of the next life.
        before: of the life before it.
        where: file of that one.

    Raises:
        UserInputError: they differ in a section that is fixed.
    """
    # Where the same data are read changes nothing.
    config, before = (
        each.model_copy(update={"data": each.data.model_copy(update={"staging": Staging()})})
        for each in (config, before)
    )
    for section in FIXED:
        now, then = (_fixed_part(each, section) for each in (config, before))
        if now != then:
            raise UserInputError(
                f"{where.parent}: holds a run with another {section!r} ({where}); choose another run_dir, or resume it "
                f"with the same {section!r}"
            )


def _fixed_part(config: TrainConfig, section: str) -> Any:
    part = config.model_dump()[section]
    if isinstance(part, Path):  # the same place may be written in several ways
        return part.resolve()
    return {key: part[key] for key in part.keys() - FREE[section]} if section in FREE else part
