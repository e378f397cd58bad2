"""Random orders that are computed point by point: no list of the samples is ever made or stored.

An order of 10^8 samples would be 800 MB on every rank. Here the order is a formula of the key and the position, so
that any part of any epoch can be had at once, in memory of the size of that part.

The formula is a Feistel network (Luby and Rackoff, 1988) on the numbers of a rectangle of about sqrt(n) x sqrt(n)
cells: in turn one coordinate is moved, modulo its range, by a hash of the other one, which can be undone, so that no
two positions meet. The few cells of the rectangle beyond n are walked on from until the walk is back inside (Black and
Rogaway, 2002). All arithmetic is on 64-bit integers written out here, so that an order is the same under any version
of NumPy and on any processor.
"""

import hashlib
from math import isqrt

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

ROUNDS = 6
SMALL = 4096
"""Up to this size the order is a sorted table of hashes: networks over a handful of cells mix badly."""
CHUNK = 16384
"""Positions computed at once; their intermediate results stay in the processor's cache."""
_ODD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))
"""Multipliers of the SplitMix64 generator (Steele, Lea and Flood, 2014)."""


def keyed_words(count: int, *key: int | str) -> NDArray[np.uint64]:
    """Random words that follow from the key alone: uint64 [count]."""
    text = "/".join(map(str, key)).encode()
    digest = hashlib.shake_128(text).digest(8 * count)
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def keyed_number(below: int, *key: int | str) -> int:
    """A random number from 0 to `below` - 1 that follows from the key alone."""
    return (int(keyed_words(1, *key)[0]) * below) >> 64


class Permutation:
    """A random order of the numbers 0 to `size` - 1, a function of the key alone.

    Args:
        size: how many numbers.
        key: seed, epoch, purpose and whatever else tells this order from others.
    """

    def __init__(self, size: int, *key: int | str) -> None:
        self.size = size
        self._words = keyed_words(ROUNDS, "permutation", size, *key)
        self._rows = isqrt(max(size - 1, 0)) + 1
        self._columns = max(1, -(-size // self._rows))
        self._table = self._sorted_hashes() if size <= SMALL else None

    def __call__(self, positions: Numbers) -> Numbers:
        """The numbers at some positions of the order: int64 [n], each from 0 to `size` - 1."""
        positions = np.asarray(positions, dtype=np.int64)
        if self._table is not None:
            return self._table[positions]
        result = np.empty(len(positions), dtype=np.int64)
        for start in range(0, len(positions), CHUNK):
            part = self._network(positions[start : start + CHUNK].astype(np.uint64))
            while len(outside := np.flatnonzero(part >= self.size)):
                part[outside] = self._network(part[outside])
            result[start : start + CHUNK] = part.astype(np.int64)
        return result

    def _network(self, cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The cell that each cell of the rectangle moves to."""
        columns = np.uint64(self._columns)
        row = cells // columns
        column = cells - row * columns
        moved, fixed = (row, self._rows), (column, self._columns)
        for word in self._words:
            values, count = moved
            step = _hash(fixed[0], word)
            step *= np.uint64(count)
            step >>= np.uint64(32)
            values += step
            # Modulo count without a division: where nothing is to be taken off, the difference wraps to a huge number.
            np.minimum(values, values - np.uint64(count), out=values)
            moved, fixed = fixed, moved
        row *= columns
        row += column
        return row

    def _sorted_hashes(self) -> Numbers:
        numbers = np.arange(self.size, dtype=np.uint64)
        hashes = numbers
        for word in self._words:
            hashes = (hashes ^ word) * _ODD[0]
            hashes = (hashes ^ (hashes >> np.uint64(32))) * _ODD[1]
            hashes ^= hashes >> np.uint64(29)
        return np.argsort(hashes, kind="stable")


def _hash(values: NDArray[np.uint64], word: np.uint64) -> NDArray[np.uint64]:
    """32 random bits of each value: uint64 [n], below 2^32."""
    mixed = values + word
    mixed *= _ODD[0]
    mixed ^= mixed >> np.uint64(31)
    mixed *= _ODD[1]
    mixed >>= np.uint64(32)
    return mixed
