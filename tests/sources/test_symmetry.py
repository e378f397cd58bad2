import itertools
import pickle

import numpy as np
import pytest
from symmetry_detector import count_isometries

from matsci_hpc import point_groups
from matsci_hpc.config import sources
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources import exact_random
from matsci_hpc.sources.cloud_drafts import Draft
from matsci_hpc.sources.cloud_generator import BLOCK, CloudGenerator
from matsci_hpc.sources.cloud_settling import LABEL_TOLERANCE
from matsci_hpc.sources.clouds import Operations, grow, seed_pairs
from matsci_hpc.sources.exact_random import MOST_TRIES, ExactRandom, in_ball, rotations, words
from matsci_hpc.sources.extra_symmetry import has_extra_symmetry
from matsci_hpc.sources.orbits import GroupsOfOrder, crowded_orbits
from matsci_hpc.sources.orbits import grow as grow_orbits
from matsci_hpc.sources.symmetry import SymmetrySource, divided, numbered
from matsci_hpc.sources.symmetry_sieve import suspects

SPLITS = {"train": 0.9, "val": 0.05, "test": 0.05}


def source(**settings):
    return SymmetrySource.from_config(sources.SymmetrySource(kind="symmetry", **{"samples": 2000, **settings}), SPLITS)


def streams(name, count):
    return ExactRandom(1, name, 0).streams(count)


def same(left, right):
    assert (left.id, left.split, left.targets["point_group"]) == (
        right.id,
        right.split,
        right.targets["point_group"],
    )
    np.testing.assert_array_equal(left.position, right.position)
    np.testing.assert_array_equal(left.atomic_number, right.atomic_number)


@pytest.fixture(scope="module")
def samples():
    return list(source(subgroups=True).read(0, 2000))


def test_samples_are_whole_structures(samples):
    assert len({sample.id for sample in samples}) == 2000
    for sample in samples:
        assert sample.fault() is None
        assert sample.position.dtype == sample.cell.dtype == np.float32
        assert sample.atomic_number.dtype == np.uint8
        assert sample.atomic_number.max() <= 99
        assert not sample.pbc.any()
        assert not sample.cell.any()
        assert len(sample.position) <= 48
        assert np.linalg.norm(sample.position, axis=1).max() == pytest.approx(1.0, abs=1e-6)


def test_inputs_are_the_splits_one_after_the_other(samples):
    runs = [(split, len(list(run))) for split, run in itertools.groupby(sample.split for sample in samples)]
    assert runs == [("train", 1800), ("val", 100), ("test", 100)]
    assert [samples[i].id for i in (0, 1799, 1800, 1999)] == [
        *("train-000000000", "train-000001799", "val-000000000", "test-000000099")
    ]


def test_sizes_are_known_before_a_block_is_drawn():
    clouds = source(groups="all", max_atoms=60)
    for split, number in (("train", 0), ("val", 0), ("train", 10**6)):
        atoms, group = clouds.generator.sizes(split, number)
        block = clouds.block(split, number)
        np.testing.assert_array_equal(atoms, np.diff(block.offset))
        np.testing.assert_array_equal(group, block.point_group)


def test_samples_do_not_depend_on_the_range_that_is_read(samples):
    again = pickle.loads(pickle.dumps(source(subgroups=True)))  # noqa: S301 (our own bytes)
    for start, stop in [(0, 1), (1000, 1050), (1790, 1910), (1999, 2000), (7, 7)]:
        part = list(again.read(start, stop))
        assert len(part) == stop - start
        for left, right in zip(part, samples[start:stop], strict=True):
            same(left, right)


def test_samples_do_not_depend_on_the_block_borders_in_a_range():
    many = source(samples={"train": 3 * BLOCK})
    whole = list(many.read(BLOCK - 20, 2 * BLOCK + 20))
    parts = [many.read(BLOCK - 20, BLOCK - 1), many.read(BLOCK - 1, BLOCK + 1), many.read(BLOCK + 1, 2 * BLOCK + 20)]
    for left, right in zip(itertools.chain(*parts), whole, strict=True):
        same(left, right)


