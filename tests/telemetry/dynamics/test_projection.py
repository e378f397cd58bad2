import numpy as np
import torch
from torch import nn

from matsci_hpc.loading.permutation import keyed_number, keyed_words
from matsci_hpc.telemetry.dynamics.projection import BLOCK, DIMENSION, Projection, Run, runs_of


def test_inner_products_are_kept_on_average():
    torch.manual_seed(0)
    size = 3 * BLOCK + 1234
    x = torch.randn(size)
    y = 0.6 * x + 0.8 * torch.randn(size)
    cosines = []
    for seed in range(60):
        project = Projection(seed, [Run(0, 0, size)])
        a, b = project(x), project(y)
        assert a.shape == (DIMENSION,)
        cosines.append(float(a @ b / (a.norm() * b.norm())))
    exact = float(x @ y / (x.norm() * y.norm()))
    # One estimate scatters by about (1 - rho^2) / sqrt(64) = 0.08.
    assert 0.04 < np.std(cosines) < 0.16
    assert abs(np.mean(cosines) - exact) < 0.04


def test_gradients_in_one_column_of_a_matrix_are_spread_over_all_places():
    matrix = torch.zeros(2048, DIMENSION)
    matrix[:, 3] = 1.0
    projected = Projection(7, [Run(0, 0, matrix.numel())])(matrix.flatten())
    # About 32 random signs at every place, whose sums are spread as those of a random walk.
    assert 4 < float(projected.std()) < 8
    assert (projected != 0).sum() > DIMENSION * 0.6


def test_the_layout_of_the_buffer_changes_nothing():
    torch.manual_seed(0)
    sizes = [70_000, 5, 1000, 66_000, 3]
    order = [nn.Parameter(torch.randn(size)) for size in sizes]
    layout = [order[i] for i in (0, 2, 3, 1, 4)]
    one = Projection(3, runs_of(order, order))(torch.cat([each.detach() for each in order]))
    runs = runs_of(layout, order)
    assert runs == [Run(0, 0, 70_000), Run(70_000, 70_005, 67_000), Run(137_000, 70_000, 5), Run(137_005, 137_005, 3)]
    other = Projection(3, runs)(torch.cat([each.detach() for each in layout]))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(one, Projection(4, runs)(torch.cat([each.detach() for each in layout])))


def test_many_blocks_at_once_are_no_other_numbers():
    """Whole numbers, so that no order of adding them rounds."""
    torch.manual_seed(0)
    size = 40 * BLOCK + 77
    gradient = torch.randint(-9, 10, (size,)).float()
    projected = Projection(5, [Run(0, 0, size)])(gradient)
    # The same numbers in two runs that are cut off the blocks' bounds, as with another number of ranks.
    cut = 17 * BLOCK + 5
    moved = torch.cat([gradient[cut:], gradient[:cut]])
    assert torch.equal(Projection(5, [Run(0, cut, size - cut), Run(size - cut, 0, cut)])(moved), projected)
    expected = torch.zeros(BLOCK)
    signs, order = signs_of(5)
    for block in range(41):
        part = gradient[block * BLOCK : (block + 1) * BLOCK]
        place = keyed_number(BLOCK, "block", 5, block)
        expected[: len(part)] += part * signs[place : place + len(part)]
    assert torch.equal(expected[order].view(DIMENSION, -1).sum(1), projected)


def signs_of(seed):
    bits = np.unpackbits(keyed_words(2 * BLOCK // 64, "signs", seed).astype("<u8").view(np.uint8))
    order = np.argsort(keyed_words(BLOCK, "places", seed), kind="stable")
    return torch.from_numpy(2.0 * bits.astype(np.float32) - 1.0), torch.from_numpy(order)


def test_signs_and_places_are_the_same_for_ever():
    projected = Projection(11, [Run(0, 0, 2 * BLOCK)])(torch.arange(2 * BLOCK, dtype=torch.float32) % 97 - 48)
    assert projected[:6].tolist() == [-922.0, -548.0, -350.0, 6.0, 1041.0, -389.0]
