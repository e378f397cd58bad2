import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from matsci_hpc.analysis.records import valid_steps
from matsci_hpc.parallel.communicator import SingleProcess
from matsci_hpc.telemetry.clock import PHASES, StepClock
from matsci_hpc.telemetry.interval import COLUMNS, Interval, Reading, gather_interval, summary
from matsci_hpc.telemetry.rank_lines import RankLines, intervals_per_line
from matsci_hpc.telemetry.stragglers import PERSISTENT, StragglerWatch, find_stragglers


def work(graphs=2, atoms=10):
    return SimpleNamespace(
        graphs=graphs, atoms=atoms, edges=5 * atoms, cost_imbalance=1.5, samples=[0], rank_atoms=atoms, rank_edges=7
    )


def table(ranks, **columns):
    """An interval of 10 steps whose columns are as given, for all ranks or one by one."""
    values = np.zeros((ranks, len(COLUMNS)))
    for name, value in ({"forward": 1.0, "backward": 2.0, "edges": 1000.0, "total": 4.0} | columns).items():
        values[:, COLUMNS.index(name)] = value
    return Interval(10, 40, 400, 4000, 1.1, values)


def test_rates_count_every_step_of_the_interval():
    clock = StepClock()
    for atoms in (10, 30):
        clock.start()
        clock.lap("data")
        clock.lap_compute(1e-9)
        clock.stop(work(atoms=atoms))
    interval = summary(gather_interval(clock, SingleProcess()))
    time_s = 2 * interval["step_time_s"]
    assert interval["graphs_per_s"] * time_s == pytest.approx(4)
    assert interval["atoms_per_s"] * time_s == pytest.approx(40)
    assert interval["edges_per_s"] * time_s == pytest.approx(200)
    assert interval["cost_imbalance"] == 1.5
    assert interval["forward_time_s"] == pytest.approx(1e-9)
    assert interval["compute_time_s"] == pytest.approx(interval["forward_time_s"] + interval["backward_time_s"])
    parts = ("data", "forward", "backward", "comm", "optimizer", "other")
    assert sum(interval[f"{part}_time_s"] for part in parts) == pytest.approx(interval["step_time_mean_s"])
    assert not {"device_memory_bytes", "cpu_energy_j", "gpu_energy_j"} & interval.keys()
    read = summary(gather_interval(clock, SingleProcess(), Reading(123, 4.5, math.nan)))
    assert (read["device_memory_bytes"], read["cpu_energy_j"], read["energy_nodes"]) == (123, 4.5, 1)
    assert "gpu_energy_j" not in read
    clock.reset()
    assert clock.steps == clock.graphs == clock.rank_atoms == clock.edges == clock.total_s == 0


SLOW = {
    "node": {"backward": [2.0, 2.0, 3.5, 2.0]},
    "work": {"backward": [2.0, 2.0, 3.5, 2.0], "edges": [1000.0, 1000.0, 1500.0, 1000.0]},
    "data": {"data": [0.1, 0.1, 1.6, 0.1]},
}


@pytest.mark.parametrize("reason", SLOW)
def test_a_straggler_is_named_with_its_reason(reason):
    interval = table(4, **SLOW[reason])
    found = find_stragglers(interval, interval.cost(30.0, None), 1.2)
    assert found == {2: (pytest.approx(4.5 / 3.0, rel=0.05), reason)}


def test_waiting_for_others_makes_no_straggler():
    interval = table(4, comm=[3.0, 3.0, 0.1, 3.0], total=[7.0, 7.0, 4.1, 7.0])
    assert find_stragglers(interval, interval.cost(30.0, None), 1.2) == {}


def test_time_that_is_skipped_is_other_time():
    clock = StepClock()
    clock.start()
    clock.lap("data")
    known = dict(clock.phase_s)
    clock.skip()
    clock.stop(work())
    assert clock.phase_s == known
    assert clock.total_s > sum(known.values())


def test_of_two_ranks_the_faster_one_is_the_measure():
    interval = table(2, backward=[2.0, 3.5])
    assert find_stragglers(interval, interval.cost(30.0, None), 1.2) == {1: (1.5, "node")}


def test_a_rank_known_to_be_slow_has_no_more_work_than_its_share():
    """Of half the speed, with half the work: as long as the others, and no straggler by cost."""
    interval = table(3, edges=[1000.0, 1000.0, 500.0])
    assert interval.cost(0.0, [2.0, 2.0, 1.0]).tolist() == [500.0, 500.0, 500.0]


def test_ranks_without_work_do_not_hide_the_others():
    interval = table(3, forward=[0.0, 0.0, 1.0], backward=[0.0, 0.0, 2.0], data=0.001, edges=[0.0, 0.0, 100.0])
    ((rank, (_, reason)),) = find_stragglers(interval, interval.cost(30.0, None), 1.2).items()
    assert (rank, reason) == (2, "work")


