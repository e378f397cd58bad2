"""`matsci-hpc predict STUDY`: every size that a study names, beside what its runs measured, and the page of both."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import plotly.graph_objects
import pytest
from markdown_it import MarkdownIt
from pages import BROWSER, Page, open_in_browser
from preparation import run_program
from run_dirs import EVIL

from matsci_hpc.analysis.prediction_figures import PARTS, plots
from matsci_hpc.analysis.prediction_report import FILES, write_study_prediction
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.scaling.forecast_run import Question
from matsci_hpc.scaling.recorded import recorded_cost
from matsci_hpc.scaling.study_forecast import forecast_study
from matsci_hpc.scaling.study_plan import load_study

QUICK = ("--seconds", 0.2)
STUDY = {"axes": {"ranks": [1, 2], "backend": ["gloo"]}, "repeats": 2, "warmup_steps": 2, "steps": 6}
RUNS = Path("studies/small/runs")


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def predicted(*arguments):
    done = run_program("predict", *arguments, *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def finished(clouds, tmp_path_factory):
    """The folder of a study of one and two ranks, two repeats each, that has run."""
    folder = tmp_path_factory.mktemp("finished")
    config = {
        "run_dir": "runs/demo",
        "data": {"train": [str(clouds)]},
        "steps": 1,
        "batch": {"graphs": 12},
        "model": {"layers": 1, "width": 8, "message_width": 8, "position_width": 8, "embedding_width": 8},
    }
    study = {"base": "train.yaml", "out": "studies/small", "scaling": "strong", **STUDY}
    (folder / "train.yaml").write_text(json.dumps(config))
    (folder / "study.yaml").write_text(json.dumps(study))
    done = run_program("study", "run", "study.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def study_copy(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.mpi
def test_predictions_stand_beside_what_the_runs_measured(study_copy):
    before = {path: path.stat().st_mtime_ns for path in study_copy.rglob("*")}
    found = predicted("study.yaml")
    assert {path: path.stat().st_mtime_ns for path in study_copy.rglob("*")} == before  # nothing is written
    assert found["scaling"] == "strong"
    (series,) = found["series"]
    assert (series["name"], series["labels"]) == ("", {"backend": "gloo"})
    assert "records of 4 runs;" in series["cost"]["source"]
    rows = {row["ranks"]: row for row in series["predictions"]}
    assert list(rows) == [1, 2]
    assert {row["nodes"] for row in rows.values()} == {1}
    steps, rates = {}, {}
    for ranks in (1, 2):
        runs = [lines_of(RUNS / f"ranks={ranks}_backend=gloo_repeat={repeat}")[2:] for repeat in (1, 2)]
        steps[ranks] = [fmean(line["step_time_s"] for line in run) for run in runs]
        rates[ranks] = fmean(6 * 12 / sum(line["step_time_s"] for line in run) for run in runs)
        measured = rows[ranks]["measured"]
        assert measured["repeats"] == 2
        step = measured["step_s"]
        assert step["value"] == pytest.approx(fmean(steps[ranks]), rel=1e-9)
        assert step["low"] <= min(steps[ranks]) <= max(steps[ranks]) <= step["high"]
        assert measured["ratio"] == pytest.approx(rows[ranks]["step_s"] / step["value"])
    assert rows[1]["efficiency"] == rows[1]["measured"]["efficiency"]["value"] == 1
    assert rows[2]["measured"]["efficiency"]["value"] == pytest.approx(rates[2] / rates[1] / 2, rel=1e-6)
    # What computing takes is that of all four runs.
    runs = [study_copy / RUNS / f"ranks={ranks}_backend=gloo_repeat={repeat}" for ranks in (1, 2) for repeat in (1, 2)]
    config = load_config(TrainConfig, runs[0] / "config.yaml")
    assert series["cost"]["line"]["per_cost_s"] == pytest.approx(recorded_cost(runs, config).line.per_cost_s)
    assert any("what ranks add to it is predicted" in text for text in series["remarks"])


@pytest.mark.mpi
@pytest.mark.usefixtures("study_copy")
def test_the_table_names_what_was_not_measured():
    options = ("--ranks", "2,8", "--ranks-per-node", 8)
    done = run_program("predict", "study.yaml", "axes.backend=[gloo,mpi]", *options, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "backend=gloo\n" in done.stdout
    assert "backend=mpi\n" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r" +[\d,]+ +\d+ +\d+ ", line)]
    assert [row[0] for row in rows] == ["1", "2", "8"] * 2
    ratios = [float(each) for row in rows for each in row if re.fullmatch(r"\d+\.\d\d", each)]
    assert len(ratios) >= 2  # of the two sizes that have run
    assert [row.count("-") for row in rows] == [0, 0, 4, 4, 4, 4]
    assert all(len(line) < 190 and line == line.rstrip() for line in done.stdout.splitlines())


def test_a_study_that_has_not_run_is_predicted_by_a_trial(make_study, clouds):
    axes = {"ranks": [2, 4], "graphs_per_rank": [3, 6], "backend": ["gloo"]}
    path = make_study(data=clouds, scaling="weak", axes=axes)
    found = predicted(path, "--ranks-per-node", 4)
    assert found["scaling"] == "weak"
    assert [series["name"] for series in found["series"]] == ["graphs_per_rank=3", "graphs_per_rank=6"]
    for per_rank, series in zip((3, 6), found["series"], strict=True):
        assert [row["ranks"] for row in series["predictions"]] == [2, 4]
        assert [row["measured"] for row in series["predictions"]] == [None, None]
        for row in series["predictions"]:
            # The last step of an epoch may hold fewer.
            assert row["graphs"] == pytest.approx(per_rank * row["ranks"], rel=0.1)
        assert "steps of one rank" in series["cost"]["source"]
    said = run_program("predict", path, "--ranks-per-node", 4, *QUICK).stdout
    assert "no run of the study is complete" in said


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, ["--weak"], "is of strong scaling; leave out --weak and --strong"),
        ({"base": "prep.yaml", "axes": {"ranks": [1, 2]}}, [], "predictions are of training runs"),
        ({"axes": {"ranks": [1, 2], "backend": ["gluu"]}}, [], "backend"),
    ],
)
def test_mistakes_with_a_study(make_study, clouds, changes, arguments, said):
    done = run_program("predict", make_study(data=clouds, **changes), *arguments, *QUICK)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_training_run_needs_ranks(make_study):
    make_study()
    for arguments, said in (((), "--ranks is missing"), (("--ranks", 2, "--site", "local"), "--site is for a study")):
        done = run_program("predict", "train.yaml", *arguments)
        assert done.returncode == 2
        assert said in done.stderr


@pytest.mark.mpi
@pytest.mark.usefixtures("study_copy")
def test_the_page_and_the_files_beside_it():
    done = run_program("predict", "study.yaml", *QUICK, "--json", "--out", "there")
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().endswith("there/prediction.html")
    (series,) = json.loads(done.stdout)["series"]
    assert sorted(path.name for path in Path("there").iterdir()) == sorted(FILES)
    with Path("there/prediction.csv").open() as file:
        lines = list(csv.DictReader(file))
    for line, row in zip(lines, series["predictions"], strict=True):
        assert (line["backend"], line["scaling"], int(line["ranks"])) == ("gloo", "strong", row["ranks"])
        assert float(line["step_s"]) == row["step_s"]
        assert float(line["measured_step_s"]) == row["measured"]["step_s"]["value"]
        assert float(line["ratio"]) == row["measured"]["ratio"]
        assert sum(float(line[f"{part}_s"]) for part in PARTS) == pytest.approx(row["step_s"])
    page = Page(Path("there/prediction.html").read_text(encoding="utf-8"))
    for expected in ("Prediction of study.yaml", "strong scaling, 1 to 2 ranks", "Beside 4 measured runs."):
        assert expected in page.text
    tags = [tag for tag, _ in page.tags]
    assert tags.index("table") < tags.index("figure")
    assert ("details", {}) in page.tags
    text = Page(MarkdownIt("commonmark").enable("table").render(Path("there/prediction.md").read_text())).text
    for table in ("Predicted and measured", "Where a step's time goes", "What it counts with", "Provenance"):
        assert table in text
    assert f"{series['predictions'][0]['measured']['ratio']:.2f}" in text
    assert Path("there/prediction.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def evil(make_study, clouds):
    """A forecast whose labels, paths and remarks hold markup."""
    study = load_study(make_study(data=clouds))
    question = Question(Path("study.yaml"), (EVIL,), (64,), ranks_per_node=64, seconds=0.2)
    found = forecast_study(study, question)
    (series,) = found.series
    forecast = replace(
        series.forecast,
        cost=replace(series.forecast.cost, source=EVIL),
        links=replace(series.forecast.links, source=EVIL),
        remarks=[EVIL],
    )
    many = tuple(
        replace(series, name=f"{EVIL} $_{number}", labels={EVIL: EVIL, "=1+1": "=2+2"}, forecast=forecast)
        for number in range(3)
    )
    return replace(found, series=many), replace(question, config=Path(f"{EVIL}.yaml"))


def test_markup_in_names_is_text(evil, tmp_path):
    found, question = evil
    for plot in plots(found.series):
        plotly.graph_objects.Figure(plot.figure)
    text = write_study_prediction(found, question, tmp_path / "out").read_text(encoding="utf-8")
    assert EVIL.lower() not in text.lower()
    page = Page(text)
    assert page.text.count(EVIL) >= 9
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "figures"},
        {},
        {},
    ]
    markdown = (tmp_path / "out/prediction.md").read_text(encoding="utf-8")
    rendered = Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))
    assert not {"script", "img"} & {tag for tag, _ in rendered.tags}
    cells = {cell for line in csv.reader((tmp_path / "out/prediction.csv").open()) for cell in line}
    assert {EVIL, "'=1+1", "'=2+2"} <= cells
    assert not [cell for cell in cells if cell.startswith("=")]


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
def test_browser_draws_every_chart_without_complaint(evil, tmp_path):
    found, question = evil
    page, complaints = open_in_browser(write_study_prediction(found, question, tmp_path / "out"), tmp_path)
    assert complaints == []
    expected = len(plots(found.series))
    assert expected == 5
    assert page.count('class="chart js-plotly-plot"') == expected
    assert "<img" not in page.replace("&lt;img", "")
    assert not re.search(r"<script>\s*alert", page)
