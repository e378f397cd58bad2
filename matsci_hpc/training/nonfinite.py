"""What happens in a step whose loss or gradient is NaN or infinite.

The step is left out, the run goes back to a checkpoint (`rollback.py`), or it ends with a dump:

nonfinite/step-000123/
    rank-00000.json    of every rank: its samples, its part of each loss, norms of its gradients by parameter
    step.json          losses, gradient norm and learning rate of the whole step, ranks at fault
    model.safetensors  parameters before the step
"""

import json
import math
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from matsci_hpc.errors import MatsciError, UserInputError
from matsci_hpc.loading.loader import StepWork
from matsci_hpc.training.setup import Run
from matsci_hpc.whole_files import output_error, write_atomic

SHOWN_RANKS = 8
"""Ranks named in a message."""
ADVICE = "lower optimizer.lr, set optimizer.clip_norm, or lengthen schedule.warmup_steps"


def is_finite(found: dict[str, Any]) -> bool:
    """Whether loss and grad_norm of a step are numbers."""
    return math.isfinite(found["loss"]) and math.isfinite(found["grad_norm"])


class NonFiniteSteps:
    """Carries out `nonfinite.policy`, on every rank alike: all see the same reduced loss and gradient.

    Args:
        run: counts what is skipped in its state.
        saved_step: step of the newest checkpoint on disk.
    """

    def __init__(self, run: Run, saved_step: Callable[[], int]) -> None:
        self._run = run
        self._saved_step = saved_step

    def roll_back(self, found: dict[str, Any]) -> bool:
        """Whether the run goes back to a checkpoint because of this step.

        Args:
            found: loss and grad_norm of the step.
        """
        config = self._run.config
        may = config.nonfinite.policy == "rollback" and self._run.state.rollbacks < config.spikes.rollback.limit
        return may and not is_finite(found)

    def handle(
        self, work: StepWork, found: dict[str, Any], repeat: Callable[[], Tensor], *, skips: bool | None = None
    ) -> None:
        """Count the step as skipped, or end the run; collective.

        Args:
            work: of the step.
            found: loss, losses, grad_norm and lr of the step.
            repeat: computes this rank's gradients again, and gives its losses by task first.
            skips: whether the step may be left out; None: as the policy says.

        Raises:
            UserInputError: the policy is to stop, or too many steps in a row were skipped.
        """
        run, config = self._run, self._run.config.nonfinite
        skips = config.policy == "skip" if skips is None else skips
        losses = repeat()[: len(run.tasks)]
        norms = {name: float(each.grad.norm()) for name, each in run.model.named_parameters() if each.grad is not None}
        finite = bool(losses.isfinite().all()), all(math.isfinite(norm) for norm in norms.values())
        table = run.comm.all_gather(torch.tensor(finite, dtype=torch.uint8))
        where = _blame(table)
        step = work.cursor.step + 1
        run.state.skipped_steps += 1
        run.state.skipped_in_row += 1
        what = (
            f"step {step}: the loss ({found['loss']:g}) or the gradient norm ({found['grad_norm']:g}) is not finite, "
            f"{where}"
        )
        if skips and run.state.skipped_in_row < config.limit:
            if run.comm.rank == 0:
                print(f"matsci-hpc: warning: {what}; the step is skipped", file=sys.stderr, flush=True)
            return
        folder = self._dump(work, found | {"where": where}, losses, norms)
        run.comm.barrier()
        in_row = f"; {run.state.skipped_in_row} steps in a row were skipped" if skips else ""
        if config.policy == "rollback" and not skips:
            in_row = f"; all {run.config.spikes.rollback.limit} rollbacks are used up"
        saved = self._saved_step()
        kept = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint yet"
        raise UserInputError(f"{what}{in_row}; see {folder}; {ADVICE}; {kept}")

    def _dump(self, work: StepWork, found: dict[str, Any], losses: Tensor, norms: dict[str, float]) -> Path:
        run = self._run
        folder = run.folder.path / "nonfinite" / f"step-{work.cursor.step + 1:06d}"
        mine = {
            "rank": run.comm.rank,
            "host": socket.gethostname(),
            "losses": {task.name: value for task, value in zip(run.tasks, losses.tolist(), strict=True)},
            "gradient_norms": norms,
            "samples": [
                {"number": int(sample), "name": run.collection.sample_name(int(sample))} for sample in work.samples
            ],
        }
        if run.comm.rank == 0:
            about = {"step": work.cursor.step + 1, "epoch": work.cursor.epoch, "ranks": run.comm.size}
            self._warn_if_it_fails(lambda: self._begin(folder, about | found))
        run.comm.barrier()  # the folder is there
        self._warn_if_it_fails(lambda: write_atomic(folder / f"rank-{run.comm.rank:05d}.json", _json(mine)))
        return folder

    def _warn_if_it_fails(self, write: Callable[[], None]) -> None:
        """A dump that cannot be written must not hide what it is about."""
        try:
            write()
        except MatsciError as error:
            print(f"matsci-hpc: warning: rank {self._run.comm.rank}: {error}", file=sys.stderr, flush=True)

    def _begin(self, folder: Path, step: dict[str, Any]) -> None:
        try:
            shutil.rmtree(folder, ignore_errors=True)  # of a life before this one
            folder.mkdir(parents=True)
        except OSError as error:
            raise output_error(folder, error) from None
        write_atomic(folder / "step.json", _json(step))
        model = {name: value.detach().cpu().contiguous() for name, value in self._run.model.state_dict().items()}
        write_atomic(folder / "model.safetensors", save(model))


def _blame(finite: Tensor) -> str:
    """Which ranks found what, from bool [ranks, 2]: loss and gradient finite."""
    loss = [rank for rank, (ok, _) in enumerate(finite.tolist()) if not ok]
    gradient = [rank for rank, (ok, own) in enumerate(finite.tolist()) if ok and not own]
    parts = []
    for what, ranks in (("loss", loss), ("gradient", gradient)):
        if ranks:
            names = ", ".join(map(str, ranks[:SHOWN_RANKS])) + (", ..." if len(ranks) > SHOWN_RANKS else "")
            parts.append(f"the {what} of rank{'s' if len(ranks) > 1 else ''} {names}")
    if not parts:
        return "although each rank's own part is finite: the sum over the ranks overflows, or a machine is faulty"
    return "by " + " and ".join(parts)


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(_in_words(value), indent=1, allow_nan=False) + "\n").encode()


def _in_words(value: Any) -> Any:
    """NaN and infinity as text: JSON has no numbers for them, and here they are the point."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _in_words(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_in_words(each) for each in value]
    return value
