"""No hangs: a rank that dies, stops or sits in a loop ends the whole job, and somebody says which one it was.

Every rank watches its own progress, ranks 0 and 1 that of all. A rank that waits in a collective is never blamed: it
waits for the one that is. The first to notice is the rank itself, if its Python still runs; then rank 0, then rank 1.
A process alone watches itself, since a loop costs an allocation of one rank as much time as any other.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch.distributed import DistError

from matsci_hpc.errors import MachineError
from matsci_hpc.parallel.activity import STARTUP, Activity
from matsci_hpc.parallel.heartbeat import WATCHERS, Beat, Heartbeats

PATIENCE_SELF, PATIENCE_WATCHERS = 0.7, (0.8, 0.9)
"""Share of the time limit after which a rank ends itself, and after which the watchers do; the rest is for delays."""
BEATS_PER_LIMIT = 20
BEATS_PER_S = 1000
"""Most beats a second that one store is asked to take."""
LOST = "lost:"
"""How the farewell of a rank begins that ends because of another one."""
T = TypeVar("T")
FULL_SEARCH_RANKS = 64
"""Up to so many ranks, each survivor looks for the one that is missing; beyond, the watchers do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Longest times without progress, in seconds.

    Attributes:
        step_s: while training.
        startup_s: until the first step.
    """

    step_s: float
    startup_s: float

    def of(self, phase: str) -> float:
        """The limit in a phase."""
        return self.startup_s if phase == STARTUP else self.step_s

    def interval_s(self, size: int) -> float:
        """Time between beats: what the limit needs, or what one store can take from so many ranks."""
        shortest_s = min(self.step_s, self.startup_s)
        return min(max(shortest_s / BEATS_PER_LIMIT, size / BEATS_PER_S), shortest_s / 10)


@dataclass(slots=True)
class Seen:
    """When a watcher last saw a rank speak and move, by the watchdog's own clock."""

    beat: Beat
    heard_s: float
    moved_s: float

    def update(self, beat: Beat, now_s: float) -> None:
        """Take in what the rank said."""
        if beat.number != self.beat.number:
            self.heard_s = now_s
        if (beat.count, beat.ended) != (self.beat.count, self.beat.ended):
            self.moved_s = now_s
        self.beat = beat


def culprits(seen: list[Seen], now_s: float, limits: Limits, patience: float) -> list[str]:
    """What is wrong with which ranks, in words; nothing while all is well.

    Args:
        seen: of all ranks.
        now_s: by the same clock.
        limits: of progress.
        patience: share of the limit.
    """
    faults, stuck = [], 0
    front = max((each.beat.step for each in seen), default=0)
    for rank, each in enumerate(seen):
        beat, limit_s = each.beat, patience * limits.of(each.beat.phase)
        if beat.ended is not None:
            continue
        silent_s = now_s - each.heard_s
        if silent_s > patience * limits.step_s:  # beats come from a thread, whatever a long phase does
            faults.append(f"{named(rank, beat)} has not been heard of for {silent_s:.0f} s; {last_seen(beat, front)}")
        elif now_s - each.moved_s > limit_s:
            stuck += 1
            if not beat.waiting:
                still_s = now_s - each.moved_s
                faults.append(f"{named(rank, beat)} has made no progress for {still_s:.0f} s; {last_seen(beat, front)}")
    if not faults and seen and stuck == len(seen):
        beat = seen[0].beat
        faults.append(f"all ranks wait for each other: the network between them fails; {last_seen(beat)}")
    return faults


def named(rank: int, beat: Beat) -> str:
    """A rank and where it runs."""
    return f"rank {rank} on {beat.host} (process {beat.process})"


def last_seen(beat: Beat, front: int = 0) -> str:
    """Where it was, and the step at which others wait for it if that is a later one: beats are some seconds apart."""
    ahead = f", others wait at step {front}" if front > beat.step else ""
    return f"last seen at step {beat.step}, phase {beat.phase}{ahead}"


