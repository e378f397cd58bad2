import json
import re
import subprocess
import sys

import plotly.graph_objects
import pytest
from pages import BROWSER, Page, open_in_browser
from run_dirs import EVIL, evaluation_line, metrics_line, ranks_line, straggler, write_lines, write_run

from matsci_hpc.analysis.figures import charts
from matsci_hpc.analysis.records import read_lines, read_run, valid_evaluations, valid_steps
from matsci_hpc.analysis.report import _energy, notes, render, state, write_report
from matsci_hpc.analysis.run_tables import step_times
from matsci_hpc.errors import UserInputError

FILES = (
    *("report.html", "report.md", "report.png"),
    *("report_tables.csv", "report_steps.csv", "report_evaluations.csv", "report_dynamics.csv"),
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    run_dir = write_run(
        tmp_path_factory.mktemp("runs") / "a<b>&'c",
        target=EVIL,
        classes=[f"{EVIL} {index}" for index in range(5)],
        provenance={"started": EVIL, EVIL: {EVIL: [EVIL, "\ud800"]}},
        unit=EVIL,
        data_set=EVIL,
        split=EVIL,
    )
    with (run_dir / "config.yaml").open("a") as config:
        config.write(f"# {EVIL}\n")
    with (run_dir / "metrics.jsonl").open("a") as records:
        line = {**metrics_line(505, life=EVIL), "stragglers": [straggler(host=EVIL), EVIL, {"rank": EVIL}, {}]}
        records.write(json.dumps({**line, "ranks": EVIL, "lr": EVIL, EVIL: EVIL, "losses": {EVIL: 0.3}}) + "\n")
    return run_dir


def page_of(run_dir):
    """The page alone, as it is written; the files beside it take longer."""
    run = read_run(run_dir)
    return render(run, charts(run)).encode(errors="replace").decode()


def test_last_line_of_a_step_counts():
    lines = [
        {"step": 10, "loss": 1.0},
        {"step": 20, "loss": 0.9},
        {"step": 30, "loss": 0.7},
        {"step": 20, "loss": 0.8},
    ]
    assert [(line["step"], line["loss"]) for line in valid_steps(lines)] == [(10, 1.0), (20, 0.8), (30, 0.7)]


def test_new_life_takes_back_what_the_earlier_one_logged_beyond_its_checkpoint():
    first = [{"step": step, "life": 0} for step in (10, 20, 30, 40)]
    second = [{"step": 30, "life": 1}]
    assert [(line["step"], line["life"]) for line in valid_steps(first + second)] == [
        (10, 0),
        (20, 0),
        (30, 1),
    ]


def test_evaluations_that_a_later_life_took_back_do_not_count():
    evaluations = [{"step": step, "split": "val", "life": 0} for step in (8, 16, 24)]
    evaluations.append({"step": 16, "split": "val", "life": 1})
    metrics = [{"step": step, "life": 0} for step in (10, 20)] + [{"step": 11, "life": 1}]
    kept = valid_evaluations(evaluations, metrics)
    assert [(line["step"], line["life"]) for line in kept] == [(8, 0), (16, 1)]


def test_torn_last_line_is_ignored_and_damage_within_the_file_is_counted(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "lo{"step": 2}\n\n[3]\n{"no": 1}\n{"step": 3}\n{"step": 4, "\xff')
    assert read_lines(path) == ([{"step": 1}, {"step": 3}], 3)


def test_null_loss_stays_a_gap_and_is_reported(tmp_path):
    run_dir = write_run(tmp_path / "run", lives=1)
    lines = [metrics_line(step, nan=step in {20, 25}) for step in range(5, 55, 5)]
    write_lines(run_dir / "metrics.jsonl", lines)
    run = read_run(run_dir)
    assert [index for index, loss in enumerate(run.series("loss")) if loss is None] == [3, 4]
    assert any("not a finite number at 2 logged steps, first at step 20" in note for note in notes(run))
    assert "NaN" not in json.dumps([chart.figure for chart in charts(run)])


def test_energy_per_graph_is_that_of_the_steps_whose_energy_is_known(tmp_path):
    run_dir = write_run(tmp_path / "run", lives=1)
    unread = {"cpu_energy_j": None}
    lines = [metrics_line(step) | unread for step in (5, 10, 15)]  # 64 graphs a step
    # This life began at step 12: its first line is not about all the steps since the line before.
    lines += [metrics_line(step, life=1) | {"cpu_energy_j": 64.0 * 5 * 0.5} for step in (15, 20, 25)]
    write_lines(run_dir / "metrics.jsonl", lines)
    ((_, total, each),) = _energy(read_run(run_dir))
    assert total == "480\N{NARROW NO-BREAK SPACE}J"
    assert each == "0.500 J per graph"


def test_states_and_restarts(tmp_path):
    run_dir = write_run(tmp_path / "run", steps=200, done=False)
    run = read_run(run_dir)
    assert state(run) == "stopped at step 200 of 200"
    assert run.restarts == [120]
    (run_dir / "DONE").touch()
    assert state(read_run(run_dir)) == "complete"


def test_every_figure_is_valid_plotly(demo):
    for chart in charts(read_run(demo)):
        plotly.graph_objects.Figure(chart.figure)


def test_report_says_how_good_the_model_is_and_where_time_goes(demo):
    page = Page(page_of(demo))
    for expected in (
        "demo complete",
        "Restarted after step 300",
        "500 of 500",
        "91.8 % right Measured on 2 000 held-out samples.",
        "Always naming the commonest of 32 classes would be right for 4.7 %.",
        "would be off by 1.24 eV, so 71.8 % of that error is gone.",
        "AUROC 0.924, where 0.5 is guessing",
        "waiting for data",
        "datasets/symmetry_dev 20 000 train: 16000, val: 2000, test: 2000",
        "EPYC 7763",
        "log_every: 5",
        "forward",
        "3 node017 slower node 10 % 1.50 2 50 to 500",
        "energy of processors 10 800 J 0.33",
    ):
        assert expected in page.text
    titles = {chart.title for chart in charts(read_run(demo))}
    assert titles >= {
        "Loss",
        "Loss of each target",
        "Weight of each target",
        "Where a step's time goes",
        "Graphs per second",
        "Edges per second",
    }
    assert titles >= {
        "Learning rate",
        "Gradient norm",
        "Load imbalance",
        "Memory",
        "Accuracy by class",
        "band_gap",
        "Power",
        "Ranks",
    }


def test_a_run_of_an_earlier_version_shows_computing_as_a_whole(tmp_path):
    run_dir = write_run(tmp_path / "run", lives=1)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for key in ("forward_time_s", "backward_time_s", "cpu_energy_j", "stragglers"):
            del line[key]
    write_lines(run_dir / "metrics.jsonl", lines)
    (run_dir / "ranks.jsonl").unlink()
    parts = {part["name"]: part["time_s"] for part in step_times(read_run(run_dir))}
    assert "forward" not in parts
    assert parts["compute"] > parts["communication"]
    assert not {"Power", "Ranks"} & {chart.title for chart in charts(read_run(run_dir))}
    assert "kept the others waiting" not in Page(page_of(run_dir)).text


def test_the_map_of_ranks_shows_which_one_is_slow(demo):
    (chart,) = [chart for chart in charts(read_run(demo)) if chart.title == "Ranks"]
    (data,) = chart.figure["data"]
    assert [row[0] for row in data["z"]] == [1.0, 1.0, 1.0, 1.5]
    assert data["x"] == list(range(5, 501, 5))


def test_lines_about_several_steps_are_taken_back_from_where_they_begin():
    lines = [ranks_line(20, steps=10), ranks_line(30, steps=10), ranks_line(26, steps=4, life=1)]
    assert [(line["first_step"], line["step"]) for line in valid_steps(lines)] == [(11, 20), (23, 26)]


def test_damaged_lines_of_ranks_are_left_out(tmp_path):
    run_dir = write_run(tmp_path / "run", lives=1, steps=20)
    odd = [{"step": 25}, ranks_line(30) | {"comm_time_s": [1.0]}, ranks_line(35) | {"data_time_s": ["a"] * 4}]
    write_lines(run_dir / "ranks.jsonl", [ranks_line(5), *odd])
    assert [line["step"] for line in read_run(run_dir).ranks] == [5]


def test_report_replaces_the_old_one_and_leaves_nothing_else(demo):
    before = {path.name for path in demo.iterdir()} | set(FILES)
    (demo / "report.html").write_text("old")
    path = write_report(demo)
    assert path == demo / "report.html"
    assert path.stat().st_size < 6_000_000
    assert {path.name for path in demo.iterdir()} == before


@pytest.mark.parametrize("name", ["demo", "evil"])
def test_nothing_is_loaded_from_outside_and_only_our_scripts_stand_in_the_page(name, request):
    page = Page(page_of(request.getfixturevalue(name)))
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "data", "action"} & set(attributes), tag
        assert not [attribute for attribute in attributes if attribute.startswith("on")], tag
        assert tag not in {"img", "iframe", "object", "embed", "link", "base"}
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "figures"},
        {},
        {},
    ]
    styles = "".join(page.raw["style"])
    assert "@import" not in styles
    assert "url(" not in styles


