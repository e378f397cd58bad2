import csv
import json
import re
import subprocess
import sys

import plotly.graph_objects
import pytest
from click.testing import CliRunner
from pages import BROWSER, Page, open_in_browser
from ranks import run_command
from run_dirs import EVIL
from scaling_tables import RANKS, synthetic_rows, universal_rate

from matsci_hpc.analysis.study_figures import log_ticks, plots, tick_words
from matsci_hpc.analysis.study_report import write_study_report
from matsci_hpc.analysis.study_tables import sheets
from matsci_hpc.cli import cli
from matsci_hpc.scaling.adapters import read_results
from matsci_hpc.scaling.study import study_table
from matsci_hpc.scaling.table import Row, Table
from matsci_hpc.scaling.table_files import write_table

NAMES = ("report.html", "report.md", "efficiency.csv", "laws.csv", "scaling.png", "measurements.csv", "extra_p.jsonl")


def measured(path, labels, repeats=3, **more):
    """Series that follow the universal law, with another kappa each."""
    rows = [
        row
        for place, each in enumerate(labels)
        for row in synthetic_rows(
            [(p, universal_rate(p, 100.0, 0.03, 1e-4 * place)) for p in RANKS],
            0.02,
            repeats,
            place,
            labels=each,
            **more,
        )
    ]
    write_table(path, Table(tuple(rows), str(path)))
    return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    labels = [{"backend": name, "threads": "1"} for name in ("gloo", "mpi", "horovod")]
    return measured(folder / "demo.csv", labels)


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evil") / "a<b>&'c"
    folder.mkdir()
    labels = [{EVIL: f"{EVIL} {number}", f"$\\{EVIL}": "$x_{", "pipe": "|a|`b`*c*"} for number in range(9)]
    return measured(folder / "e<i>vil.jsonl", labels, details={EVIL: EVIL})


@pytest.fixture(scope="module")
def lone(tmp_path_factory):
    """Two rank counts, once: as little as there can be."""
    path = tmp_path_factory.mktemp("lone") / "lone.csv"
    path.write_text("ranks,time_s,label\n2,10,a\n4,6,a\n4,5,b\n")
    return path


def written(path, out):
    return write_study_report(study_table(read_results(path)), out)


def command(*options):
    return run_command([sys.executable, "-m", "matsci_hpc", "study", "report", *map(str, options)])


