import gzip
import lzma
import os
import tarfile
import zlib

import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.files import list_inputs

FILES = {"b.cif": b"second", "a/z.CIF": b"first", "notes.txt": b"no", "a/empty.cif": b"", "c.cif.bak": b"no"}
NAMES = ["a/empty.cif", "a/z.CIF", "b.cif"]


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "in"


def pack(folder, archive, mode="w"):
    with tarfile.open(archive, mode) as tar:
        tar.add(folder, arcname=".")
    return archive


def contents(path, staging):
    return {each.name: each.read() for each in list_inputs(path, ".cif", staging)}


@pytest.mark.parametrize("mode", [None, "w", "w:gz", "w:bz2", "w:xz"])
def test_same_names_and_bytes(folder, tmp_path, mode):
    path = folder if mode is None else pack(folder, tmp_path / "archive", mode)
    found = contents(path, tmp_path / "staging")
    assert list(found) == NAMES
    assert found == {name: FILES[name] for name in NAMES}


@pytest.mark.parametrize("mode", [None, "w", "w:gz"])
def test_links(folder, tmp_path, mode):
    os.link(folder / "b.cif", folder / "a/hard.cif")
    (folder / "a/soft.cif").symlink_to("../b.cif")
    (folder / "a/softer.cif").symlink_to("soft.cif")
    (folder / "dangling.cif").symlink_to("gone.cif")
    (folder / "loop.cif").symlink_to("loop.cif")
    found = contents(folder if mode is None else pack(folder, tmp_path / "archive", mode), tmp_path / "staging")
    linked = {"a/hard.cif": b"second", "a/soft.cif": b"second", "a/softer.cif": b"second"}
    assert found == {name: FILES[name] for name in NAMES} | linked


def test_a_folder_called_like_a_file_is_searched(folder, tmp_path):
    (folder / "d.cif").mkdir()
    (folder / "d.cif/e.cif").write_bytes(b"inside")
    assert contents(folder, tmp_path)["d.cif/e.cif"] == b"inside"


def flip(data, place):
    return data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :]


def unpacks_to(data, plain):
    """Some bits of a gzip carry nothing (padding, codes of symbols that do not occur): changing them is no harm."""
    try:
        return gzip.decompress(data) == plain
    except (OSError, EOFError, zlib.error):
        return False


def test_damaged_archives(folder, tmp_path):
    (folder / "large.cif").write_bytes(bytes(range(256)) * 500)
    plain = pack(folder, tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        header = tar.getmember("./large.cif").offset
    packed, xz = gzip.compress(plain), lzma.compress(plain)
    damaged = {
        "empty": b"",
        "no archive": b"hello\n" * 1000,
        "tar cut in a member": plain[: header + 700],
        "tar with a damaged header": flip(plain, header + 3),
        "gz cut": packed[: len(packed) // 2],
        "gz without its end": packed[:-4],
        "gz head only": packed[:12],
        "xz cut": xz[: len(xz) // 2],
        "xz damaged": flip(xz, len(xz) // 2),
    }
    damaged |= {f"gz damaged at {place}": flip(packed, place) for place in range(20, len(packed), len(packed) // 40)}
    damaged = {what: data for what, data in damaged.items() if not unpacks_to(data, plain)}
    path = tmp_path / "damaged.tar"
    for what, data in damaged.items():
        path.write_bytes(data)
        with pytest.raises(UserInputError, match=r"damaged.tar: neither a folder nor a whole tar archive: .") as caught:
            list_inputs(path, ".cif", tmp_path / "staging")
        assert "\n" not in str(caught.value), what


@pytest.mark.parametrize("make", ["missing", "empty folder", "archive of others"])
def test_nothing_to_read(folder, tmp_path, make):
    path = tmp_path / "nothing"
    if make == "empty folder":
        path.mkdir()
    if make == "archive of others":
        for name in NAMES:
            (folder / name).unlink()
        pack(folder, path)
    with pytest.raises(UserInputError, match="no such file" if make == "missing" else r"holds no .cif file"):
        list_inputs(path, ".cif", tmp_path)
