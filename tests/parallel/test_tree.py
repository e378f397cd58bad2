import pytest
import torch

from matsci_hpc.parallel.tree import TreeSum, tree_sum


def by_levels(terms):
    """The same sum, written level by level."""
    while len(terms) > 1:
        terms = [sum(terms[i + 1 : i + 2], terms[i]) for i in range(0, len(terms), 2)]
    return terms[0]


@pytest.mark.parametrize("count", range(1, 18))
def test_neighbours_are_added_in_pairs(count):
    torch.manual_seed(count)
    terms = list(torch.randn(count, 50) * 10.0 ** torch.randint(-6, 6, (count, 50)))
    assert torch.equal(tree_sum([each.clone() for each in terms]), by_levels(terms))


@pytest.mark.parametrize(("ranks", "each"), [(1, 8), (2, 4), (4, 2), (3, 2), (5, 4), (7, 1)])
def test_branches_added_elsewhere_change_no_bit(ranks, each):
    torch.manual_seed(0)
    terms = list(torch.randn(ranks * each, 200) * 10.0 ** torch.randint(-6, 6, (ranks * each, 200)))
    whole = tree_sum([term.clone() for term in terms])
    branches = TreeSum()
    for start in range(0, len(terms), each):
        branches.add(tree_sum([term.clone() for term in terms[start : start + each]]))
    assert torch.equal(branches.total(), whole)
