"""What the report of a run writes beside its page: the same as Markdown, CSV and PNG."""

import csv
import io
import json

import numpy as np
import pytest
from markdown_it import MarkdownIt
from matplotlib.image import imread
from pages import Page
from run_dirs import EVIL, metrics_line, write_lines, write_run
from test_dynamics_figures import dynamics_line

from matsci_hpc.analysis.chart import SPEED, Chart
from matsci_hpc.analysis.chart_picture import picture
from matsci_hpc.analysis.figures import charts
from matsci_hpc.analysis.plotting import BLUE, VERMILION, Line, empty_figure, line_figure
from matsci_hpc.analysis.records import read_run
from matsci_hpc.analysis.report import markdown
from matsci_hpc.analysis.run_csv import dynamics_csv, evaluations_csv, run_tables_csv, steps_csv
from matsci_hpc.analysis.run_tables import metric_tables, step_times


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "demo")
    write_lines(folder / "dynamics.jsonl", [dynamics_line(step) for step in range(10, 60, 10)])
    return read_run(folder)


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "a<b>|&'c",
        target=EVIL,
        classes=[f"{EVIL} {index}" for index in range(5)],
        provenance={"started": EVIL, EVIL: {EVIL: [EVIL, "\ud800"], "=1+1": "$x_{"}},
        unit=f"$\\{EVIL}",
        data_set=f"{EVIL}|`*",
        split="=1+1",
    )
    with (folder / "config.yaml").open("a", newline="") as config:
        config.write(f"# {EVIL}\n# ```\r# {EVIL}\n# \u2028# {EVIL}\n")
    with (folder / "metrics.jsonl").open("a") as records:
        records.write(json.dumps({**metrics_line(505), "=2+2": "@SUM(A1)", "losses": {f"={EVIL}": 0.3}}) + "\n")
    write_lines(folder / "dynamics.jsonl", [dynamics_line(step, group=f"-{EVIL}$") for step in range(10, 60, 10)])
    return read_run(folder)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def rendered(text):
    return Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def test_markdown_has_the_tables_of_the_page(demo):
    page = rendered(markdown(demo))
    for expected in (
        "demo: complete",
        "steps 500 (of 500)",
        "point_group accuracy 91.8 % 91.8 % 500 4.7 %",
        "band_gap 0.349 eV off on average Measured on 2 000 held-out samples.",
        "forward 32.4 ms 28.5 %",
        "3 node017 slower node 10 % 1.50 2 50 to 500",
        "datasets/symmetry_dev 20 000 train: 16000, val: 2000, test: 2000",
        "log_every: 5",
        "model: EPYC 7763",
    ):
        assert expected in page.text, expected
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == 6
    assert tags.index("pre") > max(place for place, tag in enumerate(tags) if tag == "table")


def test_markup_in_names_is_text_in_markdown(evil):
    page = rendered(markdown(evil))
    known = {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "pre", "code", "blockquote"}
    assert {tag for tag, _ in page.tags} <= known
    assert [attributes for _, attributes in page.tags if set(attributes) - {"style"}] == []
    assert page.text.count(EVIL) >= 12
    tables = rendered(markdown(evil)).tags
    assert [tag for tag, _ in tables].count("table") == 6


