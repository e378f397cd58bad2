import json
import math

import plotly.graph_objects
import pytest
from run_dirs import EVIL, evaluation_line, metrics_line, write_lines, write_run

from matsci_hpc.analysis.chart import DYNAMICS
from matsci_hpc.analysis.dynamics_figures import dynamics_charts
from matsci_hpc.analysis.records import read_run, valid_evaluations, valid_steps
from matsci_hpc.analysis.report import write_report


def dynamics_line(step, *, life=0, rollbacks=0, group="encoder.layers.0"):
    """One line of dynamics.jsonl."""
    ratio = {"values": 4, "share_beyond": 0.01 * step % 1, "bimodality": 0.3, "mean": 0.0, "std": 0.2}
    histogram = [0] * 24 + [2, 2] + [0] * 24
    one = {"parameters": 4, "grad_norm": 1.0 / step, "weight_norm": 3.0, "update_norm": 0.1, "effective_lr": 0.1 / 3}
    groups = {group: {**one, "ratio": {**ratio, "histogram": histogram}}}
    groups["heads.gap"] = {**one, "parameters": 2, "ratio": None}
    return {
        "step": step,
        "life": life,
        "rollbacks": rollbacks,
        "loss": 1.0,
        "autocorrelation": [0.5, 0.2, None, 0.1],
        "noise": {"scale": 30.0 + step, "parts": 4, "trace": 1.0, "square": 0.1},
        "groups": groups,
    }


def with_spike(line):
    before = [{"step": line["step"] - 2, "loss": 0.9}, {"step": line["step"] - 1, "loss": None}]
    return {**line, "spike": {"loss": 9.0, "median": 1.0, "mad": 0.1, "deviations": 54.0, "before": before}}


@pytest.fixture
def run_dir(tmp_path):
    folder = write_run(tmp_path / "run", lives=1)
    lines = [dynamics_line(step) for step in range(10, 210, 10)]
    lines += [with_spike(dynamics_line(213)), {"step": 150, "rollback": 1, "spike_step": 213, "life": 0}]
    lines += [dynamics_line(step, rollbacks=1) for step in range(160, 260, 10)]
    write_lines(folder / "dynamics.jsonl", lines)
    return folder


def test_every_chart_is_drawn_from_the_valid_course(run_dir):
    run = read_run(run_dir)
    assert [line["step"] for line in run.dynamics] == list(range(10, 260, 10))
    assert [line["rollbacks"] for line in run.dynamics] == [0] * 15 + [1] * 10
    charts = {chart.title: chart for chart in dynamics_charts(run)}
    assert list(charts) == [
        "Spikes of the loss",
        "Updates that line up",
        "Distribution of Adam's ratio",
        "Autocorrelation of gradients",
        "Gradient noise scale",
        "Gradient norms",
        "Update norms",
        "Effective learning rates",
    ]
    for chart in charts.values():
        assert chart.section == DYNAMICS
        plotly.graph_objects.Figure(chart.figure)  # refuses what plotly does not know
    caption = charts["Spikes of the loss"].caption
    assert "1 spike, at step 213" in caption
    assert "rolled back from step 213 to 150" in caption
    spike = charts["Spikes of the loss"].figure["data"][0]
    assert list(zip(spike["x"], spike["y"], strict=True)) == [(211, 0.9), (212, None), (213, 1.0)]
    noise = charts["Gradient noise scale"].figure["data"][0]
    assert (noise["x"], noise["y"]) == (list(range(10, 260, 10)), [30.0 + step for step in range(10, 260, 10)])
    assert sum(charts["Distribution of Adam's ratio"].figure["data"][0]["y"]) == pytest.approx(1)
    assert [each["name"] for each in charts["Autocorrelation of gradients"].figure["data"]] == [
        "lag 1",
        "lag 2",
        "lag 4",
    ]


def test_the_report_has_the_section_and_survives_any_content(run_dir):
    lines = [json.loads(line) for line in (run_dir / "dynamics.jsonl").read_text().splitlines()]
    lines += [dynamics_line(300, rollbacks=1, group=EVIL), {**dynamics_line(310, rollbacks=1), "groups": EVIL}]
    lines += [{**with_spike(dynamics_line(320)), "rollbacks": EVIL, "noise": [EVIL], "autocorrelation": EVIL}]
    write_lines(run_dir / "dynamics.jsonl", lines)
    page = write_report(run_dir).read_text()
    assert "Loss dynamics" in page
    assert "Rolled back once because of spikes" in page
    assert "Restarted after" not in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    write_lines(run_dir / "dynamics.jsonl", [])
    assert "Loss dynamics" not in write_report(run_dir).read_text()


def test_what_was_recorded_before_a_rollback_is_taken_back():
    lines = [{**metrics_line(step), "rollbacks": 0} for step in range(1, 9)]
    lines += [{**metrics_line(step), "rollbacks": 1} for step in range(5, 8)]
    assert [line["rollbacks"] for line in valid_steps(lines)] == [0] * 4 + [1] * 3
    evaluations = [{**evaluation_line(step), "life": 0, "rollbacks": back} for step, back in ((4, 0), (8, 0), (6, 1))]
    kept = valid_evaluations(evaluations, lines)
    assert [(line["step"], line["rollbacks"]) for line in kept] == [(4, 0), (6, 1)]
    assert math.isfinite(kept[0]["loss"])
