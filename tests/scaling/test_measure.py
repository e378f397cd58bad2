import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_dirs import metrics_line

from matsci_hpc.scaling.measure import measured_lines, to_target
from matsci_hpc.scaling.pop import efficiencies


def lives(*spans, log_every=1):
    return [
        metrics_line(step, life=life)
        for life, (first, last) in enumerate(spans)
        for step in range(first, last + 1, log_every)
    ]


def rolled_back(*steps):
    return [metrics_line(step) | {"rollbacks": 1} for step in steps]


@pytest.mark.parametrize(
    ("lines", "log_every", "warmup", "kept"),
    [
        (lives((1, 6)), 1, 2, {3: 1, 4: 1, 5: 1, 6: 1}),
        (lives((1, 6)), 1, 0, dict.fromkeys(range(1, 7), 1)),
        (lives((5, 20), log_every=5), 5, 5, {10: 5, 15: 5, 20: 5}),
        # The last line ends with the run, and may hold fewer steps.
        ([*lives((5, 10), log_every=5), metrics_line(12)], 5, 5, {10: 5, 12: 2}),
        # A second life has a warm-up, too.
        (lives((1, 5), (6, 10)), 1, 2, {3: 1, 4: 1, 5: 1, 8: 1, 9: 1, 10: 1}),
        (lives((1, 2)), 1, 2, {}),
        # A second life that begins at step 7: its first line is about three steps, and nobody knows.
        (lives((5, 5), (10, 25), log_every=5), 5, 0, {5: 5, 15: 5, 20: 5, 25: 5}),
        (lives((5, 5), (10, 25), log_every=5), 5, 5, {20: 5, 25: 5}),
        # A rollback is no other life, but goes back to a checkpoint, too.
        ([*lives((5, 10), log_every=5), *rolled_back(15, 20)], 5, 0, {5: 5, 10: 5, 20: 5}),
    ],
)
def test_the_warmup_of_each_life_is_dropped(lines, log_every, warmup, kept):
    assert {line["step"]: count for line, count in measured_lines(lines, log_every, warmup)} == kept


def of_ranks(useful, comm):
    """The factors as POP defines them, from the useful time of each rank and its time in communication."""
    total = max(u + c for u, c in zip(useful, comm, strict=True))
    mean = sum(useful) / len(useful)
    return mean / max(useful), max(useful) / total


times = st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=8)


@given(times, st.floats(0.0, 5.0))
def test_factors_are_those_of_pop_where_ranks_meet_at_the_end_of_a_step(useful, exchange_s):
    # Whoever is early waits for the last one, so all ranks end together.
    total = max(useful) + exchange_s
    comm = [total - each for each in useful]
    mean = sum(useful) / len(useful)
    found = efficiencies(total, total, sum(comm) / len(comm), mean, max(useful))
    balance, communication = of_ranks(useful, comm)
    assert found.load_balance == pytest.approx(balance)
    assert found.communication == pytest.approx(communication)
    assert found.parallel == pytest.approx(mean / total)


def test_data_and_optimiser_are_no_communication():
    # 10 ms a step: 1 data, 6 to 7 compute, 1 to 2 communication, 1 optimiser.
    found = efficiencies(0.010, 0.010, 0.0015, 0.0065, 0.007)
    assert found.load_balance == pytest.approx(8.5 / 9)
    assert found.communication == pytest.approx(0.9)


@given(st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5))
def test_noise_of_clocks_never_gives_more_than_the_whole(values):
    found = efficiencies(values[0] + 1e-6, *values[1:])
    assert 0 <= found.load_balance <= 1
    assert 0 <= found.communication <= 1


def test_a_target_is_reached_by_the_mean_of_the_last_lines():
    curve = [(step, 10 * step, 0.5 * step, 5.0 - step) for step in range(1, 6)]  # losses 4, 3, 2, 1, 0
    assert to_target(curve, 2.0, window=3) == (40, 2.0)  # the mean of 3, 2 and 1
    assert to_target(curve, 0.5, window=3) is None
    assert to_target(curve, 4.0, window=1) == (10, 0.5)
    assert to_target(curve, 9.0, window=6) is None
