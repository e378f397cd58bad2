import io
import os
import tarfile

import numpy as np
import pytest
from crystals import BROKEN, ROCK_SALT, changed
from pymatgen.core import Structure as Crystal

from matsci_hpc.config.sources import CifSource as Config
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.cif import CifError, CifSource, parse_cif
from matsci_hpc.structure import Rejected, Structure

SPLITS = ("train", "val")


def open_source(path, staging, **more):
    return CifSource.from_config(Config(kind="cif", path=path, **more), SPLITS, staging)


def read_all(source):
    return list(source.read(0, len(source)))


def assert_same(first, second):
    assert type(first) is type(second)
    if isinstance(first, Rejected):
        assert first == second
        return
    assert (first.id, first.split, first.targets, first.source) == (
        second.id,
        second.split,
        second.targets,
        second.source,
    )
    for name in ("atomic_number", "position", "cell", "pbc"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), strict=True)


def pack(folder, archive, mode):
    with tarfile.open(archive, mode) as tar:
        for path in sorted(folder.rglob("*"), key=lambda path: path.name[::-1]):  # in no useful order
            tar.add(path, arcname=f"./{path.relative_to(folder)}", recursive=False)


def test_structures_are_those_of_pymatgen(cif_folder, tmp_path):
    source = open_source(cif_folder, tmp_path)
    assert [each.name for each in source.inputs] == sorted(
        path.relative_to(cif_folder).as_posix() for path in cif_folder.rglob("*.cif")
    )
    assert len(source) == 60
    for entry, each in zip(source.inputs, read_all(source), strict=True):
        crystal = Crystal.from_file(cif_folder / entry.name)
        assert isinstance(each, Structure)
        assert each.fault() is None
        assert each.id == entry.path.stem
        assert each.atomic_number.tolist() == [site.specie.Z for site in crystal]
        np.testing.assert_array_equal(each.position, crystal.cart_coords.astype(np.float32), strict=True)
        np.testing.assert_array_equal(each.cell, crystal.lattice.matrix.astype(np.float32), strict=True)
        assert each.pbc.all()


@pytest.mark.parametrize("kind", ["", "gz", "xz", "bz2"])
def test_an_archive_gives_what_the_folder_gives(cif_folder, broken_cifs, tmp_path, kind):
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, path in enumerate([*sorted(cif_folder.rglob("*.cif"))[:6], *sorted(broken_cifs.iterdir())]):
        place = folder / f"part{number % 2}"
        place.mkdir(exist_ok=True)
        (place / path.name).write_bytes(path.read_bytes())
    archive = tmp_path / "anything"  # the content tells the format, not the name
    pack(folder, archive, f"w:{kind}")
    staging = tmp_path / "staging"
    loose, packed = open_source(folder, staging), open_source(archive, staging)
    assert loose.identity == packed.identity
    for first, second in zip(read_all(loose), read_all(packed), strict=True):
        assert_same(first, second)
    assert staging.exists() == bool(kind)  # an uncompressed archive is read where it lies


def test_any_range_in_any_order(cif_folder, tmp_path):
    source = open_source(cif_folder, tmp_path)
    whole = read_all(source)
    for start, stop in [(40, 60), (0, 3), (17, 18), (5, 5)]:
        part = list(source.read(start, stop))
        assert len(part) == stop - start
        for first, second in zip(part, whole[start:stop], strict=True):
            assert_same(first, second)


def test_reasons_are_one_readable_line(broken_cifs, tmp_path):
    source = open_source(broken_cifs, tmp_path)
    assert [each.name for each in source.inputs] == sorted(BROKEN)
    for entry, each in zip(source.inputs, read_all(source), strict=True):
        reason = each.reason if isinstance(each, Rejected) else each.fault()
        expected = BROKEN[entry.name][1]
        if reason is None:
            assert expected.startswith(("atoms 0", "cell is so"))  # sound by itself, found by the neighbour search
            continue
        assert expected in reason
        assert "\n" not in reason
        assert len(reason) < 300
        assert (each.source or entry.name) == entry.name


def test_every_way_of_breaking_off_gives_a_reason():
    data = ROCK_SALT.encode()
    for length in range(0, len(data) - 15, 3):  # further on, what is left is a whole structure
        with pytest.raises(CifError):
            parse_cif(data[:length])


def test_no_flipped_bit_escapes():
    data = ROCK_SALT.encode()
    for place in range(0, len(data), 2):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place // 2 % 8)
        try:
            number, position, cell = parse_cif(bytes(damaged))
        except CifError:
            continue
        assert Structure("x", number, position, cell, np.ones(3, dtype=bool)).fault() in {
            None,
            "a position is not a finite number",
            "a lattice vector is not a finite number",
        }


def test_a_cell_in_a_text_that_is_no_number():
    """The parser reads past the text; what tells one from the other is not to be had without it."""
    text = "_publ_section_comment\n;\nthe cell of version\n_cell_length_a 1.2.3\n;\n"
    with pytest.raises(CifError, match=r"_cell_length_a is 1\.2\.3"):
        parse_cif(changed("_cell_length_b", f"{text}_cell_length_b"))