def test_markup_from_a_run_comes_out_as_text(evil):
    text = page_of(evil)
    page = Page(text)
    assert EVIL.lower() not in text.lower()
    assert page.text.count(EVIL) >= 15
    # In a figure plotly reads markup itself, so names are escaped once more there.
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1])
    assert "<" not in json.dumps(figures)


@pytest.mark.parametrize(
    "lines", [[], [metrics_line(5)], [{"step": 5}], [{"step": 5, "loss": float("nan"), "losses": 3}]]
)
def test_short_runs_without_evaluations_have_a_report(tmp_path, lines):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text("steps: 500\n")
    write_lines(run_dir / "metrics.jsonl", lines)
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    assert ("stopped at step 5 of 500" if lines else "no step on record yet") in page.text
    assert "Nothing was evaluated" in page.text


def test_odd_evaluations_do_not_stop_the_report(tmp_path):
    run_dir = write_run(tmp_path / "run")
    odd = [
        {"step": 10},
        {
            "step": 20,
            "split": "val",
            "metrics": {"gap": None, "group": {"accuracy": "high"}, "x": {"mae": 0.5}},
        },
        {"step": 30, "split": "test", "metrics": [], "per_class": {"group": {"a": 3}}},
        {**evaluation_line(40), "samples": None},
    ]
    write_lines(run_dir / "evaluations.jsonl", odd)
    assert "Metrics on val" in Page(write_report(run_dir).read_text(encoding="utf-8")).text


