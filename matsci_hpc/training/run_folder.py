"""The folder of a run: whether it is new, finished or to be resumed, and what lies in it."""

import contextlib
import json
from pathlib import Path
from typing import Any

from matsci_hpc.config.loading import dump_config, load_config
from matsci_hpc.config.train import Staging, TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collection import Collection
from matsci_hpc.telemetry.provenance import describe_machine
from matsci_hpc.training.checkpoint import list_checkpoints
from matsci_hpc.training.run_lock import RunLock
from matsci_hpc.whole_files import output_error, write_atomic

FIXED = ("seed", "data", "batch", "targets", "model", "precision")
"""Sections that a resumed run may not change: they decide what was learned from and what the parameters mean."""
FREE = {"data": {"staging"}, "batch": {"micro_batches", "micro_cost"}}
"""Keys in them that decide neither."""


class RunFolder:
    """Paths of a run.

    Attributes:
        path: the folder itself.
        config: resolved config of the newest life.
        provenance: who, when, where, of the newest life; earlier lives in short.
        data: which data sets it learns from.
        metrics: one line per logged step.
        evaluations: one line per evaluation.
        checkpoints: folder of the checkpoints.
        oversized: samples that are too large by the config, if there are any.
        stop: asks the run to stop.
        done: there only when training is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.provenance = path / "provenance.json"
        self.data = path / "data.json"
        self.metrics = path / "metrics.jsonl"
        self.evaluations = path / "evaluations.jsonl"
        self.checkpoints = path / "checkpoints"
        self.oversized = path / "oversized.jsonl"
        self.stop = path / "STOP"
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


def open_run(config: TrainConfig, collection: Collection, ranks: int, backend: str, lock: RunLock) -> tuple[int, int]:
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
        if run.path.is_dir() and any(run.path.iterdir()) and not run.config.is_file() and not _only_job_files(run.path):
            raise UserInputError(f"{run.path}: the folder is not empty and holds no run; choose another run_dir")
        run.path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        if run.config.is_file() and run.has_trained():
            before = load_config(TrainConfig, run.config)
            _refuse_changes(config, before, run.config)
            changes = _changes(before, config)
        life, earlier = _earlier_lives(run.provenance, run.metrics)
        steps_done = run.steps_done()
        if steps_done is not None and steps_done >= config.steps:
            return life - 1, steps_done
        run.done.unlink(missing_ok=True)
        run.stop.unlink(missing_ok=True)  # it stopped the life before this one
    except OSError as error:
        raise output_error(run.path, error) from None
    for change in changes:
        print(f"{run.path}: going on with another {change}", flush=True)
    write_atomic(run.config, dump_config(config).encode())
    record = describe_machine() | {"life": life, "ranks": ranks, "backend": backend, "changes": changes}
    record["earlier_lives"] = earlier
    write_atomic(run.provenance, f"{json.dumps(record, indent=1)}\n".encode())
    write_atomic(run.data, f"{json.dumps(_describe_data(collection), indent=1)}\n".encode())
    return life, 0


def _describe_data(collection: Collection) -> list[dict[str, Any]]:
    return [
        {
            "path": str(each.folder),
            "fingerprint": each.manifest.fingerprint,
            "samples": each.manifest.counts.samples,
            "splits": each.manifest.splits,
            "cutoff_angstrom": each.manifest.neighbors.cutoff_angstrom,
        }
        for each in collection.datasets
    ]


def _changes(before: TrainConfig, now: TrainConfig) -> list[str]:
    """What a resumed run does otherwise than the life before, as `key.sub: old -> new`."""
    old, new = _flat(before.model_dump(mode="json")), _flat(now.model_dump(mode="json"))
    keys = sorted((old.keys() | new.keys()) - {"run_dir"})
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys if old.get(key) != new.get(key)]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _only_job_files(path: Path) -> bool:
    """Whether there is nothing but what a launcher puts there before the run begins."""
    return all(
        each.name in {"STOP", ".lock"} or each.suffix in {".sbatch", ".out", ".err", ".log"} for each in path.iterdir()
    )


def _refuse_changes(config: TrainConfig, before: TrainConfig, where: Path) -> None:
    # Where the same data are read changes nothing.
    config, before = (
        each.model_copy(update={"data": each.data.model_copy(update={"staging": Staging()})})
        for each in (config, before)
    )
    for section in FIXED:
        now, then = (_fixed_part(each, section) for each in (config, before))
        if now != then:
            raise UserInputError(
                f"{where.parent}: holds a run with another {section!r} ({where}); choose another run_dir, or resume it "
                f"with the same {section!r}"
            )


def _fixed_part(config: TrainConfig, section: str) -> Any:
    part = config.model_dump()[section]
    return {key: part[key] for key in part.keys() - FREE[section]} if section in FREE else part


def _earlier_lives(provenance: Path, metrics: Path) -> tuple[int, list[dict[str, Any]]]:
    try:
        record = json.loads(provenance.read_text(encoding="utf-8"))
        short = {key: record.get(key) for key in ("time", "host", "ranks", "backend", "matsci_hpc", "git", "changes")}
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