HARMLESS = {
    "a byte order mark": b"\xef\xbb\xbf" + ROCK_SALT.encode(),
    "line ends of Windows": ROCK_SALT.replace("\n", "\r\n").encode(),
    "standard uncertainties": changed("length_a 5.64", "length_a 5.64(2)"),
    "oxidation states": changed("Cl1 Cl", "Cl1 Cl1-"),
    "an atom listed in another cell": changed("0.5 0.5 0.5", "-3.5 0.5 2.5"),
}


@pytest.mark.parametrize("data", HARMLESS.values(), ids=HARMLESS)
def test_harmless_peculiarities(data):
    number, position, _ = parse_cif(data)
    assert number.tolist() == [11, 17]
    np.testing.assert_allclose(position[1], 2.82, rtol=1e-6)


def test_an_id_in_two_folders_is_kept_once(tmp_path):
    for name in ("b/salt.cif", "a/salt.CIF", "a/x/salt.cif", "other.cif"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(ROCK_SALT)
    kept, second, third, other = read_all(open_source(tmp_path, tmp_path))
    assert (kept.id, kept.source, other.id) == ("salt", "a/salt.CIF", "other")
    assert second == Rejected("a/x/salt.cif", "the id is taken by a/salt.CIF")
    assert third == Rejected("b/salt.cif", "the id is taken by a/salt.CIF")


def test_targets_splits_and_remarks(cif_folder, tmp_path):
    targets = {
        "gap": {"column": "gap", "unit": "eV"},
        "metal": {"column": "metal", "kind": "binary"},
        "family": {"column": "family", "kind": "class"},
    }
    source = open_source(
        cif_folder, tmp_path, properties=cif_folder / "properties.csv", targets=targets, split_column="split"
    )
    by_id = {each.id: each for each in read_all(source)}
    assert by_id["crystal-000"].targets == {"family": 1}  # of alloy, oxide, zeolite; the rest is absent
    assert by_id["crystal-001"].targets == {"gap": 0.125, "metal": 1.0, "family": 0}
    assert by_id["crystal-009"].targets == {}
    assert [by_id[f"crystal-00{n}"].split for n in range(3)] == ["train", "test", None]
    assert source.splits == ("test", "train", "val")
    assert source.remarks == {"property rows without a structure": 1, "structures without a property row": 6}


def test_no_id_fits(tmp_path):
    for name in ("a/salt.cif", "b/salt.cif"):  # doubled ids must not hide it
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(ROCK_SALT)
    (tmp_path / "table.csv").write_text("id,gap\nsalt.cif,1\n")
    with pytest.raises(UserInputError, match=r"no id in column 'id' is the name.*gives id 'salt'"):
        open_source(tmp_path, tmp_path, properties=tmp_path / "table.csv", targets={"gap": {"column": "gap"}})


@pytest.mark.parametrize("row", ["ghost,zeta,1", "ghost,alpha,early"])
def test_rows_that_shift_numbers_are_another_input(tmp_path, row):
    (tmp_path / "salt.cif").write_text(ROCK_SALT)
    table = tmp_path / "table.csv"

    def identity(text):
        table.write_text(text)
        targets = {"family": {"column": "family", "kind": "class"}}
        return open_source(tmp_path, tmp_path, properties=table, targets=targets, split_column="split").identity

    text = "id,family,split\nsalt,halide,late\n"
    assert identity(text) == identity(text)
    assert identity(text) != identity(f"{text}{row}\n")


def test_a_name_that_is_not_utf8(tmp_path):
    folder = tmp_path / "cifs"
    folder.mkdir()
    with open(os.fsencode(folder) + b"/M\xfcller.cif", "w") as file:  # noqa: PTH123 - a path of bytes
        file.write(ROCK_SALT)
    pack(folder, tmp_path / "cifs.tar", "w")
    for path in (folder, tmp_path / "cifs.tar"):
        (only,) = read_all(open_source(path, tmp_path))
        assert only.id == r"M\xfcller"
        only.id.encode()


def test_gone_between_listing_and_reading(tmp_path):
    (tmp_path / "salt.cif").write_text(ROCK_SALT)
    source = open_source(tmp_path, tmp_path)
    (tmp_path / "salt.cif").write_text(ROCK_SALT[:-5])
    with pytest.raises(UserInputError, match=r"salt.cif: changed while it was read"):
        read_all(source)
    (tmp_path / "salt.cif").unlink()
    with pytest.raises(UserInputError, match=r"salt.cif: cannot be read: No such file"):
        read_all(source)


def test_members_appended_to_an_archive_replace_older_ones(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for text in (b"old and broken", ROCK_SALT.encode()):
            info = tarfile.TarInfo("salt.cif")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    (only,) = read_all(open_source(tmp_path / "a.tar", tmp_path))
    assert isinstance(only, Structure)
