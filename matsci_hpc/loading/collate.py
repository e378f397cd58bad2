"""Samples gathered from memory-mapped shards into one flat batch.

Output tensors are allocated once, in pinned memory if wanted, and each byte is copied once, from where it lies in the
page cache: rows that follow each other in a shard as one slice. What can be told from other fields (receivers,
pointers) is not stored but made for the whole batch at once. Collating changes nothing, so threads may do it at will.
The work is numpy's: torch's own would start OpenMP threads, which hang in a process that was forked from one with such.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.loading.collection import Collection, ShardPart
from matsci_hpc.loading.edges import sample_edges
from matsci_hpc.ragged import offsets
from matsci_hpc.shards.layout import Array, is_present, target_path
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.targets import TargetSpec

Numbers = NDArray[np.int64]
_Slice = tuple[int, int, int, int]
"""Begin and end in a shard, begin and end in the batch."""
MAX_EDGES = 2**30
"""Of a batch, so that twice their number still is an int32, as the kernels need."""

GRAPHS_AT_ONCE, SEGMENTS_AT_ONCE = 32, 1024
"""Pieces in which numbers are repeated, so that they stay in the cache on their way to the batch."""


def collate(collection: Collection, samples: Numbers, *, pin: bool = False) -> Batch:
    """Read samples into a batch of CPU tensors, in the order of their numbers.

    Args:
        collection: where the samples are.
        samples: int64 [G], numbers in the collection in non-descending order, maybe none.
        pin: whether to use page-locked memory, from which a GPU fetches while the CPU goes on.

    Raises:
        MachineError: a shard is missing, or holds other sizes than the index says.
    """
    build = _Build(collection, samples, pin=pin)
    for part in collection.parts(samples):
        dataset = collection.datasets[part.dataset]
        arrays, rows = dataset.part(part.shard, part.rows)
        try:
            build.copy(replace(part, rows=rows), arrays)
        except (IndexError, KeyError, ValueError):  # arrays shorter than their offsets say, or not there
            if not isinstance(dataset, DataSet):
                raise
            raise MachineError(
                f"{dataset.folder / dataset.manifest.shards[part.shard].file}: damaged; "
                f"`matsci-hpc shards verify {dataset.folder}` tells more"
            ) from None
    return build.finished()


class _Build:
    """A batch in the making: tensors of their final size, and numpy views of them to write through."""

    def __init__(self, collection: Collection, samples: Numbers, *, pin: bool) -> None:
        self.collection, self.samples, self.pin = collection, samples, pin
        self.first_atom = offsets(collection.atoms(samples))
        self.first_edge = offsets(collection.edges(samples))
        self.atoms, self.edges = int(self.first_atom[-1]), int(self.first_edge[-1])
        if self.edges > MAX_EDGES:
            raise MachineError(
                f"a batch of {self.edges:,} edges on one rank, {MAX_EDGES:,} is the most; use more ranks or "
                "smaller global batches"
            )
        graphs = len(samples)
        self.number, self.v_number = self._new((self.atoms,), torch.int32)
        self.position, self.v_position = self._new((self.atoms, 3), torch.float32)
        self.cell, self.v_cell = self._new((graphs, 3, 3), torch.float32)
        self.sender, self.v_sender = self._new((self.edges,), torch.int32)
        self.degree = np.empty(self.atoms, dtype=np.int32)
        self.image: Tensor | None = None
        self.v_image: Any = None
        self.columns = {name: _column(spec, graphs, self.atoms) for name, spec in collection.targets.items()}

    def copy(self, part: ShardPart, arrays: dict[str, Array]) -> None:
        """Fill in the samples of one shard."""
        runs = _runs(part)
        atoms = self._slices(arrays["offsets/atoms"], self.first_atom, runs)
        _copy(self.v_number, arrays["atoms/atomic_number"], atoms)
        _copy(self.v_position, arrays["atoms/position"], atoms)
        if "edges/sender" in arrays:
            _copy(self.degree, arrays["atoms/degree"], atoms)
            edges = self._slices(arrays["offsets/edges"], self.first_edge, runs)
            _copy(self.v_sender, arrays["edges/sender"], edges)
            self._copy_images(arrays.get("edges/shift"), edges)
        else:
            for place, row in enumerate(part.rows.tolist(), part.start):
                self._find_edges(arrays, row, place)
        places = slice(part.start, part.start + len(part.rows))
        if "structures/cell" in arrays:
            self.v_cell[places] = arrays["structures/cell"][part.rows]
        else:
            self.v_cell[places] = 0.0
        for name, spec in self.collection.targets.items():
            column = arrays.get(target_path(name, spec))
            if column is not None and spec.per_atom:
                _copy(self.columns[name].values, column, atoms)
                self._mark_atoms(self.columns[name], places, column[arrays["offsets/atoms"][part.rows]], spec)
            elif column is not None:
                self.columns[name].fill(places, column, spec, part.rows)

    def finished(self) -> Batch:
        """The batch, once every sample is in it."""
        edge_pointer, v_edge_pointer = self._new((self.atoms + 1,), torch.int32)
        v_edge_pointer[0] = 0
        np.cumsum(self.degree, out=v_edge_pointer[1:])
        wrong = np.flatnonzero(v_edge_pointer[self.first_atom] != self.first_edge)
        if len(wrong):  # no kernel may see pointers that lead out of their arrays
            self._refuse(int(wrong[0]) - 1, "the degrees of its atoms do not add up to its edges")
        self._count_senders_in_batch()
        return Batch(
            atomic_number=self.number,
            position=self.position,
            cell=self.cell,
            atom_graph=self._numbered(self.first_atom),
            atom_pointer=self._of(self.first_atom.astype(np.int32)),
            sender=self.sender,
            receiver=self._numbered(v_edge_pointer),
            edge_pointer=edge_pointer,
            edge_image=self.image,
            targets={name: self._of(column.values) for name, column in self.columns.items()},
            present={name: self._of(column.present) for name, column in self.columns.items()},
            sample=self._of(np.array(self.samples, dtype=np.int64)),
        )

    def _slices(self, offsets: Array, pointer: Numbers, runs: "_Runs") -> "list[_Slice]":
        """Where the entries of some rows lie in a shard, and where they belong in the batch."""
        begin, end = offsets[runs.first].astype(np.int64), offsets[runs.last].astype(np.int64)
        target, target_end = pointer[runs.place], pointer[runs.place + runs.last - runs.first]
        wrong = np.flatnonzero(end - begin != target_end - target)
        if len(wrong):
            self._refuse(
                int(runs.place[wrong[0]]),
                "the shard and the index disagree on its size or on that of a sample after it; "
                "the data set is damaged, prepare it again",
            )
        return list(zip(begin.tolist(), end.tolist(), target.tolist(), target_end.tolist(), strict=True))

    def _find_edges(self, arrays: dict[str, Array], row: int, place: int) -> None:
        """Find the edges of one sample of a shard that stores none."""
        try:
            found = sample_edges(arrays, row, self.collection.cutoff)
        except ValueError as error:
            self._refuse(place, str(error))
        target = slice(int(self.first_edge[place]), int(self.first_edge[place + 1]))
        if len(found.sender) != target.stop - target.start:
            self._refuse(
                place, f"{len(found.sender)} edges found, the index says {target.stop - target.start}; prepare it again"
            )
        self.degree[self.first_atom[place] : self.first_atom[place + 1]] = found.degree
        self.v_sender[target] = found.sender
        place_in_batch = [(0, len(found.sender), target.start, target.stop)]
        self._copy_images(found.shift if found.shift.any() else None, place_in_batch)

    def _copy_images(self, images: Array | None, edges: "list[_Slice]") -> None:
        """Lattice images of some edges; the tensor is made when the first sample that has them is met."""
        if images is not None:
            if self.image is None:
                self.image, self.v_image = self._new((self.edges, 3), torch.int8)
                self.v_image[: edges[0][2]] = 0
            _copy(self.v_image, images, edges)
        elif self.image is not None:
            self.v_image[edges[0][2] : edges[-1][3]] = 0

    def _count_senders_in_batch(self) -> None:
        """Shards count senders within their structure: add the first atom of it."""
        first_atom, edges = self.first_atom[:-1].astype(np.int32), np.diff(self.first_edge)
        for some in _pieces(len(edges), GRAPHS_AT_ONCE):
            self.v_sender[self.first_edge[some.start] : self.first_edge[some.stop]] += np.repeat(
                first_atom[some], edges[some]
            )

    def _refuse(self, place: int, reason: str) -> None:
        raise MachineError(f"{self.collection.sample_name(int(self.samples[place]))}: {reason}")

    def _new(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Any]:
        tensor = torch.empty(shape, dtype=dtype, pin_memory=self.pin)
        return tensor, tensor.numpy()

    def _of(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self.pin else tensor

    def _numbered(self, pointer: NDArray[Any]) -> Tensor:
        """The number of the segment that each entry belongs to: int32 [entries], from the segments' pointer."""
        tensor, view = self._new((int(pointer[-1]),), torch.int32)
        for some in _pieces(len(pointer) - 1, SEGMENTS_AT_ONCE):
            numbers = np.arange(some.start, some.stop, dtype=np.int32)
            view[pointer[some.start] : pointer[some.stop]] = np.repeat(
                numbers, np.diff(pointer[some.start : some.stop + 1])
            )
        return tensor

    def _mark_atoms(self, column: "_Column", places: slice, deciding: Array, spec: TargetSpec) -> None:
        """Say which of some graphs carry a target of every atom, from a row for each, and clear it where absent."""
        column.present[places] = is_present(deciding, spec)
        for graph in (np.flatnonzero(~column.present[places]) + places.start).tolist():
            column.values[self.first_atom[graph] : self.first_atom[graph + 1]] = 0


