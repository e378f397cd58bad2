"""Measurements of studies whose truth is known."""

from collections.abc import Iterable

import numpy as np

from matsci_hpc.scaling.table import Row, Series, Table

RANKS = (1, 2, 4, 8, 16, 32, 64)


def universal_rate(ranks, rate, sigma, kappa):
    """Gunther's law, written once more than in the package."""
    return rate * ranks / (1 + sigma * (ranks - 1) + kappa * ranks * (ranks - 1))


def synthetic_rows(rates: Iterable[tuple[int, float]], noise: float, repeats: int, seed: int, **more) -> list[Row]:
    """Rows of true rates by rank count, each with repeats whose relative errors are normal."""
    random = np.random.default_rng(seed)
    return [
        Row(ranks, throughput=float(rate * np.exp(random.normal(0, noise))), repeat=str(repeat + 1), **more)
        for ranks, rate in rates
        for repeat in range(repeats)
    ]


def synthetic_series(rate=100.0, sigma=0.03, kappa=2e-4, noise=0.03, repeats=3, seed=0, ranks=RANKS) -> Series:
    """A series that follows the universal law."""
    rates = [(p, universal_rate(p, rate, sigma, kappa)) for p in ranks]
    return Table(tuple(synthetic_rows(rates, noise, repeats, seed)), "synthetic").series()[0]
