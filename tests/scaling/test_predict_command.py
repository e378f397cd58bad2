"""`matsci-hpc predict` on real data, with steps measured here and recorded by real ranks."""

import json
from statistics import median

import numpy as np
import pytest
from crystal_data import prepare_crystals
from preparation import run_program
from ranks import run_ranks

from matsci_hpc.analysis.records import RANK_SERIES
from matsci_hpc.config.loading import dump_config, load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling import trial
from matsci_hpc.scaling.noise import largest_of
from matsci_hpc.scaling.recorded import recorded_cost
from matsci_hpc.shards.manifest import read_manifest

CONFIG = """\
run_dir: {folder}/run
data: {{train: [{data}]}}
steps: 30
batch: {{graphs: 24}}
model: {{layers: 2, width: 8, message_width: 12, position_width: 8, embedding_width: 10, readout: mean}}
optimizer: {{clip_norm: 5.0}}
parallel: {{bucket_mb: 0.002}}
evaluate: {{every_steps: 100}}
log_every: 1
"""
SHORT = ("--seconds", 0.2, "--threads", 1)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    path = folder / "train.yaml"
    path.write_text(CONFIG.format(folder=folder, data=prepare_crystals(folder)))
    return path


@pytest.fixture(scope="module")
def runs(config):
    """The same run recorded on one and on two real ranks."""
    found = {}
    for ranks in (1, 2):
        found[ranks] = config.parent / f"on_{ranks}"
        done = run_ranks(ranks, "train", config, f"run_dir={found[ranks]}")
        assert done.returncode == 0, done.stderr
    return found


