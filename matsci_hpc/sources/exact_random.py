"""Random numbers, points and rotations that are the same to the last bit on every machine.

What a block decides for all its samples together comes from Philox, whose stream is defined by its authors and not by a
library. The rest of a sample comes from a stream of its own, of which any number can be had without those before it:
SplitMix64 by G. L. Steele, D. Lea and C. H. Flood, Fast splittable pseudorandom number generators, OOPSLA 2014. So a
sample is the same whether it is drawn alone or among others.

All streams are parts of one sequence of 2^64 words, so two of them may share words. n samples have n^2/2 pairs, each
with a chance of D / 2^64, where D counts the differences between the places that the two take words from. For symmetry
clouds of default settings D is about 430, more with redraws: of 20 million, less than one pair is expected to share a
word at all.

Words become numbers by integer arithmetic, exact scaling, addition, multiplication, division and square roots, which
IEEE 754 rounds in one way only. Sines, cosines and cube roots are left out: they differ between libraries and widths of
vectors. So points in a ball come from a cube by rejection, and rotations from two points in a disc.
"""

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

Single = NDArray[np.float32]
Words = NDArray[np.uint64]

GOLDEN = np.array(0x9E3779B97F4A7C15, dtype=np.uint64)
"""Step of a stream: 2^64 over the golden ratio, made odd."""
TRIES = {2: 4, 3: 7}
"""Points of the cube drawn at once: at least one lies in the disc 99.8 % of the times, in the ball 99.4 %."""
MOST_TRIES = 256
"""Numbers of a stream set aside for a point. That all lie outside happens once in 10^82 points."""
_COORDINATE_BITS = 21


