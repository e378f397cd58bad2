"""Samples that are too large to train on, found in the index before the first step."""

from collections.abc import Callable

import numpy as np

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.cost import CostModel
from matsci_hpc.loading.permutation import Numbers
from matsci_hpc.loading.spec import PlanSpec, SampleSizes

CHUNK = 1 << 16
SHOWN = 3


def find_oversized(sizes: SampleSizes, split: str, limit: float, cost: CostModel) -> list[Numbers]:
    """Positions in the split of the samples above a predicted cost, ascending, for each data set."""
    return [
        _find(sizes, split, dataset, count, limit, cost)
        for dataset, count in enumerate(sizes.split_counts(split).tolist())
    ]


def judge_oversized(
    sizes: SampleSizes, spec: PlanSpec, oversized: Numbers, cost: CostModel, name: Callable[[int], str]
) -> str | None:
    """Apply the policy on oversized samples.

    Args:
        sizes: of the samples.
        spec: with the limit and the policy.
        oversized: `Plan.oversized`.
        cost: that they were found by.
        name: of a sample, for messages, such as `Collection.sample_name`.

    Returns:
        A warning for a person, or None if there is nothing to say.

    Raises:
        UserInputError: the policy is `error` and there are oversized samples, or they are all to be skipped.
    """
    if len(oversized) == 0 or spec.oversized_cost is None:
        return None
    shown = []
    for sample in oversized[:SHOWN].tolist():
        one = np.array([sample], dtype=np.int64)
        atoms, edges = sizes.atoms(one), sizes.edges(one)
        shown.append(
            f"{name(sample)} ({int(atoms[0]):,} atoms, {int(edges[0]):,} edges, cost {cost.of(atoms, edges)[0]:,.0f})"
        )
    more = f" and {len(oversized) - SHOWN:,} more" if len(oversized) > SHOWN else ""
    count = f"{len(oversized):,} {'sample' if len(oversized) == 1 else 'samples'}"
    found = f"{count} above batch.oversized.cost = {spec.oversized_cost:,.0f}: {', '.join(shown)}{more}"
    if spec.oversized_policy == "error":
        raise UserInputError(f"{found}; raise the cost, or set batch.oversized.policy to keep or skip")
    if spec.oversized_policy == "skip" and len(oversized) == sizes.split_counts(spec.split).sum():
        raise UserInputError(f"{found}; that is every sample of split {spec.split!r}: raise the cost")
    done = "trained on all the same" if spec.oversized_policy == "keep" else "left out of every epoch"
    return f"{found}; {done}"


def _find(sizes: SampleSizes, split: str, dataset: int, count: int, limit: float, cost: CostModel) -> Numbers:
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, count, CHUNK):
        positions = np.arange(start, min(start + CHUNK, count))
        samples = sizes.select(split, dataset, positions)
        found.append(positions[cost.of(sizes.atoms(samples), sizes.edges(samples)) > limit])
    return np.concatenate(found)
