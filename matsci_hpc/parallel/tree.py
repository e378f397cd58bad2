"""Sums in one fixed order, whoever adds: neighbours in pairs, then the pairs in pairs, and so on.

Floating-point sums depend on their order, and every backend has its own, which changes with the number of ranks. Here
the order follows from the number of terms alone:

    ((0 + 1) + (2 + 3)) + ((4 + 5) + 6)

A rank that stands for 2, 4, 8, ... neighbours adds up a branch of this tree by itself, so that the whole is the same to
the last bit.
"""

from collections.abc import Iterable

from torch import Tensor


class TreeSum:
    """Takes terms one by one, in their order, and holds one sum for each level of the tree."""

    def __init__(self) -> None:
        self._branches: dict[int, Tensor] = {}

    def add(self, term: Tensor) -> None:
        """The next term, which is kept and may be changed."""
        level = 0
        while level in self._branches:
            term = self._branches.pop(level).add_(term)
            level += 1
        self._branches[level] = term

    def total(self) -> Tensor:
        """The sum of all terms, of which there is at least one."""
        levels = sorted(self._branches)
        total = self._branches[levels[0]]
        for level in levels[1:]:
            total = self._branches[level].add_(total)
        self._branches = {}
        return total


def tree_sum(terms: Iterable[Tensor]) -> Tensor:
    """The sum of some tensors of one shape, at least one; the tensors may be changed."""
    found = TreeSum()
    for term in terms:
        found.add(term)
    return found.total()
