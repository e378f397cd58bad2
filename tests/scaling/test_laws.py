import math

import numpy as np
import pytest
from scaling_tables import RANKS, synthetic_series

from matsci_hpc.scaling.laws import LAWS, fit_law, fit_laws
from matsci_hpc.scaling.table import Row, Table


def fitted(series, law):
    return fit_law(law, series)


def series_of(rates):
    return Table(tuple(Row(ranks, throughput=rate) for ranks, rate in rates), "here").series()[0]


TRUTH = {
    "amdahl": lambda p: 100 / (0.05 + 0.95 / p),
    "gustafson": lambda p: 100 * (0.05 + 0.95 * p),
    "universal": lambda p: 100 * p / (1 + 0.05 * (p - 1) + 0.001 * p * (p - 1)),
}
"""As the papers write them, for 100 samples/s of one rank."""


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("ranks", [RANKS, (4, 8, 16, 32, 64, 128), (1, 3, 5, 7, 11, 13)])
def test_exact_data_give_the_parameters_back_and_predict_the_held_out_point(law, ranks):
    laws = fit_laws(series_of([(p, TRUTH[law](p)) for p in ranks]))
    found = next(fit for fit in laws.fits if fit.law == law)
    assert found.parameters["rate"] == pytest.approx(100, rel=1e-6)
    assert found.parameters["sigma"] == pytest.approx(0.05, rel=1e-4)
    assert found.parameters.get("kappa", 0.001) == pytest.approx(0.001, rel=1e-4)
    assert found.held_out.error == pytest.approx(0, abs=1e-6)
    assert found.held_out.prediction.ranks == ranks[-1]
    assert found.throughput([1, 512]) == pytest.approx([TRUTH[law](1), TRUTH[law](512)], rel=1e-4)
    # Amdahl's law is a universal one, and fewer parameters are better.
    assert laws.best.law == law


def test_the_largest_throughput_is_where_the_law_turns():
    found = fitted(series_of([(p, TRUTH["universal"](p)) for p in RANKS]), "universal")
    counts = np.arange(1, 500)
    assert round(found.peak_ranks) == counts[np.argmax(TRUTH["universal"](counts))]
    never = fitted(series_of([(p, TRUTH["amdahl"](p)) for p in RANKS]), "universal")
    assert never.peak_ranks > 1e4
    assert fitted(series_of([(p, TRUTH["amdahl"](p)) for p in RANKS]), "amdahl").peak_ranks is None


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "kappa", "noise"), [(0.03, 2e-4, 0.03), (0.1, 1e-3, 0.08)])
def test_intervals_of_95_percent_hold_the_truth_that_often(sigma, kappa, noise):
    peak = math.sqrt((1 - sigma) / kappa)
    held = []
    for seed in range(500):
        found = fitted(synthetic_series(100, sigma, kappa, noise, seed=seed), "universal")
        intervals = found.intervals
        prediction = found.held_out.prediction
        held.append(
            [
                intervals["rate"].holds(100),
                intervals["sigma"].holds(sigma),
                intervals["kappa"].holds(kappa),
                found.peak.holds(peak),
            ]
        )
        assert prediction.low < prediction.throughput < prediction.high
    # Of 500 studies at 95 %, all but three in a thousand such shares lie between 92 % and 98 %.
    shares = np.mean(held, axis=0)
    assert ((shares >= 0.92) & (shares <= 0.98)).all(), shares


@pytest.mark.slow
def test_one_more_measurement_lies_in_the_interval_of_its_prediction():
    inside = []
    for seed in range(200):
        found = fitted(
            synthetic_series(repeats=1, ranks=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64), seed=seed), "universal"
        )
        prediction, measured = found.held_out.prediction, found.held_out.measured
        inside.append(prediction.low <= measured <= prediction.high)
    assert 0.91 <= np.mean(inside) <= 0.99


def test_a_bound_cuts_an_interval_off():
    found = fitted(synthetic_series(kappa=0, sigma=0.01, seed=3), "universal")
    assert found.intervals["kappa"].low == 0
    assert 0 < found.intervals["kappa"].high < 1e-3
    assert found.peak.high == math.inf
    assert found.peak.low > RANKS[-1]


def test_perfect_and_hopeless_scaling_have_a_fit():
    perfect = fit_laws(series_of([(p, 10.0 * p) for p in RANKS]))
    for fit in perfect.fits:
        assert fit.parameters["sigma"] == pytest.approx(0, abs=1e-6)
        assert fit.throughput(128) == pytest.approx(1280, rel=1e-3)
    hopeless = fitted(series_of([(p, 10.0 / p) for p in RANKS]), "universal")
    assert hopeless.peak_ranks < 2
    for fit in fit_laws(series_of([(p, 10.0) for p in RANKS])).fits:
        assert np.isfinite(fit.throughput([1, 64])).all()


