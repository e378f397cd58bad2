import json
import re
from dataclasses import replace

import numpy as np
import pytest
from ranks import ROOT

from matsci_hpc.analysis.study_figures import plots
from matsci_hpc.analysis.study_tables import sheets
from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.column_names import MEASURED
from matsci_hpc.scaling.study import study_table
from matsci_hpc.scaling.table import Row, Table
from matsci_hpc.scaling.table_files import read_table, write_table

GOOD = """ranks,throughput,repeat,backend
1,100.5,1,gloo
2,190,1,gloo
1,99.5,2,gloo
4,300,1,mpi
2,160,1,mpi
"""


def written(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_holds_series_by_label_with_repeats_by_rank_count(tmp_path):
    gloo, mpi = read_table(written(tmp_path, GOOD)).series()
    assert (gloo.name, mpi.name) == ("backend=gloo", "backend=mpi")
    assert gloo.ranks.tolist() == [1, 2]
    assert [rates.tolist() for rates in gloo.rates] == [[100.5, 99.5], [190.0]]
    assert gloo.repeats == (2, 1)
    assert mpi.ranks.tolist() == [2, 4]
    assert mpi.unit == "samples/s"


def test_json_lines_hold_the_same_as_csv(tmp_path):
    lines = [line.split(",") for line in GOOD.splitlines()]
    objects = [dict(zip(lines[0], [int(r), float(x), int(k), b], strict=True)) for r, x, k, b in lines[1:]]
    text = "\n".join(json.dumps(each) for each in objects)
    from_json, from_csv = read_table(written(tmp_path, text, "table.jsonl")), read_table(written(tmp_path, GOOD))
    assert [replace(row, line=row.line + 1) for row in from_json.rows] == list(from_csv.rows)
    assert [row.line for row in from_json.rows] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["again.csv", "again.jsonl"])
def test_what_is_written_is_read_again(tmp_path, name):
    table = Table(
        (
            Row(
                1,
                time_s=10 / 3,
                nodes=1,
                scaling="weak",
                repeat="a",
                labels={"set, a": 'x"y', "b": "ü"},
                details={"c": "1"},
            ),
            Row(2, time_s=4.0, samples=1e6, nodes=1, scaling="weak", repeat="a", labels={"set, a": "\n1", "b": ""}),
        ),
        "here",
    )
    write_table(tmp_path / name, table)
    again = read_table(tmp_path / name)
    for old, new in zip(table.rows, again.rows, strict=True):
        assert (new.ranks, new.time_s, new.samples, new.nodes) == (old.ranks, old.time_s, old.samples, old.nodes)
        assert (new.scaling, new.repeat) == (old.scaling, old.repeat)
        assert dict(new.labels) == {name: value.strip() for name, value in old.labels.items()}
        assert {name: value for name, value in new.details.items() if value} == dict(old.details)


def test_no_cell_is_a_formula_to_a_spreadsheet(tmp_path):
    formulas = ["=1+1", "+cmd|x", "@SUM(A1)", "-2+3", "'=1"]
    others = ["-1e-3", "+4", "'quoted'", "plain"]
    rows = [Row(1, throughput=1.0, labels={"=name": text}, details={"@d": text}) for text in formulas + others]
    write_table(tmp_path / "table.csv", Table(tuple(rows), "here"))
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in lines] == ["'=name", *(f"'{text}" for text in formulas), *others]
    again = read_table(tmp_path / "table.csv")
    assert [row.labels["=name"] for row in again.rows] == formulas + others
    assert [row.details["@d"] for row in again.rows] == formulas + others


@pytest.mark.parametrize("cell", ["1e-300", "1e300"])
def test_numbers_beyond_all_measuring_are_refused(tmp_path, cell):
    with pytest.raises(UserInputError, match=f"line 3: column throughput: {cell} cannot be measured; a number from"):
        read_table(written(tmp_path, f"ranks,throughput\n1,5\n2,{cell}\n"))


@pytest.mark.parametrize("span", [(1e-30, 1e30, 1e30), (1e30, 1e-30, 1e-30), (1e-30, 1e-30, 1e-30)])
def test_the_largest_and_least_numbers_have_a_report(tmp_path, span):
    lines = "".join(f"{ranks},{rate}\n" for ranks, rate in zip((1, 2, 4), span, strict=True))
    study = study_table(read_table(written(tmp_path, "ranks,throughput\n" + lines)))
    assert sheets(study)
    assert plots(study)


