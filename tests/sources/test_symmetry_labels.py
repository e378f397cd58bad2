"""10,000 generated labels against a detector that knows nothing of groups; `pytest -s` shows the table by class."""

import itertools

import numpy as np
import pytest
from symmetry_detector import count_isometries

from matsci_hpc import point_groups
from matsci_hpc.sources.cloud_generator import CloudGenerator

SAMPLES = 10_000


@pytest.mark.slow
def test_under_a_thousandth_of_the_labels_are_wrong():
    names = point_groups.crystallographic()
    generator = CloudGenerator(names, seed=121, max_atoms=48, max_orbits=6, min_distance=0.05, jitter=0.0)
    blocks = (generator.block("labels", number) for number in itertools.count())
    seen, wrong = np.zeros(len(names), dtype=int), np.zeros(len(names), dtype=int)
    for block in blocks:
        for sample, group in enumerate(block.point_group[: SAMPLES - seen.sum()]):
            atoms = slice(block.offset[sample], block.offset[sample + 1])
            # The group that made the cloud is among its isometries, so their number decides.
            found = count_isometries(block.position[atoms], block.atomic_number[atoms])
            seen[group] += 1
            wrong[group] += found != point_groups.order(names[group])
        if seen.sum() == SAMPLES:
            break
    print("\nclass  samples  wrong")
    for name, many, faults in zip(names, seen, wrong, strict=True):
        print(f"{name:5} {many:8} {faults:6}")
    print(f"all   {seen.sum():8} {wrong.sum():6}")
    assert seen.min() > 200
    assert wrong.sum() < SAMPLES / 1000
