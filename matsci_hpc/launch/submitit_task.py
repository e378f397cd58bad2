"""What submitit pickles: a command of matsci-hpc as text, and nothing else.

The pickle names this class and holds its text, in submitit's wrapper. It carries no code and nothing of other packages,
so that an upgrade of torch or numpy between two lives of a job cannot make it unreadable.
"""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """One rank's share of a job.

    Attributes:
        arguments: of `matsci-hpc`: verb, config, overrides.
        output: run directory, or folder of a data set.
    """

    arguments: tuple[str, ...]
    output: str

    def __call__(self) -> dict[str, object]:
        """Run the command in this process, which is one of the job's ranks.

        Returns:
            Of training `step`, `complete` and `reason`; of a preparation `samples` and `shards`; of a report its path.

        Raises:
            SystemExit: Training has stopped and saved before it was complete. Submitit leaves no result behind then,
                and the batch script decides whether there is another life.
        """
        # Submitit's own handlers would save on rank 0 alone, in the midst of a step. Training installs its own at once.
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        if self.arguments[0] != "train":
            for number in (signal.SIGTERM, signal.SIGUSR2):
                signal.signal(number, signal.SIG_DFL)
        from matsci_hpc.cli import cli

        result: dict[str, object] = cli.main(args=list(self.arguments), standalone_mode=False)
        if result.get("complete", True) or self._stopped_by_hand():
            return result
        raise SystemExit(0)

    def checkpoint(self) -> Any:
        """What submitit starts again if its signal comes before training has taken it over: the same."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)

    def _stopped_by_hand(self) -> bool:
        """Whether somebody wanted the run to end, so that no life follows."""
        from matsci_hpc.training.stopping import BY_HAND

        try:
            return (Path(self.output) / "STOPPED").read_text(encoding="utf-8").strip() == BY_HAND
        except OSError:
            return False
