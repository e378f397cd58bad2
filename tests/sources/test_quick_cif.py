import itertools
import random
import re
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from crystals import BROKEN, ROCK_SALT, changed, random_crystal
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from matsci_hpc.sources.cif import CifError, parse_with_pymatgen
from matsci_hpc.sources.quick_cif import read_quick

DATA = Path(__file__).parents[2].parent / "shared/data"
ARCHIVES = (DATA / "matbench_mp_gap/cifs.tar.gz", DATA / "3dsc_cifs.tar.gz")
needs_data = pytest.mark.skipif(not all(each.is_file() for each in ARCHIVES), reason="needs the data in ../shared/data")


def agrees(data):
    """Whether the quick reader took a file; that it then says what pymatgen says."""
    quick = read_quick(data)
    if quick is None:
        return False
    for ours, theirs in zip(quick, parse_with_pymatgen(data), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()  # signs of zeros as well
    return True


def every_file(archive):
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            if member.name.endswith(".cif"):
                yield tar.extractfile(member).read()


def compare_sample(archive, count, among=None):
    files = list(itertools.islice(every_file(archive), among))
    sample = random.Random(1).sample(files, min(count, len(files)))
    assert sum(map(agrees, sample)) > 0.95 * len(sample)


@needs_data
def test_a_few_real_files():
    for archive in ARCHIVES:
        compare_sample(archive, 200, among=4000)


@needs_data
@pytest.mark.slow
def test_thousands_of_real_files():
    for archive in ARCHIVES:
        compare_sample(archive, 4704)


CUBE, HEXAGON, OBLIQUE = Lattice.cubic(5.4), Lattice.hexagonal(3.2, 5.1), Lattice.monoclinic(5.1, 5.2, 5.3, 99.2)
SYMMETRIC = {
    # group, lattice, elements and their places
    "diamond": ("Fd-3m", CUBE, ["Si"], [[0, 0, 0]]),
    "rock salt": ("Fm-3m", CUBE, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "perovskite": ("Pm-3m", CUBE, ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]),
    "garnet": ("Ia-3d", Lattice.cubic(12), ["Y", "O"], [[0.125, 0, 0.25], [0.0305, 0.0512, 0.6500]]),
    "thirds": ("P6_3/mmc", HEXAGON, ["Zn", "S"], [[1 / 3, 2 / 3, 0.25], [0, 0, 0]]),
    "corundum": ("R-3c", Lattice.hexagonal(4.76, 12.99), ["Al", "O"], [[0, 0, 0.3522], [0.3063, 0, 0.25]]),
    "general places": ("P2_1/c", OBLIQUE, ["Zr", "O"], [[0.2754, 0.0395, 0.2083], [0.07, 0.3317, 0.3447]]),
}


@pytest.mark.parametrize(("group", "lattice", "elements", "places"), SYMMETRIC.values(), ids=SYMMETRIC)
def test_operations_are_carried_out(group, lattice, elements, places):
    crystal = Structure.from_spacegroup(group, lattice, elements, places)
    data = str(CifWriter(crystal, symprec=0.01)).encode()
    assert b"P 1'" not in data
    assert agrees(data)
    assert len(read_quick(data)[0]) == len(crystal)


PLAIN = {
    "as it is": ROCK_SALT.encode(),
    "negative zeros": changed("Na1 Na 0 0 0 1", "Na1 Na -0.0 -0.0 -0.0 1"),
    "another cell": changed("0.5 0.5 0.5", "-3.5 0.5 2.5"),
    "rounded thirds": changed("0.5 0.5 0.5", "0.3333 0.66667 -0.33333"),
    "uncertainties": changed("length_a 5.64", "length_a 5.64(2)").replace(b"0.5 0.5 0.5", b"0.5(1) 0.51(12) 0.5"),
    "Windows": ROCK_SALT.replace("\n", "\r\n").encode(),
    "comments": changed("loop_", "# a comment 'with a quote\nloop_ # and another"),
    "a paragraph": changed("loop_", "_publ_title\n;\n loop_ data_x\n_atom_site_label\n;\nloop_"),
    "labels alone": ROCK_SALT.replace("_atom_site_type_symbol\n", "")
    .replace("1 Na", "1")
    .replace("1 Cl", "1")
    .encode(),
    "charges in symbols": changed("Cl1 Cl", "Cl1 Cl1-"),
    "no occupancies": ROCK_SALT.replace("_atom_site_occupancy\n", "").replace(" 1\n", "\n").encode(),
    "skewed": changed("angle_gamma 90", "angle_gamma 41.3"),
}


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
def test_taken(data):
    assert agrees(data)


LEFT = {
    "partly occupied": changed("0.5 0.5 0.5 1", "0.5 0.5 0.5 0.5"),
    "a site twice": changed("0.5 0.5 0.5", "0.00001 1 0"),
    "two blocks": (ROCK_SALT + ROCK_SALT.replace("NaCl", "x")).encode(),
    "a name twice": changed("_cell_length_b 5.64", "_cell_length_b 5.64\n_cell_length_a 5.65"),
    "another spelling": changed("_cell_length_b 5.64", "_cell_length_b 5.64\n_CELL_length_b -1"),
    "cell in a paragraph": changed("loop_", "_x\n;\n_cell_length_a -1\n;\nloop_"),
    "deuterium": changed("Na1 Na", "D1 D"),
    "helium, which has no electronegativity": changed("Na1 Na", "He1 He"),
    "magnetic moments": changed("loop_", "_atom_site_moment_label Na1\nloop_"),
    "oxidation numbers": changed("loop_", "loop_\n_atom_type_symbol\n_atom_type_oxidation_number\nNa 1\nloop_"),
    "a group without operations": changed("'P 1'", "'F m -3 m'"),
    "a singular operation": changed("loop_", "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'0,-y,z'\nloop_"),
    "no group": changed("loop_", "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'x,-y,z+1/3'\nloop_"),
    "not ASCII": ROCK_SALT.replace("NaCl", "Müller").encode(),
}


@pytest.mark.parametrize("data", LEFT.values(), ids=LEFT)
def test_left_to_pymatgen(data):
    assert read_quick(data) is None


def test_almost_special_places_are_left_to_pymatgen():
    text = str(CifWriter(Structure.from_spacegroup("P2_1/c", OBLIQUE, ["Zr"], [[0, 0, 0]]), symprec=0.01))
    row = re.search(r"Zr0\s+\d+\s+(\S+)", text)
    assert agrees(text.encode())
    doubtful = f"{text[: row.start(1)]}0.00004{text[row.end(1) :]}"
    assert read_quick(doubtful.encode()) is None


@pytest.mark.parametrize("data", [data for data, _ in BROKEN.values()], ids=BROKEN)
def test_broken_files_are_not_taken_where_pymatgen_refuses(data):
    try:
        parse_with_pymatgen(data)
    except CifError:
        assert read_quick(data) is None


PIECES = (
    "'",
    '"',
    "# x",
    "\n;\n",
    "loop_",
    "_x",
    "data_",
    "nan",
    "-0.0",
    "0.3333",
    "(3)",
    ".",
    "?",
    "Fe3+",
    "\t",
    "\r",
)
PIECES += ("1e5", "-1", "0.00005", "0.99995", "x+1/2", "-y", "'P 1'", "_symmetry_equiv_pos_as_xyz", " + ", "1_0", "D")


def damaged(text, dice):
    for _ in range(dice.choice((1, 1, 2))):
        words, lines, way = text.split(" "), text.split("\n"), dice.randrange(5)
        if way == 0:
            place = dice.randrange(len(text))
            text = text[:place] + chr(ord(text[place]) ^ (1 << dice.randrange(7))) + text[place + 1 :]
        elif way == 1:
            place = dice.randrange(len(text))
            text = text[:place] + dice.choice(PIECES) + text[place:]
        elif way == 2:
            words[dice.randrange(len(words))] = dice.choice([*PIECES, *words])
            text = " ".join(words)
        elif way == 3:
            lines.insert(dice.randrange(len(lines)), dice.choice(lines))
            text = "\n".join(lines)
        else:
            del lines[dice.randrange(len(lines))]
            text = "\n".join(lines)
    return text


def test_damaged_files_are_read_alike_or_left():
    dice = random.Random(3)
    whole = [ROCK_SALT, *(str(CifWriter(random_crystal(number))) for number in (1, 2, 4))]
    for group, lattice, elements, places in list(SYMMETRIC.values())[2:]:
        whole.append(str(CifWriter(Structure.from_spacegroup(group, lattice, elements, places), symprec=0.01)))
    taken = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3000):
            taken += agrees(damaged(dice.choice(whole), dice).encode())
    assert taken > 300


def test_numbers_are_those_of_the_elements():
    number, position, cell = read_quick(ROCK_SALT.encode())
    assert number.tolist() == [11, 17]
    np.testing.assert_allclose(position, [[0, 0, 0], [2.82] * 3], atol=1e-6)
    np.testing.assert_allclose(cell, 5.64 * np.eye(3), atol=1e-6)
