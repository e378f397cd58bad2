import json

import numpy as np
import pytest
from pymatgen.core import Lattice
from pymatgen.core import Structure as Crystal

from matsci_hpc.config.record_sources import MpJsonSource
from matsci_hpc.sources.mp_json import JsonDocuments
from matsci_hpc.sources.values import WrongValueError, text_of, typed, typed_array
from matsci_hpc.structure import Rejected, Structure
from matsci_hpc.targets import TargetSpec


def spec(*shape, per_atom=False):
    return TargetSpec(kind="regression", shape=shape, per_atom=per_atom)


GIVEN = {
    "as it is": ([[1, 2, 3], [4, 5, 6]], spec(2, 3), [[1, 2, 3], [4, 5, 6]]),
    "in a row": ([1, 2, 3, 4, 5, 6], spec(2, 3), [[1, 2, 3], [4, 5, 6]]),
    "a text": ("1 2 3 4 5 6", spec(2, 3), [[1, 2, 3], [4, 5, 6]]),
    "in a batch of one": (np.arange(9).reshape(1, 3, 3), spec(3, 3), np.arange(9).reshape(3, 3)),
    "forces of one atom": ([[1, 2, 3]], spec(3, per_atom=True), [[1, 2, 3]]),
    "a number": (4, spec(1), [4]),
    "xx yy zz yz xz xy": ([1, 2, 3, 4, 5, 6], spec(3, 3), [[1, 6, 5], [6, 2, 4], [5, 4, 3]]),
    "a symmetric tensor": ([[1, 6, 5], [6, 2, 4], [5, 4, 3]], spec(6), [1, 2, 3, 4, 5, 6]),
}


@pytest.mark.parametrize(("value", "target", "expected"), GIVEN.values(), ids=GIVEN)
def test_arrays_of_that_shape(value, target, expected):
    np.testing.assert_array_equal(typed_array(value, target, 1), expected)


WRONG = {
    "transposed": ([[1, 4], [2, 5], [3, 6]], r"has shape \[3, 2\] instead of \[2, 3\]"),
    "complex": (np.ones((2, 3), complex), "not an array of numbers"),
    "dates": (np.ones((2, 3), "M8[s]"), "not an array of numbers"),
    "too large": ([10**400] * 6, "not an array of numbers"),
    "too long": ([10**5000] * 6, "is 'list', not an array of numbers"),
    "ragged": ([[1, 2, 3], [4, 5]], "not an array of numbers"),
}


@pytest.mark.parametrize(("value", "message"), WRONG.values(), ids=WRONG)
def test_other_arrays(value, message):
    with pytest.raises(WrongValueError, match=message):
        typed_array(value, spec(2, 3), 1)


def test_what_is_no_number():
    for value, message in [("1_0", "is '1_0', not a number"), (10**5000, "too many digits")]:
        with pytest.raises(WrongValueError, match=message):
            typed(value, "regression")


def test_what_no_file_can_hold_as_text():
    for value, message in [("\ud800", "no text in Unicode"), ("a\0", "zero byte"), (10**5000, "too many digits")]:
        with pytest.raises(WrongValueError, match=message):
            text_of(value)


@pytest.mark.parametrize("role", ["id_key", "split_key", "class"])
def test_records_with_such_labels_are_rejected(role, tmp_path):
    crystal = Crystal(Lattice.cubic(3), ["Cu"], [[0, 0, 0]]).as_dict()
    (tmp_path / "a.json").write_text(json.dumps([crystal | {"x": "\ud800"}, crystal | {"x": "good"}]))
    roles = {"targets": {"t": {"key": "x", "kind": "class"}}} if role == "class" else {role: "x"}
    source = JsonDocuments.from_config(
        MpJsonSource(kind="mp_json", path=tmp_path / "a.json", **roles), ("train",), tmp_path
    )
    bad, good = source.read(0, 2)
    assert isinstance(bad, Rejected)
    assert "'\\ud800', which is no text in Unicode" in bad.reason
    assert isinstance(good, Structure)
    if role == "class":
        assert source.targets["t"].classes == ("good",)
