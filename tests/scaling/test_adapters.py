"""The files in `data` were written by ReFrame 4.10 and JUBE 2.7, for a law of Amdahl with sigma = 0.05."""

import json
from pathlib import Path

import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.adapters import read_results
from matsci_hpc.scaling.efficiency import efficiency
from matsci_hpc.scaling.laws import fit_law
from matsci_hpc.scaling.table_files import write_table

DATA = Path(__file__).parent / "data"


def edited(tmp_path, name, old, new):
    text = (DATA / name).read_text()
    assert old in text
    path = tmp_path / name
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize("name", ["reframe_perflog.log", "reframe_report.json"])
def test_a_scaling_test_of_reframe(name):
    table = read_results(DATA / name)
    gloo, mpi = table.series()
    assert (gloo.name, mpi.name) == ("backend=gloo", "backend=mpi")
    assert mpi.ranks.tolist() == [1, 2, 4]
    assert mpi.nodes == (1, 1, 2)
    assert gloo.means == pytest.approx(0.9 * mpi.means, rel=1e-4)
    assert fit_law("amdahl", mpi).parameters["sigma"] == pytest.approx(0.05, rel=1e-3)
    assert table.rows[0].details["system"] == "generic"
    assert table.notes == ()


@pytest.mark.parametrize("name", ["reframe_perflog.log", "reframe_report.json"])
def test_the_other_measure_of_reframe_can_be_named(name):
    _, mpi = read_results(DATA / name, columns={"time_s": "time"}).series()
    assert [times.tolist() for times in mpi.times_s] == [[10.0], [5.25], [2.875]]
    with pytest.raises(UserInputError, match="no 'tim' was measured; there are: throughput, time"):
        read_results(DATA / name, columns={"time_s": "tim"})


def test_milliseconds_of_reframe_are_seconds(tmp_path):
    path = edited(tmp_path, "reframe_perflog.log", "|s|", "|ms|")
    _, mpi = read_results(path, columns={"time_s": "time"}).series()
    assert [times.tolist() for times in mpi.times_s] == [[0.01], [5.25e-3], [2.875e-3]]


@pytest.mark.parametrize(
    ("unit", "kind", "said"),
    [
        ("samples/s", "throughput", "samples/s"),
        ("Samples / sec", "throughput", "samples/s"),
        ("GB/s", "throughput", "GB/s"),
        ("atoms/second", "throughput", "atoms/second"),
        ("Gbps", "throughput", "Gbps"),
        ("GFLOPS", "throughput", "GFLOPS"),
        ("fps", "throughput", "fps"),
        ("ns", "time_s", 1e-9),
        ("ps", "time_s", 1e-12),
        ("seconds", "time_s", 1.0),
    ],
)
def test_units_of_reframe(tmp_path, unit, kind, said):
    path = tmp_path / "units.log"
    path.write_text(f"num_tasks|name|n_value|n_unit\n1|MD|900|{unit}\n2|MD|500|{unit}\n")
    (series,) = read_results(path).series()
    if kind == "throughput":
        assert (series.unit, series.means.tolist()) == (said, [900, 500])
    else:
        assert [float(times[0]) / said for times in series.times_s] == pytest.approx([900, 500])


@pytest.mark.parametrize("unit", ["steps", "groups", "s/step", "/s", "hops"])
def test_units_that_are_no_rates(tmp_path, unit):
    path = tmp_path / "units.log"
    path.write_text(f"num_tasks|name|n_value|n_unit\n1|MD|900|{unit}\n2|MD|900|{unit}\n")
    with pytest.raises(UserInputError, match="what was measured is not clear from the units of n"):
        read_results(path)
    (named,) = read_results(path, columns={"throughput": "n"}).series()
    assert named.unit == unit
    with pytest.raises(UserInputError, match=f"line 2: n: '{unit}' is no time"):
        read_results(path, columns={"time_s": "n"})


def test_rates_in_two_units_are_not_compared(tmp_path):
    path = tmp_path / "units.log"
    path.write_text("num_tasks|name|bw_value|bw_unit\n1|Stream|900|MB/s\n2|Stream|1.7|GB/s\n4|Stream|3.3|GB/s\n")
    with pytest.raises(UserInputError, match="line 3: column throughput: is in GB/s, and in MB/s in line 2 of"):
        read_results(path).series()
    path.write_text(path.read_text().replace("900|MB", "0.9|GB"))
    found = efficiency(read_results(path).series()[0])
    assert (found.series.unit, found.hours_unit) == ("GB/s", "rank-hours per million GB")
    write_table(tmp_path / "again.csv", read_results(path))
    assert read_results(tmp_path / "again.csv").series()[0].unit == "GB/s"