class Watchdog:
    """Watches this rank, and on a watcher the others.

    Args:
        activity: of this rank.
        limits: of progress.
        rank, size: of this rank.
        heartbeats: to and from the others; None for a process alone.

    Attributes:
        lost: which rank has ended or is gone while this one waits for it, in words: some libraries wait on for ever.
    """

    def __init__(self, activity: Activity, limits: Limits, rank: int, size: int, heartbeats: Heartbeats | None) -> None:
        self._activity = activity
        self._limits = limits
        self.lost: str | None = None
        self._rank = rank
        self._heartbeats = heartbeats
        self._searches = size <= FULL_SEARCH_RANKS or rank in WATCHERS
        self._interval_s = limits.interval_s(size)
        self._main = threading.main_thread().ident
        self._stopping = threading.Event()
        self._said = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin; every rank has published its first beat by now."""
        self._thread.start()
        if self._heartbeats:
            self._heartbeats.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopping.set()
        if self._heartbeats:
            self._heartbeats.stop()

    def farewell(self, reason: str) -> None:
        """Tell the others why this rank ends, as far as they can still be reached; what is said first counts."""
        self.stop()
        if self._heartbeats and not self._said:
            self._said = True
            beats = self._heartbeats
            within(1.0, lambda: beats.publish(reason))

    def who_is_missing(self) -> str:
        """After a collective failed: which rank has left and where it was, in words."""
        beats = self._heartbeats
        if beats is None:
            return "nobody"
        known: dict[int, int] = {}
        end_s = time.monotonic() + 3 * self._interval_s + 1.0
        while self._searches and time.monotonic() < end_s:
            table = within(2.0, beats.read_all)
            if table is None:
                break
            late = time.monotonic() > end_s - 0.5
            silent = {rank for rank, beat in enumerate(table) if known.setdefault(rank, beat.number) == beat.number}
            found = _missing(table, silent if late else set(), self._rank, self._activity.step)
            if found is not None:
                return found
            time.sleep(0.1)
        if beats.on_first and self._rank != 0 and within(2.0, lambda: beats.read(0)) is None:
            return f"{named(0, beats.first)} is gone, or does not answer; {last_seen(beats.first, self._activity.step)}"
        return "another rank, which says why in its own output"

    def _run(self) -> None:
        clock_s, last_s = 0.0, time.monotonic()
        own = (self._activity.count, 0.0)
        answered = (0, 0.0)
        seen: list[Seen] = []
        suspect: str | None = None
        look_s = self._interval_s / 2
        while not self._stopping.wait(look_s):
            now_s = time.monotonic()
            # A job that was suspended and goes on has not hung: only time in which this thread ran counts.
            clock_s += min(now_s - last_s, 2 * self._interval_s)
            last_s = now_s
            if self._activity.count != own[0] or self._activity.waiting:
                own = (self._activity.count, clock_s)
            elif clock_s - own[1] > PATIENCE_SELF * self._limits.of(self._activity.phase):
                self._end([self._own_fault(clock_s - own[1])])
            if self._heartbeats is None:
                continue
            if self._heartbeats.readings != answered[0]:
                answered = (self._heartbeats.readings, clock_s)
                self._update(seen, clock_s)
                suspect = self._look_for_a_loss(suspect)
            elif clock_s - answered[1] > self._store_patience_s():
                self._end([self._store_fault(clock_s - answered[1])])
            if self._rank in WATCHERS:
                faults = culprits(seen, answered[1], self._limits, PATIENCE_WATCHERS[self._rank])
                if faults:
                    self._end(faults)

    def _update(self, seen: list[Seen], clock_s: float) -> None:
        table = self._heartbeats.table if self._heartbeats else []
        if not seen:
            seen.extend(Seen(beat, clock_s, clock_s) for beat in table)
        for each, beat in zip(seen, table, strict=True):
            each.update(beat, clock_s)

    def _look_for_a_loss(self, suspect: str | None) -> str | None:
        """Note a rank without which this one waits in vain, when it is missing for the second time in a row.

        Watchers look at all ranks; the others hear from rank 0, which ends because of what it has seen.
        """
        beats = self._heartbeats
        if beats is None or not self._activity.waiting:
            return None
        table = beats.table or [beats.first]
        missing = _missing(table, set(), self._rank, self._activity.step)
        if missing is not None and suspect is not None:
            self.lost = missing
        return missing

    def _store_patience_s(self) -> float:
        """A store that refuses is gone with its process, and whoever saw why says so meanwhile."""
        if self._heartbeats and self._heartbeats.failure:
            share = 0.3
        else:
            share = PATIENCE_WATCHERS[1] if self._rank in WATCHERS else 1.0
        return share * self._limits.step_s

    def _store_fault(self, silent_s: float) -> str:
        beats = self._heartbeats
        if beats is None or not beats.on_first:
            return f"the store where the ranks meet has not answered for {silent_s:.0f} s"
        where = last_seen(beats.first, self._activity.step)
        return f"{named(0, beats.first)} has not answered for {silent_s:.0f} s; {where}"

    def _own_fault(self, still_s: float) -> str:
        beat = Beat(0, self._activity.step, self._activity.phase, 0, False, os.uname().nodename, os.getpid())
        frame = sys._current_frames().get(self._main or 0)  # noqa: SLF001 - the only way to another thread's stack
        calls = traceback.extract_stack(frame)[-3:] if frame else []
        where = " > ".join(f"{Path(call.filename).name}:{call.lineno} {call.name}" for call in calls)
        return f"{named(self._rank, beat)} has made no progress for {still_s:.0f} s; {last_seen(beat)}, in {where}"

    def _end(self, faults: list[str]) -> None:
        more = f" (and {len(faults) - 3} more ranks)" if len(faults) > 3 else ""
        starting = self._activity.phase == STARTUP
        key, limit_s = ("startup_timeout_s", self._limits.startup_s) if starting else ("timeout_s", self._limits.step_s)
        advice = f"; where a step honestly takes so long, raise parallel.{key} ({limit_s:g})"
        lines = [f"matsci-hpc: error: {fault}" for fault in faults[:3]]
        # Not print: the main thread may hold the lock of standard error for ever.
        os.write(2, ("\n".join(lines) + more + advice + "\n").encode())
        if self._heartbeats:
            beats = self._heartbeats
            within(1.0, lambda: beats.publish(f"{LOST} {faults[0]}"))
        os._exit(MachineError.exit_code)


def _missing(table: list[Beat], silent: set[int], rank: int, front: int) -> str | None:
    """Who ended by itself, else whom those have found who ended because of another, else who is gone."""
    for number, beat in enumerate(table):
        if beat.ended is not None and not beat.ended.startswith(LOST):
            return f"{named(number, beat)}, which ended at step {beat.step}, phase {beat.phase}: {beat.ended}"
    found = next((beat.ended.removeprefix(LOST).strip() for beat in table if beat.ended is not None), None)
    if found is not None:  # somebody was first to see it; who left since then left because of that
        return found
    for number, beat in enumerate(table):
        if number != rank and (beat.is_gone() or number in silent):
            return f"{named(number, beat)}, which is gone; {last_seen(beat, front)}"
    return None


def within(time_s: float, work: Callable[[], T]) -> T | None:
    """The result of a call to the store, or None if it fails or does not answer in time."""
    results: list[T] = []

    def run() -> None:
        with contextlib.suppress(DistError, RuntimeError):
            results.append(work())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(time_s)
    return results[0] if results else None
