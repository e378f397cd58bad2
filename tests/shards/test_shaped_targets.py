"""Vectors, tensors and targets of every atom on their way into a shard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from matsci_hpc.neighbors import radius_graph
from matsci_hpc.shards.index import index_rows
from matsci_hpc.shards.layout import build_content
from matsci_hpc.shards.statistics import merge_statistics, shard_statistics
from matsci_hpc.structure import Structure
from matsci_hpc.targets import TargetSpec

TARGETS = {
    "energy": TargetSpec(kind="regression", unit="eV"),
    "stress": TargetSpec(kind="regression", unit="eV/angstrom^3", shape=(3, 3)),
    "force": TargetSpec(kind="regression", unit="eV/angstrom", shape=(3,), per_atom=True),
    "charge": TargetSpec(kind="regression", per_atom=True),
}
SPLITS = ["train", "val"]


def sample(number):
    """One to five atoms; each target is absent now and then."""
    rng = np.random.default_rng(number)
    atoms = 1 + number % 5
    values = {
        "energy": float(rng.normal()),
        "stress": rng.normal(size=(3, 3)),
        "force": rng.normal(size=(atoms, 3)),
        "charge": rng.normal(size=atoms),
    }
    return Structure(
        id=f"sample-{number}",
        atomic_number=np.full(atoms, 6, dtype=np.uint8),
        position=(np.arange(3 * atoms).reshape(atoms, 3) * 1.5).astype(np.float32),
        cell=np.zeros((3, 3), dtype=np.float32),
        pbc=np.zeros(3, dtype=bool),
        targets={name: value for name, value in values.items() if rng.random() < 0.6},
    )


def content(numbers):
    structures = [sample(number) for number in numbers]
    assert not [each.fault(TARGETS) for each in structures if each.fault(TARGETS)]
    return build_content(
        structures, [radius_graph(each, 3.0) for each in structures], TARGETS, [n % 2 for n in numbers]
    )


def test_values_lie_where_the_layout_says():
    made, structures = content(range(20)), [sample(number) for number in range(20)]
    atoms = made.arrays["offsets/atoms"]
    assert made.arrays["targets/stress"].shape == (20, 3, 3)
    assert made.arrays["atoms/force"].shape == (atoms[-1], 3)
    assert made.arrays["atoms/charge"].shape == (atoms[-1],)
    assert {made.arrays[name].dtype for name in ("targets/stress", "atoms/force", "atoms/charge")} == {np.dtype("f4")}
    for row, each in enumerate(structures):
        force, stress = made.arrays["atoms/force"][atoms[row] : atoms[row + 1]], made.arrays["targets/stress"][row]
        for name, stored in {"force": force, "stress": stress}.items():
            if name in each.targets:
                np.testing.assert_array_equal(stored, each.targets[name].astype(np.float32))
            else:
                assert np.isnan(stored).all()


def test_the_index_knows_who_carries_what():
    made, structures = content(range(20)), [sample(number) for number in range(20)]
    present = index_rows(made.arrays, TARGETS)["present"]
    for bits, each in zip(present.tolist(), structures, strict=True):
        assert {name for bit, name in enumerate(TARGETS) if bits >> bit & 1} == set(each.targets)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 23), unique=True, max_size=6).map(sorted))
def test_moments_are_those_of_all_numbers_however_divided(cuts):
    parts = [part.tolist() for part in np.split(np.arange(24), cuts) if len(part)]
    found = merge_statistics([shard_statistics(content(part), TARGETS, SPLITS) for part in parts])
    for number, split in enumerate(SPLITS):
        chosen = [sample(each) for each in range(24) if each % 2 == number]
        for name in ("stress", "force", "charge"):
            values = [np.ravel(each.targets[name]).astype(np.float32) for each in chosen if name in each.targets]
            numbers = np.concatenate(values).astype(np.float64)
            statistics = found[split][name]
            assert (statistics.count, statistics.numbers) == (len(values), len(numbers))
            assert statistics.mean == pytest.approx(numbers.mean(), rel=1e-12)
            assert statistics.std == pytest.approx(numbers.std(), rel=1e-12)
            assert (statistics.min, statistics.max) == (numbers.min(), numbers.max())
        assert found[split]["energy"].numbers is None


WRONG = {
    "of too few atoms": ({"force": np.zeros((2, 3))}, "target force has shape [2, 3] instead of [3, 3]"),
    "one number": ({"stress": 1.0}, "target stress has shape [] instead of [3, 3]"),
    "transposed": ({"charge": np.zeros((1, 3))}, "target charge has shape [1, 3] instead of [3]"),
    "half": ({"force": [[0, 0, 0], [0, np.nan, 0], [0, 0, 0]]}, "target force is partly absent: 1 of its 9 numbers"),
    "infinite": ({"force": [[0, 0, 0], [0, np.inf, 0], [0, 0, 0]]}, "target force is not a finite number"),
}


@pytest.mark.parametrize(("targets", "reason"), WRONG.values(), ids=WRONG)
def test_values_of_the_wrong_shape(targets, reason):
    each = sample(2)
    each.targets.clear()
    each.targets.update({name: np.asarray(value, dtype=float) for name, value in targets.items()})
    assert reason in each.fault(TARGETS)


@pytest.mark.parametrize(
    "spec",
    [{"kind": "class", "shape": (3,)}, {"kind": "binary", "per_atom": True}, {"kind": "regression", "shape": (0,)}],
)
def test_shapes_that_make_no_sense(spec):
    with pytest.raises(ValidationError):
        TargetSpec(**spec)


def test_plain_targets_are_written_as_before():
    plain = TargetSpec(kind="regression", unit="eV")
    assert plain.model_dump(exclude_none=True) == {"kind": "regression", "unit": "eV"}
    assert repr(plain) == "TargetSpec(kind='regression', unit='eV', classes=None)"  # part of the hash of an input
    for spec in TARGETS.values():
        assert TargetSpec.model_validate_json(spec.model_dump_json(exclude_none=True)) == spec
