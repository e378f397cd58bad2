"""The course of losses in the report of a study."""

import csv
import re
from dataclasses import replace

import pytest
from pages import BROWSER, Page, open_in_browser
from run_dirs import EVIL

from matsci_hpc.analysis.study_courses import MOST_DRAWN, course_plots, course_sheet, kinds_of, last_loss
from matsci_hpc.analysis.study_report import write_study_report
from matsci_hpc.scaling.study import study_table
from matsci_hpc.scaling.study_courses import Course, Look
from matsci_hpc.scaling.table import Row, Table
from matsci_hpc.scaling.table_files import write_table


def course(labels, world, repeat=1, losses=None, spikes=(), ended=None, ranks=1):
    losses = losses or [3.0 - 0.01 * step for step in range(100)]
    return Course(
        run=f"run-{labels}-{world}-{repeat}",
        labels=labels,
        ranks=ranks,
        world=world,
        repeat=repeat,
        steps=[(step, 4 * world * step, 0.5 * step, loss) for step, loss in enumerate(losses, 1)],
        looks=[
            Look(step, 2.0, 1.0, 0.001 * step, 0.5 if step > 50 else 0.25, 8.0 * step, dict(spikes).get(step))
            for step in range(1, len(losses) + 1)
        ],
        spikes=list(spikes),
        rollbacks=len(spikes),
        ended=ended,
    )


def text_of(sheet, row=0):
    return {name: cell for name, cell in zip(sheet.columns, sheet.rows[row], strict=True)}  # noqa: C416 - reads better


def test_repeats_are_one_kind_and_the_world_is_named():
    labels = {"lr_rule": "sqrt", "threads": "1", "virtual_ranks": "8"}
    other = {"lr_rule": "linear", "threads": "1", "virtual_ranks": "8"}
    kinds = kinds_of([course(labels, 8, 2), course(labels, 8, 1), course(other, 8)])
    assert [(kind.name, len(kind.courses)) for kind in kinds] == [
        ("lr_rule=linear, 8 ranks", 1),
        ("lr_rule=sqrt, 8 ranks", 2),
    ]
    assert kinds[1].drawn.repeat == 1


def test_the_table_says_how_a_course_went():
    found = course({}, 1, spikes=[(40, 9.0), (70, 12.0)], ended="not finite <b>")
    cells = text_of(course_sheet(kinds_of([found])))
    assert cells["runs"].remark == "ended early, after step 100"
    assert float(cells["last loss"].text) == pytest.approx(last_loss(found), abs=1e-3)
    assert last_loss(found) == pytest.approx(3.0 - 0.01 * 94.5)  # of steps 91 to 100
    assert float(cells["least loss"].text) == pytest.approx(3.0 - 0.99)
    assert (cells["spikes"].text, cells["spikes"].remark) == ("2", "first at step 40")
    # From step 20 on, 0.001 times the step: the median of 20 to 100 is at 60.
    assert cells["ratio beyond 0.9"].text.startswith("6")
    assert cells["ratio beyond 0.9"].remark.startswith("at most 10")
    assert cells["autocorrelation"].text == "0.50"
    assert cells["noise scale"].text == "800"


def test_real_ranks_are_named_where_they_differ():
    kinds = kinds_of([course({}, 8), course({}, 8, ranks=2)])
    assert [kind.name for kind in kinds] == ["8 ranks (1 real)", "8 ranks (2 real)"]


def test_a_run_that_blows_up_does_not_hide_the_others():
    wild = course({"lr": "1"}, 1, losses=[3.0, 5e7, 4.0])
    (plot, *_) = course_plots(kinds_of([wild, course({"lr": "0.1"}, 1)]))
    assert plot.figure["layout"]["yaxis"]["range"][1] == 9.0
    assert "losses above 9 are cut off" in plot.caption
    (calm, *_) = course_plots(kinds_of([course({}, 1)]))
    assert "range" not in calm.figure["layout"]["yaxis"]


def test_a_spike_outlasts_thinning():
    losses = [50.0] * 20_000
    losses[12_345] = 77.0
    (plot, *_) = course_plots(kinds_of([course({}, 1, losses=losses, spikes=[(12_346, 50.0)])]))
    line, marks = plot.figure["data"]
    assert len(line["x"]) < 2_000
    assert max(line["y"]) == 77.0
    assert (marks["x"], marks["y"]) == ([4 * 12_346], [77.0])


def test_a_spike_that_was_gone_back_from_marks_nothing():
    taken_back = replace(course({}, 1), spikes=[(40, 9.0), (40, 8.0)])
    (plot, *_) = course_plots(kinds_of([taken_back]))
    assert len(plot.figure["data"]) == 1
    assert text_of(course_sheet(kinds_of([taken_back])))["spikes"].text == "2"


def test_not_more_are_drawn_than_can_be_told_apart():
    plots = course_plots(kinds_of([course({"seed": f"{number:02}"}, 1) for number in range(MOST_DRAWN + 3)]))
    assert len(plots[0].figure["data"]) == MOST_DRAWN
    assert f"the first {MOST_DRAWN} of {MOST_DRAWN + 3}" in plots[0].caption


@pytest.fixture
def lone(tmp_path):
    """A study of one rank that is several virtual ones, whose names bring markup."""
    rows = [Row(ranks=1, throughput=10.0, samples=10, repeat="1", labels={EVIL: str(world)}) for world in (1, 8)]
    path = tmp_path / "results.csv"
    write_table(path, Table(tuple(rows), str(path)))
    courses = [course({EVIL: str(world)}, world, spikes=[(60, 20.0)]) for world in (1, 8)]
    study = study_table(Table(tuple(rows), str(path)), lone=True)
    return write_study_report(study, tmp_path / "out", courses=courses)


def test_a_study_of_one_size_has_the_losses_alone(lone):
    assert [path.name for path in lone.files] == [
        *("report.html", "report.md", "loss.csv", "dynamics.csv", "loss.png", "measurements.csv")
    ]
    page = Page(lone.page.read_text(encoding="utf-8"))
    assert "Loss and its dynamics" in page.text
    assert "Karp-Flatt" not in page.text
    with (lone.page.parent / "dynamics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 200
    assert [(line["step"], line["spike_deviations"]) for line in lines if line["spike_deviations"]] == [
        ("60", "20.0")
    ] * 2


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; CI has one")
def test_the_losses_are_drawn_in_a_browser(lone, tmp_path):
    page, complaints = open_in_browser(lone.page, tmp_path)
    assert complaints == []
    assert page.count('class="chart js-plotly-plot"') == 5
    assert "<img" not in page.replace("&lt;img", "")
    assert not re.search(r"<script>\s*alert", page)
