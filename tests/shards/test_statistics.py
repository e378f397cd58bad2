from fractions import Fraction

import numpy as np
import pytest
from contents import TARGETS, content
from hypothesis import given, settings
from hypothesis import strategies as st

from matsci_hpc.shards.statistics import TargetStatistics, merge_statistics, shard_statistics
from matsci_hpc.targets import TargetSpec

SPLITS = ["train", "val", "test"]
NUMBER = TargetSpec(kind="regression")
CLASS = TargetSpec(kind="class", classes=("a", "b", "c"))

columns = st.lists(st.lists(st.floats(width=32, allow_infinity=False), max_size=8), min_size=1, max_size=6)


def merged(parts, spec, dtype):
    found = TargetStatistics.of_column(np.array(parts[0], dtype=dtype), spec)
    for part in parts[1:]:
        found = found.merged(TargetStatistics.of_column(np.array(part, dtype=dtype), spec))
    return found


@settings(deadline=None)
@given(columns)
def test_any_division_gives_the_moments_of_all(parts):
    values = np.concatenate([np.array(part, dtype=np.float32) for part in parts]).astype(np.float64)
    values = values[~np.isnan(values)]
    found = merged(parts, NUMBER, np.float32)
    assert found.count == len(values)
    if not len(values):
        assert (found.mean, found.std, found.min, found.max) == (None, None, None, None)
        return
    scale = max(np.abs(values).max(), 1e-300)
    assert found.mean == pytest.approx(values.mean(), abs=1e-12 * scale)
    assert found.std == pytest.approx(values.std(), rel=1e-9, abs=1e-12 * scale)
    assert (found.min, found.max) == (values.min(), values.max())


@given(st.lists(st.lists(st.integers(-1, 2), max_size=8), min_size=1, max_size=6))
def test_any_division_gives_the_counts_of_all(parts):
    values = [value for part in parts for value in part if value >= 0]
    found = merged(parts, CLASS, np.int16)
    assert found.count == len(values)
    assert found.class_counts == [values.count(number) for number in range(3)]


def test_a_large_mean_costs_no_digits():
    values = 1e7 + np.arange(1000) % 2
    found = TargetStatistics()
    for part in np.array_split(values, 37):
        found = found.merged(TargetStatistics.of_numbers(part))
    assert found.std == pytest.approx(0.5, rel=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 23), unique=True, max_size=6).map(sorted))
def test_shards_divided_anywhere(cuts):
    numbers = [part.tolist() for part in np.split(np.arange(24), cuts) if len(part)]
    found = merge_statistics([shard_statistics(content(part), TARGETS, SPLITS) for part in numbers])
    arrays = content(range(24)).arrays
    for number, split in enumerate(SPLITS):
        chosen = arrays["structures/split"] == number
        atoms = np.diff(arrays["offsets/atoms"])[chosen]
        gaps = arrays["targets/gap"][chosen].astype(np.float64)
        gaps = gaps[~np.isnan(gaps)]
        families = arrays["targets/family"][chosen]
        assert list(found) == SPLITS
        assert (found[split]["atoms"].count, found[split]["atoms"].mean) == (8, pytest.approx(atoms.mean()))
        assert found[split]["gap"].count == len(gaps)
        assert found[split]["gap"].std == pytest.approx(gaps.std(), rel=1e-9)
        assert found[split]["family"].class_counts == [int((families == each).sum()) for each in range(3)]
        assert found[split]["groups"].class_counts == arrays["targets/groups"][chosen].sum(axis=0).tolist()


NASTY = {
    "a spread of the last digit": lambda rng, n: 16777215 - (rng.random(n) < 1e-3),
    "a large offset": lambda rng, n: 1e7 + rng.integers(0, 2, n),
    "a few outliers": lambda rng, n: np.where(rng.random(n) < 1e-4, 1e7, rng.integers(0, 9, n) / 8),
    "sorted": lambda rng, n: np.sort(rng.normal(0, 1, n)),
    "energies": lambda rng, n: np.round(rng.normal(-1e4, 0.01, n), 3),
    "all alike": lambda _, n: np.full(n, 0.1),
}


@pytest.mark.parametrize("make", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("shards", [1, 3, 1500])
def test_against_exact_fractions(make, shards):
    rng = np.random.default_rng(5)
    values = make(rng, 60_000).astype(np.float32)
    parts = np.split(values, np.sort(rng.integers(0, len(values), shards - 1)))
    found = merge_statistics([{"all": {"x": TargetStatistics.of_column(part, NUMBER)}} for part in parts])["all"]["x"]
    numbers, counts = np.unique(values, return_counts=True)
    pairs = [(Fraction(x), n) for x, n in zip(numbers.tolist(), counts.tolist(), strict=True)]
    mean = sum(x * n for x, n in pairs) / len(values)
    deviations = sum((x - mean) ** 2 * n for x, n in pairs)
    assert found.count == len(values)
    assert abs(Fraction(found.mean) - mean) <= Fraction(1e-15) * max(abs(x) for x, _ in pairs)
    # Means are rounded to 16 digits, of which a spread that is small beside them keeps the fewer.
    lost = np.finfo(float).eps * float(np.abs(numbers).max()) * np.sqrt(len(values) / max(float(deviations), 1e-300))
    assert found.squared_deviations == pytest.approx(float(deviations), rel=1e-13 + lost, abs=1e-20)
    assert (found.min, found.max) == (numbers[0], numbers[-1])
