import gzip
import json
import pickle

import numpy as np
import pytest
from monty.json import MontyEncoder
from pymatgen.core import Lattice, Molecule
from pymatgen.core import Structure as Crystal

from matsci_hpc.config.record_sources import MpJsonSource as Config
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources import mp_json
from matsci_hpc.sources.mp_json import JsonDocuments
from matsci_hpc.structure import Rejected, Structure

TARGETS = {
    "gap": {"key": "band_gap", "unit": "eV"},
    "system": {"key": "symmetry.crystal_system", "kind": "class"},
    "metal": {"key": "is_metal", "kind": "binary"},
}


def crystal(number):
    rng = np.random.default_rng(number)
    lattice = Lattice.from_parameters(*rng.uniform(3.5, 6, 3), *rng.uniform(75, 105, 3))
    return Crystal(lattice, ["Na", "Cl", "O"][: 1 + number % 3], rng.random((1 + number % 3, 3)))


def document(number):
    """What the Materials Project gives for a material, and a name that is no ASCII."""
    return {
        "material_id": f"mp-{number}",
        "title": 'Müller "quoted" ]}',
        "structure": crystal(number).as_dict(),
        "band_gap": number / 8 if number % 5 else None,
        "is_metal": number % 2 == 0,
        "symmetry": {"crystal_system": ("Cubic", "Triclinic")[number % 2]},
    }


def open_source(path, staging, **more):
    return JsonDocuments.from_config(Config(kind="mp_json", path=path, **more), ("train",), staging)


def read_all(source):
    return list(source.read(0, len(source)))


DOCUMENTS = [document(number) for number in range(50)]
FORMS = {
    "lines.jsonl": "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in DOCUMENTS),
    "lines.json": "\n\n".join(json.dumps(each) for each in DOCUMENTS),
    "list.jsonl": json.dumps(DOCUMENTS),
    "marked.jsonl": "\ufeff" + "\n".join(json.dumps(each) for each in DOCUMENTS),
    "marked.json": "\ufeff" + json.dumps(DOCUMENTS),
    "with line ends in texts.json": json.dumps(DOCUMENTS).replace("quoted", "\n"),
    "list.json": json.dumps(DOCUMENTS, ensure_ascii=False),
    "indented.json": json.dumps(DOCUMENTS, indent=1),
    "monty.json": json.dumps([each | {"structure": crystal(n)} for n, each in enumerate(DOCUMENTS)], cls=MontyEncoder),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "text"), FORMS.items(), ids=FORMS)
def test_every_form(name, text, packed, tmp_path):
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    source = open_source(path, tmp_path / "staging", targets=TARGETS, id_key="material_id")
    source = pickle.loads(pickle.dumps(source))  # noqa: S301 - as ranks get it
    assert source.targets["system"].classes == ("Cubic", "Triclinic")
    found = read_all(source)
    assert [each.id for each in found] == [each["material_id"] for each in DOCUMENTS]
    for number, each in enumerate(found):
        made = crystal(number)
        np.testing.assert_array_equal(each.position, made.cart_coords.astype("f4"))
        np.testing.assert_array_equal(each.cell, made.lattice.matrix.astype("f4"))
        assert each.atomic_number.tolist() == list(made.atomic_numbers)
        gap = {"gap": number / 8} if number % 5 else {}
        assert each.targets == gap | {"system": number % 2, "metal": 1 - number % 2}
    assert [each.id for each in source.read(14, 35)] == [f"mp-{number}" for number in range(14, 35)]


