import pytest

from matsci_hpc.preflight.duration import duration_findings, foretell, preparation_findings
from matsci_hpc.preflight.prep_sample import PrepSample
from matsci_hpc.preflight.speed import Speed

HOUR = 3600.0


def speed(step_s=10.0, *, there=True, evaluation_s=0.0, startup_s=0.0, final_s=0.0):
    return Speed(step_s, step_s, step_s, step_s, startup_s, evaluation_s, "a test", there, final_s)


def look(config, job, site, found, done=0, *, complete=False):
    return {each.topic: each for each in duration_findings(config, job, site, found, done, complete=complete)}


def test_time_of_what_is_left(train_config):
    config = train_config(steps=1000, evaluate={"every_steps": 300})
    whole = foretell(config, speed(evaluation_s=50.0), 0, None)
    assert whole.work_s == 10_000 + 4 * 50  # at 300, 600, 900 and at the end
    rest = foretell(config, speed(evaluation_s=50.0), 600, None)
    assert (rest.steps, rest.work_s) == (400, 4_000 + 2 * 50)


def test_the_final_evaluation_takes_time_once(train_config):
    measured = speed(evaluation_s=50.0, final_s=4000.0)
    evaluate = {"every_steps": 300, "final_split": "val"}
    config = train_config(steps=1000, evaluate=evaluate)
    assert foretell(config, measured, 0, None).work_s == 10_000 + 4 * 50 + 4000
    assert foretell(config, measured, 600, None).work_s == 4_000 + 2 * 50 + 4000
    assert foretell(config, measured, 1000, None).work_s == 50 + 4000  # that life does both again
    assert foretell(config, measured, 1000, None, complete=True).work_s == 0
    assert foretell(config, measured, 1001, None).work_s == 0
    assert foretell(config, measured, 0, 2 * HOUR).lives == 2
    without = train_config(steps=1000, evaluate=evaluate | {"final_split": None})
    assert foretell(without, measured, 0, None).work_s == 10_000 + 4 * 50
    assert foretell(without, measured, 0, HOUR).lives == 3


def test_an_evaluation_is_not_divided_over_lives(train_config):
    """The time that the end of a life takes from one is lost."""
    config = train_config(steps=900, evaluate={"every_steps": 300, "final_split": "val"})
    found = foretell(config, speed(evaluation_s=1000.0, startup_s=100.0), 0, HOUR + 100)
    # Life 1: 300 steps and 600 s of the first evaluation in vain; 2: that and 260 steps; 3: the other 40, the second
    # evaluation and 220 steps; 4: the last 80 and the third evaluation.
    assert (found.lives, found.total_s) == (4, 9_000 + 3_000 + 600 + 4 * 100)
    late = foretell(config, speed(final_s=3000.0), 0, HOUR)
    assert (late.lives, late.total_s) == (4, 9_000 + 1_800 + 3_000)
    assert foretell(config, speed(final_s=1800.0), 0, HOUR).lives == 3
    # Held out and final split follow each other in one life.
    assert foretell(config, speed(evaluation_s=1000.0, final_s=2600.0), 0, HOUR).lives == 5
    assert foretell(config, speed(evaluation_s=1000.0, final_s=2601.0), 0, HOUR).lives is None


def test_lives_of_very_many_evaluations(train_config):
    """Only a part of them is laid into lives, which leaves the result as it is where all lives are alike."""
    config = train_config(steps=10**9, evaluate={"every_steps": 100})
    found = foretell(config, speed(evaluation_s=1000.0), 0, 2000.0)
    assert found.lives == pytest.approx(10**7, rel=1e-4)
    assert found.total_s == pytest.approx(10**7 * 2000, rel=1e-4)


@pytest.mark.parametrize(
    ("seconds", "there", "level", "text", "advice"),
    [
        ({"final_s": 8_000.0}, True, "error", "the final evaluation, of 'val', takes 2.22 h, and", "final_split"),
        ({"final_s": 8_000.0}, False, "error", "and a life has 1 h for it", "final_split"),
        ({"final_s": 4_000.0}, False, "warning", "so the run would not end", "final_split"),
        ({"final_s": 3_000.0, "evaluation_s": 700.0}, True, "error", "50 min after 11.7 min of that of", "final_split"),
        ({"final_s": 9_000.0, "evaluation_s": 8e3}, True, "error", "an evaluation of 'val' takes 2.22 h", "held_out"),
    ],
)
def test_an_evaluation_that_no_life_has_time_for(seconds, there, level, text, advice, train_config, job, site):
    config = train_config(steps=1000, evaluate={"final_split": "val"})
    machine = site(signal_before_end_s=60)
    found = look(config, job(time_limit="01:01:00"), machine, speed(there=there, **seconds))
    assert "wall time" not in found
    assert found["evaluation"].level == level
    assert text in found["evaluation"].text
    assert advice in found["evaluation"].advice
    assert "evaluation" not in look(config, job(time_limit="04:00:00"), machine, speed(final_s=8_000.0))
    assert "evaluation" not in look(config, job(time_limit=None), machine, speed(there=there, **seconds))


