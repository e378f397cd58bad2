"""Space and files that a job will take, against what the disk and the quota leave."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matsci_hpc.config.train import TrainConfig
from matsci_hpc.preflight.finding import Finding, Level
from matsci_hpc.preflight.mounts import mount_of, mounts_here, nearest
from matsci_hpc.preflight.quota import Quota, quotas_here
from matsci_hpc.preflight.words import bytes_in_words

FILES_PER_CHECKPOINT = 8
"""Its seven files at most and their folder."""
FILES_OF_A_RUN = 20
"""Config, records, report, scripts and logs."""
LINE_BYTES = 1200
"""Of a line of metrics.jsonl."""
DYNAMICS_LINE_BYTES = 6000
"""Of a line of dynamics.jsonl, of a model of a dozen layer groups."""
TIGHT = 0.8
"""Share of the free space above which a person is warned."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a job will store: bytes and files, and in words what they are."""

    bytes: float
    files: int
    words: str


@dataclass(frozen=True, slots=True)
class Room:
    """What can still be stored: bytes, files (None for no limit), and in words by whose leave."""

    bytes: int | None
    files: int | None
    words: str


def run_need(config: TrainConfig, checkpoint_bytes: float) -> Need:
    """Checkpoints that are kept, the best one and one in work, and records."""
    number = min(config.checkpoint.keep, -(-config.steps // config.checkpoint.every_steps)) + 2
    lines = config.steps // config.log_every + config.steps // config.evaluate.every_steps
    words = f"{number} checkpoints of {bytes_in_words(checkpoint_bytes)} and the records"
    files = number * FILES_PER_CHECKPOINT + FILES_OF_A_RUN
    wide_lines = config.steps // (config.dynamics.every_steps or config.log_every) if config.dynamics.record else 0
    records = LINE_BYTES * lines + DYNAMICS_LINE_BYTES * wide_lines
    return Need(number * checkpoint_bytes + records, files, words)


def data_set_need(shards: int, bytes_per_input: float, inputs: int, unpacked_bytes: float = 0.0) -> Need:
    """Shards with their records, and the unpacked copy of a compressed archive while it lasts."""
    total = bytes_per_input * inputs + unpacked_bytes
    words = f"{shards:,} shards of {bytes_in_words(bytes_per_input * inputs / max(shards, 1))}"
    if unpacked_bytes:
        words += f" and the unpacked input, {bytes_in_words(unpacked_bytes)}"
    return Need(total, 2 * shards + FILES_OF_A_RUN, words)


def rooms(folder: Path) -> list[Room]:
    """What the disk of a folder leaves, and the quotas there.

    Raises:
        OSError: it cannot be asked.
    """
    there = nearest(folder)
    disk = os.statvfs(there)
    # File systems that make inodes as they are needed tell 0.
    files = disk.f_favail if disk.f_files else None
    found = [Room(disk.f_bavail * disk.f_frsize, files, f"free on the disk of {there}")]
    mount = mount_of(there, mounts_here())
    return found + [_room(each) for each in quotas_here(mount)]


def space_findings(need: Need, there: Sequence[Room]) -> Iterator[Finding]:
    """Whether a job's files fit."""
    wanted = f"{need.words}: {bytes_in_words(need.bytes)}"
    advice = "free some space, or write elsewhere"
    fits = True
    for room in there:
        if room.bytes is not None and need.bytes > TIGHT * room.bytes:
            level: Level = "error" if need.bytes > room.bytes else "warning"
            fits = False
            yield Finding(level, "disk", f"{wanted}, and {bytes_in_words(room.bytes)} are {room.words}", advice)
        if room.files is not None and need.files > TIGHT * room.files:
            level = "error" if need.files > room.files else "warning"
            fits = False
            yield Finding(level, "disk", f"{need.files:,} files, and {room.files:,} are {room.words}", advice)
    if fits:
        least = min((room for room in there if room.bytes is not None), key=lambda room: room.bytes or 0, default=None)
        left = f" of {bytes_in_words(least.bytes or 0)} that are {least.words}" if least else ""
        yield Finding("ok", "disk", f"{wanted}{left}")


def _room(quota: Quota) -> Room:
    return Room(quota.bytes_left, quota.files_left, f"left of your quota on {quota.where}")
