"""What lies in the output folder already: nothing, a run to go on with, a finished one, or something else."""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.words import counted
from matsci_hpc.shards.manifest import MANIFEST
from matsci_hpc.shards.manifest import holds_something_else as is_no_data_set
from matsci_hpc.training.run_rules import holds_something_else, refuse_changes

_CHECKPOINT = re.compile(r"step-([0-9]{6,18})")


def run_findings(config: TrainConfig) -> Iterator[Finding]:
    """Whether a run can begin or go on in its folder.

    Raises:
        OSError: it cannot be read.
    """
    folder = config.run_dir
    if holds_something_else(folder):
        yield Finding("error", "run_dir", f"{folder}: not empty and holds no run", "choose another run_dir")
        return
    yield from lock_findings(folder)
    step = newest_step(folder)
    before = folder / "config.yaml"
    trained = step or (folder / "metrics.jsonl").exists() or (folder / "evaluations.jsonl").exists()
    if trained and before.is_file():
        try:
            refuse_changes(config, load_config(TrainConfig, before), before)
        except UserInputError as error:
            yield from (Finding("error", "run_dir", line) for line in str(error).splitlines())
            return
    done = steps_done(folder)
    if done is not None and is_complete(config):
        advice = "raise steps to go on, or choose another run_dir"
        yield Finding("warning", "run_dir", f"{folder}: complete with {done:,} steps, nothing is left to do", advice)
    elif step > config.steps:
        text = f"{folder}: has taken {step:,} steps, more than the {config.steps:,} of the config"
        yield Finding("error", "run_dir", text, f"set steps to {step} to end it there, or choose another run_dir")
    elif step:
        yield Finding("ok", "run_dir", f"{folder}: goes on from step {step:,}, {config.steps - step:,} steps are left")
    else:
        yield Finding("ok", "run_dir", f"{folder}: a new run of {counted(config.steps, 'step')}")


def data_set_findings(out: Path) -> Iterator[Finding]:
    """Whether preparation can begin or go on in its folder.

    Raises:
        OSError: it cannot be read.
    """
    if is_no_data_set(out):
        yield Finding("error", "out", f"{out}: not empty and holds no data set", "choose another `out`")
    elif (out / MANIFEST).is_file():
        text = f"{out}: holds a finished data set; of the same input and config it stays, of another it is an error"
        yield Finding("warning", "out", text, "choose another `out` for other data")
    elif (out / ".work").is_dir():
        shards = sum(1 for _ in out.glob("shard-*.h5"))
        yield Finding("ok", "out", f"{out}: goes on, {counted(shards, 'shard')} of an earlier start are kept")
    else:
        yield Finding("ok", "out", f"{out}: a new data set")


def lock_findings(folder: Path) -> Iterator[Finding]:
    """Whether somebody trains in the folder right now, as far as locks of other nodes are seen from here."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return
    try:
        # There is no asking without taking: it is given back at once.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        text = f"{folder}: {holder} is training here; a job that starts meanwhile fails"
        yield Finding("warning", "run_dir", text, f"stop it first: touch {folder / 'STOP'}")
    except OSError:  # no locks here, which another check says
        return
    finally:
        os.close(descriptor)


def newest_step(folder: Path) -> int:
    """Step of the newest checkpoint by its name, 0 for none."""
    names = (_CHECKPOINT.fullmatch(path.name) for path in (folder / "checkpoints").glob("step-*"))
    return max((int(name[1]) for name in names if name), default=0)


def steps_done(folder: Path) -> int | None:
    """Steps of a complete run."""
    try:
        return int(json.loads((folder / "DONE").read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_complete(config: TrainConfig) -> bool:
    """Whether all steps of a run are done, and the evaluations after them."""
    done = steps_done(config.run_dir)
    return done is not None and done >= config.steps