def predicted(config, *arguments, seconds=0.2):
    done = run_program("predict", config, *arguments, *SHORT, "--seconds", seconds, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_computing_measured_elsewhere(config):
    found = predicted(config, "--ranks", "1,4", "--fabric", "hdr", "--computing", "20,500")
    costs = {each["ranks"]: each["parts"] for each in found["predictions"]}
    assert costs[1]["fixed"] == costs[4]["fixed"] == pytest.approx(0.020 + found["cost"]["optimizer_s"])
    assert costs[1]["compute"] == pytest.approx(4 * costs[4]["compute"])  # a quarter each, imbalance counted apart
    assert found["cost"]["source"].startswith("20 ms and 500 ns for each unit of cost, as given")
    assert not any("this machine" in text for text in found["remarks"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--computing", "20"], "is not two numbers"),
        (["--computing", "20,0"], "nanoseconds above 0"),
        (["--computing", "20,5", "--from", "run"], "give --computing or --from, not both"),
    ],
)
def test_mistakes_about_computing(config, words, says):
    done = run_program("predict", config, "--ranks", 2, *words)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_the_table(config):
    done = run_program("predict", config, "--ranks", "2,8", "--ranks-per-node", 8, *SHORT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "strong scaling" in lines[0]
    head = next(number for number, line in enumerate(lines) if line.split()[:1] == ["ranks"])
    rows = [line.split() for line in lines[head + 1 : head + 3]]
    assert [row[:3] for row in rows] == [["2", "1", "22"], ["8", "1", "22"]]
    assert "100.0%" in rows[0]
    assert "measured on this machine" in done.stdout
    assert "shared-memory (table, not measured)" in done.stdout
    assert all(len(line) < 160 and line == line.rstrip() for line in lines)
    assert not (config.parent / "run").exists()


def test_the_numbers_hang_together(config):
    found = predicted(config, "--ranks", "1,2,8", "--ranks-per-node", 2, "--fabric", "hdr", "--strong")
    assert found["scaling"] == "strong"
    rows = found["predictions"]
    assert [(row["ranks"], row["nodes"]) for row in rows] == [(1, 1), (2, 1), (8, 4)]
    assert rows[0]["efficiency"] == 1
    for row in rows:
        assert row["step_s"] == pytest.approx(sum(row["parts"].values()))
        assert row["epoch_s"] == pytest.approx(row["step_s"] * row["steps"])
        assert row["node_hours"] == pytest.approx(row["epoch_s"] / 3600 * row["nodes"])
        assert row["efficiency"] == pytest.approx(rows[0]["epoch_s"] / (row["epoch_s"] * row["ranks"]))
    # One rank sends nothing and has the whole step; on eight its share is an eighth.
    assert rows[0]["parts"]["latency"] == rows[0]["parts"]["imbalance"] == 0
    assert rows[2]["parts"]["compute"] == pytest.approx(rows[0]["parts"]["compute"] / 8)
    cost = found["cost"]
    assert cost["steps"] >= 3
    sent = sum(each["size_bytes"] for each in cost["buckets"])
    assert len(cost["buckets"]) > 2
    assert sent % 4 == 0
    # Gradients are whole in the order in which they are sent, and none before backward has begun.
    left = [each["left"] for each in cost["buckets"]]
    assert 0.9 > left[0] > left[-1] >= 0


def test_half_as_much_is_sent_in_a_shorter_format(config, monkeypatch):
    monkeypatch.setattr(trial, "MOST", 0)  # so the fewest are taken, whatever the time
    whole, short = (
        trial.run_trial(load_config(TrainConfig, config, [f"parallel.compression={name}"]), [2, 4], 1e3)
        for name in ("none", "bf16")
    )
    assert [2 * each for each in short.bucket_bytes] == whole.bucket_bytes
    assert len(whole.costs) == len(whole.compute_s) == len(whole.left) == 6
    assert {len(each) for each in whole.left} == {len(whole.bucket_bytes)}
    assert all(0 <= share < 1 for each in whole.left for share in each)
    # Shares of two ranks and of four, in turn.
    assert max(whole.costs) > 1.2 * min(whole.costs)


def test_weak_scaling_grows_the_batch(config):
    options = ("--ranks-per-node", 4, "--weak", "--noise", 0.1, "--storage", 1e-6)
    found = predicted(config, "batch.graphs=4", "--ranks", "2,4", *options)
    one, other = found["predictions"]
    assert other["steps"] == pytest.approx(one["steps"] / 2, abs=1)
    assert other["graphs"] == pytest.approx(2 * one["graphs"], rel=0.2)
    assert other["parts"]["noise"] > one["parts"]["noise"] > 0
    # A file system of a kilobyte a second.
    shards = read_manifest(load_config(TrainConfig, config).data.folders[0]).shards
    sample_bytes = sum(each.bytes for each in shards) / sum(each.samples for each in shards)
    for row in (one, other):
        assert row["limit"] == "input"
        assert row["step_s"] == pytest.approx(row["graphs"] * sample_bytes / 1e3)


@pytest.mark.mpi
def test_runs_that_were_recorded(config, runs):
    found = predicted(config, "--ranks", "1,2,4", "--ranks-per-node", 4, "--from", runs[1], "--from", runs[2])
    # 30 lines each, of which the first does not count.
    assert found["cost"]["steps"] == 58
    assert str(runs[1]) in found["cost"]["source"]
    assert not any("measured on this machine" in each for each in found["remarks"])
    checked = load_config(TrainConfig, config)
    both, one = recorded_cost([runs[1], runs[2]], checked), recorded_cost([runs[1]], checked)
    assert both.shares[0] < 0.7 * one.shares[1]
    assert both.line.per_cost_s > 0
    assert one.noise == 0
    assert found["cost"]["shares"] == pytest.approx(both.shares)
    assert [row["extrapolated"] for row in found["predictions"]] == [False, False, True]
    assert found["cost"]["line"]["per_cost_s"] == pytest.approx(both.line.per_cost_s)


def recorded(config, folder, noise, *, fixed_s=4e-4, imbalance=1.2):
    """Records of a run on two ranks that takes fixed_s + 1 us per cost, of unequal shares and known noise."""
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(load_config(TrainConfig, config)))
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, 30):
            cost = 600.0 + 50 * step  # of the mean rank
            slowest_s = (fixed_s + 1e-6 * cost * imbalance) * (1 + noise * largest_of(2))
            line = {
                "step": step,
                "life": 0,
                "ranks": 2,
                "step_time_s": 0.01,
                "edges_per_s": 2 * cost / 0.01,
                "atoms_per_s": 0,
                "compute_time_s": fixed_s + 1e-6 * cost,
                "compute_time_max_s": slowest_s,
                "optimizer_time_s": 1e-4,
                "cost_imbalance": imbalance,
            }
            file.write(json.dumps(line) + "\n")
    return recorded_cost([folder], load_config(TrainConfig, config))


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_unequal_shares_are_no_noise(config, tmp_path, noise):
    found = recorded(config, tmp_path / "run", noise)
    assert found.noise == pytest.approx(noise, abs=1e-6)
    assert (found.line.fixed_s, found.line.per_cost_s) == pytest.approx((4e-4, 1e-6), rel=1e-3)
    # The rank with the largest share was measured, too.
    assert found.shares == pytest.approx((700.0, 1.2 * 2050.0))


