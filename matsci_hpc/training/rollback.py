"""Back to a checkpoint before a step that went wrong, on to other samples or at a lower learning rate.

What went wrong is a spike of the loss, or a loss or gradient that is not finite. What follows from it depends on the
checkpoint, the step and the config alone: a life that is killed before the next checkpoint meets the same step again,
and goes back the same way.
"""

import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from matsci_hpc.loading.loader import StepWork
from matsci_hpc.parallel.together import on_every, on_first
from matsci_hpc.training.checkpoint import (
    DamagedCheckpointError,
    checkpoint_name,
    list_checkpoints,
    load_checkpoint,
    saved_average,
    saved_course,
    step_of,
    verify_checkpoint,
)
from matsci_hpc.training.saving import CheckpointWriter
from matsci_hpc.training.setup import Run

Reason = Literal["spike", "nonfinite"]
"""Why a run goes back."""


def roll_back(run: Run, work: StepWork, writer: CheckpointWriter, reason: Reason) -> dict[str, Any] | None:
    """Put the run back to a checkpoint, in place; collective.

    Args:
        run: at the step before the one that went wrong.
        work: of that step, which has not moved the parameters.
        writer: of the run's checkpoints.
        reason: what is wrong with it.

    Returns:
        What was done, for the records; None where there is no checkpoint old enough, so that the step is left out.

    Raises:
        MachineError: the checkpoint cannot be read on some rank.
    """
    config = run.config.spikes.rollback
    spike = work.cursor.step + 1
    what = f"the spike at step {spike}" if reason == "spike" else f"step {spike}, which is not finite,"
    run.comm.activity.at("checkpoint")
    chosen = on_first(run.comm, lambda: _choose(run, writer, spike - config.back_steps))
    if chosen is None:
        if run.comm.rank == 0:
            text = f"no checkpoint is {config.back_steps} steps older than {what.rstrip(',')}; the step is left out"
            print(f"matsci-hpc: warning: {text}", file=sys.stderr, flush=True)
        return None
    path = Path(chosen)
    rollbacks, time_s = run.state.rollbacks + 1, run.state.time_s
    run.state = on_every(run.comm, lambda: load_checkpoint(path, run.model, run.optimizer))
    run.course.load(on_every(run.comm, lambda: saved_course(path)))
    if run.average is not None:
        run.average.load(on_every(run.comm, lambda: saved_average(path)))
    state = run.state
    if not on_first(run.comm, lambda: _has_best(run)):  # removed by a life that could not go back
        state.best_loss = state.best_step = None
    event = {
        "rollback": rollbacks,
        "reason": reason,
        "spike_step": spike,
        "epoch": state.epoch,
        "data": config.data,
        "lr_factor": config.lr_factor if config.lr_steps else 1.0,
        "slow_until": state.step + config.lr_steps,
    }
    state.rollbacks, state.time_s = rollbacks, time_s
    state.slow_until = state.step + config.lr_steps
    if config.data == "skip":
        state.epoch, state.step_in_epoch = work.after.epoch, work.after.within
    if run.comm.rank == 0:
        _forget_newer(run, state.step)
        onward = "behind its samples" if config.data == "skip" else "with the same samples"
        slower = (
            f", at {config.lr_factor:g} of the learning rate for {config.lr_steps} steps" if config.lr_steps else ""
        )
        print(
            f"matsci-hpc: rollback {rollbacks} of {config.limit}: from {what} to step {state.step}, "
            f"and on {onward}{slower}",
            file=sys.stderr,
            flush=True,
        )
    writer.go_back(state.step)
    return event


def _choose(run: Run, writer: CheckpointWriter, newest: int) -> str | None:
    """The newest usable checkpoint up to a step, once nothing is being written."""
    writer.wait()
    for path in list_checkpoints(run.folder.checkpoints):
        if step_of(path) > newest:
            continue
        try:
            verify_checkpoint(path, run.comm.activity.tick)
        except DamagedCheckpointError as fault:
            print(f"matsci-hpc: warning: {fault}", file=sys.stderr, flush=True)
        else:
            return str(path)
    return None


def _has_best(run: Run) -> bool:
    """Whether the best checkpoint that the state names, if it names one, is there."""
    best = run.state.best_step
    return best is None or (run.folder.checkpoints / checkpoint_name(best)).is_dir()


def _forget_newer(run: Run, step: int) -> None:
    """Checkpoints between the one gone back to and the spike are of a course that was given up."""
    for path in list_checkpoints(run.folder.checkpoints):
        if step_of(path) > step:
            shutil.rmtree(path, ignore_errors=True)