def test_a_straggler_that_stays_is_said_once_for_its_node_and_again_never():
    watch = StragglerWatch(["a", "a", "b", "b", "a"], 1.2)
    slow = table(5, backward=[2.0, 2.0, 4.0, 5.0, 2.0])
    said = []
    for _ in range(2 * PERSISTENT):
        found = watch.look(slow, slow.cost(30.0, None))
        said.append(list(watch.remarks(found)))
    assert [each.rank for each in found] == [3, 2]  # the slowest first
    assert found[0].intervals == 2 * PERSISTENT
    assert found[0].to_json() == {"rank": 3, "host": "b", "ratio": 2.0, "reason": "node", "intervals": 2 * PERSISTENT}
    assert [len(each) for each in said] == [0] * (PERSISTENT - 1) + [1] + [0] * PERSISTENT
    assert "ranks 2-3 on b, busy 2.00 times" in said[PERSISTENT - 1][0]
    assert "slower node" in said[PERSISTENT - 1][0]
    fine = table(5)
    assert watch.look(fine, fine.cost(30.0, None)) == []
    assert watch.look(slow, slow.cost(30.0, None))[0].intervals == 1


def test_the_record_of_every_rank_keeps_its_bound():
    """As many ranks and lines as it is meant for, with numbers as long as they come."""
    ranks, steps, log_every, megabytes = 512, 100_000, 10, 32.0
    per_line = intervals_per_line(steps, log_every, ranks, megabytes)
    lines = RankLines(per_line, log_every, 3)
    seconds = dict.fromkeys((*PHASES, "total", "in_flight"), 0.0123456)
    interval = table(
        ranks, **seconds, graphs=1234567.0, atoms=123456789.0, edges=1234567890.0, memory_bytes=1.234e11,
        device_memory_bytes=1.234e11, cpu_energy_j=1234.5678, gpu_energy_j=1234.5678,
    )  # fmt: skip
    assert (interval.table > 0).all()

    size = 0
    for number in range(1, per_line + 1):
        line = lines.add(steps - log_every * (per_line - number), interval, interval.cost(30.0, None))
        size += len(json.dumps(line)) + 1 if line else 0
    ends = [step for step in range(log_every, steps + 1, log_every) if step % (per_line * log_every) == 0]
    assert 1 < per_line < 100
    assert size * len(ends) <= 1e6 * megabytes
    assert intervals_per_line(500, 10, 2, megabytes) == 1


def test_lines_end_at_the_same_steps_in_every_life():
    def ends(first, stop):
        lines = RankLines(2, 10, 0)
        made = [lines.add(step, table(2), np.ones(2)) for step in range(first, stop, 10)]
        return [(line["first_step"], line["step"]) for line in [*made, lines.end()] if line]

    assert ends(10, 70) == [(1, 20), (21, 40), (41, 60)]
    assert ends(40, 80) == [(31, 40), (41, 60), (61, 70)]  # after a resume at step 30


@pytest.mark.parametrize(
    ("spike", "checkpoint", "expected"),
    [
        (85, 50, [(1, 40, 40, 0), (41, 80, 40, 1), (81, 100, 20, 1)]),  # into the line before
        (65, 50, [(1, 40, 40, 0), (41, 80, 40, 1), (81, 100, 20, 1)]),  # within a line
        (65, 55, [(1, 40, 40, 0), (41, 80, 35, 1), (81, 100, 20, 1)]),  # the interval of the checkpoint is cut
        (85, 80, [(1, 40, 40, 0), (41, 80, 40, 0), (81, 100, 20, 1)]),  # between two lines
        (85, 40, [(1, 40, 40, 0), (41, 80, 40, 1), (81, 100, 20, 1)]),
    ],
)
def test_a_rollback_takes_back_intervals_and_loses_none_before_it(spike, checkpoint, expected):
    lines = RankLines(4, 10, 0)
    made = [lines.add(step, table(2, forward=1.0), np.ones(2)) for step in range(10, spike, 10)]
    lines.go_back(checkpoint, 1)
    for step in range(10 * (checkpoint // 10 + 1), 101, 10):
        taken = replace(table(2, forward=9.0), steps=min(10, step - checkpoint))
        made.append(lines.add(step, taken, np.ones(2)))
    found = valid_steps([line for line in [*made, lines.end()] if line])
    assert [(line["first_step"], line["step"], line["steps"], line["rollbacks"]) for line in found] == expected
    for line in found:
        old = max(0, min(line["step"], checkpoint // 10 * 10) - line["first_step"] + 1) // 10
        new = sum(line["first_step"] <= step <= line["step"] for step in range(10, 101, 10)) - old
        assert line["forward_time_s"][0] == pytest.approx((old + 9.0 * new) / line["steps"], rel=1e-3)


def test_a_line_adds_up_work_keeps_peaks_and_is_a_mean_of_times():
    lines = RankLines(2, 10, 0)
    lines.add(10, table(2, graphs=[1, 2], memory_bytes=[5, 9], cpu_energy_j=[math.nan, 10.0]), np.array([1.0, 2.0]))
    line = lines.add(
        20,
        table(2, graphs=[3, 4], memory_bytes=[7, 8], cpu_energy_j=[math.nan, 20.0], forward=3.0),
        np.array([3.0, 4.0]),
    )
    assert line["graphs"] == [4, 6]
    assert line["memory_bytes"] == [7, 9]
    assert line["forward_time_s"] == [0.2, 0.2]
    assert line["predicted_cost"] == [0.2, 0.3]
    assert line["cpu_energy_j"] == [None, 30.0]
    assert (line["step"], line["first_step"], line["steps"]) == (20, 1, 20)