def test_a_folder_of_structures(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.json").write_text(json.dumps(crystal(number).as_dict(), indent=2))
    (tmp_path / "water.json").write_text(Molecule("OH2", [[0, 0, 0], [1, 0, 0], [0, 1, 0]]).to_json())
    found = read_all(open_source(tmp_path, tmp_path))
    assert [each.id for each in found] == [*(f"{number}.json#0" for number in range(5)), "water.json#0"]
    np.testing.assert_array_equal(found[3].cell, crystal(3).lattice.matrix.astype("f4"))
    assert not found[-1].pbc.any()


def test_documents_larger_than_what_is_read_at_once(tmp_path):
    large = [each | {"notes": "x" * 1_500_000} for each in DOCUMENTS[:3]]
    (tmp_path / "large.json").write_text(json.dumps(large))
    assert [each.id for each in read_all(open_source(tmp_path / "large.json", tmp_path, id_key="material_id"))] == [
        "mp-0",
        "mp-1",
        "mp-2",
    ]


def test_lines_over_several_blocks(tmp_path):
    large = [each | {"notes": "x" * 1_500_000} for each in DOCUMENTS[:3]]
    text = "\n \n" + " " * 2_500_000 + "\n\n".join(json.dumps(each) for each in large) + "\n" + " " * 2_500_000
    (tmp_path / "large.jsonl").write_text(text)
    source = open_source(tmp_path / "large.jsonl", tmp_path, id_key="material_id")
    assert [each.id for each in read_all(source)] == ["mp-0", "mp-1", "mp-2"]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_what_is_too_large_for_a_document(name, tmp_path, monkeypatch):
    monkeypatch.setattr(mp_json, "_MAX_DOCUMENT_BYTES", 3_000_000)
    (tmp_path / name).write_text('{"a": 1}\n{"a": "' + "x" * 10_000_000)
    with pytest.raises(UserInputError, match="what begins at byte 9 goes on for over 1 GiB"):
        open_source(tmp_path / name, tmp_path)


def test_endless_nesting(tmp_path):
    (tmp_path / "a.json").write_text('{"a":' * 100_000 + "\n{}\n")
    with pytest.raises(UserInputError, match="not JSON, or broken off"):
        open_source(tmp_path / "a.json", tmp_path)


def test_a_number_of_many_digits_is_one_rejected_input(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([document(1), {"a": 0}]).replace('"a": 0', f'"a": {"9" * 5000}'))
    good, bad = read_all(open_source(tmp_path / "a.json", tmp_path))
    assert isinstance(good, Structure)
    assert bad.reason.startswith("not JSON")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [float("inf"), 1e300])
def test_numbers_that_no_structure_has(number, tmp_path):
    content = crystal(0).as_dict()
    content["sites"][0]["abc"] = [number, 0, 0]
    (tmp_path / "a.json").write_text(json.dumps(content))
    (found,) = read_all(open_source(tmp_path / "a.json", tmp_path))
    assert found.fault() == "a position is not a finite number"


def test_a_bad_document_is_one_rejected_input(tmp_path):
    good = document(1)
    shared = crystal(1)
    shared[0] = {"Na": 0.5, "K": 0.5}
    lines = [
        json.dumps(good),
        json.dumps(good)[:-9],
        "[1, 2]",
        json.dumps({"material_id": "mp-7"}),
        json.dumps(good | {"structure": {"lattice": {}, "sites": []}}),
        json.dumps(good | {"structure": shared.as_dict()}),
        json.dumps(good | {"band_gap": "wide", "material_id": "mp-8"}),
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = read_all(open_source(tmp_path / "a.jsonl", tmp_path, targets={"gap": TARGETS["gap"]}))
    assert isinstance(found[0], Structure)
    reasons = [each.reason for each in found if isinstance(each, Rejected)]
    assert len(reasons) == 6
    parts = ["not JSON", "not a JSON object", "no structure under 'structure'", "not a structure", "shared", "'wide'"]
    for reason, part in zip(reasons, parts, strict=True):
        assert part in reason
    assert found[1].source == "a.jsonl document 1"


@pytest.mark.parametrize("place", ["document", "site", "species", "lattice"])
def test_code_that_data_name_is_not_run(place, tmp_path, monkeypatch):
    (tmp_path / "module_named_in_data.py").write_text(
        """
from pathlib import Path
(Path(__file__).parent / "imported").touch()
class Called:
    @classmethod
    def from_dict(cls, content):
        (Path(__file__).parent / "called").touch()
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    evil = {"@module": "module_named_in_data", "@class": "Called"}
    content = crystal(1).as_dict()
    for each in {
        "document": [content],
        "site": content["sites"],
        "species": content["sites"][0]["species"],
        "lattice": [content["lattice"]],
    }[place]:
        each["properties"] = {"x": evil}
        each["x"] = evil
    (tmp_path / "a.json").write_text(json.dumps(content))
    (found,) = read_all(open_source(tmp_path / "a.json", tmp_path))
    np.testing.assert_array_equal(found.position, crystal(1).cart_coords.astype("f4"))
    assert not (tmp_path / "imported").exists()
    assert not (tmp_path / "called").exists()


WRONG = {
    "broken off": (FORMS["list.json"][:-700], {}, r"a\.json: not JSON, or broken off, at byte"),
    "text": ("hello", {}, r"a\.json: not JSON, or broken off, at byte 0: 'hello'"),
    "no key": (FORMS["list.json"], {"targets": {"x": {"key": "gap"}}}, "anything under 'gap'.*there are material_id"),
}


@pytest.mark.parametrize(("text", "more", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files(text, more, message, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserInputError, match=message):
        open_source(tmp_path / "a.json", tmp_path, **more)