def test_the_report_holds_what_was_found(demo, tmp_path):
    found = written(demo, tmp_path / "out")
    assert [path.name for path in found.files] == list(NAMES)
    page = Page(found.page.read_text(encoding="utf-8"))
    for expected in (
        "Scaling of demo.csv",
        "3 series, 1 to 64 ranks",
        "63 measurements.",
        "backend=horovod",
        "speed-up and efficiency against 1 rank.",
        "Karp-Flatt",
        "rank-hours per million samples",
        "universal scalability law",
        "Residuals of the laws",
        "labels of all series threads 1",
    ):
        assert expected in page.text, expected
    tags = [tag for tag, _ in page.tags]
    assert tags.index("table") < tags.index("figure")  # tables first
    assert ("details", {}) in page.tags  # folded
    assert (tmp_path / "out" / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_the_numbers_of_the_files_are_those_of_the_study(demo, tmp_path):
    found = written(demo, tmp_path / "out")
    study = study_table(read_results(demo))
    with (tmp_path / "out" / "efficiency.csv").open() as file:
        lines = list(csv.DictReader(file))
    points = [point for each in study.findings for point in each.efficiency.points]
    assert [float(line["efficiency"]) for line in lines] == [point.efficiency.value for point in points]
    assert [line["efficiency_low"] for line in lines[:1]] == [""]
    assert [float(line["efficiency_low"]) for line in lines[1:7]] == [point.efficiency.low for point in points[1:7]]
    assert {line["backend"] for line in lines} == {"gloo", "mpi", "horovod"}
    with (tmp_path / "out" / "laws.csv").open() as file:
        laws = list(csv.DictReader(file))
    universal = [float(line["kappa"]) for line in laws if line["law"] == "universal"]
    assert universal == [
        fit.parameters["kappa"] for each in study.findings for fit in each.laws.fits if fit.law == "universal"
    ]
    again = read_results(tmp_path / "out" / "measurements.csv")
    assert [(row.ranks, row.rate, row.labels) for row in again.rows] == [
        (row.ranks, row.rate, row.labels) for row in study.table.rows
    ]
    assert len((tmp_path / "out" / "extra_p.jsonl").read_text().splitlines()) == 3 * 7 * 2
    share = study.findings[2].efficiency.points[-1].efficiency.value
    assert f"{100 * share:.1f}" in found.page.read_text(encoding="utf-8")
    assert f"{100 * share:.1f}" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_the_same_study_gives_the_same_bytes(demo, tmp_path):
    first, second = written(demo, tmp_path / "a"), written(demo, tmp_path / "b")
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_every_figure_is_valid_plotly(demo, lone):
    for path in (demo, lone):
        made = plots(study_table(read_results(path)))
        for plot in made:
            plotly.graph_objects.Figure(plot.figure)
    assert len(made) == 5


@pytest.mark.parametrize("name", ["demo", "evil", "lone"])
def test_nothing_is_loaded_from_outside_and_only_our_scripts_stand_in_the_page(name, request, tmp_path):
    page = Page(written(request.getfixturevalue(name), tmp_path / "out").page.read_text(encoding="utf-8"))
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "data", "action"} & set(attributes), tag
        assert not [attribute for attribute in attributes if attribute.startswith("on")], tag
        assert tag not in {"img", "iframe", "object", "embed", "link", "base"}
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "figures"}, {}, {}]
    assert "url(" not in "".join(page.raw["style"])


def test_markup_in_names_comes_out_as_text(evil, tmp_path):
    found = written(evil, tmp_path / "out")
    text = found.page.read_text(encoding="utf-8")
    assert EVIL.lower() not in text.lower()
    assert Page(text).text.count(EVIL) >= 9
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1])
    assert "<img" not in json.dumps(figures)
    assert "<script" not in json.dumps(figures)
    markdown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "<" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert bars == {6 + 1, 7 + 1, 9 + 1}  # a bar in a name makes no new cell


def test_what_is_missing_is_said(lone, tmp_path):
    found = written(lone, tmp_path / "out")
    page = Page(found.page.read_text(encoding="utf-8"))
    assert "label=b: one rank count only (4), so it is left out." in page.text
    assert "label=a: every rank count measured once: there is no interval without repeats." in page.text
    assert "needs 3 rank counts, and 2 were measured" in page.text
    assert "83.3 %" in page.text


def test_few_repeats_are_pointed_out(demo):
    notes = study_table(read_results(demo)).notes
    assert notes[0] == "backend=gloo: intervals of the mean of 3 repeats are narrower than 95 %; 4 repeats are enough."


def test_a_law_that_does_not_hold_at_the_end_is_pointed_out(tmp_path):
    rows = synthetic_rows([(p, 100.0 * p / (1 + 0.01 * (p - 1))) for p in RANKS[:-1]], 0.01, 3, seed=0)
    rows += synthetic_rows([(64, 800.0)], 0.01, 3, seed=1)
    path = tmp_path / "knee.csv"
    write_table(path, Table(tuple(rows), str(path)))
    notes = study_table(read_results(path)).notes
    assert any("the measurement on 64 ranks is outside the interval" in note for note in notes), notes


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
@pytest.mark.parametrize("name", ["demo", "evil", "lone"])
def test_browser_draws_every_chart_without_complaint(name, request, tmp_path):
    path = request.getfixturevalue(name)
    page, complaints = open_in_browser(written(path, tmp_path / "out").page, tmp_path)
    assert complaints == []
    expected = len(plots(study_table(read_results(path))))
    assert expected == 5
    assert page.count('class="chart js-plotly-plot"') == expected
    assert len(re.findall(r'<svg class="main-svg"', page)) >= expected
    assert "<img" not in page.replace("&lt;img", "")
    assert not re.search(r"<script>\s*alert", page)


