"""A data set without files: its samples are made when a batch asks for them, the very ones that shards would hold.

To planning and collating it looks like a data set in a folder; a split stands for a shard. The number of atoms is what
a block of the generator begins with, and with a cutoff that reaches over every cloud n atoms have n (n - 1) edges, so
nothing is drawn to plan.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc import subgroups
from matsci_hpc.config.generated import GeneratedSymmetry
from matsci_hpc.config.sources import clouds_of_splits
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.generated_clouds import KeptClouds
from matsci_hpc.loading.generated_sizes import Numbers, Split, SplitSizes, splits_of
from matsci_hpc.neighbors import RULE, TIE_TOLERANCE, senders_of_all_pairs
from matsci_hpc.ragged import offsets
from matsci_hpc.shards.layout import FORMAT_VERSION, Array
from matsci_hpc.shards.manifest import Counts, FileRecord, Manifest, NeighborRecord
from matsci_hpc.sources.cloud_generator import BLOCK, VERSION
from matsci_hpc.sources.symmetry import generator_of
from matsci_hpc.structure import MIN_DISTANCE
from matsci_hpc.targets import TargetSpec

ROUNDING = 1e-5
"""Angstrom. More than single precision moves an atom of a cloud."""
FARTHEST = 9.0
"""Standard deviations that jitter never reaches along an axis (once in 10^18 numbers)."""


class GeneratedData:
    """Symmetric point clouds as a data set.

    Threads may share it.

    Args:
        section: what is generated.
        cutoff: of the edges, angstrom.

    Attributes:
        name: what messages call it.
        manifest: what that of prepared shards would say, but for files. Statistics of an endless split are those of
            its first samples.
        index: sizes and splits of every sample, computed where they are asked for.

    Raises:
        UserInputError: the settings cannot be drawn, or the number of edges does not follow from that of atoms.
    """

    def __init__(self, section: GeneratedSymmetry, cutoff: float) -> None:
        self.section = section
        self.name = section.title
        _refuse_unknown_edges(section, cutoff)
        self._generator = generator_of(section)
        self._contains: NDArray[np.uint8] | None = None
        if section.subgroups:
            names = self._generator.groups
            self._contains = np.array([subgroups.contains(name, names) for name in names], dtype=np.uint8)
        self._splits = list(splits_of(section.counts))
        self._sizes = [SplitSizes(self._generator, each) for each in self._splits]
        self.manifest = self._manifest(cutoff)
        self.index = GeneratedIndex(self)
        self._kept = KeptClouds(self._generator)

    def __len__(self) -> int:
        return self._splits[-1].first + self._splits[-1].count

    @property
    def drawn_bytes(self) -> int:
        """About what all samples take, once drawn."""
        largest = max(self._sizes, key=lambda each: each.split.count)
        return int(len(self) * largest.sample_bytes)

    def shared_by(self, ranks: int) -> None:
        """Say how many ranks draw samples, each of them its own: that decides how, never what."""
        self._kept.ranks = ranks

    def part(self, number: int, rows: Numbers) -> tuple[dict[str, Array], Numbers]:
        """Arrays, named as in a shard, that hold some samples of a split, and where in them these are."""
        clouds = self._kept.clouds(self._sizes[number], rows)
        atoms = np.diff(clouds.offset)
        arrays: dict[str, Array] = {
            "offsets/atoms": clouds.offset,
            "offsets/edges": offsets(atoms * (atoms - 1)),
            "atoms/atomic_number": clouds.atomic_number,
            "atoms/position": clouds.position,
            "atoms/degree": np.repeat(atoms - 1, atoms).astype(np.uint16),
            "edges/sender": senders_of_all_pairs(atoms),
            "targets/point_group": clouds.point_group,
        }
        if self._contains is not None:
            arrays["targets/subgroups"] = self._contains[clouds.point_group]
        return arrays, np.arange(len(rows))

    def sample_name(self, number: int) -> str:
        """What a sample is called, for messages: `symmetry clouds of seed 121 (train-000000017)`."""
        split = next(each for each in reversed(self._splits) if each.first <= number)
        return f"{self.name} ({split.name}-{number - split.first:09d})"

    def described(self) -> dict[str, Any]:
        """What a run writes down of it."""
        return {
            "path": self.name,
            "fingerprint": self.manifest.fingerprint,
            "samples": None if self.section.endless else len(self),
            "splits": dict(self.section.samples),
            "cutoff_angstrom": self.manifest.neighbors.cutoff_angstrom,
            "source": self.section.model_dump(mode="json"),
        }

    def split_numbers(self, numbers: Numbers) -> Numbers:
        """Number of the split of each sample: int64 [n]."""
        split = np.empty(len(numbers), dtype=np.int64)
        for each, mine in self._by_split(numbers):
            split[mine] = each.number
        return split

    def positions(self, numbers: Numbers) -> Numbers:
        """Place of each sample in its split: int64 [n]."""
        position = np.empty(len(numbers), dtype=np.int64)
        for each, mine in self._by_split(numbers):
            position[mine] = numbers[mine] - each.first
        return position

    def atoms(self, numbers: Numbers) -> Numbers:
        """Atoms of each sample: int64 [n]."""
        atoms = np.empty(len(numbers), dtype=np.int64)
        for split, mine in self._by_split(numbers):
            atoms[mine] = self._sizes[split.number].atoms(numbers[mine] - split.first)
        return atoms

    def edges(self, numbers: Numbers) -> Numbers:
        """Edges of each sample, one for every ordered pair of atoms: int64 [n]."""
        atoms = self.atoms(numbers)
        return atoms * (atoms - 1)

    def present(self, numbers: Numbers) -> Numbers:
        """Which targets each sample carries, a bit for each: all of them, int64 [n]."""
        return np.full(len(numbers), (1 << len(self.manifest.targets)) - 1, dtype=np.int64)

    def _by_split(self, numbers: Numbers) -> Iterator[tuple[Split, Any]]:
        """The splits that some samples belong to, and which of them do."""
        for split in self._splits:
            mine = (numbers >= split.first) & (numbers < split.first + split.count)
            if mine.all():
                yield split, slice(None)
                return
            if mine.any():
                yield split, mine

    def _manifest(self, cutoff: float) -> Manifest:
        groups = self._generator.groups
        targets = {"point_group": TargetSpec(kind="class", classes=groups)}
        if self._contains is not None:
            targets["subgroups"] = TargetSpec(kind="multilabel", classes=groups)
        # Not how many: two sources that differ in nothing else have the same samples.
        settings = self.section.model_dump(mode="json", exclude={"samples", "epoch"})
        text = json.dumps([FORMAT_VERSION, "generated", BLOCK, VERSION, settings, cutoff], sort_keys=True)
        totals = [each.totals for each in self._sizes]
        no_file = FileRecord(file="", bytes=0, xxh3_128="")
        return Manifest(
            fingerprint=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
            generators=clouds_of_splits(self.section.seed, self.section.samples),
            counts=Counts(
                inputs=len(self),
                samples=len(self),
                quarantined=0,
                atoms=sum(atoms for atoms, _ in totals),
                edges=sum(edges for _, edges in totals),
            ),
            remarks={},
            fields={},
            targets=targets,
            splits=self.section.counts,
            neighbors=NeighborRecord(cutoff_angstrom=cutoff, rule=RULE, stored=False),
            statistics={each.split.name: each.statistics(self._contains) for each in self._sizes},
            shards=[],
            index=no_file,
            quarantine=no_file,
        )


class GeneratedIndex:
    """The columns that planning looks up, each by the numbers of the samples wanted: int64 [n]."""

    def __init__(self, data: GeneratedData) -> None:
        self._length = len(data)
        self.atoms = _Column(data.atoms)
        self.edges = _Column(data.edges)
        self.present = _Column(data.present)
        self.shard = _Column(data.split_numbers)
        self.row = _Column(data.positions)
        self.by_split = _Column(np.asarray)

    def __len__(self) -> int:
        return self._length


@dataclass(frozen=True, slots=True)
class _Column:
    look_up: Callable[[Numbers], Numbers]

    def __getitem__(self, numbers: Numbers) -> Numbers:
        return self.look_up(numbers)


def _refuse_unknown_edges(section: GeneratedSymmetry, cutoff: float) -> None:
    """Planning takes it that every pair of atoms is an edge, and preparation must not have refused a sample."""
    moved = 2 * math.sqrt(3) * FARTHEST * section.jitter  # how much nearer or farther jitter brings two atoms
    reach = 2 + moved + ROUNDING - TIE_TOLERANCE
    least = MIN_DISTANCE + moved + ROUNDING
    files = "or prepare the data set with `matsci-hpc prep`"
    what = f"data.train: {section.title}"
    if cutoff < reach:
        raise UserInputError(
            f"{what}: neighbors.cutoff {cutoff:g} does not surely reach over a whole cloud, so the number of edges is "
            f"not known without drawing it; set it to {math.ceil(reach * 100) / 100:g} or more, {files}"
        )
    if section.min_distance < least:
        raise UserInputError(
            f"{what}: with min_distance {section.min_distance:g} and jitter {section.jitter:g} two atoms may come "
            f"nearer than {MIN_DISTANCE:g} angstrom, which preparation refuses; set min_distance to "
            f"{math.ceil(least * 1000) / 1000:g} or more, {files}"
        )
