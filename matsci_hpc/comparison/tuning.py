"""Which trial of `tune` each arm is compared by."""

from collections import Counter
from collections.abc import Sequence

from matsci_hpc.comparison.metrics import direction_of
from matsci_hpc.comparison.plan import ArmRun
from matsci_hpc.comparison.results import Result
from matsci_hpc.config.comparison import ComparisonConfig
from matsci_hpc.errors import UserInputError

Place = tuple[str, str]
"""An arm and a size of the training set."""


def choose_trials(
    comparison: ComparisonConfig, results: Sequence[Result], diverged: Sequence[ArmRun] = ()
) -> dict[Place, int]:
    """For each arm and size, the trial that is best on the held-out split in the mean over the seeds.

    A trial that diverged with some seeds comes behind all that did with fewer, however good its other seeds are: they
    are those that went well. Of the trials that are left, only seeds that all of them have finished count, so that all
    are judged by the same ones.

    Args:
        comparison: with the metric to choose by.
        results: of complete runs.
        diverged: runs that came to no finite number.

    Raises:
        UserInputError: something is tuned, and there is no held-out value to choose by.
    """
    sign = 1 if direction_of(comparison.metrics[0]) == "lower" else -1
    lost = Counter((place_of(run), run.trial) for run in diverged)
    found: dict[Place, dict[int, dict[int, float]]] = {}
    for result in results:
        run, value = result.run, result.validation[0]
        seeds = found.setdefault(place_of(run), {}).setdefault(run.trial, {})
        if value is not None:
            seeds[run.seed] = sign * value
    chosen: dict[Place, int] = {}
    for place, trials in found.items():
        fewest = min(lost[place, trial] for trial in trials)
        safest = {trial: seeds for trial, seeds in trials.items() if lost[place, trial] == fewest}
        common = set.intersection(*(set(seeds) for seeds in safest.values()))
        if len(safest) > 1 and not common:
            raise UserInputError(
                f"arms.{place[0]}, {place[1]} training samples: no seed has a value on the held-out split for every "
                "trial of `tune` that could be taken, so none can be chosen"
            )
        chosen[place] = _best(safest, common)
    return chosen


def place_of(run: ArmRun) -> Place:
    """Where a run stands: runs of one place differ in seed and trial."""
    return run.arm, str(run.size)


def _best(trials: dict[int, dict[int, float]], seeds: set[int]) -> int:
    return min(trials, key=lambda trial: (sum(trials[trial][seed] for seed in seeds), trial))
