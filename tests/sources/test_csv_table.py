import csv
import gzip
import io
import pickle

import numpy as np
import pytest
from crystals import ROCK_SALT, changed
from pydantic import ValidationError
from shared_data import shared_data

from matsci_hpc.config.record_sources import CsvSource as Config
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.cif import parse_cif
from matsci_hpc.sources.csv_table import CsvTables
from matsci_hpc.structure import Rejected, Structure

GAP = {"gap": {"column": "gap", "unit": "eV"}}


def table(rows, header=("id", "cif", "gap")):
    stream = io.StringIO()
    csv.writer(stream).writerows([header, *rows])
    return stream.getvalue().encode()


@pytest.fixture
def open_source(tmp_path):
    def open_source(data, **more):
        path = tmp_path / "table.csv"
        path.write_bytes(data)
        return CsvTables.from_config(Config(**({"kind": "csv", "path": path} | more)), ("train",), tmp_path / "staging")

    return open_source


def read_all(source):
    return list(source.read(0, len(source)))


def salt(length):
    return ROCK_SALT.replace("5.64", f"{length}")


ROWS = [(f"salt-{number}", salt(5 + number / 64), number / 8) for number in range(100)]


def test_every_row_is_the_structure_of_its_text(open_source):
    source = open_source(table(ROWS), id_column="id", targets=GAP)
    assert len(source) == 100
    for each, (identifier, text, gap) in zip(read_all(source), ROWS, strict=True):
        number, position, cell = parse_cif(text.encode())
        assert (each.id, each.targets, each.split) == (identifier, {"gap": gap}, None)
        np.testing.assert_array_equal(each.atomic_number, number)
        np.testing.assert_array_equal(each.position, position)
        np.testing.assert_array_equal(each.cell, cell)
        assert each.pbc.all()


def test_any_range_in_any_order(open_source):
    source = open_source(table(ROWS).replace(b"\r\n", b"\r\n\r\n"), id_column="id")  # empty rows count for nothing
    source = pickle.loads(pickle.dumps(source))  # noqa: S301 - as ranks get it
    for start, stop in [(0, 1), (15, 17), (16, 32), (31, 33), (99, 100), (40, 40), (3, 98)]:
        assert [each.id for each in source.read(start, stop)] == [row[0] for row in ROWS[start:stop]]


def test_a_rank_is_sent_no_rows(open_source):
    assert len(pickle.dumps(open_source(table(ROWS), id_column="id", targets=GAP))) < len(table(ROWS)) / 10


def test_files_by_split(tmp_path):
    for name, rows in {"val": ROWS[:20], "test": ROWS[20:50]}.items():
        (tmp_path / f"{name}.csv").write_bytes(table(rows))
    config = Config(kind="csv", path={"val": tmp_path / "val.csv", "test": tmp_path / "test.csv"}, id_column="id")
    source = CsvTables.from_config(config, ("train", "val"), tmp_path)
    assert source.splits == ("test", "val", "train")
    assert [(each.id, each.split) for each in source.read(18, 22)] == [
        ("salt-18", "val"),
        ("salt-19", "val"),
        ("salt-20", "test"),
        ("salt-21", "test"),
    ]
    swapped = Config(kind="csv", path={"test": tmp_path / "val.csv", "val": tmp_path / "test.csv"}, id_column="id")
    assert CsvTables.from_config(swapped, ("train", "val"), tmp_path).identity != source.identity


def test_compressed(open_source, tmp_path):
    packed = open_source(gzip.compress(table(ROWS)), id_column="id", targets=GAP)
    assert [each.id for each in packed.read(30, 60)] == [row[0] for row in ROWS[30:60]]
    with pytest.raises(UserInputError, match=r"table\.csv: damaged or cut off"):
        open_source(gzip.compress(table(ROWS))[:-400])
    assert (tmp_path / "staging").is_dir()


def test_values_of_every_kind(open_source):
    header = ("id", "cif", "gap", "metal", "family", "fold")
    rows = [
        ("a", ROCK_SALT, "1.5", "True", "salt", "val"),
        ("b", ROCK_SALT, "", "0", "", ""),
        ("c", ROCK_SALT, "NaN", "n/a", "alloy", "test"),
    ]
    targets = GAP | {
        "metal": {"column": "metal", "kind": "binary"},
        "family": {"column": "family", "kind": "class"},
    }
    source = open_source(table(rows, header), id_column="id", targets=targets, split_column="fold")
    assert source.targets["family"].classes == ("alloy", "salt")
    assert source.splits == ("test", "val", "train")
    assert [(each.targets, each.split) for each in read_all(source)] == [
        ({"gap": 1.5, "metal": 1.0, "family": 1}, "val"),
        ({"metal": 0.0}, None),
        ({"family": 0}, "test"),
    ]


