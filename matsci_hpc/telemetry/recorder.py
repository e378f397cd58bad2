"""Append-only files of records, such as metrics.jsonl, and the memory of this process."""

import json
import math
import os
import resource
import sys
from collections import deque
from pathlib import Path
from typing import Any

from matsci_hpc.whole_files import output_error

MAX_WAITING = 10_000
"""Lines of one file kept in memory while the disk takes none."""


def private_bytes() -> int:
    """Memory of this process alone: its resident set without the pages of mapped shards, which the node shares.

    Read from /proc; where there is none, the largest resident set so far.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class JsonLines:
    """An append-only file of one JSON object per line; a line is whole, or torn and last.

    Lines that the disk does not take are kept, the newest `MAX_WAITING` of them, and written before the next one that
    it takes: a full disk must not end a run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._warned = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._mend()
        except OSError as error:
            raise output_error(path, error) from None

    def append(self, record: dict[str, Any]) -> None:
        """Add a line. Numbers that JSON does not know (NaN, infinity) become null."""
        self._waiting.append((json.dumps(_finite(record), allow_nan=False) + "\n").encode())
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self.flush()

    def flush(self) -> bool:
        """Try to write what waits; whether nothing waits any more. The first failure after a success is a warning."""
        try:
            if self._waiting:
                self._write(b"".join(self._waiting))
        except OSError as error:
            if not self._warned:
                self._warned = True
                what = str(output_error(self._path, error)).partition(";")[0]
                _warn(f"{what}; training goes on, up to {MAX_WAITING:,} lines are kept in memory and written later")
            return False
        self._waiting.clear()
        self._warned = False
        return True

    def close(self) -> None:
        """Write what waits, or say how much is lost."""
        lost = self._lost + (0 if self.flush() else len(self._waiting))
        if lost:
            _warn(f"{self._path}: {lost:,} lines are lost, the disk did not take them")

    def _write(self, lines: bytes) -> None:
        """Add the lines, or nothing."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                while lines:  # the disk may take a part before it is full
                    lines = lines[os.write(descriptor, lines) :]
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _mend(self) -> None:
        """End a last line that a crash tore, so that the next one starts on its own."""
        if self._path.exists():
            data = self._path.read_bytes()
            if data and not data.endswith(b"\n"):
                with self._path.open("ab") as file:
                    file.write(b"\n")


def _warn(text: str) -> None:
    print(f"matsci-hpc: warning: {text}", file=sys.stderr, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