def test_the_command_writes_the_report(demo, tmp_path):
    done = command("--from", demo, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out" / "report.html")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(NAMES)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--base", "3"], "backend=gloo: 3 ranks are to be the base, and measured are 1, 2, 4"),
        (["--labels", "backend,thread"], "no column 'thread' for a label; there are: backend, threads"),
        (["--column", "ranks"], "--column ranks: write NAME=THEIRS"),
        (["--out", "/proc/nowhere"], "/proc/nowhere: cannot be written"),
    ],
)
def test_the_commands_mistakes_are_the_users(demo, tmp_path, options, complaint):
    done = command("--from", demo, "--out", tmp_path / "out", *options)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_stays_quick():
    assert CliRunner().invoke(cli, ["study", "report", "--help"]).exit_code == 0
    heavy = {"plotly", "jinja2", "numpy", "scipy", "matplotlib"}
    code = f"import sys, matsci_hpc.cli_study; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_law_that_nothing_chose_is_not_called_the_best(lone, tmp_path):
    text = Page(written(lone, tmp_path / "out").page.read_text(encoding="utf-8")).text
    assert "preferred law" in text
    assert "drawn: Amdahl" in text
    assert "best law" not in text


def test_few_repeats_are_not_said_to_hold_95_percent(demo, lone):
    few, single = (sheets(study_table(read_results(path)))[0].caption for path in (demo, lone))
    assert few.startswith("Intervals of 95 %, narrower than that below 4 repeats.")
    assert single.startswith("Intervals of 95 %. ")


@pytest.mark.parametrize(
    "values", [(2.2, 4.1), (23.1, 36.2), (1001.0, 1002.0), (5.0, 5.0), (0.7, 1.2), (3.0, 4e6), (9.99e-5, 1.001e-4)]
)
def test_an_axis_has_numbers_among_the_values(values):
    ticks = log_ticks(values)
    inside = [tick for tick in ticks if values[0] <= tick <= values[1]]
    assert len(inside) >= (1 if values[0] == values[1] else 2)
    assert len(ticks) < 30
    assert len(set(tick_words(ticks))) == len(ticks)


def test_round_numbers_are_written_short():
    assert tick_words([0.05, 0.5, 1.0, 20.0]) == ["0.05", "0.5", "1", "20"]


def test_work_that_differs_is_pointed_out(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("ranks,time_s,samples,scaling\n1,10,100,strong\n2,5.5,200,strong\n")
    assert any("100 samples on 1 rank and 200 on 2" in note for note in study_table(read_results(path)).notes)
    path.write_text(path.read_text().replace("strong", "weak"))
    assert not any("samples on" in note for note in study_table(read_results(path)).notes)


def test_costs_of_weak_scaling_are_of_the_same_work():
    rows = [Row(p, time_s=3600.0 * (1 + p / 10), scaling="weak") for p in (1, 2)]
    (found,) = study_table(Table(tuple(rows), "here")).findings
    assert found.efficiency.hours_unit == "rank-hours of the work of one rank"
    assert [point.node_hours for point in found.efficiency.points] == pytest.approx([1.1, 1.2])


def test_the_files_hold_no_formulas(tmp_path):
    written(measured(tmp_path / "table.jsonl", [{"set": "=1+1"}, {"set": "b"}]), tmp_path / "out")
    for name in ("efficiency.csv", "laws.csv", "measurements.csv"):
        cells = [cell for line in csv.reader((tmp_path / "out" / name).open()) for cell in line]
        assert "'=1+1" in cells
        assert not [cell for cell in cells if cell.startswith(("=", "@"))]


def test_weak_scaling_is_named(tmp_path):
    rows = [Row(p, time_s=10 + p / 10, scaling="weak") for p in RANKS]
    path = tmp_path / "weak.csv"
    write_table(path, Table(tuple(rows), str(path)))
    text = Page(written(path, tmp_path / "out").page.read_text(encoding="utf-8")).text
    assert "weak scaling" in text
    assert "Throughput in work/s" in text