def test_a_bad_row_is_one_rejected_input(open_source):
    rows = [
        ("a", ROCK_SALT, "1"),
        ("b", "", "1"),
        ("c", changed("Cl1 Cl", "Qq1 Qq").decode(), "1"),
        ("d", ROCK_SALT, "wide"),
        ("a", ROCK_SALT, "2"),
        ("", ROCK_SALT, "2"),
        ("e", ROCK_SALT, "2", "and more"),
        ("f", ROCK_SALT),
        ("a", ROCK_SALT, "2"),
    ]
    found = read_all(open_source(table(rows), id_column="id", targets=GAP))
    assert [each.id for each in found if isinstance(each, Structure)] == ["a", "f"]
    reasons = {each.source: each.reason for each in found if isinstance(each, Rejected)}
    assert reasons == {
        "table.csv row 2": "column cif is empty",
        "table.csv row 3": reasons["table.csv row 3"],
        "table.csv row 4": "target gap is 'wide', not a number",
        "table.csv row 5": "the id a is that of input 0 already, whether that one is usable or not",
        "table.csv row 6": "no id under id",
        "table.csv row 7": "4 fields, and the header names 3",
        "table.csv row 9": "the id a is that of input 0 already, whether that one is usable or not",
    }
    assert "no chemical element" in reasons["table.csv row 3"]


WRONG = {
    "no structure": (table([], ("id", "gap")), {}, r"table\.csv: no column 'cif'; its columns are id, gap"),
    "no target": (table([]), {"targets": {"x": {"column": "Gap"}}}, "no column 'Gap'"),
    "no split": (table([]), {"split_column": "fold"}, "no column 'fold'"),
    "doubled": (table([], ("id", "cif", "cif")), {}, "2 columns are called 'cif'"),
    "empty": (b"", {}, "no column 'cif'"),
    "open quote": (table(ROWS)[:-200], {}, r"table\.csv: not a CSV file: unexpected end of data in line"),
    "latin-1": (table([("é", ROCK_SALT, 1)]).decode().encode("latin-1"), {}, "not a CSV file in UTF-8"),
    "ids as splits": (table(ROWS * 2), {"split_column": "id"}, None),
    "missing": (b"", {"path": "nowhere.csv"}, r"nowhere\.csv: no such file"),
}


@pytest.mark.parametrize(("data", "more", "message"), WRONG.values(), ids=WRONG)
def test_wrong_tables(open_source, data, more, message):
    if message is None:
        assert len(open_source(data, **more).splits) == 101  # as many as there may be
        return
    with pytest.raises(UserInputError, match=message):
        open_source(data, **more)


@pytest.mark.parametrize(
    "more",
    [{"path": []}, {"path": {}}, {"path": {"": "a.csv"}}, {"targets": {"atoms": {"column": "x"}}}, {"id_key": "id"}],
)
def test_wrong_configs(more):
    with pytest.raises(ValidationError):
        Config(**({"kind": "csv", "path": "a.csv"} | more))


@pytest.mark.parametrize(("name", "count"), [("perov_5/val.csv", 3787), ("carbon_24/test.csv", 2030)])
def test_real_tables(name, count, tmp_path):
    path = shared_data(name)
    source = CsvTables.from_config(Config(kind="csv", path=path, id_column="material_id"), (), tmp_path)
    assert len(source) == count
    assert not source.doubled
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for start in (0, 777, count - 3):
        for row, each in zip(rows[start : start + 3], source.read(start, start + 3), strict=True):
            assert each.id == row["material_id"]
            np.testing.assert_array_equal(each.position, parse_cif(row["cif"].encode())[1])


def test_a_reason_is_one_line(open_source):
    """Whatever the id in it: a quote that was lost makes ids of many lines."""
    source = open_source(table([("a\nb", ROCK_SALT, "1"), ("a\nb", ROCK_SALT, "2")]), id_column="id")
    assert [each.reason for each in read_all(source) if isinstance(each, Rejected)] == [
        "the id a b is that of input 0 already, whether that one is usable or not"
    ]
