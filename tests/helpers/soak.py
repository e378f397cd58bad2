"""A run that is stopped over and over at random moments, and what it must have done in the end."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ranks import command, environment

WAIT_S = 120.0


@dataclass(frozen=True)
class Life:
    """One life of the run: on how many ranks, how it was ended, its exit code and what it printed."""

    ranks: int
    how: str
    returncode: int
    output: str


def stop_by_file(run: Path, _ranks: list[int], _chance: random.Random) -> None:
    (run / "STOP").touch()


def terminate_all(_run: Path, ranks: list[int], _chance: random.Random) -> None:
    send(ranks, signal.SIGTERM)


def signal_one(_run: Path, ranks: list[int], chance: random.Random) -> None:
    send([chance.choice(ranks)], signal.SIGUSR1)


def kill_one(_run: Path, ranks: list[int], chance: random.Random) -> None:
    send([chance.choice(ranks)], signal.SIGKILL)


def kill_all(_run: Path, ranks: list[int], _chance: random.Random) -> None:
    send(ranks, signal.SIGKILL)


def kill_in_checkpoint(run: Path, ranks: list[int], _chance: random.Random) -> None:
    """Kill all ranks while a checkpoint is being written."""
    end_s = time.monotonic() + WAIT_S
    while not any((run / "checkpoints").glob(".step-*.part")):
        if time.monotonic() > end_s or not any(alive(rank) for rank in ranks):
            return
        time.sleep(0.0005)
    send(ranks, signal.SIGKILL)


STOPS: list[Callable[[Path, list[int], random.Random], None]] = [
    stop_by_file,
    terminate_all,
    signal_one,
    kill_one,
    kill_all,
    kill_in_checkpoint,
]


def live(run: Path, ranks: int, arguments: list[object], chance: random.Random, number: int) -> Life:
    """One life: train until a random number of lines is written, then stop it in the manner of its number."""
    metrics = run / "metrics.jsonl"
    stop = STOPS[number % len(STOPS)]
    goal = line_count(metrics) + chance.randint(1, 25)
    process = subprocess.Popen(
        command(ranks, "train", *arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        # A kill may come at any time, also before the first step of a life.
        early = stop in {kill_one, kill_all} and chance.random() < 0.3
        end_s = time.monotonic() + (chance.uniform(0.5, 4.0) if early else WAIT_S)
        while process.poll() is None and line_count(metrics) < goal and time.monotonic() < end_s:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))  # anywhere within a step
        if process.poll() is None:
            stop(run, [process.pid] if ranks == 1 else children(process.pid), chance)
        output, _ = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    return Life(ranks, stop.__name__, process.returncode, output)


def seen_by_epoch(run: Path) -> dict[int, Counter[int]]:
    """How often each sample was trained on in each epoch, by the lives whose steps counted in the end."""
    by_step: dict[int, dict[int, list[tuple[int, list[int]]]]] = defaultdict(lambda: defaultdict(list))
    for path in (run / "samples").glob("rank-*.jsonl"):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # a line that a kill tore
                record = json.loads(line)
                by_step[record["step"]][record["life"]].append((record["epoch"], record["samples"]))
    seen: dict[int, Counter[int]] = defaultdict(Counter)
    for lives in by_step.values():
        for epoch, samples in lives[max(lives)]:
            seen[epoch].update(samples)
    return dict(seen)


def line_count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def children(pid: int) -> list[int]:
    """Processes that mpirun started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