def test_weights_that_stay_are_not_drawn(tmp_path):
    run_dir = write_run(tmp_path / "run")
    write_lines(
        run_dir / "metrics.jsonl", [metrics_line(step) | {"weights": {"gap": 0.5, "metal": 1.0}} for step in (5, 10)]
    )
    assert "Weight of each target" not in {chart.title for chart in charts(read_run(run_dir))}


def test_metrics_of_an_energy_and_of_a_flag_are_in_the_table(tmp_path):
    run_dir = write_run(tmp_path / "run")
    energy = {"samples": 90, "loss": 0.1, "mae": 12.5, "rmse": 18.0, "baseline_mae": 250.0, "baseline_rmse": 300.0}
    energy |= {
        "mae_per_atom": 0.25,
        "rmse_per_atom": 0.375,
        "baseline_mae_per_atom": 1.5,
        "baseline_rmse_per_atom": 2.0,
    }
    energy |= {"composition_mae": 17.5, "composition_rmse": 24.0, "r2": 0.96, "unit": "eV"}
    metal = {"samples": 90, "loss": 0.1, "accuracy": 0.875, "balanced_accuracy": 0.75, "f1": 0.625, "auroc": 0.96}
    metal |= {"chance": 0.6, "classes": 2}
    kind = {"samples": 90, "loss": 0.1, "accuracy": 0.5, "balanced_accuracy": 0.375, "f1_macro": 0.35, "classes": 4}
    line = evaluation_line(500) | {"metrics": {"energy": energy, "metal": metal, "kind": kind}}
    write_lines(run_dir / "evaluations.jsonl", [line])
    text = Page(write_report(run_dir).read_text(encoding="utf-8")).text
    for expected in (
        "mean absolute error / eV 12.50 12.50 500 250",
        "mean absolute error per atom / eV/atom 0.2500 0.2500 500 1.500",
        "R² 0.9600 0.9600 500 0",
        "balanced accuracy 75 % 75 % 500 50 %",
        "balanced accuracy 37.5 % 37.5 % 500 25 %",
        "F1 score, mean of classes or labels 0.3500",
        "AUROC 0.9600 0.9600 500 0.5000",
        "Measured on 90 held-out samples.",
        "Energies of the elements alone would be off by 17.5 eV.",
    ):
        assert expected in text


@pytest.mark.parametrize("missing", ["config.yaml", "metrics.jsonl", None])
def test_a_folder_that_is_no_run_is_refused(tmp_path, missing):
    run_dir = tmp_path / "run"
    if missing:
        (write_run(run_dir) / missing).unlink()
    with pytest.raises(UserInputError, match=missing or "not a directory"):
        write_report(run_dir)


def test_a_broken_config_is_the_users_to_mend(tmp_path):
    run_dir = write_run(tmp_path / "run")
    (run_dir / "config.yaml").write_text("steps: [1,\n")
    with pytest.raises(UserInputError, match=r"config\.yaml is not valid YAML"):
        write_report(run_dir)


def test_importing_the_report_stays_light():
    heavy = {"plotly", "jinja2", "numpy", "torch", "ruamel"}
    code = f"import sys, matsci_hpc.analysis.report; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
@pytest.mark.parametrize("name", ["demo", "evil"])
def test_browser_draws_every_chart_without_complaint(name, request, tmp_path):
    run_dir = request.getfixturevalue(name)
    page, complaints = open_in_browser(write_report(run_dir), tmp_path)
    assert complaints == []
    expected = len(charts(read_run(run_dir)))
    assert expected >= 14
    assert page.count('class="chart js-plotly-plot"') == expected
    assert page.count('class="plot-container') == expected
    assert len(re.findall(r'<svg class="main-svg"', page)) >= expected
    # What the page holds after its scripts ran: no element or script that a name brought in.
    assert "<img" not in page.replace("&lt;img", "")
    assert not re.search(r"<script>\s*alert", page)


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
def test_browser_would_refuse_a_script_that_slipped_in(demo, tmp_path):
    text = page_of(demo)
    tampered = tmp_path / "tampered.html"
    tampered.write_text(text.replace("</header>", "<script>console.log(1)</script></header>"), encoding="utf-8")
    _, complaints = open_in_browser(tampered, tmp_path)
    assert len(complaints) == 1
    assert "Content Security Policy" in complaints[0]
