"""Counts of which class is taken for which."""

import json

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import confusion_matrix

from matsci_hpc import point_groups
from matsci_hpc.config.sources import SymmetrySource
from matsci_hpc.confusion import MOST_RECORDED, Confusion, recorded

RNG = np.random.default_rng(2)


def drawn(names, samples=400):
    """Numbers of true and of named classes, and the counts of them; nothing is of the last class."""
    true = RNG.integers(0, len(names) - 1, samples)
    named = np.where(RNG.random(samples) < 0.6, true, RNG.integers(0, len(names), samples))
    counts = confusion_matrix(true, named, labels=range(len(names)))
    return true, named, Confusion(tuple(names), tuple(map(tuple, counts.tolist())))


def test_shares_are_of_the_true_class():
    true, named, confusion = drawn("abcde")
    normalised = confusion_matrix(true, named, labels=range(5), normalize="true")
    assert confusion.shares[4] == (None,) * 5
    assert np.array(confusion.shares[:4], dtype=float) == pytest.approx(normalised[:4])
    assert confusion.samples == tuple(np.bincount(true, minlength=5))
    assert confusion.right == tuple(np.bincount(true[true == named], minlength=5))


def test_folding_is_counting_groups_of_classes():
    names = point_groups.crystallographic()
    true, named, confusion = drawn(names)
    families = [point_groups.family(name) for name in names]
    folded = confusion.folded(families, point_groups.FAMILIES)
    assert folded.classes == tuple(name for name in point_groups.FAMILIES if name != "icosahedral")
    of = np.array(families)
    expected = confusion_matrix(of[true], of[named], labels=folded.classes)
    assert np.array_equal(folded.counts, expected)


def test_what_is_written_is_read_and_damage_is_none():
    _, _, confusion = drawn("abc")
    assert Confusion.from_json(confusion.to_json()) == confusion
    good = {"classes": ["a", "b"], "counts": [[1, 0], [2, 3]]}
    assert Confusion.from_json(good) is not None
    for damaged in (
        None,
        [],
        {"classes": ["a", "b"]},
        good | {"classes": ["a"]},
        good | {"classes": 2},
        good | {"counts": [[1, 0]]},
        good | {"counts": [[1, 0], 3]},
        good | {"counts": [[1, 0], [2]]},
        good | {"counts": [[1, 0], [2, -3]]},
        good | {"counts": [[1, 0], [2, 0.5]]},
        good | {"counts": [[1, 0], [2, True]]},
    ):
        assert Confusion.from_json(damaged) is None, damaged


def test_a_line_of_records_has_room_for_every_point_group_of_clouds_but_not_for_any_number_of_classes():
    orders = range(2, 100)
    allowed = [order for order in orders if is_allowed(order)]
    assert allowed[0] == 2
    groups = point_groups.all_groups(allowed[-1])
    many = tuple(map(str, range(MOST_RECORDED + 1)))
    found = {"point_group": drawn(groups)[2].to_json(), "many": drawn(many)[2].to_json()}
    assert recorded(found) == {"point_group": found["point_group"]}
    assert len(json.dumps(recorded(found))) < 100_000


def is_allowed(order):
    try:
        SymmetrySource(kind="symmetry", samples=1, max_axial_order=order)
    except ValidationError:
        return False
    return True
