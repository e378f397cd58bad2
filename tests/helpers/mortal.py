"""Preparations that are killed, and how to look at what they left."""

import os
import random
import signal
import subprocess
import time

from ranks import command, environment
from soak import alive, children, send


def start(ranks, config, **extra):
    """`matsci-hpc prep CONFIG` on so many ranks, in the background; its output is read by `communicate`."""
    return subprocess.Popen(
        command(ranks, "prep", config),
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rank_pids(process, ranks):
    """Processes of the ranks, as far as they run."""
    try:
        return [process.pid] if ranks == 1 else children(process.pid)
    except OSError:
        return []


def finished_shards(out):
    """Numbers of the shards that have a record, and when each was written."""
    records = {path.stem[-5:] for path in (out / ".work").glob("block-*.json")}
    return {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.h5") if path.stem[-5:] in records}


def kill_randomly(out, config, ranks, chance: random.Random, longest_s):
    """One life that is ended by SIGKILL at a random moment; whether it was still running then."""
    process = start(ranks, config)
    try:
        goal = len(finished_shards(out)) + chance.randrange(4)
        early = chance.random() < 0.25  # anywhere, the start included
        end_s = time.monotonic() + chance.uniform(0.0, longest_s)
        while process.poll() is None and time.monotonic() < (end_s if early else end_s + 60):
            if not early and len(finished_shards(out)) >= goal:
                break
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        running = process.poll() is None
        victims = rank_pids(process, ranks)
        if victims:
            send(victims if chance.random() < 0.5 else [chance.choice(victims)], signal.SIGKILL)
        elif running:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        end_s = time.monotonic() + 30
        while any(alive(pid) for pid in victims) and time.monotonic() < end_s:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    return running