def test_time_of_the_same_work_is_a_rate(tmp_path):
    (strong,) = read_table(written(tmp_path, "ranks,time_s\n1,8\n2,4\n")).series()
    assert strong.means.tolist() == [1 / 8, 1 / 4]
    assert strong.unit == "work/s"
    (weak,) = read_table(written(tmp_path, "ranks,time_s,scaling\n1,8,weak\n2,8,weak\n")).series()
    assert weak.means.tolist() == [1 / 8, 2 / 8]
    assert weak.name == "weak scaling"
    (counted,) = read_table(written(tmp_path, "ranks,time_s,samples\n1,8,80\n2,8,160\n")).series()
    assert (counted.means.tolist(), counted.unit) == ([10, 20], "samples/s")


def test_labels_can_be_named_so_that_the_other_columns_take_nothing_apart(tmp_path):
    path = written(tmp_path, "ranks,throughput,backend,date\n1,5,mpi,Mon\n2,9,mpi,Tue\n")
    with pytest.raises(UserInputError, match=r"line 2: column ranks: .* one rank count only; the columns date make"):
        read_table(path).series()
    table = read_table(path, ["backend"])
    assert [series.labels for series in table.series()] == [(("backend", "mpi"),)]
    assert [series.name for series in table.series()] == ["all measurements"]  # no other series to tell it from
    assert [row.details for row in table.rows] == [{"date": "Mon"}, {"date": "Tue"}]
    with pytest.raises(UserInputError, match="no column 'bakend' for a label; there are: backend, date"):
        read_table(path, ["bakend"])