@dataclass(frozen=True, slots=True)
class _Column:
    """A target of all graphs: values fit for a loss (absent ones are zero), and which graphs carry it."""

    values: Any
    present: NDArray[np.bool_]

    def fill(self, places: slice, column: Array, spec: TargetSpec, rows: Numbers) -> None:
        """Fill in the samples of one shard."""
        values = column[rows]
        present = is_present(values, spec)
        self.present[places] = present
        self.values[places] = values
        if not present.all():
            self.values[places][~present] = 0


def _column(spec: TargetSpec, graphs: int, atoms: int) -> _Column:
    """A target that no graph carries so far."""
    shape: tuple[int, ...] = (atoms if spec.per_atom else graphs, *spec.shape)
    if spec.kind == "multilabel":
        shape = (graphs, len(spec.classes or ()))
    values = np.zeros(shape, dtype=np.int64 if spec.kind == "class" else np.float32)
    return _Column(values, np.zeros(graphs, dtype=bool))


def _pieces(count: int, size: int) -> Iterator[slice]:
    """0 to `count` in pieces of `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@dataclass(frozen=True, slots=True)
class _Runs:
    """Rows that follow each other in a shard: int64 [runs], first and last + 1 of each, and its place in the batch."""

    first: Numbers
    last: Numbers
    place: Numbers


def _runs(part: ShardPart) -> _Runs:
    rows = part.rows
    begins = np.concatenate(([0], np.flatnonzero(rows[1:] != rows[:-1] + 1) + 1))
    ends = np.append(begins[1:], len(rows))
    return _Runs(rows[begins], rows[ends - 1] + 1, begins + part.start)


def _copy(target: Any, source: Array, slices: list[_Slice]) -> None:
    for begin, end, target_begin, target_end in slices:
        target[target_begin:target_end] = source[begin:end]
