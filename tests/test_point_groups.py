import math

import numpy as np
import pytest
import spglib
from symmetry_detector import count_isometries

from matsci_hpc import point_groups
from matsci_hpc.errors import UserInputError
from matsci_hpc.subgroups import contains, multiplication_table, subgroup_names, subgroups

EVERY = point_groups.all_groups(12)


def test_the_32_crystallographic_groups_are_the_axial_and_cubic_ones_without_forbidden_axes():
    names = point_groups.crystallographic()
    allowed = {name for name in point_groups.all_groups(6) if "5" not in name and not name.startswith("I")}
    # D4d and D6d have an eightfold and a twelvefold rotoreflection axis, which no lattice has.
    assert set(names) == allowed - {"D4d", "D6d"}
    assert len(names) == len(set(names)) == 32


@pytest.mark.parametrize(
    ("name", "order", "classes"),
    [
        *[
            ("C1", 1, 1),
            ("Cs", 2, 2),
            ("Ci", 2, 2),
            ("C4", 4, 4),
            ("C3v", 6, 3),
            ("C5v", 10, 4),
            ("C3h", 6, 6),
        ],
        *[("S4", 4, 4), ("S8", 8, 8), ("D3", 6, 3), ("D2h", 8, 8), ("D3h", 12, 6), ("D6h", 24, 12)],
        *[("D2d", 8, 5), ("D3d", 12, 6), ("D5d", 20, 8), ("T", 12, 4), ("Td", 24, 5), ("Th", 24, 8)],
        *[("O", 24, 5), ("Oh", 48, 10), ("I", 60, 5), ("Ih", 120, 10)],
    ],
)
def test_order_and_number_of_conjugacy_classes(name, order, classes):
    assert len(point_groups.matrices(name)) == order == point_groups.order(name)
    assert conjugacy_classes(name) == classes


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *[("C3v", [1, 2, 3]), ("D4", [1, 1, 2, 2, 2]), ("D2d", [1, 1, 2, 2, 2]), ("D3h", [1, 1, 2, 2, 3, 3])],
        *[("T", [1, 3, 4, 4]), ("Td", [1, 3, 6, 6, 8]), ("Th", [1, 1, 3, 3, 4, 4, 4, 4]), ("O", [1, 3, 6, 6, 8])],
        *[("Oh", [1, 1, 3, 3, 6, 6, 6, 6, 8, 8]), ("I", [1, 12, 12, 15, 20])],
        ("Ih", [1, 1, 12, 12, 12, 12, 15, 15, 20, 20]),
    ],
)
def test_sizes_of_the_classes_as_character_tables_have_them(name, sizes):
    assert sorted(len(each) for each in classes_of(name)) == sizes


@pytest.fixture(scope="module")
def schoenflies():
    """Symbols by those of Hermann and Mauguin, from the table of space groups in spglib."""
    kinds = [spglib.get_spacegroup_type(number) for number in range(1, 531)]
    found = {kind.pointgroup_international: kind.pointgroup_schoenflies for kind in kinds}
    assert len(found) == 32
    return found | {"-3": {"C3i": "S6"}[found["-3"]]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:spglib")
@pytest.mark.parametrize("name", point_groups.crystallographic())
def test_spglib_calls_the_crystallographic_groups_the_same(name, schoenflies):
    """As integer matrices along the axes of a cube or of a hexagonal cell."""
    hexagonal = np.array([[1, 0, 0], [-0.5, math.sqrt(0.75), 0], [0, 0, 1]]).T
    for basis in (np.eye(3), hexagonal):
        turned = np.linalg.inv(basis) @ point_groups.matrices(name) @ basis
        if np.abs(turned - turned.round()).max() < 1e-9:
            assert schoenflies[spglib.get_pointgroup(turned.round().astype(np.intc))[0].strip()] == name
            return
    pytest.fail("along no axes")


def test_the_families_are_all_there():
    """Those whose facts are checked here: by formula the axial ones, one by one the others."""
    families = [("C", ""), ("C", "v"), ("C", "h"), ("D", ""), ("D", "h"), ("D", "d")]
    axial = {f"{letter}{n}{end}" for n in range(2, 13) for letter, end in families}
    axial |= {f"S{n}" for n in range(4, 13, 2)}
    assert axial | {"C1", "Cs", "Ci", "T", "Td", "Th", "O", "Oh", "I", "Ih"} == set(EVERY)


def family_by_operations(group):
    """From the rotations alone, and from where the mirrors lie: the main axis is z."""
    proper = np.linalg.det(group) > 0
    rotations = group[proper]
    # The order of a rotation is 1 over its smallest part of a turn; generators of cyclic groups have that of the group.
    cosines = np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1)
    angles = np.arccos(cosines[cosines < 1 - 1e-9])
    highest = round(2 * np.pi / angles.min()) if len(angles) else 1
    mirrors = group[~proper & np.isclose(np.trace(group, axis1=1, axis2=2), 1)]
    horizontal = any(np.allclose(mirror, np.diag([1, 1, -1])) for mirror in mirrors)
    if highest == len(rotations):
        if proper.all():
            return "Cn"
        return "Cnh" if horizontal else "Cnv" if len(mirrors) else "S2n"
    if 2 * highest == len(rotations):
        if proper.all():
            return "Dn"
        return "Dnh" if horizontal else "Dnd"
    return {12: "cubic", 24: "cubic", 60: "icosahedral"}[len(rotations)]


