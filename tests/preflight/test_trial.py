import os
import sys

import pytest
from ranks import run_ranks
from safetensors.torch import load_file

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.loader import Cursor, Division, Loader
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.loading.plan import COST, Plan
from matsci_hpc.loading.spec import plan_spec
from matsci_hpc.preflight import measured
from matsci_hpc.preflight.measured import measure, trial_environment


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(measured, "TRIAL_S", 0.2)


def test_a_trial_of_a_real_run(train_config, subject, crystals, tmp_path):
    before = sorted(crystals.iterdir())
    found = measure(subject(train_config()), 2, 1)
    assert found.threads == 1
    assert len(found.step_times_s) == len(found.step_costs) >= 3
    assert min(found.step_times_s) > 0
    # Rank 0 of two computes about half of a step, and a step waits for the larger half.
    assert found.mean_cost / 2 < sum(found.step_costs) / len(found.step_costs) < 2 * found.mean_cost
    assert found.mean_cost <= found.largest_cost
    assert 0 < found.efficiency <= 1
    assert found.checkpoint_bytes == 3 * found.parameter_bytes > 0
    assert found.fixed_bytes == 4 * found.parameter_bytes
    assert found.program_bytes + found.fixed_bytes < found.steps_bytes <= found.peak_bytes
    assert found.evaluation_s >= found.look_s > 0
    assert sorted(crystals.iterdir()) == before
    assert not (tmp_path / "run").exists()


def test_the_final_evaluation_is_foretold(train_config, subject, crystals):
    """Of the same split it takes as long as that of the held-out one, and it is one where there is no other."""
    assert measure(subject(train_config()), 2, 1).final_s == 0.0
    found = measure(subject(train_config(evaluate={"final_split": "val"})), 2, 1)
    assert found.final_s == found.evaluation_s > 0
    alone = train_config(
        data={"train": [str(crystals)], "held_out": None}, evaluate={"final_split": "val", "final_weights": "last"}
    )
    only = measure(subject(alone), 2, 1)
    assert only.final_s >= only.look_s > only.evaluation_s == 0.0
    assert only.evaluation_cost == found.evaluation_cost > 0


def test_frozen_parameters_take_no_room_for_gradients(train_config, subject):
    whole = measure(subject(train_config()), 2, 1)
    frozen = measure(subject(train_config(fine_tune={"freeze": "encoder"})), 2, 1)
    assert frozen.parameter_bytes == whole.parameter_bytes
    assert frozen.parameter_bytes < frozen.fixed_bytes < whole.fixed_bytes / 2


def test_a_running_mean_takes_memory_and_room_in_checkpoints(train_config, subject, tmp_path):
    found = measure(subject(train_config(average={"decay": 0.9})), 2, 1)
    assert found.average_bytes == found.parameter_bytes
    assert found.fixed_bytes == 5 * found.parameter_bytes
    run = tmp_path / "real"
    done = run_ranks(1, "train", tmp_path / "train.yaml", f"run_dir={run}", "steps=2", "average.decay=0.9")
    assert done.returncode == 0, done.stderr
    folder = run / "checkpoints" / "step-000002"
    model, optimizer, average = (
        load_file(folder / f"{name}.safetensors") for name in ("model", "optimizer", "average")
    )
    moments = [each for key, each in optimizer.items() if key.endswith(("|exp_avg", "|exp_avg_sq"))]
    names = {key.removesuffix("|exp_avg") for key in optimizer if key.endswith("|exp_avg")}
    written = [*moments, *(each[name] for each in (model, average) for name in names)]
    assert sum(each.nbytes for each in written) == found.checkpoint_bytes == 4 * found.parameter_bytes


def test_a_trial_takes_the_share_of_all_virtual_ranks(train_config, subject):
    config = train_config(parallel={"virtual_ranks": 2})
    found = measure(subject(config), 3, 1)
    collection = open_collection(config.data)
    plan = Plan(collection, plan_spec(config, collection))
    count = 1 + len(found.step_costs)
    with Loader(collection, plan, Cursor(0, 0, 0), count, Division(0, 3, virtual=2), COST) as loader:
        costs = [float(COST.edge * work.rank_edges + COST.atom * work.rank_atoms) for work in loader]
    assert costs[1:] == found.step_costs


def test_data_that_do_not_fit_the_config(train_config, subject):
    with pytest.raises(UserInputError, match="no data set has this target"):
        measure(subject(train_config(targets={"gop": {}})), 2, 1)


def test_an_encoder_that_is_not_there(train_config, subject, tmp_path):
    config = train_config(init_from=str(tmp_path / "before"))
    with pytest.raises(UserInputError, match="there is no such folder"):
        measure(subject(config), 2, 1)
    assert measure(subject(config, awaited=[tmp_path / "before"]), 2, 1).parameter_bytes > 0


def test_a_trial_that_is_killed(train_config, subject, tmp_path):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -KILL $$\n")
    killed.chmod(0o755)
    with pytest.raises(RuntimeError, match="ended by signal 9"):
        measure(subject(train_config(), python=killed), 2, 1)


def test_environment_of_a_rank():
    around = {"PATH": "/bin", "OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1", "RANK": "3", "OMP_NUM_THREADS": "9"}
    found = trial_environment(around, {"KMP_BLOCKTIME": "1"}, 4)
    assert found["PATH"] == "/bin"
    assert found["OMP_NUM_THREADS"] == "4"
    assert found["KMP_BLOCKTIME"] == "1"
    assert "MALLOC_TOP_PAD_" in found
    assert not {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "RANK"} & found.keys()
    assert os.environ
    assert sys.executable
