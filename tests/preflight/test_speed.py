import json

import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.preflight.speed import Wanted, completed_speed, like_speed, recorded_speed, spread, trial_speed


def line(step, *, life=0, ranks=2, compute_s=0.8, step_s=1.0, **changes):
    sizes = {"atoms": 1000, "edges": 30_000, "cost_imbalance": 1.25}
    return {
        "step": step,
        "life": life,
        "ranks": ranks,
        "compute_time_max_s": compute_s,
        "step_time_s": step_s,
        **sizes,
    } | changes


@pytest.fixture
def recorded(tmp_path):
    """A run directory with these records."""

    def write(lines, evaluations=(), config=None):
        folder = tmp_path / "before"
        folder.mkdir(exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
        (folder / "evaluations.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in evaluations))
        if config is not None:
            (folder / "config.yaml").write_text(json.dumps(config))
        return folder

    return write


def test_first_line_of_each_life_does_not_count(recorded):
    lines = [line(1, step_s=90.0), line(2), line(3), line(4, life=1, step_s=70.0), line(5, life=1, step_s=1.2)]
    found = recorded_speed(recorded(lines), Wanted(2))
    assert found.step_s == pytest.approx((1.0 + 1.0 + 1.2) / 3)
    assert (found.low_s, found.high_s, found.longest_s) == (1.0, 1.2, 1.2)
    assert found.measured_there


def test_other_ranks_scale_computing_alone(recorded):
    folder = recorded([line(step) for step in range(5)], [{"time_taken_s": 6.0}])
    # 0.8 s of computing at an efficiency of 1/1.25 on 2 ranks; half of it on 4, but divided worse.
    found = recorded_speed(folder, Wanted(4, efficiency=0.4))
    assert found.step_s == pytest.approx(0.2 + 0.8 / 2 * 0.8 / 0.4)
    assert found.evaluation_s == pytest.approx(3.0)
    assert "scaled from 2 to 4 ranks" in found.source


def test_the_final_evaluation_has_a_time_of_its_own(recorded, trial):
    lines = [line(step) for step in range(5)]
    held_out = [{"time_taken_s": 6.0}, {"time_taken_s": 6.0}]
    ended = recorded_speed(recorded(lines, [*held_out, {"time_taken_s": 90.0, "chosen": "best"}]), Wanted(4))
    assert (ended.evaluation_s, ended.final_s) == (3.0, 45.0)
    assert completed_speed(ended, trial(final_s=7.0)).final_s == 45.0
    running = recorded_speed(recorded(lines, held_out), Wanted(4))
    assert (running.evaluation_s, running.final_s) == (3.0, 0.0)
    # The trial tells how much longer it takes than an evaluation, and all of it where the run has none.
    assert completed_speed(running, trial(evaluation_s=2.0, final_s=8.0)).final_s == 12.0
    assert completed_speed(running, trial(evaluation_s=0.0, look_s=0.0, final_s=8.0)).final_s == 8.0
    assert completed_speed(running, trial()).startup_s == trial().startup_s


def test_larger_steps_take_longer(recorded):
    folder = recorded([line(step) for step in range(5)])
    assert recorded_speed(folder, Wanted(2, step_cost=2 * 60_000)).step_s == pytest.approx(0.2 + 2 * 0.8)


@pytest.mark.parametrize("lines", [[], [line(1)], [{"step": 1}, {"step": 2}, {"step": 3}]])
def test_too_little_to_go_by(lines, recorded):
    assert recorded_speed(recorded(lines), Wanted(2)) is None


def test_torn_lines_are_left_out(recorded):
    folder = recorded([line(1), line(2), line(3)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "li')
    assert recorded_speed(folder, Wanted(2)).step_s == 1.0


def test_a_like_run_has_the_same_model(recorded, train_config):
    config = train_config()
    tree = config.model_dump(mode="json")
    folder = recorded([line(step) for step in range(4)], config=tree)
    assert like_speed(folder, config, Wanted(2)).step_s == 1.0
    recorded([line(1)], config=tree)
    with pytest.raises(UserInputError, match="too few steps"):
        like_speed(folder, config, Wanted(2))
    recorded([line(step) for step in range(4)], config=tree | {"model": {"layers": 7}})
    with pytest.raises(UserInputError, match="another 'model'"):
        like_speed(folder, config, Wanted(2))
    with pytest.raises(UserInputError, match="cannot read"):
        like_speed(folder / "nowhere", config, Wanted(2))


def test_a_trial_is_scaled_by_cost(trial):
    found = trial_speed(trial(step_times_s=[1.0, 3.0], step_costs=[100.0, 100.0], mean_cost=150.0, largest_cost=400.0))
    assert found.step_s == pytest.approx(3.0)
    assert (found.low_s, found.high_s) == (1.5, 4.5)
    assert found.longest_s == pytest.approx(8.0)
    assert not found.measured_there


def test_spread_of_many():
    low, high = spread([float(each) for each in range(101)])
    assert low == pytest.approx(5, abs=1)
    assert high == pytest.approx(95, abs=1)