def test_what_cannot_be_fitted_is_said():
    two = fit_laws(series_of([(1, 10.0), (2, 19.0)]))
    assert two.not_fitted == {"universal": "needs 3 rank counts, and 2 were measured"}
    assert {fit.law for fit in two.fits} == {"amdahl", "gustafson"}
    for fit in two.fits:
        assert (fit.held_out, fit.fit.intervals, fit.fit.spread, fit.fit.aicc) == (None, None, None, None)
        assert fit.predict(4).low is None
    assert two.differences() == (None, None)
    three = fit_laws(series_of([(1, 10.0), (2, 19.0), (4, 30.0)]))
    assert three.not_fitted == {}
    assert fitted(series_of([(1, 10.0), (2, 19.0), (4, 30.0)]), "universal").fit.intervals is None


def test_the_law_that_made_the_data_is_preferred():
    chosen = [fit_laws(synthetic_series(seed=seed, sigma=0.1, kappa=1e-3)) for seed in range(10)]
    assert [laws.best.law for laws in chosen] == ["universal"] * 10
    assert all(laws.differences()[0] == 0 and laws.differences()[1] > 2 for laws in chosen)


@pytest.mark.parametrize(("scaling", "drawn"), [("strong", "amdahl"), ("weak", "gustafson"), (None, "amdahl")])
def test_laws_that_the_measurements_do_not_tell_apart_are_not_preferred(scaling, drawn):
    rows = [
        Row(p, throughput=(p - 0.05 * (p - 1)) * math.exp(0.01 * sign), repeat=str(sign), scaling=scaling)
        for p in (1, 16)
        for sign in (-1, 1)
    ]
    for repeats in (rows, rows[::2]):  # with a criterion that is the same, and without any
        laws = fit_laws(Table(tuple(repeats), "here").series()[0])
        assert laws.preferred is None
        assert laws.best.law == drawn


def test_a_law_that_is_preferred_is_drawn_whatever_the_scaling():
    laws = fit_laws(synthetic_series(seed=1, sigma=0.1, kappa=1e-3))
    assert laws.preferred is laws.best
    assert laws.preferred.law == "universal"


def test_throughput_is_largest_on_one_rank_at_least():
    for kappa in (0.5, 5.0):
        found = fitted(series_of([(p, 10.0 * p / (1 + (p - 1) + kappa * p * (p - 1))) for p in RANKS]), "universal")
        assert found.peak_ranks == 1
        assert found.peak.low >= 1


@pytest.mark.parametrize("rate", [1e-30, 1e-60, 1e30, 1e60])
def test_rates_of_any_size_have_a_fit(rate):
    usual, scaled = (fit_laws(synthetic_series(rate=each, seed=5)) for each in (1.0, rate))
    assert [fit.law for fit in scaled.fits] == [fit.law for fit in usual.fits]
    for fit, same in zip(scaled.fits, usual.fits, strict=True):
        assert float(fit.throughput(1)) / rate == pytest.approx(float(same.throughput(1)), rel=1e-4)
        assert fit.predict(128).low / rate == pytest.approx(same.predict(128).low, rel=1e-3)


def test_the_criterion_is_that_of_the_paper():
    fit = fitted(synthetic_series(repeats=1), "amdahl").fit
    n, K = 7, 3  # two parameters and the spread
    assert fit.aicc == pytest.approx(n * math.log(fit.squares / n) + 2 * K + 2 * K * (K + 1) / (n - K - 1))


def test_many_scales_of_throughput_give_the_same_shape():
    small, large = (fitted(synthetic_series(rate=rate, seed=5), "universal") for rate in (1e-6, 1e9))
    assert small.parameters["kappa"] == pytest.approx(large.parameters["kappa"], rel=1e-4)
    assert small.intervals["sigma"].low == pytest.approx(large.intervals["sigma"].low, rel=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_measurements_that_follow_no_law_have_a_fit_all_the_same(seed):
    random = np.random.default_rng(seed)
    ranks = [1, 5, 6, 258, 862_346][: 3 + seed % 3]
    rates = 10.0 ** random.uniform(-9, 12) * np.exp(random.normal(0, 2, len(ranks)))
    laws = fit_laws(series_of(list(zip(ranks, rates.tolist(), strict=True))))
    assert len(laws.fits) == 3
    for fit in laws.fits:
        assert np.isfinite(fit.throughput(ranks)).all()
        for interval, value in zip(fit.fit.intervals or (), fit.fit.values, strict=False):
            assert interval.low <= value <= interval.high
