import json
import re

import pytest
import torch
from crystal_data import prepare_crystals
from preparation import run_program

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.forecast import LOOKED_AT
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.models.memory import LiveBytes
from matsci_hpc.parallel.communicator import SingleProcess
from matsci_hpc.training.setup import build_run


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    data = prepare_crystals(folder)
    other = prepare_crystals(folder / "other", count=30, cutoff=4.0)
    path = folder / "train.yaml"
    path.write_text(f"""\
run_dir: {folder}/run
data: {{train: [{data}, {{path: {other}, repeat: 2.5}}]}}
steps: 100
batch: {{graphs: 12}}
""")
    return path


def sample_costs(config):
    collection = Collection(load_config(TrainConfig, config).data.folders)
    samples = collection.in_split("train")
    return (collection.edges(samples) + 30.0 * collection.atoms(samples)).tolist()


def planned(config, *arguments):
    done = run_program("plan", config, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_table_is_aligned_and_complete(config):
    done = run_program("plan", config, "--ranks", 3)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{config} on 3 ranks"
    labels = [line[2:16].strip() for line in lines[1:] if line[2:16].strip()]
    assert labels[:6] == ["data", "a step has", "graphs", "atoms", "edges", "run"]
    assert {
        "balance",
        "efficiency",
        "by time",
        "worst 5 %",
        "largest",
        "takes",
        "parameters",
        "memory",
        "planning",
    } <= set(labels)
    assert "2.5 times in an epoch" in done.stdout
    assert "auto groups from 32 ranks on" in done.stdout
    assert all(line == line.rstrip() and len(line) < 200 for line in lines)
    head = next(line for line in lines if "plain" in line and "grouped" in line)
    row = next(line for line in lines if line.strip().startswith("efficiency"))
    assert len(head) == len(row)


def test_the_numbers_agree_with_each_other(config):
    found = planned(config, "--ranks", 3)
    in_epoch = [each["in_epoch"] for each in found["datasets"]]
    counts = [each["samples"] for each in found["datasets"]]
    assert in_epoch == [counts[0], 2 * counts[1] + counts[1] // 2]
    assert found["samples"] == sum(in_epoch)
    assert found["plain"]["steps"] == -(-sum(in_epoch) // 12)
    assert found["epochs"] == pytest.approx(100 / found["plain"]["steps"])
    assert 0.3 < found["plain"]["worst"] <= found["plain"]["efficiency"] <= 1
    assert found["plain"]["mean_share"] <= found["plain"]["largest_share"]
    assert found["plain"]["mean_share"] == pytest.approx(found["grouped"]["mean_share"], rel=1e-12)
    memory = found["memory"]
    assert found["least_bytes"] == found["rank_bytes"] + found["program_bytes"]
    assert found["program_bytes"] > 3e7
    assert memory["parameters"] == memory["gradients"] == memory["optimizer"] / 2 > 1e5
    assert memory["average"] == 0
    double = planned(config, "--ranks", 3, "precision=float64", "average.decay=0.9")["memory"]
    assert double["parameters"] == double["average"] == 2 * memory["parameters"]


def test_frozen_parameters_have_no_gradients_and_no_moments(config):
    """Frozen for the whole run, for a part of it, and not at all, as float32."""
    read = load_config(TrainConfig, config)
    model = build_run(read, open_collection(read.data), SingleProcess(), torch.device("cpu")).model
    every, frozen = (sum(each.numel() for each in part.parameters()) for part in (model, model.encoder))
    trained = every - frozen
    for options, count in (
        (("fine_tune.freeze=encoder",), trained),
        (("fine_tune.freeze=encoder", "fine_tune.freeze_steps=99"), every),
        ((), every),
    ):
        memory = planned(config, "--ranks", 3, *options)["memory"]
        assert (memory["parameters"], memory["gradients"], memory["optimizer"]) == (4 * every, 4 * count, 8 * count)
        assert (memory["numbers"], memory["trained"]) == (every, count)
    said = run_program("plan", config, "--ranks", 3, "fine_tune.freeze=encoder").stdout
    assert f"{every:,}: {trained:,} trained in the last phase, {frozen:,} frozen" in said
    assert "Adam states of those that are trained, " in said


@pytest.mark.slow
def test_more_parts_and_narrower_models_take_less_memory(config):
    whole = planned(config, "--ranks", 1)
    assert planned(config, "--ranks", 1, "batch.micro_batches=4")["rank_bytes"] < 0.5 * whole["rank_bytes"]
    # A sample cannot be split, and the largest one of the split may stand in any step.
    least = planned(config, "--ranks", 1, "batch.micro_cost=1")
    assert planned(config, "--ranks", 1, "batch.micro_batches=100")["rank_bytes"] == least["rank_bytes"]
    assert least["plain"]["largest_part"] == max(sample_costs(config))
    assert planned(config, "--ranks", 64)["plain"]["largest_share"] == max(sample_costs(config))
    assert planned(config, "--ranks", 1, "model.message_width=32")["rank_bytes"] < 0.6 * whole["rank_bytes"]


def test_warnings_say_what_to_mind(config):
    done = run_program("plan", config, "--ranks", 40, "data.block=12", "batch.oversized={cost: 1200, policy: keep}")
    assert done.returncode == 0, done.stderr
    minded = done.stdout.partition("  mind")[2]
    assert re.search(r"\d+% of the ranks have no work", minded)
    assert "data.block: 12 samples that lie together are a large part of a step" in minded
    assert re.search(r"\d+ samples above batch.oversized.cost = 1,200: .*shard-.*trained on all the same", minded)


def test_block_of_one_and_a_short_last_step_are_nothing_to_mind(config):
    done = run_program("plan", config, "--ranks", 2, "data.block=1", "batch.graphs=5")
    assert (done.returncode, "data.block" in done.stdout) == (0, False)
    samples = planned(config, "--ranks", 2)["samples"]
    done = run_program("plan", config, "--ranks", 8, f"batch.graphs={samples - 1}")
    assert "2 steps; the last step of an epoch has 1\n" in done.stdout
    assert "no work" not in done.stdout
    done = run_program("plan", config, "--ranks", 8, "batch.graphs=1")
    assert "there are steps of 1 graph on 8 ranks: over the epoch 88% of the ranks have no work" in done.stdout


def test_skipped_samples_are_counted(config):
    found = planned(config, "--ranks", 2, "batch.oversized={cost: 1200, policy: skip}")
    first = found["datasets"][0]
    assert 0 < first["left_out"] < first["samples"]
    assert first["in_epoch"] == first["samples"] - first["left_out"]
    assert found["plain"]["largest_part"] >= max(cost for cost in sample_costs(config) if cost <= 1200)
    text = run_program("plan", config, "--ranks", 2, "batch.oversized={cost: 1200, policy: skip}").stdout
    ones = "one" if first["left_out"] == 1 else "ones"
    shown = f"{first['in_epoch']} of {first['samples']} samples ({first['left_out']} oversized {ones} left out)  "
    assert shown in text


def test_figures_of_some_steps_say_so_and_means_hold_for_all(config):
    assert "means from all" not in run_program("plan", config, "--ranks", 2).stdout
    done = run_program("plan", config, "--ranks", 2, "batch.graphs=1")
    folders = [str(each) for each in load_config(TrainConfig, config).data.folders]
    found = planned(config, "--ranks", 2, "batch.graphs=1", f"data.train={folders}")
    assert f"are from {LOOKED_AT} of " in done.stdout
    costs = sample_costs(config)
    assert found["plain"]["looked_at"] == LOOKED_AT < found["plain"]["steps"] == len(costs)
    assert found["plain"]["mean_share"] == pytest.approx(sum(costs) / len(costs) / 2)
    assert found["plain"]["graphs"]["mean"] == 1


def test_busy_ranks_are_judged_by_time(config):
    found = planned(config, "--ranks", 24)
    plain, grouped = found["plain"]["time_weighted"], found["grouped"]["time_weighted"]
    (said,) = [text for text in found["warnings"] if "busy" in text]
    assert said.startswith(f"the ranks are busy {plain:.0%} of the time")
    assert ("batch.grouping=similar" in said) == (grouped >= plain + 0.05)
    assert ("at best" in said) == (grouped <= plain)


def test_live_bytes_are_those_of_tensors_that_live_at_once():
    fixed = torch.zeros(1000)
    with LiveBytes([fixed]) as live:
        view = fixed.view(10, 100)
        first = view + 1.0
        assert live.peak == 4000
        del first
        second = torch.cat([view, view])
        assert live.peak == 8000
        third = second[:10].t()
        del second
        fourth = third + 1.0
        assert live.peak == 12000
        del third, fourth
        torch.ones(1000)
        assert live.peak == 12000


def test_oversized_samples_end_it_before_anything_is_queued(config):
    done = run_program("plan", config, "--ranks", 2, "batch.oversized={cost: 1200}")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"matsci-hpc: error: \d+ samples above .* or skip\n", done.stderr)


def test_speeds_are_those_of_the_ranks(config):
    done = run_program("plan", config, "--ranks", 2, "balance.speeds=[1, 1, 1]")
    assert done.returncode == 2
    assert "balance.speeds names 3 ranks, and the plan is for 2" in done.stderr
    assert planned(config, "--ranks", 2, "balance.speeds=[3, 1]")["plain"]["efficiency"] > 0.9