HARD = {"groups": ["Oh", "Td", "O", "D6h"], "max_atoms": 120, "max_orbits": 5, "min_distance": 0.15}
"""Few drafts of such clouds have room, so nearly all are redrawn, many of them several times."""


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"groups": "all", "max_atoms": 120},
        {"groups": ["C1", "Cs", "Ci"], "max_atoms": 6},
        {"groups": ["C1", "C2", "Cs"], "max_orbits": 1, "jitter": 0.01},
        {"jitter": 0.001, "max_orbits": 2},
        HARD,
    ],
)
def test_clouds_drawn_alone_are_those_of_the_whole_block(settings):
    """Bit for bit: one, a few and many, of one block and of several, in any order, and one of them twice."""
    generator = source(**settings).generator
    whole = {number: generator.block("train", number) for number in (0, 7, 10**6)}
    random = np.random.default_rng(0)
    numbers = np.concatenate([number * BLOCK + random.choice(BLOCK, 700, replace=False) for number in whole])
    random.shuffle(numbers)
    wanted = [numbers[:n] for n in (1, 2, 40, 1000)] + [each[None] for each in numbers[1000:1060]]
    for chosen in [*wanted, np.repeat(numbers[:3], 2), np.arange(7 * BLOCK, 8 * BLOCK), numbers[:0]]:
        part = generator.samples("train", chosen)
        assert len(part.offset) == len(chosen) + 1
        for place, (number, row) in enumerate(zip(*np.divmod(chosen, BLOCK), strict=True)):
            block = whole[int(number)]
            atoms = slice(block.offset[row], block.offset[row + 1])
            mine = slice(part.offset[place], part.offset[place + 1])
            assert part.point_group[place] == block.point_group[row]
            assert part.position[mine].tobytes() == block.position[atoms].tobytes()
            assert part.atomic_number[mine].tobytes() == block.atomic_number[atoms].tobytes()


def test_many_clouds_of_hard_settings_are_drawn_again(monkeypatch):
    """So that the test before this one has redraws to get wrong."""
    rounds = []
    redrawn = Draft.redrawn
    monkeypatch.setattr(
        Draft,
        "redrawn",
        lambda draft, columns, attempt: rounds.append(len(columns)) or redrawn(draft, columns, attempt),
    )
    generator = source(**HARD).generator
    rounds.clear()
    generator.block("train", 0)
    assert len(rounds) > 10
    assert sum(rounds) > 2 * rounds[0]


def test_samples_do_not_depend_on_how_many_there_are(samples):
    more = source(samples={"val": 3000, "train": 5000})
    assert len(more) == 8000
    for left, right in zip(more.read(0, 100), samples[1800:1900], strict=True):
        same(left, right)
    for left, right in zip(more.read(3000, 3010), samples[:10], strict=True):
        same(left, right)


def test_splits_blocks_and_seeds_have_their_own_random_numbers():
    streams = [
        *(ExactRandom(121, split, block) for split in ("train", "val", "test") for block in range(3)),
        *(ExactRandom(122, "train", block) for block in range(3)),
    ]
    assert len({tuple(stream.words(4)) for stream in streams}) == len(streams)


