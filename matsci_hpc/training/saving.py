"""Checkpoints written by a thread while training goes on, one at a time; on rank 0."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from matsci_hpc.errors import MatsciError
from matsci_hpc.training.checkpoint import Snapshot, prune_checkpoints, write_checkpoint

POLL_S = 0.05


class CheckpointWriter:
    """Writes snapshots, and removes the checkpoints that have had their time.

    Args:
        folder: `checkpoints` of the run.
        keep: newest checkpoints kept.
        step: of the checkpoint that the run goes on from, 0 for none.
        tick: called while a rank waits for the disk, as long as the disk takes something every `timeout_s`.
        timeout_s: longest time without any progress that is not taken for a hang.
        may_go_back: whether the run may go back to one of its checkpoints.

    Attributes:
        asked_step: of the newest snapshot given.
        written_step: of the newest checkpoint on disk.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        step: int,
        tick: Callable[[], None],
        timeout_s: float,
        *,
        may_go_back: bool = False,
    ) -> None:
        self.asked_step = self.written_step = step
        self._folder = folder
        self._keep = keep
        self._may_go_back = may_go_back
        self._tick = tick
        self._timeout_s = timeout_s
        self._thread: threading.Thread | None = None
        self._failure: MatsciError | None = None
        self._crash: BaseException | None = None
        self._warned = False
        self._progress = 0

    def start(self, snapshot: Snapshot) -> None:
        """Begin to write, as soon as the write before is done. A failure is a warning: training goes on."""
        self.wait()
        self.asked_step = snapshot.state.step
        # Not a daemon: when the run ends by an error of its own, the write in work is still finished.
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint")
        self._thread.start()

    def go_back(self, step: int) -> None:
        """The run has gone back to the checkpoint of an earlier step; later ones are to be written anew."""
        self.wait()
        self.asked_step = self.written_step = step

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._thread is None:
            return
        seen, since_s = -1, time.monotonic()
        while self._thread.is_alive():
            self._thread.join(POLL_S)
            if self._progress != seen:
                seen, since_s = self._progress, time.monotonic()
            if time.monotonic() - since_s < self._timeout_s:
                self._tick()
        self._thread = None
        if self._crash is not None:
            raise self._crash

    def finish(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """See to it that the last step of this life is on disk.

        Args:
            step: that step.
            snapshot: makes its snapshot, if it is still needed.

        Raises:
            MatsciError: it cannot be written; it says from where the run will go on.
        """
        self._warned = True  # a failure from here on is said as an error
        self.wait()
        if self.written_step == step:
            return
        self.start(snapshot())
        self.wait()
        if self._failure is not None:
            ahead = f"from step {self.written_step:,}" if self.written_step else "from the start"
            raise type(self._failure)(f"{self._failure}; step {step:,} is lost, the same command goes on {ahead}")

    def _write(self, snapshot: Snapshot) -> None:
        try:
            write_checkpoint(self._folder, snapshot, self._count)
            prune_checkpoints(self._folder, self._keep, snapshot.state, may_go_back=self._may_go_back)
        except MatsciError as failure:
            self._failure = failure
            if not self._warned:
                self._warned = True
                what = str(failure).partition(";")[0]
                kept = (
                    f"the checkpoint of step {self.written_step:,} stays" if self.written_step else "there is none yet"
                )
                print(f"matsci-hpc: warning: {what}; training goes on, {kept}", file=sys.stderr, flush=True)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self._crash = error
        else:
            self._failure = None
            self._warned = False
            self.written_step = snapshot.state.step

    def _count(self) -> None:
        self._progress += 1
