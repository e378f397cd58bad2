"""What the runs that arms begin with have cost: told beside the result, since it is part of the price."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matsci_hpc.analysis.records import as_mapping, as_number, read_run
from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.model_header import SUFFIX, read_origin
from matsci_hpc.telemetry.provenance import LONGEST_CHAIN, nodes_of

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class PretrainingCost:
    """One run that another began with.

    Attributes:
        run: its folder, or its exported file; of a run that an exported file tells of, its name.
        steps, samples_seen: at its last line; of an exported file, at its step.
        time_s: of training over all its lives, without the start of the program.
        nodes: hosts that its ranks ran on, as its last life noted them.
        fingerprints: of its data sets.
        problem: why nothing is known of it; empty if it is.
    """

    run: str
    steps: int | None = None
    samples_seen: float | None = None
    time_s: float | None = None
    nodes: int | None = None
    fingerprints: tuple[str, ...] = ()
    problem: str = ""

    @property
    def node_hours(self) -> float | None:
        """Node-hours of training."""
        return None if self.time_s is None or self.nodes is None else self.nodes * self.time_s / SECONDS_PER_HOUR


def pretraining_of(init_from: Path) -> list[PretrainingCost]:
    """The run that an arm begins with, the one that that began with, and so on."""
    return list(_chain(init_from))


def _chain(begin: Path) -> Iterator[PretrainingCost]:
    place: Path | None = begin
    for _ in range(LONGEST_CHAIN):
        if place is None:
            return
        if place.suffix == SUFFIX:
            yield from _of_file(place)
            return
        folder = place.parent.parent if place.parent.name == "checkpoints" else place
        try:
            run = read_run(folder)
        except UserInputError as error:
            yield PretrainingCost(str(folder), problem=str(error))
            return
        last = run.steps[-1] if run.steps else {}
        yield PretrainingCost(
            run=str(folder),
            steps=run.last_step,
            samples_seen=as_number(last.get("samples_seen")),
            time_s=as_number(last.get("time_s")),
            nodes=nodes_of(run.provenance),
            fingerprints=tuple(str(each.get("fingerprint")) for each in run.data),
        )
        before = run.config.get("init_from")
        place = Path(before) if isinstance(before, str) else None


def _of_file(file: Path) -> Iterator[PretrainingCost]:
    """What an exported file tells of the run that it is of, and of those before that one."""
    try:
        origin = read_origin(file)
    except UserInputError as error:
        yield PretrainingCost(str(file), problem=str(error))
        return
    yield _told(str(file), origin)
    earlier = origin.get("earlier")
    for each in map(as_mapping, earlier if isinstance(earlier, list) else []):
        yield _told(str(each.get("run")), each)


def _told(run: str, entry: dict[str, Any]) -> PretrainingCost:
    data, cost = entry.get("data"), as_mapping(entry.get("cost"))
    prints = tuple(str(as_mapping(each).get("fingerprint")) for each in (data if isinstance(data, list) else []))
    if not cost:
        return PretrainingCost(run, fingerprints=prints, problem=f"{run}: the exported file does not tell")
    return PretrainingCost(
        run=run,
        steps=_whole(cost.get("steps")),
        samples_seen=as_number(cost.get("samples")),
        time_s=as_number(cost.get("time_s")),
        nodes=_whole(cost.get("nodes")),
        fingerprints=prints,
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def shared_data(costs: list[PretrainingCost], run_dir: Path) -> bool:
    """Whether a run learns from a data set that the runs before it learned from, too."""
    try:
        entries = json.loads((run_dir / "data.json").read_text(encoding="utf-8"))
        own = {str(each.get("fingerprint")) for each in entries}
    except (OSError, ValueError, AttributeError, TypeError):
        return False
    return any(own & set(each.fingerprints) for each in costs)
