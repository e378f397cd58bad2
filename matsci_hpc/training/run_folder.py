"""The folder of a run: whether it is new, finished or to be resumed, and what lies in it."""

import contextlib
import json
from pathlib import Path
from typing import Any

from matsci_hpc.config.loading import dump_config, flat, load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.folder_lock import FolderLock
from matsci_hpc.loading.collection import Collection
from matsci_hpc.telemetry.provenance import describe_machine
from matsci_hpc.training.checkpoint import list_checkpoints
from matsci_hpc.training.run_rules import holds_something_else, refuse_changes
from matsci_hpc.whole_files import output_error, write_atomic


class RunFolder:
    """Paths of a run.

    Attributes:
        path: the folder itself.
        config: resolved config of the newest life.
        provenance: who, when, where, of the newest life; earlier lives in short.
        data: which data sets it learns from.
        learned: which targets, and what they mean.
        metrics: one line per logged step.
        ranks: what each rank did, a line for one or more of these steps.
        evaluations: one line per evaluation.
        dynamics: what the optimiser does to the model; one line per recorded step.
        checkpoints: folder of the checkpoints.
        oversized: samples that are too large by the config, if there are any.
        stop: asks the run to stop; the life that obeys it removes it.
        stopped: why the newest life stopped before it was complete, in one line.
        done: there only when training is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.provenance = path / "provenance.json"
        self.data = path / "data.json"
        self.learned = path / "targets.json"
        self.metrics = path / "metrics.jsonl"
        self.ranks = path / "ranks.jsonl"
        self.evaluations = path / "evaluations.jsonl"
        self.dynamics = path / "dynamics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.oversized = path / "oversized.jsonl"
        self.stop = path / "STOP"
        self.stopped = path / "STOPPED"
        self.done = path / "DONE"

    def samples(self, rank: int) -> Path:
        """Which samples a rank trained on, if that is recorded."""
        return self.path / "samples" / f"rank-{rank:05d}.jsonl"

    def has_trained(self) -> bool:
        """Whether there is anything of a life before: a config that failed before the first step binds nobody."""
        return self.metrics.exists() or self.evaluations.exists() or bool(list_checkpoints(self.checkpoints))

    def steps_done(self) -> int | None:
        """Steps of a run that is complete, None for one that is not."""
        try:
            return int(json.loads(self.done.read_text(encoding="utf-8"))["step"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None


def run_lock(folder: Path) -> FolderLock:
    """The lock on a run's folder: two jobs would write over each other's checkpoints and mix their records."""
    stop = f"stop it (touch {folder / 'STOP'}) or choose another run_dir"
    return FolderLock(folder, f"{folder}: {{holder}} is training here; {stop}")


def open_run(
    config: TrainConfig, collection: Collection, ranks: int, backend: str, lock: FolderLock
) -> tuple[int, int]:
    """Begin a life of a run, on rank 0: check that it fits what is there, and write config and provenance.

    A run that is complete is left as it is; one that was complete and has been given more steps goes on.

    Returns:
        The number of this life, from 0, and the steps of a run that is complete already, else 0.

    Raises:
        UserInputError: the folder is in use, holds something else or a run of another config, or cannot be written.
    """
    run = RunFolder(config.run_dir)
    changes: list[str] = []
    try:
        if holds_something_else(run.path):
            raise UserInputError(f"{run.path}: the folder is not empty and holds no run; choose another run_dir")
        run.path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        run.stopped.unlink(missing_ok=True)
        trained = run.config.is_file() and run.has_trained()
        if trained:
            before = load_config(TrainConfig, run.config)
            refuse_changes(config, before, run.config)
            changes = _changes(before, config)
        life, earlier = _earlier_lives(run.provenance, run.metrics)
        steps_done = run.steps_done()
        if steps_done is not None and steps_done >= config.steps:
            run.stop.unlink(missing_ok=True)  # there is nothing to stop
            return life - 1, steps_done
        run.done.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(run.path, error) from None
    for change in changes:
        print(f"{run.path}: going on with another {change}", flush=True)
    write_atomic(run.config, dump_config(config).encode())
    record = describe_machine() | {"life": life, "ranks": ranks, "backend": backend, "changes": changes}
    record["earlier_lives"] = earlier
    if trained:
        record |= _noted_origin(run.provenance)
    write_atomic(run.provenance, _json(record))
    write_atomic(run.data, _json(_describe_data(collection)))
    return life, 0


def note_in_provenance(run: RunFolder, more: dict[str, Any]) -> None:
    """Add to the provenance of this life what is known only after `open_run`; on rank 0.

    Raises:
        UserInputError, MachineError: it cannot be written.
    """
    try:
        record = json.loads(run.provenance.read_text(encoding="utf-8"))
    except OSError as error:
        raise output_error(run.provenance, error) from None
    write_atomic(run.provenance, _json(record | more))


def complete_run(run: RunFolder, result: bytes) -> None:
    """End a run, on rank 0: what it found becomes `DONE`, and a STOP that came too late is taken away.

    Raises:
        UserInputError, MachineError: the folder cannot be written.
    """
    write_atomic(run.done, result)
    try:
        run.stop.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(run.stop, error) from None


def _describe_data(collection: Collection) -> list[dict[str, Any]]:
    return [each.described() for each in collection.datasets]


def _changes(before: TrainConfig, now: TrainConfig) -> list[str]:
    """What a resumed run does otherwise than the life before, as `key.sub: old -> new`."""
    old, new = flat(before.model_dump(mode="json")), flat(now.model_dump(mode="json"))
    keys = sorted((old.keys() | new.keys()) - {"run_dir"})
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys if old.get(key) != new.get(key)]


def _noted_origin(provenance: Path) -> dict[str, Any]:
    """Where the encoder that the run began with came from, and what was taken, as a life before noted it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        record = json.loads(provenance.read_text(encoding="utf-8"))
        return {key: record[key] for key in ("init_from", "fine_tune") if record.get(key) is not None}
    return {}


def _earlier_lives(provenance: Path, metrics: Path) -> tuple[int, list[dict[str, Any]]]:
    try:
        record = json.loads(provenance.read_text(encoding="utf-8"))
        short = {
            key: record.get(key)
            for key in ("time", "host", "hosts", "cpu", "gpus", "ranks", "backend", "matsci_hpc", "git", "changes")
        }
        return int(record["life"]) + 1, [*record.get("earlier_lives", []), short]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return _lives_in(metrics), []


def _lives_in(metrics: Path) -> int:
    """Lives that have left a line, where nothing else tells how many there were."""
    lives = [-1]
    with contextlib.suppress(OSError):
        for line in metrics.read_bytes().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                lives.append(int(json.loads(line)["life"]))
    return max(lives) + 1


def _json(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1)}\n".encode()
