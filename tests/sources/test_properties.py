import pytest

from matsci_hpc.config.sources import CifSource
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.properties import read_properties

GAP = {"gap": {"column": "gap", "unit": "eV"}}
METAL = {"metal": {"column": "metal", "kind": "binary"}}
FAMILY = {"family": {"column": "family", "kind": "class"}}


@pytest.fixture
def read(tmp_path):
    def read(text, **config):
        path = tmp_path / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_properties(CifSource(kind="cif", path=tmp_path, properties=path, **({"targets": GAP} | config)))

    return read


@pytest.mark.parametrize("text", ["", "NA", "nan", "NaN", " null ", "None", "N/A"])
def test_absent(read, text):
    assert read(f"id,gap,metal\na,{text},{text}\nb,1,1\n", targets=GAP | METAL).values == {
        "a": {},
        "b": {"gap": 1.0, "metal": 1.0},
    }


def test_numbers(read):
    values = read("id,gap\na, 1e-4\nb,-2.5 \nc,0\nd,+7\n").values
    assert values == {"a": {"gap": 1e-4}, "b": {"gap": -2.5}, "c": {"gap": 0.0}, "d": {"gap": 7.0}}


def test_binary(read):
    rows = {"a": "0", "b": "1", "c": "TRUE", "d": "False", "e": "1.0"}
    text = "id,metal\n" + "".join(f"{key},{value}\n" for key, value in rows.items())
    found = read(text, targets=METAL).values
    assert [found[key]["metal"] for key in rows] == [0, 1, 1, 0, 1]


def test_classes_are_numbered_in_sorted_order(read):
    table = read("id,family\na,oxide\nb, alloy\nc,\nd,None\n", targets=FAMILY)
    assert table.targets["family"].classes == ("None", "alloy", "oxide")
    assert table.values == {"a": {"family": 2}, "b": {"family": 1}, "c": {}, "d": {"family": 0}}


def test_split_column(read):
    table = read("id,split\na,train\nb,\nc, test\n", targets={}, split_column="split")
    assert table.splits == {"a": "train", "c": "test"}


def test_what_spreadsheets_write(read):
    table = read(b'\xef\xbb\xbfid,remark,gap\r\n"a","says ""hi"", twice",1\r\n\r\nb,short\r\n')
    assert table.values == {"a": {"gap": 1.0}, "b": {}}


WRONG = [
    pytest.param("name,gap\na,1\n", {}, r"table.csv: no column 'id'; its columns are name, gap", id="no id"),
    pytest.param("id,Gap\na,1\n", {}, r"no column 'gap'; its columns are id, Gap", id="no target"),
    pytest.param("id,gap\na,1\n", {"split_column": "fold"}, r"no column 'fold'", id="no split"),
    pytest.param("", {}, r"no column 'id'", id="empty"),
    pytest.param("id,gap,gap\na,1,2\n", {}, r"2 columns are called 'gap'", id="doubled column"),
    pytest.param("id,gap\na,1\nb,2\n a ,3\n", {}, r"table.csv:4: id 'a' stands in line 2", id="doubled id"),
    pytest.param('id,gap,x\na,1,"two\nlines"\nb,wide,\n', {}, r"table.csv:4: gap is 'wide', not a n", id="bad number"),
    pytest.param("id,gap\na,1 eV\n", {}, r"table.csv:2: gap is '1 eV', not a number", id="unit"),
    pytest.param("id,gap\na,0x1F\n", {}, r"not a number", id="hexadecimal"),
    pytest.param("id,metal\na,2\n", {"targets": METAL}, r"table.csv:2: metal is '2'; a binary", id="bad truth"),
    pytest.param("id,gap\né,1\n".encode("latin-1"), {}, r"not a CSV file in UTF-8", id="latin-1"),
    pytest.param("id,gap\na,1\n".encode("utf-16"), {}, r"not a CSV file in UTF-8", id="utf-16"),
    pytest.param(f"id,gap\n{'a' * 200_000},1\n", {}, r"not a CSV file", id="endless field"),
    pytest.param("id,gap\na,1\n", {"targets": {}}, r"no column of it", id="no use"),
    pytest.param(
        "id,family\n" + "".join(f"a{n},{n / 8}\n" for n in range(2**15)),
        {"targets": FAMILY},
        r"family has 32,768 classes, more than 32,767; a number is `kind: regression`",
        id="numbers as classes",
    ),
    pytest.param(
        "id,gap\n" + "".join(f"a{n},{n}\n" for n in range(300)),
        {"split_column": "id"},
        r"id has 300 values; it should name a few splits",
        id="ids as splits",
    ),
]


@pytest.mark.parametrize(("text", "config", "message"), WRONG)
def test_wrong_tables(read, text, config, message):
    with pytest.raises(UserInputError, match=message) as caught:
        read(text, **config)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "missing.csv"):
        with pytest.raises(UserInputError, match="cannot read the properties"):
            read_properties(CifSource(kind="cif", path=tmp_path, properties=path, targets=GAP))


def test_targets_without_a_table(tmp_path):
    with pytest.raises(UserInputError, match=r"need source\.properties"):
        read_properties(CifSource(kind="cif", path=tmp_path, targets=GAP))