def test_every_group_has_the_family_of_its_operations():
    found = {name: point_groups.family(name) for name in point_groups.all_groups(24)}
    assert found == {name: family_by_operations(point_groups.matrices(name)) for name in found}
    assert set(found.values()) == set(point_groups.FAMILIES)


@pytest.mark.parametrize("n", range(2, 13))
def test_number_of_conjugacy_classes_of_the_axial_families(n):
    dihedral = (n + 3) // 2 if n % 2 else n // 2 + 3
    # The horizontal mirror commutes with all, and Dnd is the dihedral group of twice the order in another guise.
    expected = {f"C{n}": n, f"C{n}h": 2 * n, f"D{n}": dihedral, f"C{n}v": dihedral}
    expected |= {f"D{n}h": 2 * dihedral, f"D{n}d": n + 3, f"S{2 * n}": 2 * n}
    assert {name: conjugacy_classes(name) for name in expected} == expected


def conjugacy_classes(name):
    return len(classes_of(name))


def classes_of(name):
    table = multiplication_table(point_groups.matrices(name))
    inverse = np.argmax(table == 0, axis=1)
    conjugates = table[table, inverse[:, None]]
    return {frozenset(column) for column in conjugates.T.tolist()}


@pytest.mark.parametrize("name", EVERY)
def test_operations_are_a_group_of_orthogonal_matrices(name):
    group = point_groups.matrices(name)
    np.testing.assert_array_equal(group[0], np.eye(3))
    np.testing.assert_allclose(group @ group.transpose(0, 2, 1), np.broadcast_to(np.eye(3), group.shape), atol=1e-13)
    table = multiplication_table(group)
    np.testing.assert_allclose(group[table], np.einsum("iab,jbc->ijac", group, group), atol=1e-12)
    for lines in (table, table.T):
        assert (np.sort(lines, axis=1) == np.arange(len(group))).all()


def test_operations_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        point_groups.matrices("C2")[0, 0, 0] = 2.0


def test_no_group_has_two_names():
    names = point_groups.all_groups(24)
    assert len(set(names)) == len(names)
    assert len({(point_groups.order(n), point_groups.signature(point_groups.matrices(n))) for n in names}) == len(names)


def test_i_is_not_ih():
    assert (np.linalg.det(point_groups.matrices("I")) > 0).all()
    assert np.linalg.det(point_groups.matrices("Ih")).sum() == pytest.approx(0.0)


@pytest.mark.parametrize("name", ["C1", "Cs", "S6", "C3h", "D5d", "C12v", "Td", "Ih"])
def test_a_group_is_recognised_in_any_orientation(name):
    turn = point_groups.rotation((0.3, -1.2, 0.7), 0.1234)
    shuffled = np.random.default_rng(3).permutation(point_groups.matrices(name))
    assert point_groups.classify(turn @ shuffled @ turn.T) == name


def test_matrices_that_are_no_group_are_not_classified():
    with pytest.raises(ValueError, match="no point group"):
        point_groups.classify(np.stack([np.eye(3), point_groups.rotation((0, 0, 1), 1 / 3)]))


def test_generators_of_a_larger_group_are_noticed():
    with pytest.raises(RuntimeError, match="more than 5"):
        point_groups._closure([point_groups.rotation((0, 0, 1), 1 / 6)], limit=5)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        *[("c2v", "C2v"), ("D13x", "D13"), ("oh", "Oh"), ("C0", "C"), ("S2", "Ci"), ("S3", "C3h")],
        *[("D1h", "C2v"), ("D1d", "C2h"), ("C1v", "Cs"), ("S15", "C15h"), ("", "one is"), ("C02", "C2")],
    ],
)
def test_an_unknown_name_is_answered_with_a_known_one(wrong, advice):
    with pytest.raises(UserInputError, match=advice):
        point_groups.matrices(wrong)


