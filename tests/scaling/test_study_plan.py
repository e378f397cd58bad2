import os
import re
import subprocess
from pathlib import Path

import pytest
from ranks import ROOT

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.scaling.study_plan import load_study, plan_runs, site_of
from matsci_hpc.scaling.study_show import show_plan
from matsci_hpc.scaling.table import Row, Table


def planned(path, *overrides, site="local"):
    return plan_runs(load_study(path, overrides), load_site(site))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"repeat": 2}, "study.yaml:1: unknown key repeat; did you mean repeats?"),
        ({"axes": {"backend": ["gloo"]}}, "give ranks or nodes"),
        ({"axes": {"ranks": [0, 1]}}, "ranks: 0 is not a positive whole number"),
        ({"axes": {"ranks": [1, True]}}, "ranks: a value stands twice"),
        ({"axes": {"ranks": []}}, "axes.ranks: list should have at least 1 item"),
        ({"axes": {"ranks": [1], "graphs_per_rank": [4]}}, "strong scaling keeps it; give graphs, or scaling: weak"),
        ({"scaling": "weak", "axes": {"ranks": [1], "graphs": [4]}}, "it grows with the ranks; give graphs_per_rank"),
        ({"axes": {"ranks": [1], "graphs": [4], "cost": [9.0]}}, "give one of graphs and cost, not both"),
        ({"axes": {"ranks": [1], "data": ["a"], "data.train": ["b"]}}, "data and data.train are the same axis"),
        ({"axes": {"ranks": [1], "steps": [4]}}, "steps: the study decides this; it is no axis"),
        ({"overrides": {"parallel.backend": "mpi"}}, "overrides: parallel.backend is decided by the study itself"),
        ({"log_every": 3}, "3 does not divide warmup_steps 2 and steps 4; 2 does"),
        ({"allow": ["weather"]}, "allow.0: input should be 'code', 'data' or 'hardware'"),
    ],
)
def test_studies_that_cannot_be(changes, says, make_study):
    path = make_study(**changes)
    with pytest.raises(UserInputError) as refused:
        load_study(path)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"axes": {"ranks": [1], "parallel.bakend": ["mpi"]}}, "unknown key parallel.bakend; did you mean backend?"),
        ({"axes": {"ranks": [1], "backend": ["tcp"]}}, "ranks=1_backend=tcp: override: parallel.backend"),
        ({"axes": {"ranks": [3], "nodes": [2]}}, "ranks=3_nodes=2: this machine is one node, not 2"),
        ({"scaling": "weak"}, "weak scaling of training needs the axis graphs_per_rank or cost_per_rank"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml: cannot read the config"),
    ],
)
def test_combinations_that_cannot_be(changes, says, make_study):
    path = make_study(**changes)
    with pytest.raises(UserInputError) as refused:
        planned(path)
    assert says in str(refused.value)


def test_every_repeat_holds_every_combination_in_an_order_of_its_own(make_study):
    path = make_study(axes={"ranks": [1, 2, 4], "backend": ["gloo", "mpi"]}, repeats=4)
    runs = planned(path)
    blocks = [runs[start : start + 6] for start in range(0, 24, 6)]
    orders = [tuple(tuple(run.point.items()) for run in block) for block in blocks]
    assert [{run.repeat for run in block} for block in blocks] == [{1}, {2}, {3}, {4}]
    assert len({frozenset(order) for order in orders}) == 1
    assert len(set(orders[0])) == 6
    assert len(set(orders)) > 1
    assert [run.name for run in planned(path)] == [run.name for run in runs]
    assert [run.name for run in planned(path, "seed=1")] != [run.name for run in runs]
    # More repeats do not change the order of those that may be there already.
    assert [run.name for run in planned(path, "repeats=5")][:24] == [run.name for run in runs]


def test_what_a_run_of_strong_scaling_does(make_study):
    path = make_study(overrides={"checkpoint.every_steps": 2}, axes={"ranks": [4], "lr_rule": ["sqrt"], "graphs": [8]})
    (run,) = planned(path)
    assert run.name == "ranks=4_lr_rule=sqrt_graphs=8_repeat=1"
    assert run.job.ranks == 4
    assert run.labels == {"lr_rule": "sqrt", "graphs": "8"}
    words = [*run.job.overrides]
    config = load_config(TrainConfig, Path("train.yaml"), words)
    assert config == run.config
    assert (config.batch.graphs, config.steps, config.log_every, config.schedule.scaling) == (8, 6, 1, "sqrt")
    assert (config.data.held_out, config.checkpoint.every_steps) == (None, 2)
    assert config.run_dir == Path.cwd() / "studies/small/runs" / run.name


def test_virtual_ranks_are_ranks_of_weak_scaling(make_study):
    path = make_study(scaling="weak", axes={"ranks": [1, 2], "virtual_ranks": [1, 256], "graphs_per_rank": [4]})
    batches = {(run.job.ranks, run.config.parallel.virtual_ranks): run.config.batch.graphs for run in planned(path)}
    assert batches == {(1, 1): 4, (2, 1): 8, (1, 256): 1024, (2, 256): 2048}


