"""Which runs a comparison is made of."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matsci_hpc.comparison.budget import refuse_split_of_choice, refuse_unequal
from matsci_hpc.comparison.metrics import direction_of
from matsci_hpc.config.comparison import ComparisonConfig, Size
from matsci_hpc.config.loading import load_config, read_yaml
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.describe import absolute, describe_job
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.resources import find_config
from matsci_hpc.scaling.study_plan import MOST_RUNS, StudyRun, as_overrides, in_text, name_of


@dataclass(frozen=True, slots=True)
class ArmRun(StudyRun):
    """One run of a comparison.

    Attributes:
        arm: its name.
        size: of the training set as the config has it.
        seed: of the run and of its subset.
        trial: number of the combination of tuned keys, from 0.
        tuned: these keys and their values.
    """

    arm: str
    size: Size
    seed: int
    trial: int
    tuned: Mapping[str, Any]

    @property
    def training(self) -> TrainConfig:
        """Its config."""
        assert isinstance(self.config, TrainConfig)  # noqa: S101 - the plan refuses others
        return self.config


def load_comparison(path: Path, overrides: tuple[str, ...] = ()) -> ComparisonConfig:
    """Read a comparison, here or as shipped.

    Raises:
        UserInputError: as of `load_config`, or a metric whose better values are not known.
    """
    found = load_config(ComparisonConfig, find_config(path), overrides)
    for metric in found.metrics:
        direction_of(metric)
    return found


def plan_comparison(comparison: ComparisonConfig, site: Site) -> list[ArmRun]:
    """All runs in the order in which they are made.

    One seed comes after the other, and the arms of a size one beside the other: a comparison that is broken off has
    whole pairs.

    Raises:
        UserInputError: a run would not be valid, arms have unequal budgets, or there are too many runs.
    """
    if "run_dir" not in read_yaml(find_config(comparison.base)):
        raise UserInputError(f"base: {comparison.base} is no config of a training run, and training runs are compared")
    trials = list(_trials(comparison))
    sizes = list(enumerate(comparison.train_samples))
    count = len(comparison.arms) * len(sizes) * len(comparison.seeds) * len(trials)
    if count > MOST_RUNS:
        raise UserInputError(f"the comparison has {count:,} runs, more than {MOST_RUNS:,}")
    runs = [
        _run(comparison, site, arm, place, seed, trial, tuned)
        for seed in comparison.seeds
        for place, _ in sizes
        for trial, tuned in trials
        for arm in comparison.arms
    ]
    if len({run.name for run in runs}) < len(runs):
        raise UserInputError("tune: two combinations would share a folder; write their values otherwise")
    refuse_unequal(comparison, runs)
    refuse_split_of_choice(comparison, runs)
    return runs


def _trials(comparison: ComparisonConfig) -> Iterator[tuple[int, dict[str, Any]]]:
    """Combinations of the tuned keys; a single empty one if nothing is tuned."""
    for number, values in enumerate(itertools.product(*comparison.tune.values())):
        yield number, dict(zip(comparison.tune, values, strict=True))


def _run(
    comparison: ComparisonConfig,
    site: Site,
    arm: str,
    place: int,
    seed: int,
    trial: int,
    tuned: Mapping[str, Any],
) -> ArmRun:
    size = comparison.train_samples[place]
    point = {"arm": arm, "samples": size, "seed": seed, **tuned}
    name = name_of(point)
    base = find_config(comparison.base)
    output = absolute(comparison.out) / "runs" / name
    section = comparison.arms[arm]
    keys: dict[str, Any] = {**comparison.overrides, **section.overrides, **tuned}
    keys |= {
        "seed": seed,
        "init_from": None if section.init_from is None else str(section.init_from),
        "data.subset": None if size == "full" else {"samples": size, "seed": seed},
        "evaluate.final_split": comparison.split,
        "evaluate.final_weights": comparison.weights,
        "run_dir": str(output),
    }
    try:
        keys["steps"] = _steps(comparison, place, base, as_overrides(keys))
        overrides = as_overrides(keys)
        job = describe_job(base, overrides, site)
        config = load_config(TrainConfig, base, job.overrides)
    except UserInputError as error:
        raise UserInputError(f"{name}: {error}") from None
    return ArmRun(
        name=name,
        point=point,
        repeat=1,
        threads=None,
        job=replace(job, name=name),
        config=config,
        arm=arm,
        size=size,
        seed=seed,
        trial=trial,
        tuned=tuned,
    )


def _steps(comparison: ComparisonConfig, place: int, base: Path, overrides: tuple[str, ...]) -> int:
    """Optimiser steps of a run on the size at this place."""
    if comparison.steps is not None:
        return comparison.steps[place] if isinstance(comparison.steps, list) else comparison.steps
    seen = comparison.samples_seen
    samples = seen[place] if isinstance(seen, list) else seen
    config = load_config(TrainConfig, base, (*overrides, "steps=1"))
    if config.batch.graphs is None or samples is None:
        raise UserInputError("samples_seen needs batch.graphs; with batch.cost give steps")
    return -(-samples // config.batch.graphs)


def setting_of(run: ArmRun) -> str:
    """The tuned keys and their values, for people."""
    return ", ".join(f"{key}={in_text(value)}" for key, value in run.tuned.items())
