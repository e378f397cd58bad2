import gzip
import tarfile
from pathlib import Path

import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.files import InputFile
from matsci_hpc.sources.record_files import distinct_names, list_record_files
from matsci_hpc.sources.record_index import DamagedFileError, RecordIndex, Window

SUFFIXES = (".xyz",)


def put(path, data=b"x\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(paths, staging):
    return [each.file.name for each in list_record_files([(None, path) for path in paths], SUFFIXES, staging)]


def test_paths_are_called_by_the_shortest_ends_that_tell_them_apart():
    paths = [Path(each) for each in ("train/data.lmdb", "val/data.lmdb", "b.lmdb", "/x/a/c.db", "/y/a/c.db", "c.db")]
    assert distinct_names(paths) == ["train/data.lmdb", "val/data.lmdb", "b.lmdb", "x/a/c.db", "y/a/c.db", "c.db"]
    with pytest.raises(UserInputError, match=r"b\.lmdb: would be read more than once"):
        distinct_names([*paths, Path("b.lmdb")])


def test_no_two_files_have_the_same_name(tmp_path):
    x, y = put(tmp_path / "x" / "a.xyz"), put(tmp_path / "y" / "a.xyz")
    put(tmp_path / "y" / "b.xyz")
    with tarfile.open(tmp_path / "z.tar", "w") as tar:
        tar.add(x, "a.xyz")
    staging = tmp_path / "staging"
    assert names([x, y], staging) == ["x/a.xyz", "y/a.xyz"]
    folders = [tmp_path / "x", tmp_path / "y", tmp_path / "z.tar"]
    assert names(folders, staging) == ["x/a.xyz", "y/a.xyz", "b.xyz", "z.tar/a.xyz"]
    put(tmp_path / "x" / "a.xyz.gz", gzip.compress(b"x\n"))
    assert names(folders[:1], staging) == ["a.xyz", "a.xyz.gz/a.xyz"]


def damaged(stream, _):
    raise DamagedFileError(f"line {len(stream.readlines())}")
    yield


def test_a_fault_names_the_file_that_people_have(tmp_path):
    packed = put(tmp_path / "a.xyz.gz", gzip.compress(b"x\n"))
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(put(tmp_path / "c.xyz"), "folder/c.xyz")
    archive = tmp_path / "b.tar.gz"
    for path, shown in [(packed, packed), (archive, f"{archive}: folder/c.xyz")]:
        files = list_record_files([(None, path)], SUFFIXES, tmp_path / "staging")
        with pytest.raises(UserInputError) as caught:
            RecordIndex(files, damaged)
        assert str(caught.value) == f"{shown}: line 1"


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(UserInputError, match="none: cannot be read: No such file"):
        Window(InputFile("none", tmp_path / "none", 0, 5))
    Window.__new__(Window).close()  # as Python does with one that could not be made
