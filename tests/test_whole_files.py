import errno

import pytest

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.whole_files import checksum, file_checksum, output_error, write_atomic


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"first")
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    signs: list[int] = []
    assert file_checksum(path, lambda: signs.append(1)) == checksum(b"second")
    assert signs == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file/x", tmp_path / "gone/x", tmp_path / "folder"):
        with pytest.raises(UserInputError, match="cannot be written"):
            write_atomic(path, b"data")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_the_machines_fault(tmp_path):
    error = output_error(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(error, MachineError)
    assert "what is finished is kept" in str(error)
