"""What a run has cost, and the runs that its encoder comes from, from the records in their folders."""

import contextlib
import json
from pathlib import Path
from typing import Any

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.about import Cost, Earlier
from matsci_hpc.inference.from_run import RunModel, learned_from, named_data
from matsci_hpc.inference.model_file import read_model
from matsci_hpc.inference.model_header import SUFFIX
from matsci_hpc.telemetry.lines import whole_lines
from matsci_hpc.telemetry.provenance import LONGEST_CHAIN, nodes_of
from matsci_hpc.training.learned_from import LearnedFrom, learned_elements, read_learned_from
from matsci_hpc.training.run_folder import RunFolder


def cost_until(run: RunFolder, step: int) -> Cost:
    """What a run took until a step, by its metrics; its last line before the step may be some steps earlier."""
    lines = [line for line in whole_lines(run.metrics) if _usable(line) and line["step"] <= step]
    hours, before_s, life = 0.0, 0.0, None
    for line in lines:
        if line["life"] != life:  # a life takes up the time of the checkpoint that it goes on from
            life = line["life"]
            before_s = min(before_s, line["time_s"])
        hours += line["ranks"] * max(0.0, line["time_s"] - before_s) / 3600
        before_s = line["time_s"]
    samples = lines[-1].get("samples_seen") if lines else None
    return Cost(
        steps=step,
        samples=int(samples) if isinstance(samples, int | float) else None,
        time_s=before_s if lines else None,
        rank_hours=hours if lines else None,
        nodes=nodes_of((_lives(run) or [{}])[-1]) if lines else None,
        machines=_machines(run),
    )


def earlier_runs(run: RunFolder) -> list[Earlier]:
    """The run that this one began with, the one that that began with, and so on; of one that is gone, its name."""
    found: list[Earlier] = []
    while len(found) < LONGEST_CHAIN and (origin := _origin(run)) is not None:
        step, path = int(origin["step"]), Path(str(origin["path"]))
        if path.suffix == SUFFIX:
            return [*found, *_exported(path, step, str(origin.get("checksum", "")))]
        run = RunFolder(path.parent.parent)
        there = run.provenance.is_file()
        cost = cost_until(run, step) if there else None
        checksum = str(origin.get("checksum", ""))
        found.append(Earlier(run=run.path.name, step=step, checksum=checksum, data=_data(run), cost=cost))
    return found


def _exported(file: Path, step: int, checksum: str) -> list[Earlier]:
    """The run that a file was exported of and those before it: what the file says of them, while it is there."""
    try:
        origin = read_model(file)[0].origin
    except UserInputError:
        return [Earlier(run=file.name, step=step, checksum=checksum)]
    first = Earlier(run=origin.run, step=step, checksum=checksum, data=origin.data, cost=origin.cost)
    return [first, *origin.earlier]


def elements_apart(found: RunModel) -> tuple[list[int] | None, list[int] | None]:
    """Atomic numbers that the run itself learned, and those of the runs before it; None where that is not known.

    Where the run kept Adam's moments of the run before, its own elements cannot be told from those of that one.
    """
    if found.config.init_from is None:
        own = found.about.elements
        return (None if own is None else list(own)), None
    before = read_learned_from(found.checkpoint).earlier_elements
    alone = found.config.fine_tune.optimizer == "reset"
    return (learned_elements(found.checkpoint, LearnedFrom()) if alone else None), before


def _data(run: RunFolder) -> list[dict[str, Any]]:
    """Its data sets, with what was learned from each where its config can still be read."""
    data = named_data(run)
    with contextlib.suppress(UserInputError):
        return learned_from(data, load_config(TrainConfig, run.config).data)
    return data


def _origin(run: RunFolder) -> dict[str, Any] | None:
    """The checkpoint that a run began with, as its first life noted it."""
    for record in _lives(run):
        origin = record.get("init_from")
        if isinstance(origin, dict) and isinstance(origin.get("step"), int) and "path" in origin:
            return origin
    return None


def _usable(line: dict[str, Any]) -> bool:
    return all(isinstance(line.get(key), int | float) for key in ("step", "time_s", "ranks", "life"))


def _machines(run: RunFolder) -> tuple[str, ...]:
    found = [each.get("gpus") or [each.get("cpu")] for each in _lives(run)]
    return tuple(dict.fromkeys(str(name) for names in found for name in names if name))


def _lives(run: RunFolder) -> list[dict[str, Any]]:
    """What each life of a run noted of itself, the first one first."""
    try:
        record = json.loads(run.provenance.read_text(encoding="utf-8"))
        return [each for each in [*record.get("earlier_lives", []), record] if isinstance(each, dict)]
    except (OSError, ValueError, AttributeError, TypeError):
        return []
