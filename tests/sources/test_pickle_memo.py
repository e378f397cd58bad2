import pickle
import pickletools
import types

import numpy as np
import pytest
from pymatgen.core import Lattice
from pymatgen.core import Structure as Crystal

from matsci_hpc.sources.lmdb_pickles import _unpickled
from matsci_hpc.sources.pickle_memo import HARMLESS, object_numbers, refuse_large_numbers

LARGE = b"r\x00\x00\x00\x20"
"""LONG_BINPUT of 2^29."""


def contents():
    """Of every type that has opcodes of its own, with texts and bytes that hold such as look like opcodes."""
    rng = np.random.default_rng(0)
    yield from (None, True, [], (), {}, set(), 1.5, -1, 255, 65535, 1 << 31, -(1 << 40), 1 << 3000, 1 << 2100)
    yield {"a" * length: b"r\xff\xff\xff\x7fp9\n."[: length % 10] * length for length in (0, 1, 9, 300)}
    yield [
        "p99999999\n",
        "r\xff\xff\xff\x7f",
        "Größe\n\u2028'x",
        "\\u0031\n",
        "x" * 70_000,
        b"r" * 300,
        bytearray(b"p1\n"),
    ]
    yield [[number, str(number), (number, float(number)), {number}, frozenset([number])] for number in range(400)]
    yield {"pos": rng.normal(size=(30, 3)), "by columns": np.asfortranarray(rng.normal(size=(4, 3))), "n": np.int64(3)}
    yield {"structure": Crystal(Lattice.cubic(3), ["Cu"], [[0, 0, 0]]), "type": Crystal, "function": len}
    for _ in range(30):
        yield {rng.bytes(rng.integers(9)): [int(rng.integers(1 << 40)), rng.bytes(rng.integers(400))] for _ in range(9)}


PICKLES = [(protocol, pickle.dumps(content, protocol=protocol)) for protocol in range(6) for content in contents()]


def test_numbers_are_those_that_the_standard_library_finds():
    seen = set()
    for _, data in PICKLES:
        by_library = [
            (int(number), place)
            for opcode, number, place in pickletools.genops(data)
            if opcode.name in {"PUT", "LONG_BINPUT"}
        ]
        assert list(object_numbers(data)) == by_library
        seen |= {opcode.name for opcode, _, _ in pickletools.genops(data)}
        refuse_large_numbers(data)
    assert {
        "PUT",
        "LONG_BINPUT",
        "MEMOIZE",
        "LONG1",
        "LONG4",
        "SHORT_BINBYTES",
        "BINUNICODE",
        "FRAME",
        "BYTEARRAY8",
    } <= seen


def test_the_walk_finds_a_large_number_at_the_end_of_every_pickle():
    """So it has kept in step up to there, in protocols too that number no objects."""
    for _, data in PICKLES:
        place = len(data) - 1
        assert list(object_numbers(data[:-1] + LARGE + b"."))[-1] == (1 << 29, place)
        assert list(object_numbers(data[:-1] + b"p536870912\n."))[-1] == (1 << 29, place)
        with pytest.raises(ValueError, match=f"object number 536870912 at byte {place}"):
            refuse_large_numbers(data[:-1] + LARGE + b".")
        assert list(object_numbers(data + LARGE)) == list(object_numbers(data))  # what stands behind it is not loaded


def test_damage_is_left_to_whoever_loads_it():
    for _, data in PICKLES:
        if len(data) > 2000:
            continue
        for size in range(len(data)):
            try:
                refuse_large_numbers(data[:size])
            except ValueError as error:
                assert "invalid literal" in str(error)  # noqa: PT017 - a number in text that breaks off
    refuse_large_numbers(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.")  # as long a text as there cannot be


def test_harmless_numbers_are_taken():
    """A pickler that was used before goes on counting."""
    assert _unpickled(b"\x80\x02}q\x01X\x01\x00\x00\x00ar\x00\x00\x08\x00K\x01s.") == {"a": 1}
    assert HARMLESS >= 1 << 19
    assert "object number" in str(_unpickled(b"\x80\x02}" + LARGE + b"."))


@pytest.mark.parametrize("protocol", range(3, 6))
def test_a_class_with_a_name_that_is_not_ascii(protocol, monkeypatch):
    module = types.ModuleType("foreign")
    module.Größe = type("Größe", (), {"__module__": "foreign"})
    monkeypatch.setitem(__import__("sys").modules, "foreign", module)
    assert isinstance(_unpickled(pickle.dumps({"a": module.Größe()}, protocol=protocol)), dict)
