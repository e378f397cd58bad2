"""Which steps are spikes, agreed by all ranks where they act on it."""

import sys

import torch

from matsci_hpc.telemetry.dynamics.spikes import LastSteps, Spike, SpikeDetector
from matsci_hpc.training.setup import Run


class SpikeWatch:
    """Rank 0 looks at the losses.

    Args:
        run: its config, ranks and memory.

    Attributes:
        last: the newest steps, on rank 0.
        spike: that begins with the present step, on rank 0.
        rolls_back: whether the run goes back to a checkpoint because of it, on all ranks.
    """

    def __init__(self, run: Run) -> None:
        config = run.config.spikes
        self._run = run
        self._acts = config.on_spike == "rollback"
        self.last = LastSteps(config.before)
        self.spike: Spike | None = None
        self.rolls_back = False
        self._detector: SpikeDetector | None = None
        if run.comm.rank == 0 and (run.config.dynamics.record or self._acts):
            self._detector = SpikeDetector(config.window, config.threshold)
            run.course.attach("spikes", self._detector)
            run.course.attach("last steps", self.last)

    def look(self, step: int, loss: float) -> None:
        """Take note of a step's loss, before its gradient is used; collective where the ranks act on spikes.

        Args:
            step: from 1.
            loss: of the global batch.
        """
        run = self._run
        self.spike = self._detector.look(loss) if self._detector is not None else None
        self.rolls_back = False
        may = self._acts and run.state.rollbacks < run.config.spikes.rollback.limit
        if may:
            flag = torch.tensor(float(self.spike is not None))
            run.comm.broadcast(flag)
            self.rolls_back = bool(flag)
        if self.spike is not None:
            after = "" if may or not self._acts else f"; all {run.config.spikes.rollback.limit} rollbacks are used up"
            print(
                f"matsci-hpc: warning: step {step}: the loss jumps to {loss:.4g}, {self.spike.deviations:.1f} robust "
                f"standard deviations above the median of {self.spike.median:.4g}{after}",
                file=sys.stderr,
                flush=True,
            )
