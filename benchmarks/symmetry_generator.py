"""How many symmetric clouds one core draws per second: `python benchmarks/symmetry_generator.py [SECONDS]`.

Blocks are what training on the fly uses; `read` makes an object per sample, as preparation does. The share of
the random numbers is the time inside numpy's generator, the rest is geometry, checks and redraws.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from matsci_hpc.config import sources
from matsci_hpc.sources.cloud_generator import BLOCK
from matsci_hpc.sources.symmetry import SymmetrySource


class TimedRandom:
    """Passes calls on to a numpy generator and adds up how long they take."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self.time_s = 0.0
        self.drawn = 0

    def random(self, shape: Any) -> Any:
        """Uniform numbers, timed."""
        start = time.process_time()
        numbers = self._random.random(shape)
        self.time_s += time.process_time() - start
        self.drawn += numbers.size
        return numbers


def rate(make: Callable[[int], int], seconds: float) -> float:
    """Samples per second of processor time; `make` gets 0, 1, 2, ... and returns how many samples it made."""
    make(0)
    made = turn = 0
    start = time.process_time()
    while time.process_time() - start < seconds:
        turn += 1
        made += make(turn)
    return made / (time.process_time() - start)


def report(title: str, seconds: float, **settings: Any) -> None:
    """Measure one set of settings and print two rates and two shares."""
    config = sources.SymmetrySource(kind="symmetry", samples=10**9, **settings)
    source = SymmetrySource.from_config(config, {"train": 1.0})
    atoms = []

    def block(number: int) -> int:
        atoms.append(len(source.block("train", number).position))
        return BLOCK

    def read(number: int) -> int:
        return sum(1 for _ in source.read(number * BLOCK, (number + 1) * BLOCK))

    blocks_per_s, read_per_s = rate(block, seconds), rate(read, seconds)
    timed = TimedRandom(source.generator.random_numbers("train", 1))
    start = time.process_time()
    for _ in range(20):
        source.generator.draw(timed, BLOCK)  # type: ignore[arg-type]
    share = timed.time_s / (time.process_time() - start)
    print(
        f"{title:34} {blocks_per_s:9,.0f} samples/s as blocks {read_per_s:9,.0f} by read(); "
        f"{np.mean(atoms) / BLOCK:5.1f} atoms and {timed.drawn / 20 / BLOCK:5.1f} random numbers a sample, "
        f"{share:.1%} of the time"
    )


def main() -> None:
    """Measure the usual settings, the small clouds and the large ones."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    report("32 crystallographic groups", seconds)
    report("the same, subgroups", seconds, subgroups=True)
    report("the same, at most 2 orbits", seconds, max_orbits=2)
    report("every group to axial order 12", seconds, groups="all")
    report("every group, up to 120 atoms", seconds, groups="all", max_atoms=120)


if __name__ == "__main__":
    main()
