"""The confusion of classes in the report of a run."""

import csv
import io
import json

import plotly.graph_objects
import pytest
from markdown_it import MarkdownIt
from matplotlib.image import imread
from pages import Page
from run_dirs import confusion, evaluation_line, write_lines, write_run

from matsci_hpc import point_groups
from matsci_hpc.analysis.chart_picture import picture
from matsci_hpc.analysis.confusion import confusion_charts, families, family_sheets
from matsci_hpc.analysis.figures import charts
from matsci_hpc.analysis.records import read_run
from matsci_hpc.analysis.report import markdown, render
from matsci_hpc.analysis.run_csv import run_tables_csv

GROUPS = point_groups.all_groups(12)


@pytest.fixture
def run_with(tmp_path):
    """A run whose last evaluation has such an entry `confusion`; the one before has another."""

    def make(entry, name="run"):
        folder = write_run(tmp_path / name, lives=1)
        last = evaluation_line(500)
        del last["confusion"]
        write_lines(folder / "evaluations.jsonl", [evaluation_line(450), last | entry])
        return read_run(folder)

    return make


def test_the_last_confusion_is_drawn_by_true_class(run_with):
    counts = [[6, 2, 0], [0, 0, 0], [1, 0, 1]]
    run = run_with({"confusion": {"kind": {"classes": ["a", "b", "c"], "counts": counts}}})
    (chart,) = confusion_charts(run)
    assert chart.caption.startswith("kind on val, step 500:")
    (trace,) = chart.figure["data"]
    assert trace["z"] == [[0.75, 0.25, 0.0], [None] * 3, [0.5, 0.0, 0.5]]
    assert trace["y"] == [2, 1, 0]  # the first class on top
    assert chart.figure["layout"]["yaxis"]["ticktext"] == ["a ", "b ", "c "]
    assert trace["hovertext"][0][1] == "a named b: 25\N{NARROW NO-BREAK SPACE}%, 2 of 8"
    assert not chart.wide
    plotly.graph_objects.Figure(chart.figure)
    assert any(each.title == "Confusion of classes" for each in charts(run))


def test_point_groups_are_also_shown_by_family(run_with):
    entry = confusion(GROUPS, right=30)  # the others are named the next group of the list
    run = run_with({"confusion": {"point_group": entry}})
    folded, whole = confusion_charts(run)
    assert "families" in folded.title
    assert folded.figure["layout"]["yaxis"]["ticktext"] == [f"{name} " for name in point_groups.FAMILIES]
    assert whole.wide
    assert len(whole.figure["data"][0]["z"]) == len(GROUPS)
    for chart in (folded, whole):
        plotly.graph_objects.Figure(chart.figure)
    rows = {row.name: row for row in families(run)["point_group"]}
    assert tuple(rows) == point_groups.FAMILIES
    # Td, Th, O and Oh follow on T, so that those of Oh alone leave the family; Ih is followed by C1.
    assert rows["cubic"].groups == ("T", "Td", "Th", "O", "Oh")
    assert rows["cubic"].samples == 5 * 40
    assert rows["cubic"].group_right == pytest.approx(30 / 40)
    assert rows["cubic"].family_right == pytest.approx((4 * 40 + 30) / 200)
    assert rows["icosahedral"].family_right == pytest.approx((40 + 30) / 80)
    assert sum(row.samples for row in rows.values()) == 40 * len(GROUPS)


def test_tables_of_families_are_on_the_page_in_markdown_and_in_csv(run_with):
    run = run_with({"confusion": {"point_group": confusion(GROUPS, right=30)}})
    for text in (render(run, []), MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown(run))):
        assert "Point groups by family" in Page(text).text
        assert "cubic T, Td, Th, O, Oh 200 75 % 95 %" in Page(text).text.replace(
            "(T, Td, Th, O, Oh)", "T, Td, Th, O, Oh"
        )
    rows = [row for row in csv.DictReader(io.StringIO(run_tables_csv(run))) if row["name"] == "cubic"]
    assert {row["quantity"]: float(row["value"]) for row in rows} == {
        "samples": 200,
        "group right": pytest.approx(0.75),
        "family right": pytest.approx(0.95),
    }


def test_families_without_samples_have_no_shares_in_csv(run_with):
    entry = confusion(GROUPS, right=30)
    empty = {name for name in GROUPS if point_groups.family(name) == "icosahedral"}
    entry["counts"] = [
        [0] * len(GROUPS) if name in empty else row for name, row in zip(GROUPS, entry["counts"], strict=True)
    ]
    run = run_with({"confusion": {"point_group": entry}})
    rows = [row for row in csv.DictReader(io.StringIO(run_tables_csv(run))) if row["table"].startswith("point groups")]
    assert [(row["quantity"], row["value"]) for row in rows if row["name"] == "icosahedral"] == [("samples", "0")]
    assert all(row["value"] for row in rows)
    assert len(rows) == 3 * len(point_groups.FAMILIES) - 2


@pytest.mark.parametrize("names", [[f"class {number}" for number in range(40)], ["C1", "Ci", "Cs", "T"]])
def test_other_classes_and_few_ones_have_no_families(run_with, names):
    run = run_with({"confusion": {"kind": confusion(names, right=10)}})
    assert [chart.title for chart in confusion_charts(run)] == ["Confusion of classes"]
    assert family_sheets(run) == []


def test_a_run_of_an_earlier_version_has_no_map(tmp_path):
    folder = write_run(tmp_path / "run", lives=1)
    lines = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    for line in lines:
        del line["confusion"]
    write_lines(folder / "evaluations.jsonl", lines)
    run = read_run(folder)
    assert not [chart for chart in charts(run) if "onfusion" in chart.title]
    assert "What it has learned" in Page(render(run, [])).text


@pytest.mark.parametrize(
    "entry",
    [
        {"classes": ["a", "b"], "counts": [[1, 2]]},
        {"classes": ["a"], "counts": [[3]]},
        {"classes": ["a", "b"], "counts": [[0, 0], [0, 0]]},
        3,
    ],
)
def test_damaged_and_empty_ones_are_left_out(run_with, entry):
    assert confusion_charts(run_with({"confusion": {"kind": entry}})) == []


def test_the_picture_has_the_cells_where_they_belong(run_with, tmp_path):
    """Triangles of counts on either side of the diagonal; rows without samples are blank."""
    drawn = []
    upper, lower, last = (
        [[1, 9, 9], [0, 1, 9], [0, 0, 1]],
        [[1, 0, 0], [9, 1, 0], [9, 9, 1]],
        [[0] * 3, [0] * 3, [0, 0, 1]],
    )
    for name, counts in {"upper": upper, "lower": lower, "last": last}.items():
        run = run_with({"confusion": {"kind": {"classes": ["a", "b", "c"], "counts": counts}}}, name)
        path = tmp_path / "map.png"
        path.write_bytes(picture(confusion_charts(run)))
        drawn.append(imread(path)[..., :3])
    (upper_y, upper_x), (lower_y, lower_x), (last_y, _) = (
        (image[..., 2] - image[..., 0] > 0.3).nonzero() for image in drawn
    )
    assert upper_x.mean() > lower_x.mean()  # to the right of the diagonal
    assert upper_y.mean() < lower_y.mean()  # the first row is on top
    assert len(last_y) < len(upper_y) / 2