class ExactRandom:
    """A stream of random numbers under a key that no other seed, split or block has."""

    def __init__(self, seed: int, split: str, block: int) -> None:
        name = json.dumps([seed, split, block]).encode()
        key = hashlib.blake2b(name, digest_size=16, person=b"symmetry clouds").digest()
        self._philox = np.random.Philox(key=int.from_bytes(key, "little"))

    def words(self, count: int) -> NDArray[np.uint32]:
        """Words of 32 random bits: [count]."""
        pairs = self._philox.random_raw((count + 1) // 2)
        return np.asarray(pairs, dtype="<u8").view("<u4")[:count].astype(np.uint32, copy=False)

    def below(self, limit: NDArray[np.intp] | int, count: int) -> NDArray[np.intp]:
        """Whole numbers from 0 to `limit - 1`, each as likely as any other but for 2**-32 of `limit`: [count]."""
        return _scaled(self.words(count).astype(np.uint64), limit)

    def streams(self, count: int) -> Words:
        """Seeds of that many streams: [count]."""
        return np.asarray(self._philox.random_raw(count), dtype=np.uint64)

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Numbers of the standard normal distribution, by numpy's own method.

        The only numbers here that are not exact: numpy takes exponentials and logarithms for some, and may change the
        method in a release, as a test would notice that pins some of them.
        """
        return np.random.Generator(self._philox).standard_normal(shape)


def words(stream: Words, place: Words) -> Words:
    """Words of 64 random bits, those at some places of some streams.

    Args:
        stream: uint64, broadcast to the shape of `place`.
        place: uint64 [...], from 0.

    Returns:
        uint64 [...].
    """
    word: Words = place * GOLDEN
    word += stream + GOLDEN
    return mixed(word)


def mixed(word: Words) -> Words:
    """The finalizer of SplitMix64, in place."""
    shifted = np.empty_like(word)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word ^= np.right_shift(word, np.uint64(shift), out=shifted)
        word *= np.uint64(factor)
    word ^= np.right_shift(word, np.uint64(31), out=shifted)
    return word


def below(limit: NDArray[np.intp] | int, stream: Words, place: Words) -> NDArray[np.intp]:
    """Whole numbers from 0 to `limit - 1`, as those of `ExactRandom.below`."""
    return _scaled(words(stream, place) >> np.uint64(32), limit)


def in_ball(stream: Words, place: Words, dimensions: int) -> Single:
    """Points uniform in the unit disc or ball, the centre itself left out.

    Args:
        stream: uint64 [n].
        place: uint64 [n], where in the stream the numbers of a point begin; `MOST_TRIES` of them at most.
        dimensions: 2 or 3.

    Returns:
        float32 [dimensions, n].

    Raises:
        RuntimeError: all numbers of a point lie outside.
    """
    points: Single | None = None
    # The state before the first word of each point; the words of a point differ by multiples of GOLDEN from there.
    state = place * GOLDEN
    state += stream
    missing = np.arange(len(state))
    first = 0
    while first < MOST_TRIES:
        last = min(first + _tries(len(state), dimensions), MOST_TRIES)
        tries = np.arange(first + 1, last + 1, dtype=np.uint64) * GOLDEN
        first = last
        cube = _in_cube(mixed(state + tries[:, None]), dimensions)
        inside = squared_norm(cube) < 1
        chosen = inside.argmax(axis=0)
        chosen *= len(state)
        chosen += np.arange(len(state))
        found = inside.ravel().take(chosen)
        flat = cube.reshape(dimensions, -1)
        if points is None:
            points = flat.take(chosen, axis=1)  # those that lie outside are overwritten
        else:
            points[:, missing[found]] = flat.take(chosen[found], axis=1)
        if found.all():
            return points
        missing, state = missing[~found], state[~found]
    raise RuntimeError(f"{len(missing)} of {len(stream)} points: {MOST_TRIES} numbers of a stream all lie outside")


def _tries(count: int, dimensions: int) -> int:
    """Points of the cube to draw at once: of many points few, of few so many that hardly any need more."""
    return 2 if count > 1000 else TRIES[dimensions]


def rotations(stream: Words, place: int) -> NDArray[np.float64]:
    """Rotations uniform in SO(3), one of each stream [n]: [3, 3, n].

    Unit quaternions by G. Marsaglia, Choosing a point from the surface of a sphere, Ann. Math. Stat. 43 (1972).

    Args:
        stream: uint64 [n].
        place: where in the streams their numbers begin; a rotation takes twice `MOST_TRIES` at most.
    """
    first = np.full(len(stream), place, dtype=np.uint64)
    x, y = in_ball(stream, first, 2).astype(np.float64)
    z, w = in_ball(stream, first + np.uint64(MOST_TRIES), 2).astype(np.float64)
    scale = np.sqrt((1 - (x * x + y * y)) / (z * z + w * w))
    z *= scale
    w *= scale
    entries = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ]
    return np.stack(entries).reshape(3, 3, len(stream))


def squared_norm(vectors: Single) -> Single:
    """Sum of squares over the first axis, in a fixed order: [components, ...] to [...]."""
    total: Single = vectors[0] * vectors[0]
    for component in vectors[1:]:
        total += component * component
    return total


def _scaled(word: Words, limit: NDArray[np.intp] | int) -> NDArray[np.intp]:
    """Words of 32 random bits to whole numbers below a limit."""
    return ((word * np.asarray(limit, dtype=np.uint64)) >> np.uint64(32)).astype(np.intp)


def _in_cube(word: Words, dimensions: int) -> Single:
    """A point of the cube from -1 to 1 for each word, its coordinates odd multiples of 2^-21: [dimensions, ...]."""
    cube = np.empty((dimensions, *word.shape), dtype=np.float32)
    mask, middle = np.uint32((1 << _COORDINATE_BITS) - 1), np.float32(1 - 2.0**-_COORDINATE_BITS)
    for axis in range(dimensions):
        bits = (word >> np.uint64(axis * _COORDINATE_BITS)).astype(np.uint32)
        bits &= mask
        cube[axis] = bits.view(np.int32)  # which processors turn into floating-point numbers faster than unsigned ones
    cube *= np.float32(2.0 ** (1 - _COORDINATE_BITS))
    cube -= middle
    return cube