def test_times_of_every_rank_tell_the_noise_of_lines_of_several_steps(config, tmp_path):
    """The rank with the largest share is another one in every step, so that over a line all ranks have the same."""
    recorded(config, tmp_path / "run", 0.0)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    costs = np.array([1000.0, 1500.0])
    for noise in (0.0, 0.1):
        times_s = (4e-4 + 1e-6 * costs) * np.array([1 - noise * largest_of(2), 1 + noise * largest_of(2)])
        series = {name: [0.0, 0.0] for name in RANK_SERIES} | {
            "edges": (10 * costs).tolist(),
            "atoms": [0, 0],
            "forward_time_s": (0.4 * times_s).tolist(),
            "backward_time_s": (0.6 * times_s).tolist(),
        }
        written = [json.dumps({"step": 10 * step, "life": 0, "steps": 10, **series}) for step in (1, 2, 3)]
        (tmp_path / "run" / "ranks.jsonl").write_text("\n".join(written) + "\n")
        slow = [json.dumps(json.loads(line) | {"compute_time_max_s": 1.0}) for line in lines]
        (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(slow) + "\n")
        found = recorded_cost([tmp_path / "run"], load_config(TrainConfig, config))
        assert found.noise == pytest.approx(noise, abs=1e-6)


@pytest.mark.mpi
def test_a_run_of_another_model_tells_nothing(config, runs, tmp_path):
    checked = load_config(TrainConfig, config, ["model.width=16"])
    with pytest.raises(UserInputError, match="another 'model'"):
        recorded_cost([runs[1]], checked)
    short = tmp_path / "short"
    short.mkdir()
    (short / "config.yaml").write_text((runs[1] / "config.yaml").read_text())
    (short / "metrics.jsonl").write_text((runs[1] / "metrics.jsonl").read_text().split("\n")[0] + "\n")
    with pytest.raises(UserInputError, match="too few steps"):
        recorded_cost([short], load_config(TrainConfig, config))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ranks", "2,x"), "no list of numbers"),
        (("--ranks", "2,70000"), "from 1 to 65,536"),
        (("--ranks", "2,8", "--ranks-per-node", "1"), "name it by --fabric"),
        (("--ranks", "2", "--fabric", "hrd", "--ranks-per-node", "2"), "choose from"),
        (("--ranks", "2", "--comm", "nothing.json", "--ranks-per-node", "2"), "no such file"),
        (("--ranks", "2", "--from", "nothing", "--ranks-per-node", "2", *map(str, SHORT)), "cannot read the config"),
        (("balance.speeds=[1,2]", "--ranks", "2", "--ranks-per-node", "2"), "alike"),
        (("targets={gop: {}}", "--ranks", "2", "--ranks-per-node", "2"), "no data set has this target"),
    ],
)
def test_mistakes(config, arguments, said):
    done = run_program("predict", config, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.mpi
def test_predicted_beside_measured(config, runs, tmp_path):
    """Prints both. The machine may be busy, so nothing is asserted of the times but where they come from."""
    kept = tmp_path / "communication.json"
    done = run_ranks(2, "doctor", "--comm", "--seconds", 1, MATSCI_HPC_MEASUREMENTS=str(kept))
    assert done.returncode == 0, done.stderr
    found = predicted(config, "--ranks", "1,2,64", "--ranks-per-node", 64, "--comm", kept, seconds=6)
    assert found["links"]["measured"]
    assert "measured on 2 ranks of 1 node" in found["links"]["source"]
    assert found["links"]["within"]["latency_s"] > 0
    one, two, many = found["predictions"]
    for row in (one, two):
        lines = (runs[row["ranks"]] / "metrics.jsonl").read_text().splitlines()[1:]
        measured_s = median(json.loads(line)["step_time_s"] for line in lines)
        print(
            f"{row['ranks']} ranks: predicted {1e3 * row['step_s']:.2f} ms, measured {1e3 * measured_s:.2f} ms a step"
        )
        assert row["graphs"] == 22
        assert row["steps"] == 2
    assert one["parts"]["latency"] == one["parts"]["bandwidth"] == 0
    assert two["parts"]["latency"] > 0
    # Sixty-four ranks for twenty-two graphs: most have none, and messages take more rounds.
    assert many["idle"] > 0.5
    assert many["efficiency"] < 0.5
    assert many["limit"] != "compute"
