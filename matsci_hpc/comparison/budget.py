"""Whether arms are compared at equal budget: what they are asked to do, and what their records say they did."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from matsci_hpc.config.comparison import ComparisonConfig
from matsci_hpc.config.loading import flat
from matsci_hpc.errors import UserInputError

if TYPE_CHECKING:
    from matsci_hpc.comparison.plan import ArmRun

FREE = ("run_dir", "init_from", "optimizer", "schedule", "fine_tune")
"""What arms may differ in by themselves: where they begin, and how the optimiser goes on from there."""


def refuse_unequal(comparison: ComparisonConfig, runs: Iterable["ArmRun"]) -> None:
    """See to it that the arms differ in nothing but what is compared: same steps, batch, data, model, evaluations.

    Raises:
        UserInputError: they differ in another key, and the comparison does not allow it.
    """
    first: dict[tuple[object, ...], tuple[ArmRun, dict[str, Any]]] = {}
    for run in runs:
        keys = flat(run.training.model_dump(mode="json"))
        before, known = first.setdefault((run.size, run.seed, run.trial), (run, keys))
        for key in sorted(known.keys() | keys.keys()):
            if known.get(key) == keys.get(key) or _is_in(key, FREE) or _is_in(key, comparison.allow):
                continue
            raise UserInputError(
                f"arms.{run.arm}: {key} is {keys.get(key)}, and {known.get(key)} in arms.{before.arm}: arms are "
                f"compared at equal budget and on equal data; make them equal, or say allow: [{key}]"
            )


def refuse_split_of_choice(comparison: ComparisonConfig, runs: Iterable["ArmRun"]) -> None:
    """See to it that the split of the results decides neither which parameters nor which trial is taken.

    Raises:
        UserInputError: it is `data.held_out`, by which one of them is chosen.
    """
    by = [key for key, used in (("weights: best", comparison.weights == "best"), ("tune", comparison.tune)) if used]
    if not by:
        return
    for run in runs:
        if run.training.data.held_out == comparison.split:
            raise UserInputError(
                f"split: {comparison.split!r} is data.held_out of arms.{run.arm}, by which {' and '.join(by)} "
                "choose, so results on it would look better than they are; name a split that decides nothing"
                + ("" if comparison.tune else ", or say weights: last")
            )


def refuse_unlike(comparison: ComparisonConfig, facts: Iterable[tuple["ArmRun", Mapping[str, object]]]) -> None:
    """See to it that runs of one size and seed did the same amount of work on the same data by the same code.

    Args:
        comparison: with what is allowed.
        facts: each complete run and what its records say.

    Raises:
        UserInputError: they did not, and the comparison does not allow it.
    """
    first: dict[tuple[object, ...], tuple[ArmRun, object]] = {}
    for run, found in facts:
        for what, value in found.items():
            # The code has to be that of all runs: means are taken over seeds.
            place = (what,) if what == "code" else (what, run.size, run.seed)
            before, known = first.setdefault(place, (run, value))
            if what in comparison.allow or known == value:
                continue
            raise UserInputError(
                f"{before.name} and {run.name} are compared and differ in {what}: {known} and {value}; run one of them "
                f"again, or say allow: [{what}] in the comparison"
            )


def _is_in(key: str, sections: Iterable[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in sections)
