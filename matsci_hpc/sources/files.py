"""Many small input files, loose in a folder or packed in an archive, as a list of byte ranges.

Ranks read inputs in any order, which a compressed archive does not allow. So rank 0 unpacks it once, as one
uncompressed file next to the output, and every rank reads its inputs from there by offset. An uncompressed tar is
read where it lies, and so are loose files.
"""

import errno
import lzma
import os
import posixpath
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from matsci_hpc.errors import MachineError, UserInputError

UNPACKED = "inputs.bin"
"""Name of the unpacked copy of a compressed archive."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input: `size` bytes at `offset` of the file `path`; `name` is what people know it by."""

    name: str
    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes of this input.

        Raises:
            UserInputError: the file has changed since it was listed, or may not be read.
            MachineError: reading fails.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except (FileNotFoundError, PermissionError) as error:
            raise UserInputError(f"{self.path}: cannot be read: {error.strerror}") from None
        except OSError as error:
            raise MachineError(f"{self.path}: reading failed: {error.strerror}; run the same command again") from None
        if len(data) != self.size:
            raise changed(self.path)
        return data


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of a file, which tell that another one was put in its place.

    Not its number: file systems that clusters mount by FUSE give a file another one on every node.

    Raises:
        UserInputError: it is not there, or may not be looked at.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns


def changed(where: Path | str) -> UserInputError:
    """What is to be said of an input that is not what it was when it was listed."""
    return UserInputError(f"{where}: changed while it was read; start again once nothing writes to it any more")


def list_inputs(path: Path, suffix: str | tuple[str, ...], staging: Path) -> list[InputFile]:
    """Every file of such a name (in any case) under a folder or in an archive, sorted by name.

    Args:
        path: folder, or archive that Python's tarfile can read.
        suffix: such as ".cif", or several; without the point, as "poscar", it is how a name begins.
        staging: folder for the unpacked copy of a compressed archive.

    Raises:
        UserInputError: the path is missing, unreadable, neither folder nor whole archive, or holds no such file.
        MachineError: reading the path or unpacking it fails.
    """
    suffixes = (suffix,) if isinstance(suffix, str) else suffix
    try:
        if path.is_dir():
            inputs = list(_list_folder(path, suffixes))
        elif path.exists():
            inputs = _list_archive(path, suffixes, staging)
        else:
            raise UserInputError(f"{path}: no such file or folder")
    # Decompressors raise what they like, and an OSError without a number.
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if not isinstance(error, OSError) or error.errno is None:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise UserInputError(f"{path}: neither a folder nor a whole tar archive: {reason}") from None
        where = error.filename or path
        if error.errno in {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG}:
            raise UserInputError(f"{where}: cannot be read: {error.strerror}") from None
        raise MachineError(f"{path}: reading failed, or unpacking to {staging}: {error.strerror}") from None
    if not inputs:
        raise UserInputError(f"{path}: holds no {' or '.join(suffixes)} file")
    return sorted(inputs, key=lambda each: each.name)


def name_fits(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether `list_inputs` takes a file of this name, which may hold folders."""
    file = PurePosixPath(name.lower())
    return any(file.suffix == each if each.startswith(".") else file.name.startswith(each) for each in suffixes)


def _list_folder(path: Path, suffixes: tuple[str, ...]) -> Iterator[InputFile]:
    def fail(error: OSError) -> None:
        raise error  # a folder that cannot be searched is not an empty one

    for folder, _, names in os.walk(path, onerror=fail):
        for name in names:
            file = Path(folder, name)
            if name_fits(name, suffixes) and file.is_file():
                yield InputFile(readable_name(file.relative_to(path).as_posix()), file, 0, file.stat().st_size)


def _list_archive(path: Path, suffixes: tuple[str, ...], staging: Path) -> list[InputFile]:
    if is_plain_tar(path):
        with tarfile.open(path, mode="r:") as archive:
            return _resolve(_members(archive, suffixes), lambda member: (path, member.offset_data))
    staging.mkdir(parents=True, exist_ok=True)
    unpacked = staging / UNPACKED
    with tarfile.open(path) as archive, unpacked.open("wb") as target:

        def unpack(member: tarfile.TarInfo) -> tuple[Path, int]:
            offset = target.tell()
            source = archive.extractfile(member)
            if source is not None:
                shutil.copyfileobj(source, target)
            return unpacked, offset

        return _resolve(_members(archive, suffixes), unpack)


def _resolve(
    members: Iterator[tarfile.TarInfo], place: Callable[[tarfile.TarInfo], tuple[Path, int]]
) -> list[InputFile]:
    """What unpacking would give: the last member of a name counts, and a link gives the file it points to."""
    inputs: dict[str, InputFile] = {}
    links: dict[str, str] = {}
    for member in members:
        name = posixpath.normpath(member.name)
        if member.isfile():
            links.pop(name, None)
            inputs[name] = InputFile(readable_name(name), *place(member), member.size)
            continue
        inputs.pop(name, None)
        # A hard link names a member, a symbolic link a path from its own folder.
        start = "" if member.islnk() else posixpath.dirname(name)
        links[name] = posixpath.normpath(posixpath.join(start, member.linkname))
    for name in links:
        target = name
        for _ in range(len(links)):
            target = links.get(target, target)
        if target in inputs:
            inputs[name] = replace(inputs[target], name=readable_name(name))
    return list(inputs.values())


def _members(archive: tarfile.TarFile, suffixes: tuple[str, ...]) -> Iterator[tarfile.TarInfo]:
    """Files and links with the suffix; an archive that breaks off is an error."""
    for member in archive:
        if (member.isfile() or member.islnk() or member.issym()) and name_fits(member.name, suffixes):
            yield member
    # tarfile takes a damaged header for the end of the archive, whose true mark is a block of zeros.
    if archive.fileobj is not None:
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"the header at byte {archive.offset} is damaged")
        while archive.fileobj.read(1 << 20):
            pass  # the checksum of a compressed file stands at its end


def readable_name(name: str) -> str:
    """The name as text: bytes that are no UTF-8 are written in hexadecimal."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_plain_tar(path: Path) -> bool:
    """Whether a file is a tar archive that any rank can read from the middle."""
    try:
        with tarfile.open(path, mode="r:"):
            return True
    except tarfile.TarError:
        return False
