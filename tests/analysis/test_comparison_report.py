import csv
import json
import re

import plotly.graph_objects
import pytest
from comparison_runs import write_config, write_pretraining, write_runs
from run_dirs import EVIL
from test_report import BROWSER, Page, open_in_browser

from matsci_hpc.analysis.comparison_figures import comparison_plots
from matsci_hpc.analysis.comparison_report import plain_text, verdicts, write_comparison_report
from matsci_hpc.comparison.collect import collect_comparison
from matsci_hpc.comparison.plan import load_comparison

NAMES = ["report.html", "report.md", "report.txt", "comparison.csv", "comparison.png"]
NOISE = (0.011, -0.006, 0.004, -0.013, 0.008)


def demo(folder):
    """Three arms, five seeds and three sizes: one arm is better with few samples, one is always worse."""
    (folder / "baselines.csv").write_text(
        "target,metric,train_samples,name,value\ngap,mae,50,random forest,0.95\ngap,mae,200,random forest,0.8\n"
        "gap,mae,400,random forest,0.7\ngap,mae,,published,0.45\n"
    )
    arms = {
        "scratch": {},
        "pretrained": {"init_from": "runs/pretrain"},
        "frozen": {"init_from": "runs/pretrain", "overrides": {"optimizer.lr": 1e-4}},
    }
    return write_config(
        folder,
        arms=arms,
        seeds=[1, 2, 3, 4, 5],
        train_samples=[50, 200, "full"],
        baselines="baselines.csv",
        metric=[{"target": "gap", "name": "mae"}, {"target": "gap", "name": "auroc"}],
    )


def demo_values(run):
    base = {50: 0.9, 200: 0.7, "full": 0.5}[run.size] + 0.02 * run.seed
    gain = {"scratch": 0.0, "pretrained": {50: 0.2, 200: 0.1, "full": 0.0}[run.size], "frozen": -0.15}[run.arm]
    place = ["scratch", "pretrained", "frozen"].index(run.arm)
    mae = base - gain + NOISE[(run.seed + 2 * place + len(str(run.size))) % 5]
    return {"mae": mae, "auroc": 1 - mae / 2}


def evil(folder):
    """Names that are markup wherever a name can be."""
    rows = f'gap,mae,100,"{EVIL}|a|`b`*c*",0.4\ngap,mae,,$x_{{,0.3\n'
    (folder / "b.csv").write_text(f"target,metric,train_samples,name,value\n{rows}")
    arms = {"scratch": {}, "pretrained": {"init_from": f"runs/{EVIL.replace('/', '')}"}}
    metric = {"target": f"{EVIL}", "name": "mae"}
    (folder / "b.csv").write_text(f"target,metric,train_samples,name,value\n{rows.replace('gap', EVIL)}")
    return write_config(folder, arms=arms, metric=metric, baselines="b.csv", overrides={"data.train": [f"x{EVIL}"]})


def lone(folder):
    """One seed and one size: as little as there can be."""
    return write_config(folder, seeds=[1], train_samples=["full"])


def tuned(folder):
    """Every arm had two learning rates."""
    return write_config(folder, tune={"optimizer.lr": [1e-3, 1e-4]})


def simple_values(run):
    return {"mae": 0.5 + 0.01 * run.seed - 0.1 * (run.arm == "pretrained") + 0.003 * run.seed**2 + 0.1 * run.trial}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """A function that gives the findings of one of the comparisons above, made once."""
    known = {}

    def of(name):
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                write_pretraining(folder / "runs/pretrain")
                path = {"demo": demo, "evil": evil, "lone": lone, "tuned": tuned}[name](folder)
                write_runs(path, demo_values if name == "demo" else simple_values)
                if name == "evil":
                    _rename_target(folder)
                known[name] = collect_comparison(load_comparison(path))
        return known[name]

    return of


