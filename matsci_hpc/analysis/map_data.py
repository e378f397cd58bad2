"""Embeddings from several folders as one set of points for each encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.embeddings.about import EmbeddedData, EncoderOrigin
from matsci_hpc.embeddings.files import Embeddings, read_embeddings
from matsci_hpc.embeddings.table import absent
from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.layout import Array
from matsci_hpc.targets import TargetSpec

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Target:
    """What is known of the points, beside their data set.

    Attributes:
        spec: its kind, unit and classes.
        values: float32 [n] with NaN, or int16 [n] with -1, where it is absent.
    """

    spec: TargetSpec
    values: Array

    @property
    def is_class(self) -> bool:
        """Whether it sorts samples into classes."""
        return self.spec.kind in {"class", "binary"}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self.spec.classes or ("no", "yes")

    def labels(self) -> Labels:
        """Number of the class of each point, -1 where it is absent: int64 [n]."""
        if self.spec.kind == "class":
            return self.values.astype(np.int64)
        values = self.values.astype(np.float64)
        return np.where(np.isnan(values), -1, np.nan_to_num(values) > 0.5).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Points:
    """All samples embedded by one encoder.

    Attributes:
        encoder: that one.
        folders: where they come from.
        embedding: float32 [n, width].
        ids, formulas: of the samples.
        data_sets: what `data_set` counts; `described` says more of each part of them.
        data_set: int64 [n].
        targets: by name; of many labels at once none.
        described: data sets of each folder.
        notes: of the folders.
    """

    encoder: EncoderOrigin
    folders: tuple[Path, ...]
    embedding: NDArray[np.float32]
    ids: list[str]
    formulas: list[str]
    data_sets: tuple[str, ...]
    data_set: Labels
    targets: dict[str, Target]
    described: tuple[EmbeddedData, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def samples(self) -> set[tuple[str, str, str]]:
        """What tells whether two encoders embedded the same."""
        return {(self.data_sets[d], i, f) for d, i, f in zip(self.data_set, self.ids, self.formulas, strict=True)}


def read_points(folders: Sequence[Path]) -> list[Points]:
    """Points by encoder, in the order in which the folders are named.

    Raises:
        UserInputError: a folder holds no embeddings, or a sample stands in two of them.
    """
    groups: dict[str, list[Embeddings]] = {}
    for folder in folders:
        found = read_embeddings(folder)
        groups.setdefault(found.about.encoder.model_dump_json(), []).append(found)
    return [_joined(group) for group in groups.values()]


def _joined(group: Sequence[Embeddings]) -> Points:
    _refuse_twice(group)
    fingerprints: dict[str, EmbeddedData] = {}
    for each in group:
        for data in each.about.data_sets:
            fingerprints.setdefault(data.fingerprint, data)
    names = [data.name for data in fingerprints.values()]
    shown = tuple(data.name if names.count(data.name) == 1 else data.path for data in fingerprints.values())
    place = {fingerprint: number for number, fingerprint in enumerate(fingerprints)}
    numbers = [np.array([place[data.fingerprint] for data in each.about.data_sets])[each.data_set] for each in group]
    return Points(
        encoder=group[0].about.encoder,
        folders=tuple(each.folder for each in group),
        embedding=np.concatenate([each.embedding for each in group]),
        ids=[name for each in group for name in each.ids],
        formulas=[formula for each in group for formula in each.formulas],
        data_sets=shown,
        data_set=np.concatenate(numbers).astype(np.int64),
        targets=_targets(group),
        described=tuple(data for each in group for data in each.about.data_sets),
        notes=tuple(dict.fromkeys(note for each in group for note in each.about.notes)),
    )


def _refuse_twice(group: Sequence[Embeddings]) -> None:
    """A sample that stands there twice would be its own nearest neighbour."""
    seen: dict[tuple[str, int], Path] = {}
    for each in group:
        fingerprints = [data.fingerprint for data in each.about.data_sets]
        for number, sample, name in zip(each.data_set.tolist(), each.samples.tolist(), each.ids, strict=True):
            other = seen.setdefault((fingerprints[number], sample), each.folder)
            if other is not each.folder:
                raise UserInputError(
                    f"{each.folder}: sample {name} of {each.about.data_sets[number].name} stands in {other}, too; name "
                    "one of the two folders"
                )


def _targets(group: Sequence[Embeddings]) -> dict[str, Target]:
    """Targets of all folders; those of one name that are of another kind are told apart by their folder."""
    found: dict[str, Target] = {}
    for each in group:
        for name, spec in each.about.targets.items():
            if spec.kind == "multilabel":
                continue
            own = name if name not in found or found[name].spec == spec else f"{name} ({each.folder.name})"
            if own not in found:
                found[own] = Target(
                    spec,
                    np.concatenate(
                        [
                            other.targets[name]
                            if other.about.targets.get(name) == spec
                            else absent(spec, len(other.ids))
                            for other in group
                        ]
                    ),
                )
    return found
