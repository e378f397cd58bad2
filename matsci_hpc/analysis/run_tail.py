"""The newest records of a run that may still be written, elsewhere: read again and again, each byte once."""

import contextlib
import json
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from matsci_hpc.analysis.records import Record, read_config, valid_evaluations, valid_steps
from matsci_hpc.errors import UserInputError

KEPT = 2_000
"""Lines of a file, the newest ones."""
BEGIN_BYTES = 4_000_000
"""Of a file that is longer when it is first read, as much is read."""


class Tail:
    """The newest lines of a growing .jsonl file.

    Args:
        path: of the file, which need not exist yet.

    Attributes:
        lines: that carry a step, in the order of the file.
    """

    def __init__(self, path: Path) -> None:
        self.lines: deque[Record] = deque(maxlen=KEPT)
        self._path = path
        self._offset = 0
        self._torn = b""

    def poll(self) -> None:
        """Read what has been added. A file that is gone or shorter than before is read anew."""
        try:
            size = self._path.stat().st_size
            if size < self._offset:
                self.lines.clear()
                self._offset, self._torn = 0, b""
            with self._path.open("rb") as file:
                begin = max(self._offset, size - BEGIN_BYTES) if self._offset == 0 else self._offset
                file.seek(begin)
                data = file.read()
        except OSError:
            return
        self._offset = begin + len(data)
        *whole, self._torn = (self._torn + data).split(b"\n")
        for line in whole:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and type(record.get("step")) is int:
                    self.lines.append(record)


@dataclass(frozen=True, slots=True)
class Newest:
    """What there is to show of a run at a moment.

    Attributes:
        name: of the run directory.
        planned: steps of the whole run, None if the config does not tell.
        steps: the newest valid metrics lines.
        evaluations: the newest valid ones.
        state: `complete`, `stopped`, `asked to stop` or `running`.
        reason: why it stopped, empty if it did not.
        age_s: since the newest line was written, None without one.
    """

    name: str
    planned: int | None
    steps: list[Record]
    evaluations: list[Record]
    state: str
    reason: str
    age_s: float | None


class RunTail:
    """Follows a run.

    Args:
        folder: run directory.

    Raises:
        UserInputError: it is none.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.yaml").is_file():
            raise UserInputError(
                f"{folder} is not a training run: it has no config.yaml; name the run_dir of a run that "
                "`matsci-hpc train` has started"
            )
        self._folder = folder
        self._metrics = Tail(folder / "metrics.jsonl")
        self._evaluations = Tail(folder / "evaluations.jsonl")

    def look(self) -> Newest:
        """Read what is new.

        Raises:
            UserInputError: config.yaml cannot be read.
        """
        self._metrics.poll()
        self._evaluations.poll()
        planned = read_config(self._folder / "config.yaml").get("steps")  # a later life may plan more
        state, reason = self._state()
        return Newest(
            name=self._folder.resolve().name,
            planned=planned if isinstance(planned, int) else None,
            steps=valid_steps(self._metrics.lines),
            evaluations=valid_evaluations(self._evaluations.lines, self._metrics.lines),
            state=state,
            reason=reason,
            age_s=self._age_s(),
        )

    def _state(self) -> tuple[str, str]:
        if (self._folder / "DONE").exists():
            return "complete", ""
        try:
            return "stopped", (self._folder / "STOPPED").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return "asked to stop" if (self._folder / "STOP").exists() else "running", ""

    def _age_s(self) -> float | None:
        try:
            return max(0.0, time.time() - (self._folder / "metrics.jsonl").stat().st_mtime)
        except OSError:
            return None
