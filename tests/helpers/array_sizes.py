"""Sizes of samples held in arrays, for plans without files."""

from collections.abc import Sequence

import numpy as np


class ArraySizes:
    """Data sets that lie one after the other, all of their samples in every split.

    Args:
        atoms: int [N] of all samples.
        edges: int [N].
        counts: samples of each data set; all in one if left out.
    """

    def __init__(self, atoms: np.ndarray, edges: np.ndarray, counts: Sequence[int] | None = None) -> None:
        self._atoms = atoms
        self._edges = edges
        self._counts = np.array([len(atoms)] if counts is None else counts, dtype=np.int64)
        self._first = np.cumsum(self._counts) - self._counts

    def split_counts(self, split: str) -> np.ndarray:
        del split
        return self._counts

    def select(self, split: str, dataset: int, positions: np.ndarray) -> np.ndarray:
        del split
        return positions + self._first[dataset]

    def atoms(self, samples: np.ndarray) -> np.ndarray:
        return self._atoms[samples].astype(np.int64)

    def edges(self, samples: np.ndarray) -> np.ndarray:
        return self._edges[samples].astype(np.int64)
