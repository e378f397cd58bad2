"""What a checkpoint says of the data that its parameters were learned from: the key `learned_from` of its state.json.

Checkpoints of earlier releases lack it. Of these, data.json of their run still tells the cutoff. Nothing here needs
torch: it is also asked before a job is queued.
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from matsci_hpc.neighbors import RULE
from matsci_hpc.shards.manifest import Manifest
from matsci_hpc.targets import TargetSpec

KEY = "learned_from"
_SECOND_MOMENT = "encoder.elements.weight|exp_avg_sq"
Lengths = Literal["angstrom", "radii of a symmetry cloud", "angstrom and radii of symmetry clouds"]


class LearnedFrom(BaseModel):
    """What a run learns and from what kind of data; None for what is not known."""

    model_config = ConfigDict(frozen=True)

    targets: dict[str, TargetSpec] | None = None
    cutoff_angstrom: float | None = None
    rule: str | None = None
    """Of the edges."""
    lengths: Lengths | None = None
    """Unit of positions: symmetry clouds have a radius of 1."""
    edges_per_atom: float | None = None
    """Mean over all samples."""
    earlier_elements: list[int] | None = None
    """Atomic numbers that the encoder had learned before the run began with it."""


def describe(
    manifests: Sequence[Manifest], targets: dict[str, TargetSpec], earlier_elements: list[int] | None = None
) -> LearnedFrom:
    """What a run is to note in its checkpoints.

    Args:
        manifests: of its data sets, at least one; all have the same cutoff.
        targets: that it learns.
        earlier_elements: atomic numbers that its encoder had learned before.
    """
    clouds = {each.generators is not None for each in manifests}
    lengths: Lengths = "radii of a symmetry cloud" if True in clouds else "angstrom"
    if len(clouds) > 1:
        lengths = "angstrom and radii of symmetry clouds"
    atoms = sum(each.counts.atoms for each in manifests)
    return LearnedFrom(
        targets=targets,
        cutoff_angstrom=manifests[0].neighbors.cutoff_angstrom,
        rule=RULE,
        lengths=lengths,
        edges_per_atom=sum(each.counts.edges for each in manifests) / atoms if atoms else None,
        earlier_elements=earlier_elements,
    )


def read_learned_from(checkpoint: Path) -> LearnedFrom:
    """What a verified checkpoint, or else its run, says of its data."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ValidationError):
        record = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        return LearnedFrom.model_validate(record[KEY])
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        data = json.loads((checkpoint.parents[1] / "data.json").read_text(encoding="utf-8"))
        return LearnedFrom(cutoff_angstrom=float(data[0]["cutoff_angstrom"]))
    return LearnedFrom()


def learned_elements(checkpoint: Path, known: LearnedFrom) -> list[int] | None:
    """Atomic numbers whose rows of the table of elements were trained, ascending; None where that cannot be told.

    A row that no sample of training ever read has a second moment of exactly zero: every gradient of it was. A row that
    was read a hundred thousand steps ago and never since may have one, too, in single precision.

    Args:
        checkpoint: a verified one.
        known: what it says itself.
    """
    found = set(known.earlier_elements or ())
    with (
        contextlib.suppress(OSError, SafetensorError),
        safe_open(checkpoint / "optimizer.safetensors", framework="np") as file,
    ):
        if _SECOND_MOMENT in file.keys():  # noqa: SIM118 - not a mapping
            rows = (file.get_tensor(_SECOND_MOMENT) != 0).any(axis=1)
            return sorted(found | set(rows.nonzero()[0].tolist()))
    return sorted(found) or None
