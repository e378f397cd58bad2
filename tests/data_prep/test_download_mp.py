"""The download recipe, offline: what it says without key or package, and how it writes and goes on."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pymatgen.core import Lattice, Structure

from matsci_hpc.config.record_sources import MpJsonSource
from matsci_hpc.sources.mp_json import JsonDocuments

RECIPE = Path(__file__).parents[2] / "data_prep/download_mp.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("download_mp", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Server:
    """Answers searches as the summary endpoint does, and may go down after some."""

    def __init__(self, answers=10**9):
        self.answers, self.asked = answers, []
        self.materials = SimpleNamespace(summary=SimpleNamespace(search=self.search))

    def search(self, *, fields, material_ids=None, deprecated=None):
        assert (material_ids is None) != (deprecated is None)
        if material_ids is not None:
            if not self.answers:
                raise ConnectionError("503")
            self.answers -= 1
            self.asked += material_ids
        crystal = Structure(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        for number in range(30):
            document = {"material_id": f"mp-{number}", "structure": crystal, "band_gap": number / 8, "is_metal": False}
            if material_ids is None or document["material_id"] in material_ids:
                chosen = {name: document[name] for name in fields}
                yield SimpleNamespace(**chosen) if number % 2 else chosen  # the client gives either


def test_an_interrupted_download_goes_on(recipe, tmp_path):
    out = tmp_path / "new/mp.jsonl"
    with pytest.raises(ConnectionError):
        recipe.download(Server(answers=2), out, ["band_gap"], per_request=7)
    part = out.with_name("mp.jsonl.part")
    assert not out.exists()
    with part.open("a") as file:
        file.write('{"material_id": "mp-2')  # killed while writing
    server = Server()
    assert recipe.download(server, out, ["band_gap"], per_request=7) == 30
    assert len(server.asked) == 16
    assert not part.exists()
    whole = tmp_path / "whole.jsonl"
    recipe.download(Server(), whole, ["band_gap"], per_request=1000)
    assert out.read_bytes() == whole.read_bytes()


@pytest.fixture
def begun(recipe, tmp_path):
    """An interrupted download of band gaps."""
    out = tmp_path / "mp.jsonl"
    with pytest.raises(ConnectionError):
        recipe.download(Server(answers=2), out, ["band_gap"], per_request=7)
    return out


def test_it_does_not_go_on_with_other_fields(recipe, begun):
    before = (part := begun.with_name("mp.jsonl.part")).read_bytes()
    message = r"mp\.jsonl\.part: line 1 has the fields band_gap, material_id, structure, and now is_metal, "
    with pytest.raises(recipe.UnusablePartError, match=message):
        recipe.download(Server(), begun, ["is_metal"], per_request=7)
    assert part.read_bytes() == before


@pytest.mark.parametrize("line", ["{", "[]", "{}", "7"])
def test_a_damaged_line(recipe, begun, line):
    with begun.with_name("mp.jsonl.part").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(recipe.UnusablePartError, match="line 15 is damaged"):
        recipe.download(Server(), begun, ["band_gap"], per_request=7)


def test_materials_that_are_not_sent_are_reported(recipe, tmp_path, capsys):
    server = Server()
    search = server.search

    def forgetful(**query):
        for number, each in enumerate(search(**query)):
            if "material_ids" not in query or number % 5:
                yield each

    server.materials.summary.search = forgetful
    assert recipe.download(server, tmp_path / "mp.jsonl", ["band_gap"], per_request=30) == 24
    assert "6 materials were asked for and not sent: mp-0, mp-10, " in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-3", "some"])
def test_numbers_of_the_command_line(recipe, number, capsys):
    with pytest.raises(SystemExit):
        recipe.main(["mp.jsonl", "--per-request", number])
    assert "argument --per-request" in capsys.readouterr().err


def test_what_it_writes_can_be_prepared(recipe, tmp_path):
    out = tmp_path / "mp.jsonl"
    recipe.download(Server(), out, ["band_gap", "is_metal"], per_request=10)
    config = MpJsonSource(
        kind="mp_json", path=out, id_key="material_id", targets={"gap": {"key": "band_gap", "unit": "eV"}}
    )
    source = JsonDocuments.from_config(config, ("train",), tmp_path)
    found = {each.id: each.targets["gap"] for each in source.read(0, len(source))}
    assert found == {f"mp-{number}": number / 8 for number in range(30)}
    assert [json.loads(line)["is_metal"] for line in out.read_text().splitlines()] == [False] * 30


def test_without_a_key(tmp_path):
    done = subprocess.run(
        [sys.executable, RECIPE, tmp_path / "mp.jsonl"], env={}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("download_mp: error: MP_API_KEY is not set")
    assert list(tmp_path.iterdir()) == []