def test_a_report_of_reframe_without_cases_holds_nothing(tmp_path):
    path = tmp_path / "report.json"
    path.write_text('{"session_info": {}, "runs": [{"testcases": 3}]}')
    with pytest.raises(UserInputError, match="holds no measurement"):
        read_results(path)


def test_runs_that_were_appended_are_repeats(tmp_path):
    lines = (DATA / "reframe_perflog.log").read_text().splitlines()
    path = tmp_path / "twice.log"
    path.write_text("\n".join([*lines, *(line.replace("100.0|samples", "101.0|samples") for line in lines[1:])]))
    _, mpi = read_results(path).series()
    assert mpi.repeats == (2, 2, 2)
    assert mpi.rates[0].tolist() == [100.0, 101.0]


def test_what_failed_is_left_out_and_said(tmp_path):
    path = edited(tmp_path, "reframe_perflog.log", "pass|2026-11-29T10:45:50|gloo", "fail|2026-11-29T10:45:50|gloo")
    table = read_results(path)
    assert table.notes[0].endswith("cases of ReFrame that did not pass or measured nothing are left out.")
    assert len(table.rows) == 6 - int(table.notes[0].split()[0])
    report = json.loads((DATA / "reframe_report.json").read_text())
    for case in report["runs"][0]["testcases"]:
        case["result"] = "fail"
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(UserInputError, match=r"holds no measurement \(6 cases of ReFrame that did not pass"):
        read_results(tmp_path / "report.json")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("|num_tasks|", "|tasks|", "line 1: as a performance log of ReFrame it must name the fields num_tasks"),
        ("|90.0|samples/s", "|samples/s", "line 2: 36 fields, and the header names 37"),
        ("|90.0|", "|x|", "line 2: column throughput: 'x' is not a number"),
        ("|1|null|2|", "|null|null|2|", "line 2: column ranks: is empty"),
        ("|s|0|", "|hm|0|", None),
        ("|samples/s|0", "|hm|0", None),
    ],
)
def test_damaged_logs_of_reframe_are_named_with_their_line(tmp_path, old, new, complaint):
    path = edited(tmp_path, "reframe_perflog.log", old, new)
    if complaint is None:  # the other measure has a unit that is clear
        assert len(read_results(path).rows) == 6
        return
    with pytest.raises(UserInputError, match=complaint):
        read_results(path)


@pytest.mark.parametrize("name", ["jube_pretty.dat", "jube_csv.dat", "jube_semi.dat"])
def test_tables_of_jube(name):
    gloo, mpi = read_results(DATA / name, ["backend"], {"repeat": "it"}).series()
    assert mpi.name == "backend=mpi"
    assert mpi.ranks.tolist() == [1, 2, 4]
    assert mpi.means.tolist() == pytest.approx([100, 191.476, 347.826], rel=1e-5)
    assert gloo.means.tolist() == pytest.approx([91, 172.429, 314.043], rel=1e-5)


def test_columns_of_jube_that_jube_names_itself_are_known(tmp_path):
    path = edited(tmp_path, "jube_csv.dat", "backend,it,", "backend,jube_wp_iteration,")
    assert [row.repeat for row in read_results(path).rows] == ["1", "1", "0", "1", "1", "0"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "tasks,",
            "size,",
            "line 1: no column is known to count ranks; name it by --column ranks=NAME, one of size, back",
        ),
        (
            "[samples/s]",
            "[apples]",
            "line 2: what was measured is not clear from the units of rate: name it by --column",
        ),
        ("91.0", "91.0,1", "line 2: 5 fields, and the header names 4"),
        ("91.0", "", "line 2: column throughput: is empty"),
    ],
)
def test_unclear_tables_of_jube_are_named_with_their_line(tmp_path, old, new, complaint):
    with pytest.raises(UserInputError, match=complaint):
        read_results(edited(tmp_path, "jube_csv.dat", old, new))


def test_a_table_of_ones_own_can_have_its_columns_named(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("np,rate\n1,10\n2,19\n")
    (series,) = read_results(path, columns={"ranks": "np", "throughput": "rate"}).series()
    assert series.means.tolist() == [10, 19]
    with pytest.raises(UserInputError, match="line 1: no column 'n'; its columns are np, rate"):
        read_results(path, columns={"ranks": "n"})
    with pytest.raises(UserInputError, match="'rank' is none of ranks, throughput"):
        read_results(path, columns={"rank": "np"})
