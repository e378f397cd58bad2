"""The closed formulas against a simulation of every message."""

import numpy as np
import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.communication import Network
from matsci_hpc.scaling.exposure import Bucket, exposed_time
from matsci_hpc.scaling.link import Link
from matsci_hpc.scaling.noise import expected_largest
from matsci_hpc.scaling.simulation import simulate_steps

BUCKETS = tuple(Bucket(1e6, left) for left in np.linspace(0.6, 0.0, 6))
FLAT = ("ring", "tree", "halving")


def both(network, algorithm, compute_s, *, steps=4, noise=0.0, spread=0.0):
    """Mean step time of the simulation and of the formula."""
    shares = 1 - spread * np.random.default_rng(5).random(network.ranks)
    times = np.tile(compute_s * shares, (steps, 1))
    simulated = simulate_steps(times, BUCKETS, network, algorithm, noise=noise, seed=7).mean()
    slowest_s = expected_largest(times[0], noise)
    return simulated, slowest_s + exposed_time(BUCKETS, slowest_s, network, algorithm=algorithm).total_s


def joined(ranks, per_node=1, ports=1, sum_bytes_per_s=1e10):
    return Network(ranks, per_node, Link(1e-6, 1e10), Link(2e-6, 2.5e10), ports, sum_bytes_per_s)


@pytest.mark.parametrize("compute_s", [0.0, 0.003, 0.1])
@pytest.mark.parametrize("algorithm", FLAT)
@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_one_rank_a_node_is_exact(ranks, algorithm, compute_s):
    simulated, formula = both(joined(ranks), algorithm, compute_s, steps=1, spread=0.2)
    assert formula == pytest.approx(simulated, rel=1e-6)


@pytest.mark.parametrize("algorithm", ["tree", "halving", "two_level"])
@pytest.mark.parametrize(("ranks", "per_node"), [(64, 8), (1024, 16)])
def test_a_port_for_each_rank_is_within_one_percent(ranks, per_node, algorithm):
    for compute_s in (0.0, 0.003):
        simulated, formula = both(joined(ranks, per_node, ports=per_node), algorithm, compute_s, steps=1)
        assert formula == pytest.approx(simulated, rel=0.01)


@pytest.mark.parametrize(("algorithm", "above"), [("ring", 0.1), ("halving", 0.1), ("two_level", 0.1), ("tree", 0.4)])
@pytest.mark.parametrize(("ranks", "per_node"), [(64, 4), (64, 8), (256, 8)])
def test_where_ports_are_shared_the_formula_is_the_slower_one(ranks, per_node, algorithm, above):
    for compute_s in (0.0, 0.003):  # all is exposed, or most
        simulated, formula = both(joined(ranks, per_node), algorithm, compute_s, steps=1)
        assert simulated * 0.99 <= formula <= simulated * (1 + above)


@pytest.mark.parametrize("algorithm", [*FLAT, "two_level"])
@pytest.mark.parametrize(("ranks", "per_node"), [(64, 8), (256, 8)])
def test_noise_and_unequal_shares_are_within_three_percent(ranks, per_node, algorithm):
    steps = 6 if algorithm == "ring" else 40
    network = joined(ranks, per_node, ports=2)
    simulated, formula = both(network, algorithm, 0.1, steps=steps, noise=0.05, spread=0.2)
    assert formula == pytest.approx(simulated, rel=0.03)


def test_thousands_of_ranks():
    simulated, formula = both(joined(4096, 64, ports=4), "two_level", 0.05, steps=3, noise=0.03)
    assert formula == pytest.approx(simulated, rel=0.03)
    assert formula > 0.05 * (1 + 0.03 * 3)


def test_the_same_seed_gives_the_same_steps():
    network, times = joined(16, 4), np.full((5, 16), 0.01)
    one, again, other = (
        simulate_steps(times, BUCKETS, network, "ring", noise=0.1, seed=seed).tolist() for seed in (1, 1, 2)
    )
    assert one == again != other


def test_ranks_that_do_not_fit():
    with pytest.raises(UserInputError, match="power of two"):
        simulate_steps(np.ones((1, 6)), BUCKETS, joined(6), "tree")
    with pytest.raises(UserInputError, match="do not fill nodes"):
        simulate_steps(np.ones((1, 6)), BUCKETS, joined(6, 4), "two_level")
