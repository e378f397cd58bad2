"""CIF files, good and bad, made with pymatgen."""

import csv

import numpy as np
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

ELEMENTS = ("H", "Li", "C", "O", "Na", "Si", "Cl", "Ti", "Fe", "Cu", "Zr", "Cs", "La", "W", "Pb", "U")

ROCK_SALT = """data_NaCl
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 1
Cl1 Cl 0.5 0.5 0.5 1
"""


def changed(old, new):
    assert old in ROCK_SALT
    return ROCK_SALT.replace(old, new).encode()


BROKEN = {
    "atomless.cif": (ROCK_SALT.partition("Na1")[0].encode(), "no atoms"),
    "backward.cif": (changed("length_a 5.64", "length_a -5.64"), "_cell_length_a is -5.64"),
    "bent.cif": (changed("angle_gamma 90", "angle_gamma 200(3)"), "_cell_angle_gamma is 200"),
    "binary.cif": (bytes(range(256)) * 8, "not a text file"),
    "coincident.cif": (changed("0.5 0.5 0.5", "0 0 0"), "Occupancy 2.0"),
    "damaged_cell.cif": (changed("length_a 5.64", "length_a nan"), "not a finite number"),
    "damaged_angle.cif": (changed("angle_gamma 90", "angle_gamma nan"), "not a finite number"),
    "dummy.cif": (changed("Cl1 Cl", "X1 X"), "no chemical element"),
    "empty.cif": (b"", "not a readable CIF"),
    "flat.cif": (changed("length_a 5.64", "length_a 0"), "not a readable CIF"),
    "folded.cif": (changed("angle_gamma 90", "angle_gamma 0.1"), "not a readable CIF"),
    "garbage.cif": (b"the dog ate\nmy structure\n", "not a readable CIF"),
    "infinite.cif": (changed("0.5 0.5 0.5", "inf 0.5 0.5"), "not a readable CIF"),
    "long.cif": (changed("length_a 5.64", "length_a 564000"), "a coordinate beyond 100000 angstrom"),
    "nanometres.cif": (ROCK_SALT.replace("5.64", "0.564").encode(), "an atom has 0.09 cubic angstrom"),
    "near.cif": (changed("0.5 0.5 0.5", "0.001 0 0"), "atoms 0 and 1 are 0.0056 angstrom apart"),
    "no_number.cif": (changed("0.5 0.5 0.5", "nan 0.5 0.5"), "not a readable CIF"),
    "partial.cif": (changed("0.5 0.5 0.5 1", "0.5 0.5 0.5 0.5"), "partly occupied"),
    "pinhole.cif": (ROCK_SALT.replace("5.64", "0.02").encode(), "cell is so small"),
    "sites_missing.cif": (ROCK_SALT.partition("loop_")[0].encode(), "_atom_site_label is missing, so it has no atoms"),
    "truncated.cif": (ROCK_SALT.partition("0.5 0.5")[0].encode(), "not a readable CIF"),
    "twice.cif": (ROCK_SALT.encode() * 2, "several data blocks of the same name"),
    "two.cif": ((ROCK_SALT + ROCK_SALT.replace("data_NaCl", "data_other")).encode(), "2 structures"),
    "unknown.cif": (changed("Cl1 Cl", "Qq1 Qq"), "no chemical element"),
}
"""File content and a part of the reason for its rejection."""


def random_crystal(number):
    """A crystal of 1 to 30 atoms; every third cell is smaller than usual cutoffs, every fourth strongly skewed."""
    rng = np.random.default_rng(number)
    atoms = 1 + number % 30 if number % 3 else 1 + number % 2
    edge = max(2.2, (atoms * 14.0) ** (1 / 3))
    a, b, c = edge * rng.uniform(0.85, 1.3, size=3)
    angles = rng.uniform(48, 62, size=3) if number % 4 == 0 else rng.uniform(80, 105, size=3)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3) / 4
    positions = rng.permutation(grid)[:atoms] + rng.uniform(-0.02, 0.02, size=(atoms, 3))
    return Structure(Lattice.from_parameters(a, b, c, *angles), list(rng.choice(ELEMENTS, size=atoms)), positions)


def write_crystals(folder, count):
    """`count` CIF files, a third of them in a subfolder, and `properties.csv` with absent values and a split column."""
    (folder / "sub").mkdir(parents=True)
    with (folder / "properties.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "gap", "metal", "family", "split"])
        for number in range(count):
            name = f"crystal-{number:03d}"
            place = folder / "sub" if number % 3 == 2 else folder
            (place / f"{name}.cif").write_text(str(CifWriter(random_crystal(number))))
            if number % 10 == 9:
                continue  # a structure without a row
            gap = "" if number % 7 == 0 else f"{number / 8:.3f}"
            metal = "NaN" if number % 5 == 0 else ("true" if number % 2 else "0")
            family = ("oxide", "alloy", "")[number % 3]
            table.writerow([name, gap, metal, family, ("train", "test", "")[number % 3]])
        table.writerow(["ghost", "1.0", "1", "zeolite", "test"])


def write_broken(folder):
    """Every broken file, and one whose id another folder holds already."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (data, _) in BROKEN.items():
        (folder / name).write_bytes(data)
