import gzip
import tarfile
from pathlib import Path

import pytest
from record_inputs import NAMES, section, write_records

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.preflight.prep_sample import sample_preparation
from matsci_hpc.sources.files import InputFile
from matsci_hpc.sources.record_files import distinct_names, list_record_files
from matsci_hpc.sources.record_index import DamagedFileError, RecordIndex, Window
from matsci_hpc.sources.registry import open_source

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


def test_names_that_become_those_of_others(tmp_path):
    for each in ("p/d1", "p/d2", "q/d1"):
        put(tmp_path / each / "a.xyz")
    folders = [tmp_path / each for each in ("p/d1", "p/d2", "q")]
    assert names(folders, tmp_path) == ["d1/a.xyz", "d2/a.xyz", "q/d1/a.xyz"]
    for each in ("r/x/d", "s/x/d", "r/y/d"):
        put(tmp_path / each / "a.xyz")
    put(tmp_path / "t" / "x" / "x" / "d" / "a.xyz")
    paths = [tmp_path / each for each in ("r/x/d", "s/x/d", "r/y/d", "t/x")]
    found = names(paths, tmp_path)
    assert len(set(found)) == len(found) == 4
    put(tmp_path / "u" / "q" / "d1" / "a.xyz")
    found = names([*folders, tmp_path / "u" / "q" / "d1" / "a.xyz"], tmp_path)
    assert len(set(found)) == len(found) == 4


def by_its_folder(file):
    return {"train": str(file.parent), "test": str(file)}


def by_a_link(file):
    link = file.with_name(f"link{file.suffix}")
    link.symlink_to(file)
    return [str(file), str(link)]


def by_a_link_to_its_folder(file):
    link = file.parent.with_name("link")
    link.symlink_to(file.parent)
    return [str(file), str(link / file.name)]


def by_a_roundabout_path(file):
    return [str(file), str(file.parent / ".." / file.parent.name / file.name)]


@pytest.mark.parametrize("name", [by_its_folder, by_a_link, by_a_link_to_its_folder, by_a_roundabout_path])
@pytest.mark.parametrize("kind", NAMES)
def test_a_file_that_is_named_in_two_ways(kind, name, tmp_path):
    if kind == "ase_db" and name is by_its_folder:
        pytest.skip("it takes no folders")
    file = tmp_path / "inputs" / NAMES[kind]
    file.parent.mkdir()
    write_records(kind, file, [1, 2])
    source = section(kind) | {"path": name(file)}
    config = PrepConfig.model_validate({"source": source, "out": tmp_path / "out", "neighbors": {"cutoff": 3.0}})
    for read in (lambda: open_source(config, tmp_path / "staging"), lambda: sample_preparation(config)):
        with pytest.raises(UserInputError, match=r"would be read more than once.*; name it once in source.path"):
            read()