def test_the_batch_of_weak_scaling_grows_with_the_ranks(make_study):
    path = make_study(scaling="weak", axes={"ranks": [1, 2, 8], "graphs_per_rank": [4, 6]})
    batches = {(run.job.ranks, run.point["graphs_per_rank"]): run.config.batch.graphs for run in planned(path)}
    assert batches == {(1, 4): 4, (2, 4): 8, (8, 4): 32, (1, 6): 6, (2, 6): 12, (8, 6): 48}
    by_cost = planned(make_study(scaling="weak", axes={"ranks": [2], "cost_per_rank": [500.0]}))
    assert (by_cost[0].config.batch.cost, by_cost[0].config.batch.graphs) == (1000.0, None)


def test_nodes_are_those_of_the_site(make_study):
    path = make_study(scaling="weak", axes={"nodes": [1, 2], "graphs_per_rank": [4]})
    Path("site.yaml").write_text("scheduler: slurm\nranks_per_node: 8\n")
    sizes = {(run.job.nodes, run.job.ranks, run.config.batch.graphs) for run in planned(path, site="./site.yaml")}
    assert sizes == {(1, 8, 32), (2, 16, 64)}


def test_ranks_on_several_numbers_of_nodes_are_series_of_their_own(make_study):
    path = make_study(axes={"ranks": [2, 4], "nodes": [1, 2]})
    Path("site.yaml").write_text("scheduler: slurm\nranks_per_node: 8\n")
    runs = planned(path, site="./site.yaml")
    assert len({run.job.output for run in runs}) == 4
    rows = [
        Row(run.job.ranks, throughput=10.0 * run.job.ranks, nodes=run.job.nodes, repeat="1", labels=run.labels)
        for run in runs
    ]
    series = Table(tuple(rows), "here").series()
    assert {each.name: (each.ranks.tolist(), each.nodes) for each in series} == {
        "layout=1 node": ([2, 4], (1, 1)),
        "layout=2 nodes": ([2, 4], (2, 2)),
    }


def test_a_preparation_grows_by_its_clouds(make_study):
    path = make_study(base="prep.yaml", scaling="weak", axes={"ranks": [1, 2]})
    runs = {run.job.ranks: run for run in planned(path)}
    assert {ranks: run.config.source.samples for ranks, run in runs.items()} == {1: 48, 2: 96}
    assert runs[2].job.output.name == "ranks=2_repeat=1"
    with pytest.raises(UserInputError, match="graphs_per_rank is for training"):
        planned(make_study(base="prep.yaml", scaling="weak", axes={"ranks": [1], "graphs_per_rank": [4]}))


def test_names_of_runs_are_plain_and_told_apart(make_study):
    values = [["/data/a b"], ["/data/a-b"], ["/data/a_b"]]
    names = {run.name for run in planned(make_study(axes={"ranks": [1], "data": values}))}
    assert len(names) == 3
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789=_.-") for name in names)


def test_ranks_are_not_compared_with_threads(make_study, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    local = load_site("local")
    runs = planned(make_study(axes={"ranks": [1, 2, 4]}))
    assert {site_of(run, local).environment["OMP_NUM_THREADS"] for run in runs} == {"2"}
    runs = planned(make_study(axes={"ranks": [1], "threads": [3]}))
    assert site_of(runs[0], local).environment["OMP_NUM_THREADS"] == "3"


def test_plan_shows_the_runs_and_writes_nothing(make_study):
    path = make_study(prepare=["prep.yaml"])
    before = sorted(Path.cwd().rglob("*"))
    lines = show_plan(load_study(path)).splitlines()
    assert sorted(Path.cwd().rglob("*")) == before
    assert lines[0].startswith("strong scaling of train.yaml: 2 runs, 1 repeats")
    assert lines[1].endswith("prep.yaml to " + str(Path.cwd() / "datasets/clouds"))
    names = [run.name for run in plan_runs(load_study(path), load_site("local"))]
    assert [line.split()[1] for line in lines[3:5]] == names
    assert all("12 graphs" in line and "2 + 4" in line and line.endswith("to be run") for line in lines[3:5])
    assert lines[-1] == "takes: not known before the first runs"


@pytest.mark.parametrize("path", sorted((ROOT / "scaling_studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_can_be_planned_from_anywhere(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = load_study(path.relative_to(ROOT))
    runs = plan_runs(study, load_site(study.site))
    assert len(runs) == len({run.name for run in runs})
    if study.prepare:
        assert f"first: prep {ROOT}/data_prep/" in show_plan(study)


@pytest.mark.parametrize(
    "page", sorted((ROOT / "scaling_studies").glob("*/README.md")), ids=lambda page: page.parent.name
)
def test_numbers_of_findings_are_those_of_their_commands(page):
    text = page.read_text(encoding="utf-8")
    pairs = re.findall(r"```bash\n(awk .*?)```\n\n```\n(.*?)```", text, flags=re.DOTALL)
    assert pairs
    for command, shown in pairs:
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout == shown