def test_spreadsheets_leave_marks_that_do_not_matter(tmp_path):
    text = b"\xef\xbb\xbfranks , throughput\r\n 1.0, 5e1 \r\n\r\n,\r\n2,90\r\n"
    (series,) = read_table(written(tmp_path, text)).series()
    assert (series.ranks.tolist(), series.means.tolist()) == ([1, 2], [50, 90])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: holds no header"),
        ("ranks,throughput\n", "line 1: holds no measurement"),
        ("1,5\n2,9\n", "line 1: holds numbers where the names"),
        ("ranks;throughput\n1;5\n", "line 1: the columns are separated by semicolons"),
        ("ranks\tthroughput\n1\t5\n", "line 1: the columns are separated by tabulators"),
        ("ranks,throughput,ranks\n1,5,1\n", "line 1: 2 columns are called 'ranks'"),
        ("ranks,,throughput\n1,5,1\n", "line 1: column 2 has no name"),
        ("Ranks,throughput\n1,5\n", "no column 'ranks'; rename 'Ranks' to 'ranks'"),
        ("ntasks,throughput\n1,5\n", "no column 'ranks'; rename 'ntasks' to 'ranks'"),
        ("nodes,throughput\n1,5\n", "no column 'ranks'; its columns are nodes, throughput"),
        ("ranks,througput\n1,5\n", "rename 'througput' to 'throughput'"),
        ("ranks,time (ms)\n1,5\n", r"'time \(ms\)' seems to be in milliseconds: convert it and call it 'time_s'"),
        ("ranks,time_ms\n1,5\n", "'time_ms' seems to be in milliseconds"),
        ("ranks,time\n1,5\n", "rename 'time' to 'time_s'"),
        ("ranks,throughput\n1,5\n2\n", "line 3: column throughput: the line ends before it"),
        ("ranks,throughput\n1,5\n2,9,1\n", "line 3: 3 fields, and the header names 2 columns; a number has a decimal"),
        ("ranks,throughput\n1,5\n2,\n", "line 3: column throughput: is empty"),
        ("ranks,time_s\n1,5\n2,\n", "line 3: column time_s: is empty"),
        ("ranks,throughput\n1,5\n,9\n", "line 3: column ranks: is empty"),
        ("ranks,throughput\n1,5\n2,-9\n", "line 3: column throughput: -9 cannot be measured"),
        ("ranks,throughput\n1,5\n2,0\n", "line 3: column throughput: 0 cannot be measured"),
        ("ranks,throughput\n1,5\n2,nan\n", "line 3: column throughput: nan cannot be measured"),
        ("ranks,time_s\n1,5\n2,inf\n", "line 3: column time_s: inf cannot be measured"),
        ("ranks,time_s\n1,5 s\n", "line 2: column time_s: '5 s' is not a number; write it in seconds and without"),
        ('ranks,time_s\n1,"5,3"\n', "line 2: column time_s: '5,3' is not a number; write it in seconds with a decimal"),
        ("ranks,throughput\n1_0,5\n", "line 2: column ranks: '1_0' is no count"),
        ("ranks,throughput\n0,5\n", "line 2: column ranks: '0' is no count"),
        ("ranks,throughput\n1.5,5\n", "line 2: column ranks: '1.5' is no count"),
        ("ranks,throughput,nodes\n1,5,-1\n", "line 2: column nodes: '-1' is no count"),
        ("ranks,throughput,scaling\n1,5,week\n", "line 2: column scaling: 'week' is neither strong nor weak"),
        ('ranks,throughput\n1,"5\n', "line 2: is no CSV"),
        ("ranks,time_s,samples\n1,5,7\n2,5,\n", "line 3: column samples: is filled in some lines .* not in line 3"),
        (
            "ranks,throughput\n2,5\n2,6\n",
            "line 2: column ranks: all measurements: one rank count only; measure",
        ),
        ("ranks,throughput\n1,5\n2,9\n2,9\n", "line 4: column repeat: the same measurement of 2 ranks .* in line 3"),
        ("ranks,throughput,repeat\n1,5,1\n2,9,1\n2,8,1\n", "line 4: column repeat: repeat 1 of 2 ranks .* in line 3"),
        (
            "ranks,throughput,nodes\n1,5,1\n2,9,1\n2,8,2\n",
            "line 4: column nodes: 2 ranks on 2 nodes, and on 1 in line 3",
        ),
    ],
)
def test_mistakes_in_csv_are_named_with_file_line_and_column(tmp_path, text, complaint):
    path = written(tmp_path, text)
    with pytest.raises(UserInputError, match=complaint) as caught:
        read_table(path).series()
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"ranks": 1, "throughput": 5}\n{"ranks": 2,\n', "line 2: column 13: is no JSON"),
        ('{"ranks": 1, "throughput": 5}\n[1]\n', "line 2: is no JSON object"),
        ('{"ranks": 1, "ranks": 2, "throughput": 5}\n', "line 1: a name stands twice"),
        ('{"ranks": 1, "throughput": 5}\n{"ranks": 2}\n', "line 2: column throughput: is empty"),
        ('{"ranks": 1, "throughput": 5}\n{"ranks": 2, "throughput": null}\n', "line 2: column throughput: is empty"),
        ('{"ranks": 1, "throughput": NaN}\n', "line 1: column throughput: NaN cannot be measured"),
        ('{"ranks": 1, "throughput": 5}\n{"ranks": 2, "time_s": 3}\n', "line 2: column throughput: is empty"),
        ('{"ranks": true, "throughput": 1}\n', "line 1: column ranks: 'true' is no count"),
        ('{"ranks": 1, "throughput": [1, 2]}\n', r"line 1: column throughput: holds \[1, 2\]"),
        (f'{{"ranks": {"9" * 5000}, "throughput": 1}}\n', "line 1: is no JSON that can be read"),
        ("[" * 100_000, "line 1: is no JSON that can be read"),
        ("\n\n", "line 1: holds no measurement"),
    ],
)
def test_mistakes_in_json_lines_are_named_with_file_and_line(tmp_path, text, complaint):
    path = written(tmp_path, text, "table.jsonl")
    with pytest.raises(UserInputError, match=complaint) as caught:
        read_table(path).series()
    assert str(caught.value).startswith(f"{path}: ")


def test_what_is_no_text_or_not_there_is_the_users_to_mend(tmp_path):
    with pytest.raises(UserInputError, match="No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UserInputError, match="Is a directory"):
        read_table(tmp_path)
    with pytest.raises(UserInputError, match="is no text in UTF-8"):
        read_table(written(tmp_path, b"ranks,throughput\n1,\xff\n"))


def test_arrays_of_a_series_cannot_be_changed(tmp_path):
    gloo, _ = read_table(written(tmp_path, GOOD)).series()
    with pytest.raises(ValueError, match="read-only"):
        gloo.ranks[0] = 3
    assert gloo.part(np.array([False, True])).ranks.tolist() == [2]


def test_the_example_of_the_docs_is_a_table(tmp_path):
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    (series,) = read_table(written(tmp_path, block)).series()
    assert series.repeats == (2, 2, 1)
    columns = re.findall(r"^\| `(\w+)` \|", page.partition("## Measurements")[2].partition("```")[0], re.MULTILINE)
    assert columns == list(MEASURED)
