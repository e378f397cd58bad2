"""Whether a life has time to save between the signal and its end."""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matsci_hpc.launch.sites.model import MOST_LAST_CALL_S, Site
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.mounts import nearest
from matsci_hpc.preflight.speed import Speed
from matsci_hpc.preflight.words import bytes_in_words, time_in_words

NOTICE_S = 1.0
"""Between two looks for the STOP file (`FILE_CHECK_S` of training/stopping.py)."""
MOST_TRIED = 1 << 30
"""Bytes written to see how fast a disk is; the time for more is extrapolated."""
_PIECE = 1 << 24


@dataclass(frozen=True, slots=True)
class Margin:
    """What happens between the wish to stop and the end of the ranks, in the worst case, in seconds.

    Attributes:
        notice_s: until the wish is seen.
        step_s: the step that has just begun.
        look_s: or, in an evaluation, the batches until somebody looks.
        write_s: a checkpoint; one that is being written at that time comes first.
    """

    notice_s: float
    step_s: float
    look_s: float
    write_s: float

    @property
    def total_s(self) -> float:
        """All of it, one after the other."""
        return self.notice_s + max(self.step_s, self.look_s) + 2 * self.write_s


def write_time_s(folder: Path, size: int) -> float:
    """Seconds that a checkpoint takes to be on disk: so many bytes are written, synced and removed.

    Args:
        folder: where; it need not be there yet.
        size: in bytes.

    Raises:
        OSError: it cannot be written.
    """
    tried = min(size, MOST_TRIED)
    piece = os.urandom(min(_PIECE, max(tried, 1)))  # a file system may squeeze zeros
    with tempfile.NamedTemporaryFile(dir=nearest(folder), prefix=".matsci-check-", buffering=0) as file:
        start_s = time.perf_counter()
        left = tried
        while left > 0:
            left -= file.write(piece[:left])
        os.fsync(file.fileno())
        taken_s = time.perf_counter() - start_s
    return taken_s * max(size / max(tried, 1), 1.0)


def margin_findings(margin: Margin, checkpoint_bytes: float, site: Site, speed: Speed) -> Iterator[Finding]:
    """Whether all that is over before the scheduler ends the job."""
    if site.scheduler == "local":
        return
    # The job script ends by itself what is still there shortly before the limit.
    left_s = site.signal_before_end_s - site.last_call_s
    last = "step" if margin.step_s >= margin.look_s else "part of an evaluation"
    parts = (
        f"{time_in_words(margin.notice_s)} to notice, {time_in_words(max(margin.step_s, margin.look_s))} for the "
        f"longest {last}, 2 x {time_in_words(margin.write_s)} to write {bytes_in_words(checkpoint_bytes)}"
    )
    text = (
        f"saving takes up to {time_in_words(margin.total_s)} ({parts}), and the signal leaves {time_in_words(left_s)}"
    )
    needed = 60 * -(-int(2 * margin.total_s + MOST_LAST_CALL_S) // 60)
    advice = f"set signal_before_end_s of the site to {needed} or more"
    if margin.total_s > left_s:
        yield Finding("error" if speed.measured_there else "warning", "margin", text, advice)
    elif 2 * margin.total_s > left_s:
        yield Finding("warning", "margin", f"{text}: little for a slow day of the disk", advice)
    else:
        yield Finding("ok", "margin", text)