@pytest.mark.parametrize(("name", "number"), [("T", 10), ("Td", 30), ("O", 30), ("Th", 26), ("Oh", 98), ("I", 59)])
def test_number_of_subgroups(name, number):
    assert len(subgroups(name)) == number


def test_number_of_subgroups_of_the_largest_group():
    assert len(subgroups("Ih")) == 164


@pytest.mark.parametrize("n", range(2, 13))
def test_subgroups_of_axial_groups_by_formula(n):
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    assert len(subgroups(f"C{n}")) == len(divisors)
    # A dihedral group of order 2n has one cyclic subgroup and n/d dihedral ones for every divisor d.
    for name in (f"D{n}", f"C{n}v"):
        assert len(subgroups(name)) == len(divisors) + sum(divisors)


@pytest.mark.parametrize("name", ["C12h", "D6d", "S12", "Oh", "Ih"])
def test_subgroups_are_closed_and_obey_lagrange_and_sylow(name):
    table = multiplication_table(point_groups.matrices(name))
    orders = []
    for members in subgroups(name):
        chosen = np.flatnonzero(members)
        assert members[table[np.ix_(chosen, chosen)]].all()
        assert len(table) % len(chosen) == 0
        orders.append(len(chosen))
    for prime in (2, 3, 5):
        power = math.gcd(len(table), prime**10)
        if power > 1:
            assert orders.count(power) % prime == 1
            assert (len(table) // power) % orders.count(power) == 0


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("S4", {"C1", "C2", "S4"}),
        ("D2d", {"C1", "Cs", "C2", "C2v", "D2", "S4", "D2d"}),
        ("D3", {"C1", "C2", "C3", "D3"}),
        ("C3h", {"C1", "Cs", "C3", "C3h"}),
        ("S6", {"C1", "Ci", "C3", "S6"}),
        ("Td", {"C1", "Cs", "C2", "C3", "C2v", "C3v", "D2", "S4", "D2d", "T", "Td"}),
        ("O", {"C1", "C2", "C3", "C4", "D2", "D3", "D4", "T", "O"}),
        ("I", {"C1", "C2", "C3", "C5", "D2", "D3", "D5", "T", "I"}),
    ],
)
def test_names_of_the_subgroups(name, inside):
    assert subgroup_names(name) == inside


def test_containment_is_an_order():
    names = point_groups.crystallographic()
    inside = np.array([contains(name, names) for name in names])
    assert inside.diagonal().all()
    assert inside[:, names.index("C1")].all()
    assert ((inside & inside.T) == np.eye(32, dtype=bool)).all()
    assert (inside == (inside.astype(int) @ inside.astype(int) > 0)).all()
    # Every crystallographic group lies in the holohedry of the cube or of the hexagonal prism.
    assert (inside[names.index("Oh")] | inside[names.index("D6h")]).all()
    proper = np.array([(np.linalg.det(point_groups.matrices(name)) > 0).all() for name in names])
    assert not inside[proper][:, ~proper].any()


def _cloud(name, orbits, rng):
    """Generic orbits with no two atoms and no two radii near each other."""
    group = point_groups.matrices(name)
    while True:
        seeds = rng.normal(size=(orbits, 3)) * np.linspace(1.0, 1.6, orbits)[:, None]
        position = np.einsum("gij,kj->kgi", group, seeds).reshape(-1, 3)
        gaps = np.linalg.norm(position[:, None] - position[None], axis=2) + 9 * np.eye(len(position))
        if gaps.min() > 0.05:
            return position, np.repeat(np.arange(orbits) // 2, len(group))


@pytest.mark.parametrize("name", EVERY)
def test_minimum_orbits_give_the_symmetry_and_fewer_give_more(name):
    rng = np.random.default_rng(len(name) * 1000 + point_groups.order(name))
    fewest, order = point_groups.minimum_orbits(name), point_groups.order(name)
    for orbits in (fewest, fewest + 1):
        if orbits * order <= 120:
            assert count_isometries(*_cloud(name, orbits, rng), tolerance=1e-6) == order
    if fewest > 1:
        for _ in range(3):
            assert count_isometries(*_cloud(name, fewest - 1, rng), tolerance=1e-6) > order


def test_the_detector_knows_the_regular_bodies():
    cube = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    square = cube[cube[:, 2] > 0]
    assert count_isometries(cube, np.ones(8)) == 48
    assert count_isometries(cube, (cube.prod(axis=1) > 0) + 1) == 24
    assert count_isometries(cube + np.array([5.0, 1.0, 2.0]), np.arange(8) == 0) == 6
    assert count_isometries(square, np.ones(4)) == 16
    assert count_isometries(square[:2], np.ones(2)) == math.inf
    assert count_isometries(cube + 0.01 * np.random.default_rng(0).normal(size=cube.shape), np.ones(8)) == 1
