"""Small shard contents for tests of the data set on disk."""

import numpy as np

from matsci_hpc.neighbors import radius_graph
from matsci_hpc.shards.layout import build_content
from matsci_hpc.structure import Structure
from matsci_hpc.targets import TargetSpec

TARGETS = {
    "gap": TargetSpec(kind="regression", unit="eV"),
    "metal": TargetSpec(kind="binary"),
    "family": TargetSpec(kind="class", classes=("alloy", "oxide", "halide")),
    "groups": TargetSpec(kind="multilabel", classes=("C1", "C2", "D2")),
}
CUTOFF = 3.5


def sample(number, *, periodic=True):
    """A sample that depends on its number alone; targets are absent now and then."""
    rng = np.random.default_rng(number)
    atoms = int(rng.integers(1, 9))
    labels = {"gap": float(rng.normal(1e4, 1.0)), "metal": float(rng.integers(2)), "family": number % 3}
    targets = {name: value for name, value in labels.items() if rng.random() < 0.7}
    places = rng.permutation(64)[:atoms, None] // [16, 4, 1] % 4 + rng.uniform(0, 0.3, (atoms, 3))
    cell = np.diag(rng.uniform(3, 5, size=3)) if periodic else np.zeros((3, 3))
    return Structure(
        id=f"é-{number}" if number % 2 else f"sample {number} with a long name",
        atomic_number=rng.integers(1, 119, size=atoms).astype(np.uint8),
        position=places.astype(np.float32),
        cell=cell.astype(np.float32),
        pbc=np.full(3, periodic),
        targets=targets | {"groups": rng.integers(0, 2, size=3).astype(np.uint8)},
    )


def content(numbers, *, periodic=True):
    """The shard of some samples; the split goes by the number."""
    structures = [sample(number, periodic=periodic) for number in numbers]
    edges = [radius_graph(each, CUTOFF) for each in structures]
    made = build_content(structures, edges, TARGETS, [number % 3 for number in numbers])
    made.attributes = {"cutoff_angstrom": CUTOFF, "number": 0}
    return made
