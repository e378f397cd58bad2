"""Random numbers, points and rotations that are the same to the last bit on every machine.

The words come from Philox, whose stream is defined by its authors and not by a library. They become numbers by
integer arithmetic, exact scaling, addition, multiplication, division and square roots, which IEEE 754 rounds in one
way only. Sines, cosines and cube roots are left out: they differ between libraries and widths of vectors. So points
in a ball come from a cube by rejection, and rotations from two points in a disc.
"""

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

Single = NDArray[np.float32]
_CUBE_OVER_BALL = {2: 4 / np.pi, 3: 6 / np.pi}


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
        product = self.words(count).astype(np.uint64) * np.asarray(limit, dtype=np.uint64)
        return (product >> np.uint64(32)).astype(np.intp)

    def in_ball(self, count: int, dimensions: int) -> Single:
        """Points uniform in the unit disc or ball, the centre itself left out: [dimensions, count]."""
        points = np.empty((dimensions, 0), dtype=np.float32)
        while (missing := count - points.shape[1]) > 0:
            # A few more than are needed on average: seldom a second turn, and little is thrown away.
            tries = int(missing * _CUBE_OVER_BALL[dimensions] * 1.1) + 16
            cube = self.words(dimensions * tries).view(np.int32).astype(np.float32).reshape(dimensions, tries)
            cube *= np.float32(2.0**-31)
            squared = squared_norm(cube)
            inside = np.flatnonzero((squared < 1) & (squared > 0))[:missing]
            points = np.concatenate([points, cube.take(inside, axis=1)], axis=1)
        return points

    def rotations(self, count: int) -> NDArray[np.float64]:
        """Rotations uniform in SO(3): [3, 3, count].

        Unit quaternions by G. Marsaglia, Choosing a point from the surface of a sphere, Ann. Math. Stat. 43 (1972).
        """
        x, y = self.in_ball(count, 2).astype(np.float64)
        z, w = self.in_ball(count, 2).astype(np.float64)
        scale = np.sqrt((1 - (x * x + y * y)) / (z * z + w * w))
        z *= scale
        w *= scale
        entries = [
            *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
        ]
        return np.stack(entries).reshape(3, 3, count)

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Numbers of the standard normal distribution, by numpy's own method."""
        return np.random.Generator(self._philox).standard_normal(shape)


def squared_norm(vectors: Single) -> Single:
    """Sum of squares over the first axis, in a fixed order: [components, ...] to [...]."""
    total: Single = vectors[0] * vectors[0]
    for component in vectors[1:]:
        total += component * component
    return total