def test_lives_leave_time_for_start_and_signal(train_config):
    config = train_config(steps=720, evaluate={"every_steps": 10_000})
    found = foretell(config, speed(startup_s=100.0), 0, HOUR)
    assert found.life_s == 3500
    assert found.lives == 3
    assert found.total_s == 7200 + 300
    assert foretell(train_config(steps=720, max_time_s=900), speed(), 0, HOUR).lives == 8
    assert foretell(config, speed(step_s=4000.0), 0, HOUR).lives is None


def test_no_evaluation_without_held_out_data(train_config, crystals):
    config = train_config(steps=100, data={"train": [str(crystals)], "held_out": None})
    assert foretell(config, speed(evaluation_s=1e6), 0, None).work_s == 1000


@pytest.mark.parametrize(
    ("steps", "there", "level"),
    [(300, True, "ok"), (4_000, True, "error"), (4_000, False, "warning"), (40_000, False, "error")],
)
def test_lives_against_those_of_the_site(steps, there, level, train_config, job, site):
    machine = site(max_lives=10, signal_before_end_s=60)
    found = look(train_config(steps=steps), job(time_limit="01:01:00"), machine, speed(there=there))
    assert found["wall time"].level == level


def test_node_hours(train_config, job, site):
    config = train_config(steps=720, evaluate={"every_steps": 720})
    found = look(config, job(nodes=4, time_limit="03:00:00"), site(), speed())
    assert "2 h for 720 steps with evaluations, 8 node-hours: one life of 03:00:00" in found["wall time"].text


def test_a_step_longer_than_a_life(train_config, job, site):
    assert look(train_config(), job(time_limit="00:10:00"), site(), speed(step_s=700.0))["wall time"].level == "error"


def test_nothing_is_left(train_config, job, site):
    assert not look(train_config(steps=6), job(), site(), speed(evaluation_s=1.0), done=6, complete=True)
    assert not look(train_config(steps=6, data={"train": ["data"], "held_out": None}), job(), site(), speed(), done=6)


def test_only_the_final_evaluation_is_left(train_config, job, site):
    config = train_config(steps=6, evaluate={"final_split": "val"})
    hour = job(time_limit="01:01:00"), site(signal_before_end_s=60)
    found = look(config, *hour, speed(evaluation_s=600.0, final_s=3000.0), done=6)
    assert found["wall time"].text == (
        "1 h for the evaluations after the last step, 1 node-hours: one life of 01:01:00"
    )
    assert "checkpoint" not in found
    # No step is to be taken, however long it would be.
    assert look(config, *hour, speed(step_s=4000.0, final_s=3000.0), done=6)["wall time"].level == "ok"
    assert look(config, *hour, speed(step_s=4000.0, final_s=4000.0), done=6)["evaluation"].level == "error"


def test_checkpoints_of_long_steps(train_config, job, site):
    def level(every, limit):
        config = train_config(steps=100_000, checkpoint={"every_steps": every})
        return look(config, job(time_limit=limit), site(), speed())["checkpoint"]

    assert level(100, "04:00:00").level == "ok"
    assert "are lost when a node fails" in level(700, "04:00:00").text
    assert "more than a life has" in level(700, "01:00:00").text


@pytest.mark.parametrize(
    ("inputs", "level", "text"),
    [(1_000, "ok", "about 5 s"), (1_000_000, "ok", "2 lives"), (100_000_000, "warning", "x 10 lives are less")],
)
def test_preparation(inputs, level, text, job, site):
    sample = PrepSample(inputs, exact=True, sampled=100, rejected=0, bytes_per_input=1.0, input_s=0.01)
    machine = site(max_lives=10, signal_before_end_s=60)
    (finding,) = preparation_findings(sample, job(verb="prep", time_limit="01:00:00"), machine)
    assert finding.level == level
    assert text in finding.text


def test_a_life_that_only_the_config_ends(train_config, job, site):
    config = train_config(steps=10, max_time_s=600)
    assert "one life of max_time_s: 600" in look(config, job(time_limit=None), site(), speed())["wall time"].text
