"""Where the data of a run are of another kind than those that its encoder was trained on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from matsci_hpc.errors import UserInputError
from matsci_hpc.training.learned_from import LearnedFrom

if TYPE_CHECKING:
    from matsci_hpc.loading.collection import Collection

SHOWN = 20
"""Elements named in a message."""


def neighbor_misfits(path: Path, there: LearnedFrom, here: LearnedFrom, option: str) -> Iterator[str]:
    """Differences of the edges and lengths, in words.

    Args:
        path: of the checkpoint, for messages.
        there: what its encoder learned from.
        here: what this run learns from.
        option: `refuse`, or `accept` what differs.

    Raises:
        UserInputError: they differ, and are to be refused.
    """
    found = []
    if there.cutoff_angstrom != here.cutoff_angstrom:
        if there.cutoff_angstrom is None:
            yield f"the cutoff is {here.cutoff_angstrom:g} here; what it was there is not known"
        else:
            found.append(
                f"the cutoff of the edges is {there.cutoff_angstrom:g} there and {here.cutoff_angstrom:g} here"
            )
    if there.rule is not None and there.rule != here.rule:
        found.append(f"the rule for edges is {there.rule!r} there and {here.rule!r} here")
    if there.lengths is not None and there.lengths != here.lengths:
        found.append(f"lengths are in {there.lengths} there and in {here.lengths} here")
    if found and option == "refuse":
        raise UserInputError(
            f"init_from: {path}: its encoder learned from other neighbours: {'; '.join(found)}; set "
            "fine_tune.neighbors=accept to fine-tune it across this difference, or prepare the data with the cutoff "
            "that it has learned"
        )
    if found and there.edges_per_atom is not None and here.edges_per_atom is not None:
        found.append(f"an atom has {there.edges_per_atom:.3g} neighbours there and {here.edges_per_atom:.3g} here")
    yield from found


def element_misfit(
    path: Path,
    learned: list[int] | None,
    collection: "Collection",
    option: str,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Elements of the data that an encoder was never trained on, in words.

    Args:
        path: of the checkpoint, for messages.
        learned: atomic numbers that it was trained on; None where that is not known.
        collection: the data, all splits.
        option: `warn`, or `refuse` them.
        progress: called now and then.

    Raises:
        UserInputError: there are some, and they are to be refused.
        MachineError: a shard cannot be read.
    """
    from ase.data import chemical_symbols

    from matsci_hpc.loading.elements import element_counts

    if learned is None:
        yield f"init_from: {path}: which elements its encoder was trained on is not known"
        return
    counts = element_counts(collection, progress)
    new = [number for number in counts.nonzero()[0].tolist() if number not in learned]
    if not new:
        return
    new.sort(key=lambda number: -int(counts[number]))
    named = ", ".join(f"{chemical_symbols[number]} ({int(counts[number]):,} atoms)" for number in new[:SHOWN])
    more = f" and {len(new) - SHOWN} more" if len(new) > SHOWN else ""
    text = (
        f"init_from: {path}: its encoder was never trained on {len(new)} of the {int((counts > 0).sum())} elements of "
        f"these data: {named}{more}"
    )
    if option == "refuse":
        raise UserInputError(
            f"{text}; set fine_tune.elements=warn to train them from random numbers, or leave them out"
        )
    yield f"{text}; their rows of the table of elements begin with random numbers"
