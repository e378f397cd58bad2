import json
import re
from pathlib import Path

import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.scaling.study_code import refuse_other_code
from matsci_hpc.scaling.study_plan import load_study, plan_runs
from matsci_hpc.scaling.study_run import run_study
from matsci_hpc.scaling.study_submit import submit_study

SITES = {
    "slurm": "scheduler: slurm\nranks_per_node: 2\n",
    "pbs": "scheduler: pbs\nranks_per_node: 2\ntime_limit: '00:30:00'\n",
}


@pytest.fixture
def scripts(make_study, tmp_path, monkeypatch, capsys):
    """A function that gives the scripts that would be submitted for a study of six runs, and writes nothing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def made(scheduler, via="script", **changes):
        axes = {"ranks": [2, 4], "backend": ["gloo", "mpi", "auto"]}
        path = make_study(**{"axes": axes, "prepare": ["prep.yaml"]} | changes)
        site = f"./{scheduler}.yaml"
        Path(site).write_text(SITES[scheduler])
        before = sorted(tmp_path.rglob("*"))
        submit_study(load_study(path), site, via=via, check=False, dry_run=True)
        assert sorted(tmp_path.rglob("*")) == before
        return path, re.split(r"(?m)^#!/bin/bash\n", capsys.readouterr().out)[1:]

    return made


def test_runs_of_one_size_are_an_array_on_slurm(scripts):
    path, (prep, *arrays) = scripts("slurm")
    assert "datasets/clouds" in prep
    assert [re.findall(r"--(array|nodes)=(\S+)", text)[:2] for text in arrays] == [
        [("array", "0-2"), ("nodes", nodes)] for nodes in re.findall(r"--nodes=(\d)", "".join(arrays))
    ]
    assert sorted(re.findall(r"--nodes=(\d)", "".join(arrays))) == ["1", "2"]
    assert all("--dependency=afterok:<clouds>" in text for text in arrays)
    runs = plan_runs(load_study(path), load_site("./slurm.yaml"))
    outputs = [name for text in arrays for name in re.findall(r"    output=\S+/(\S+)", text)]
    assert sorted(outputs) == sorted(run.name for run in runs)
    for run in runs:  # each element gets the words of its run
        assert any(f"'{run.job.overrides[-1]}'" in text for text in arrays)
        assert any(f'parallel.backend="{run.point["backend"]}"' in text for text in arrays)


def test_arrays_of_one_number_of_ranks_have_names_of_their_own(scripts):
    axes = {"ranks": [2], "nodes": [1, 2], "backend": ["gloo", "mpi"]}
    _, (_, *arrays) = scripts("slurm", axes=axes)
    names = [re.search(r"--job-name=(\S+)", text)[1] for text in arrays]
    assert sorted(names) == ["small_ranks=2_nodes=1", "small_ranks=2_nodes=2"]


def test_other_code_on_the_nodes_is_no_matter_but_may_not_differ(make_study):
    study = load_study(make_study())
    Path("slurm.yaml").write_text(SITES["slurm"])
    site = load_site("./slurm.yaml")
    runs = plan_runs(study, site)
    for run in runs:
        run.job.output.mkdir(parents=True)
        (run.job.output / "provenance.json").write_text(json.dumps({"matsci_hpc": "0.0.9"}))
    refuse_other_code(study, site, runs)
    with pytest.raises(UserInputError, match=r"and 1 more ran by 0\.0\.9, and this is "):
        refuse_other_code(study, load_site("local"), runs)
    (runs[1].job.output / "provenance.json").write_text(json.dumps({"matsci_hpc": "0.0.8"}))
    with pytest.raises(UserInputError, match=rf"{runs[1].name} ran by 0\.0\.8, and {runs[0].name} by 0\.0\.9"):
        refuse_other_code(study, site, runs)


@pytest.mark.parametrize(("scheduler", "via"), [("pbs", "script"), ("slurm", "submitit")])
def test_one_job_each_where_there_are_no_arrays(scheduler, via, scripts):
    path, (_, *jobs) = scripts(scheduler, via)
    runs = plan_runs(load_study(path), load_site(f"./{scheduler}.yaml"))
    found = [name for text in jobs for name in re.findall(r"(?m)^output=\S+/(\S+)$", text)]
    assert sorted(found) == sorted(run.name for run in runs)


def test_a_preparation_is_no_element_of_an_array(scripts):
    _, jobs = scripts("slurm", base="prep.yaml", prepare=[], axes={"ranks": [2, 4]}, repeats=2)
    assert len(jobs) == 4
    assert not any("--array" in text for text in jobs)


def test_this_machine_has_no_queue(make_study):
    with pytest.raises(UserInputError, match="`matsci-hpc study run` runs the study on this machine"):
        submit_study(load_study(make_study()), None, via="script", check=True, dry_run=False)


def test_a_cluster_is_not_this_machine(make_study):
    path = make_study()
    Path("slurm.yaml").write_text(SITES["slurm"])
    with pytest.raises(UserInputError, match=r"has slurm: `matsci-hpc study submit` hands runs to it"):
        run_study(load_study(path), "./slurm.yaml")