def _rename_target(folder):
    for path in folder.glob("comparisons/small/runs/*/evaluations.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["metrics"] = {EVIL: line["metrics"]["gap"] | {"unit": EVIL}}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


ALL = ["demo", "evil", "lone", "tuned"]


def test_the_report_holds_what_was_found(findings, tmp_path):
    found = findings("demo")
    written = write_comparison_report(found, tmp_path / "out")
    assert [path.name for path in written.files] == NAMES
    page = Page(written.page.read_text(encoding="utf-8"))
    for expected in (
        "scratch against pretrained against frozen",
        "3 arms, 5 seeds, 50 to 400 training samples",
        "45 complete runs.",
        "gap mae, 50 training samples: pretrained is better than scratch: the difference is -0.2",
        "gap mae, 400 training samples: whether pretrained is better or worse than scratch cannot be told",
        "gap mae, 50 training samples: frozen is worse than scratch",
        "gap auroc, 50 training samples: pretrained is better than scratch",
        "12 comparisons were made",
        "Cost of pretraining",
        "random forest",
        "published",
        "no learning",
        "arm=frozen_samples=200_seed=4",
    ):
        assert expected in page.text, expected
    assert "Tuning" not in page.text
    tags = [tag for tag, _ in page.tags]
    assert tags.index("table") < tags.index("figure")  # tables first
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_the_numbers_of_the_files_are_those_of_the_findings(findings, tmp_path):
    found = findings("demo")
    write_comparison_report(found, tmp_path / "out")
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 3  # metrics, sizes, arms
    expected = [(point, arm) for point in found.points for arm in point.arms]
    for row, (point, arm) in zip(rows, expected, strict=True):
        assert (row["metric"], row["arm"], int(row["train_samples"])) == (point.metric.name, arm.arm, point.samples)
        assert (float(row["mean"]), float(row["standard_deviation"])) == (arm.mean, arm.spread)
        against = next((each for each in point.against if each.arm == arm.arm), None)
        assert (row["verdict"] == "") == (against is None)
        if against is not None:
            assert float(row["difference_low"]) == against.paired.low
            assert float(row["p_holm"]) == against.holm >= against.paired.p
            assert row["verdict"] == against.verdict
    text = (tmp_path / "out" / "report.txt").read_text()
    assert text == plain_text(found) + "\n"
    assert all(len(line) < 230 for line in text.splitlines())
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert all(f"- {sentence.replace('_', chr(92) + '_')}" in markdown for sentence in verdicts(found)[:1])


def test_the_same_records_give_the_same_bytes(findings, tmp_path):
    first, second = (write_comparison_report(findings("demo"), tmp_path / name) for name in "ab")
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_one_seed_tells_nothing(findings, tmp_path):
    page = Page(write_comparison_report(findings("lone"), tmp_path / "out").page.read_text(encoding="utf-8"))
    assert "pretrained against scratch: cannot be told from one seed." in page.text
    assert "Of one seed there is no spread, no interval and no test" in page.text


def test_trials_are_told(findings, tmp_path):
    page = Page(write_comparison_report(findings("tuned"), tmp_path / "out").page.read_text(encoding="utf-8"))
    assert "Every arm had the same trials. Chosen by gap mae on the held-out split" in page.text
    assert "optimizer.lr=0.0001" in page.text


@pytest.mark.parametrize("name", ALL)
def test_every_figure_is_valid_plotly(name, findings):
    plots = comparison_plots(findings(name))
    for plot in plots:
        plotly.graph_objects.Figure(plot.figure)
    assert len(plots) == {"demo": 2 * 2 + 3, "evil": 2 + 2, "lone": 2 + 1, "tuned": 2 + 2}[name]


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_loaded_from_outside_and_only_our_scripts_stand_in_the_page(name, findings, tmp_path):
    page = Page(write_comparison_report(findings(name), tmp_path / "out").page.read_text(encoding="utf-8"))
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "data", "action"} & set(attributes), tag
        assert not [attribute for attribute in attributes if attribute.startswith("on")], tag
        assert tag not in {"img", "iframe", "object", "embed", "link", "base"}
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "figures"}, {}, {}]


def test_markup_in_names_comes_out_as_text(findings, tmp_path):
    written = write_comparison_report(findings("evil"), tmp_path / "out")
    text = written.page.read_text(encoding="utf-8")
    assert EVIL.lower() not in text.lower()
    assert Page(text).text.count(EVIL) >= 3
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1])
    assert "<img" not in json.dumps(figures)
    assert "<script" not in json.dumps(figures)
    assert "<" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
@pytest.mark.parametrize("name", ALL)
def test_browser_draws_every_chart_without_complaint(name, findings, tmp_path):
    found = findings(name)
    page, complaints = open_in_browser(write_comparison_report(found, tmp_path / "out").page, tmp_path)
    assert complaints == []
    expected = len(comparison_plots(found))
    assert page.count('class="chart js-plotly-plot"') == expected
    assert "<img" not in page.replace("&lt;img", "")
    assert not re.search(r"<script>\s*alert", page)