def test_the_numbers_of_the_files_are_those_of_the_records(demo):
    steps = rows_of(steps_csv(demo))
    assert [int(row["step"]) for row in steps] == list(range(5, 501, 5))  # without what the second life took back
    for key in ("loss", "lr", "graphs_per_s", "memory_bytes"):
        assert [float(row[key]) for row in steps] == demo.series(key)
    assert [float(row["losses.band_gap"]) for row in steps] == [line["losses"]["band_gap"] for line in demo.steps]
    evaluations = rows_of(evaluations_csv(demo))
    mae = [float(row["value"]) for row in evaluations if (row["target"], row["measure"]) == ("band_gap", "mae")]
    assert mae == [line["metrics"]["band_gap"]["mae"] for line in demo.evaluations]
    dynamics = rows_of(dynamics_csv(demo))
    norms = [float(row["grad_norm"]) for row in dynamics if row["group"] == "heads.gap"]
    assert norms == [line["groups"]["heads.gap"]["grad_norm"] for line in demo.dynamics]
    assert {row["ratio_bimodality"] for row in dynamics if row["group"] == "encoder.layers.0"} == {"0.3"}
    tables = {(row["table"], row["name"], row["quantity"]): row for row in rows_of(run_tables_csv(demo))}
    (table,) = metric_tables(demo)
    for row in table["rows"]:
        measure, _, unit = row["measure"].partition(" / ")
        found = tables["metrics on val", row["target"], measure]
        assert (float(found["value"]), found["unit"]) == (row["last"], unit)
    for part in step_times(demo):
        assert float(tables["time of a step", part["name"], "time"]["value"]) == part["time_s"]


def test_a_loss_that_is_no_number_is_an_empty_cell(tmp_path):
    folder = write_run(tmp_path / "run", lives=1)
    write_lines(folder / "metrics.jsonl", [metrics_line(step, nan=step == 10) for step in (5, 10)])
    assert [row["loss"] == "" for row in rows_of(steps_csv(read_run(folder)))] == [False, True]


def test_the_files_hold_no_formulas(evil):
    seen = set()
    for text in (run_tables_csv(evil), steps_csv(evil), evaluations_csv(evil), dynamics_csv(evil)):
        rows = list(csv.reader(io.StringIO(text)))
        assert {len(row) for row in rows} == {len(rows[0])}
        seen |= {cell for row in rows for cell in row}
    assert {"'=1+1", "'=2+2", "'@SUM(A1)", f"'-{EVIL}$", EVIL} <= seen
    assert not [cell for cell in seen if cell.startswith(("=", "@", "+"))]


def pixels_of(image: bytes, colour: str):
    """Where a picture has exactly this colour: bool [height, width]."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return (np.round(255 * imread(io.BytesIO(image))[:, :, :3]) == wanted).all(axis=2)


def test_the_picture_shows_every_chart_in_its_place():
    steps = list(range(0, 100, 10))
    lines = line_figure([Line("a", steps, [float(step) for step in steps])])
    bars = empty_figure()
    bars["data"] = [{"type": "bar", "x": steps, "y": [5.0] * 10, "marker": {"color": VERMILION}}]
    log = line_figure([Line("$x_{", steps, [10.0**step for step in range(10)], VERMILION)], log=True, restarts=[50])
    image = picture(
        [
            Chart(SPEED, "left", "$\\frac{", lines),
            Chart(SPEED, "right", "a caption " * 40, bars),
            Chart(SPEED, f"_{EVIL}", EVIL, log, wide=True),
        ]
    )
    blue, red = pixels_of(image, BLUE), pixels_of(image, VERMILION)
    assert blue.shape[1] == 1200
    first, middle = blue.shape[0] // 2, blue.shape[1] // 2
    assert blue[:first, :middle].sum() > 100
    assert not blue[:, middle:].any()
    assert not blue[first:].any()
    assert red[:first, middle:].sum() > 10_000  # bars
    assert not red[:first, :middle].any()
    assert red[first:, :middle].sum() > 100
    assert red[first:, middle:].sum() > 100
    # A straight line on the logarithmic axis, as its values rise tenfold each time.
    y, x = np.nonzero(red[first:])
    assert np.corrcoef(x, y)[0, 1] < -0.99


@pytest.mark.parametrize("name", ["demo", "evil"])
def test_the_picture_of_a_run(name, request):
    run = request.getfixturevalue(name)
    drawn = charts(run)
    image = picture(drawn)
    assert image == picture(drawn)
    height, width = pixels_of(image, BLUE).shape
    assert width == 1200
    assert height > 100 * sum(chart.height for chart in drawn if chart.wide) / 80