def test_every_class_and_number_of_orbits_is_equally_likely(samples):
    generator = source().generator
    groups = np.concatenate([generator.block("balance", number).point_group for number in range(3)])
    counts = np.bincount(groups, minlength=32)
    expected = len(groups) / 32
    # Chi-squared with 31 degrees of freedom: mean 31, standard deviation 7.9.
    assert ((counts - expected) ** 2 / expected).sum() < 31 + 5 * 7.9
    d3 = point_groups.crystallographic().index("D3")
    block = CloudGenerator(("D3",), seed=1, max_atoms=48, max_orbits=6, min_distance=0.05, jitter=0.0).block("x", 0)
    orbits = np.bincount(np.diff(block.offset) // 6, minlength=7)
    assert orbits[0] == 0
    assert orbits[1:].min() > BLOCK / 6 - 5 * np.sqrt(BLOCK / 6)
    assert all(len(s.position) % 6 == 0 for s in samples if s.targets["point_group"] == d3)


def test_no_two_atoms_are_near_each_other(samples):
    for sample in samples:
        gaps = np.linalg.norm(sample.position[:, None] - sample.position[None], axis=2)
        assert (gaps + np.eye(len(gaps))).min() > 0.05 - 1e-6


def test_labels_are_the_true_symmetry(samples):
    names = point_groups.crystallographic()
    wrong = [
        sample.id
        for sample in samples
        if count_isometries(sample.position, sample.atomic_number)
        != point_groups.order(names[sample.targets["point_group"]])
    ]
    assert wrong == []


def test_labels_are_the_true_symmetry_with_the_fewest_orbits():
    names = tuple(name for name in point_groups.all_groups(12) if point_groups.minimum_atoms(name) <= 60)
    generator = CloudGenerator(names, seed=2, max_atoms=60, max_orbits=1, min_distance=0.05, jitter=0.0)
    block = generator.block("train", 0)
    for sample, group in enumerate(block.point_group):
        atoms = slice(block.offset[sample], block.offset[sample + 1])
        assert len(block.position[atoms]) == point_groups.minimum_atoms(names[group])
        found = count_isometries(block.position[atoms], block.atomic_number[atoms])
        assert found == point_groups.order(names[group])


@pytest.mark.parametrize(
    ("name", "seeds", "higher"),
    [
        ("C4v", [[0.8, 0.3, 0.1], [0.6, 0.5, 0.1]], "equal heights: D4h"),
        ("C3", [[0.9, 0.1, 0.3], [0.63, 0.07, -0.4]], "aligned azimuths: C3v"),
        ("D2", [[0.6, 0.6, 0.5]], "two equal axes: D2d"),
        ("D2h", [[0.6, 0.6, 0.5]], "two equal axes: D4h"),
        ("T", [[0.9, 0.4, 0.4]], "a mirror: Td"),
        ("T", [[0.9, 0.4, 0.0]], "a mirror: Th"),
        ("Cs", [[0.5, 0.2, 0.3], [-0.4, -0.16, 0.5], [0.1, 0.04, 0.7]], "in a plane: C2v"),
        ("C1", [[0.5, 0.2, 0.3], [-0.4, 0.7, 0.3], [0.1, -0.9, 0.3], [0.3, -0.1, 0.3]], "in a plane: Cs"),
        ("C6", [[0.9, 0.1, 0.2], [0.1, 0.9, -0.2]], "C2 axes across: D6"),
    ],
)
@pytest.mark.parametrize("shift", [0.0, 5e-4])
def test_clouds_near_a_higher_symmetry_are_found_out(name, seeds, higher, shift):
    offset = shift * np.random.default_rng(1).uniform(-1, 1, (len(seeds), 3))
    seeds = np.array(seeds)
    one = np.zeros(1, dtype=int)
    clouds = grow(Operations((name,)), one, one + len(seeds), seeds + offset, np.ones(len(seeds), dtype=int))
    assert count_isometries(clouds.position, clouds.kind, 2e-3) > point_groups.order(name), higher
    assert has_extra_symmetry(clouds, seed_pairs(clouds), 2e-3).all()
    # Kept apart by more than the reach of the tolerance, the cloud is what it was made to be.
    apart = seeds + 0.05 * np.arange(1, 3 * len(seeds) + 1).reshape(-1, 3) ** 1.5 / len(seeds)
    clouds = grow(Operations((name,)), one, one + len(seeds), apart, np.ones(len(seeds), dtype=int))
    assert not has_extra_symmetry(clouds, seed_pairs(clouds), 1e-3).any()


def test_subgroup_labels(samples):
    names = point_groups.crystallographic()
    by_class = {sample.targets["point_group"]: sample.targets["subgroups"] for sample in samples}
    assert len(by_class) == 32
    for number, labels in by_class.items():
        assert labels.dtype == np.uint8
        assert labels[number] == 1
    d2d = by_class[names.index("D2d")]
    assert {name for name, label in zip(names, d2d, strict=True) if label} == {
        *("C1", "Cs", "C2", "C2v", "D2", "S4", "D2d")
    }


def test_targets_carry_the_names_in_list_order():
    few = source(groups=["D2h", "C1", "I"], max_atoms=60, subgroups=True, samples=64)
    assert few.targets["point_group"].kind == "class"
    assert few.targets["subgroups"].kind == "multilabel"
    assert few.targets["point_group"].classes == few.targets["subgroups"].classes == ("D2h", "C1", "I")
    for sample in few.read(0, 64):
        order = point_groups.order(("D2h", "C1", "I")[sample.targets["point_group"]])
        assert count_isometries(sample.position, sample.atomic_number) == order
    assert set(source().targets) == {"point_group"}


def test_rotations_are_proper_and_uniform():
    turn = rotations(streams("rotations", 20_000), 0).transpose(2, 0, 1)
    np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turn.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turn), 1.0)
    # Haar measure on SO(3): entries have mean 0 and variance 1/3, the trace has variance 1.
    np.testing.assert_allclose(turn.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose((turn**2).mean(axis=0), 1 / 3, atol=0.02)
    assert np.trace(turn, axis1=1, axis2=2).var() == pytest.approx(1.0, abs=0.05)


def test_clouds_point_in_every_direction_and_keep_their_handedness(monkeypatch):
    turned = source(groups=["D3"]).generator.block("train", 0)
    monkeypatch.setattr("matsci_hpc.sources.cloud_generator.turned", lambda clouds, _: clouds.position)
    plain = source(groups=["D3"]).generator.block("train", 0)
    for first, last in itertools.pairwise(plain.offset[:200]):
        left, _, right = np.linalg.svd(turned.position[first:last].T @ plain.position[first:last])
        assert np.linalg.det(left @ right) == pytest.approx(1.0, abs=1e-4)
        np.testing.assert_allclose(
            plain.position[first:last] @ (left @ right).T, turned.position[first:last], atol=1e-5
        )
    direction = turned.position.mean(axis=0)
    np.testing.assert_allclose(direction, 0.0, atol=0.02)
    axes = np.array([np.linalg.svd(turned.position[a:b])[2][0] for a, b in itertools.pairwise(turned.offset)])
    np.testing.assert_allclose(axes.T @ axes / len(axes), np.eye(3) / 3, atol=0.06)


def test_the_order_of_the_atoms_does_not_tell_the_group(samples):
    names = point_groups.crystallographic()
    neighbours, anywhere = [], []
    for sample in samples:
        if names[sample.targets["point_group"]] == "C2v" and len(sample.position) == 24:
            radius = np.linalg.norm(sample.position, axis=1)
            neighbours.append(np.isclose(radius[1:], radius[:-1], atol=1e-5).mean())
            anywhere.append(np.isclose(radius[:, None], radius[None], atol=1e-5).mean())
    # 24 atoms in six orbits of four: three of the 23 others share an atom's radius.
    assert np.mean(neighbours) == pytest.approx(3 / 23, abs=0.05)
    assert np.mean(anywhere) == pytest.approx(4 / 24, abs=1e-6)


def test_jitter_is_noise_on_the_same_clouds():
    plain, noisy = source().generator.block("train", 3), source(jitter=0.01).generator.block("train", 3)
    np.testing.assert_array_equal(plain.atomic_number, noisy.atomic_number)
    np.testing.assert_array_equal(plain.offset, noisy.offset)
    assert (noisy.position - plain.position).std() == pytest.approx(0.01, rel=0.05)


def test_samples_are_divided_by_largest_remainder():
    assert divided(20000, SPLITS) == {"train": 18000, "val": 1000, "test": 1000}
    assert divided(11, {"a": 0.5, "b": 0.25, "c": 0.25}) == {"a": 5, "b": 3, "c": 3}
    assert divided(1, {"a": 0.3, "b": 0.4, "c": 0.3}) == {"a": 0, "b": 1, "c": 0}
    assert divided(2, {"a": 0.25, "b": 0.25, "c": 0.5}) == {"a": 1, "b": 0, "c": 1}
    assert source(samples={"only": 3}).counts == {"only": 3}


def test_all_groups_leaves_out_what_cannot_fit_and_a_list_does_not():
    classes = source(groups="all").targets["point_group"].classes
    assert len(classes) == len(point_groups.all_groups(12)) - 2
    assert {"I", "Ih"}.isdisjoint(classes)
    assert {"Ih", "D24d"} < set(source(groups="all", max_axial_order=24, max_atoms=120).targets["point_group"].classes)
    with pytest.raises(UserInputError, match=r"I \(60\), Ih \(120\).*max_atoms to 120"):
        source(groups=["C1", "I", "Ih"])
    with pytest.raises(UserInputError, match="C1 needs 4 atoms"):
        source(groups="all", max_atoms=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": ["C2", "c2v"]}, "nearest known one is C2v"),
        ({"groups": ["S3"]}, "C3h"),
        ({"groups": ["C2", "C1", "C2"]}, "listed twice: C2"),
        ({"groups": []}, "empty list"),
        ({"groups": ["Oh", "C2"], "min_distance": 0.45}, "Oh .1 orbits."),
    ],
)
def test_wrong_settings_are_told_before_anything_is_drawn(settings, message):
    with pytest.raises(UserInputError, match=message):
        source(**settings)


def test_one_orbit_more_than_asked_for_where_the_label_needs_it():
    assert {len(sample.position) for sample in source(groups=["C1"], max_orbits=1).read(0, 50)} == {4}


def test_ids_count_on_past_the_zeros():
    assert numbered("val", 98, 4).tolist() == [b"val-000000098", b"val-000000099", b"val-000000100", b"val-000000101"]
    expected = [f"größe-{number:09d}".encode() for number in range(10**9 - 2, 10**9 + 3)]
    assert numbered("größe", 10**9 - 2, 5).tolist() == expected


def test_streams_are_those_of_splitmix64():
    """Its first numbers for the seed 1234567, as the authors' code prints them."""
    expected = [
        *(6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821),
    ]
    assert words(np.array([1234567], dtype=np.uint64), np.arange(5, dtype=np.uint64)).tolist() == expected


def test_random_numbers_are_uniform():
    words = ExactRandom(121, "train", 0).words(7)
    assert words.tolist() == ExactRandom(121, "train", 0).words(8)[:7].tolist()
    limits = ExactRandom(5, "x", 1).below(7, 70_000)
    assert np.bincount(limits, minlength=7).min() > 10_000 - 5 * 100
    ball = in_ball(streams("ball", 50_000), np.zeros(50_000, dtype=np.uint64), 3)
    radius = np.linalg.norm(ball, axis=0)
    assert ball.shape == (3, 50_000)
    assert (radius < 1).all()
    # Uniform in the ball: radius cubed is uniform, and every direction has a third of the mean square, 3/5.
    np.testing.assert_allclose(np.quantile(radius**3, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.01)
    np.testing.assert_allclose((ball**2).mean(axis=1), 1 / 5, atol=0.005)
    np.testing.assert_allclose(ball.mean(axis=1), 0.0, atol=0.01)


def test_points_take_no_more_numbers_than_are_set_aside(monkeypatch):
    """With fewer set aside, so that some points find none inside: that is said, and never reads on."""
    stream, place = streams("few", 2000), np.zeros(2000, dtype=np.uint64)
    whole = in_ball(stream, place, 3)
    asked = []
    plain = exact_random.mixed
    monkeypatch.setattr(exact_random, "mixed", lambda state: (asked.append(len(state)), plain(state))[1])
    monkeypatch.setattr(exact_random, "MOST_TRIES", 6)
    with pytest.raises(RuntimeError, match=r"of 2000 points: 6 numbers of a stream all lie outside"):
        in_ball(stream, place, 3)
    assert sum(asked) == 6
    monkeypatch.setattr(exact_random, "MOST_TRIES", 40)
    assert in_ball(stream, place, 3).tobytes() == whole.tobytes()


@pytest.mark.parametrize("order", [1, 2, 4, 6, 8, 12, 24])
@pytest.mark.parametrize("noise", [0.0, 3e-4, 2e-3])
def test_no_cloud_with_an_extra_symmetry_escapes_the_sieve(order, noise):
    """Clouds on a coarse grid, with few kinds, have extra symmetries and near ones by the dozen.

    `has_extra_symmetry` also names clouds that are merely close to one; those the sieve may hold back.
    """
    names = tuple(name for name in point_groups.all_groups(12) if point_groups.order(name) == order)
    groups, random = GroupsOfOrder(order, names), np.random.default_rng(order)
    group = random.integers(0, len(names), 3000)
    orbits = np.array([point_groups.minimum_orbits(name) for name in names])[group] + random.integers(0, 3, 3000)
    start = np.cumsum(orbits) - orbits
    seed = np.round(random.normal(size=(3, orbits.sum())), 1) + noise * random.normal(size=(3, orbits.sum()))
    radius = np.maximum.reduceat(np.linalg.norm(seed, axis=0), start)
    seed, kind = (seed / np.repeat(radius, orbits)).astype(np.float32), random.integers(1, 3, orbits.sum())
    made = grow_orbits(groups, group, orbits, seed, kind)
    clouds = made.chosen(np.flatnonzero(~np.logical_or.reduceat(crowded_orbits(made, 0.05), start)))
    orbits = np.diff(clouds.start)
    flat = grow(Operations(names), clouds.group, orbits, clouds.seed.T.astype(np.float64), clouds.kind)
    extra = has_extra_symmetry(flat, seed_pairs(flat), LABEL_TOLERANCE)
    named = suspects(groups, clouds, LABEL_TOLERANCE)
    assert (extra & named).sum() > 5
    for cloud in np.flatnonzero(extra & ~named):
        atoms = slice(flat.atom_start[cloud], flat.atom_start[cloud + 1])
        assert count_isometries(flat.position[atoms], flat.kind[atoms], LABEL_TOLERANCE) == order


def test_the_sieve_holds_back_few_of_the_usual_clouds():
    names = point_groups.crystallographic()
    groups = GroupsOfOrder(6, names)
    random = ExactRandom(1, "sieve", 0)
    group, orbits = random.below(len(groups.numbers), 2000), 2 + random.below(5, 2000)
    place = np.arange(orbits.sum(), dtype=np.uint64) * np.uint64(MOST_TRIES)
    seed, kind = in_ball(random.streams(len(place)), place, 3), 1 + random.below(99, len(place))
    assert suspects(groups, grow_orbits(groups, group, orbits, seed, kind), LABEL_TOLERANCE).mean() < 0.05
