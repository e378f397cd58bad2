"""Files that hold many records one after the other: which there are at some paths, and how they are called.

Compressed files, which cannot be read from the middle, are unpacked once, next to the output.
"""

import gzip
import io
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.sources.files import InputFile, list_inputs
from matsci_hpc.sources.record_index import BUFFER_BYTES, RecordFile, Window

GZIP = b"\x1f\x8b"
"""How gzip files begin."""
STAGED = "unpacked"
"""Folder in the staging folder for unpacked copies."""


def list_record_files(
    paths: list[tuple[str | None, Path]], suffixes: tuple[str, ...], staging: Path
) -> list[RecordFile]:
    """Every file of records at the paths: the order is that of the paths, in a folder or archive that of the names.

    Args:
        paths: files (of any name), folders or tar archives, with the split of what they hold.
        suffixes: of files in folders and archives, such as ".xyz"; each may be followed by ".gz".
        staging: folder for unpacked copies.

    Raises:
        UserInputError: a path is missing or unreadable, or holds no such file.
        MachineError: reading or unpacking fails.
    """
    folder = staging / STAGED
    names = distinct_names([path for _, path in paths])
    listed = [
        (name, files_of_path(path, name, split, suffixes, folder / str(number)))
        for number, ((split, path), name) in enumerate(zip(paths, names, strict=True))
    ]
    refuse_doubled((path, files) for (_, path), (_, files) in zip(paths, listed, strict=True))
    found = _named_apart([(str(path), name, files) for (_, path), (name, files) in zip(paths, listed, strict=True)])
    packed = [each for each in found if is_gzip(each.file)]
    if packed:
        plain = {each.file.name for each in found}
        with open_staged(folder / "records.bin") as target:
            unpacked = {id(each): _unpack(each, plain, target, folder / "records.bin") for each in packed}
        found = [
            replace(each, file=unpacked[id(each)], stored_bytes=None) if id(each) in unpacked else each
            for each in found
        ]
    return found


def distinct_names(paths: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart: `data.db`, or `train/data.db` where others are called that.

    Raises:
        UserInputError: a path stands there twice.
    """
    if doubled := [path for path, times in Counter(paths).items() if times > 1]:
        raise UserInputError(f"{doubled[0]}: would be read more than once; name it once in source.path")
    ends = Counter(path.parts[-length:] for path in paths for length in range(1, len(path.parts) + 1))
    names = []
    for parts in (path.parts for path in paths):
        length = next((length for length in range(1, len(parts)) if ends[parts[-length:]] == 1), len(parts))
        names.append(str(Path(*parts[-length:])))
    return names


def files_of_path(
    path: Path, name: str, split: str | None, suffixes: tuple[str, ...], staging: Path
) -> list[RecordFile]:
    """The files at one path, packed as they are; only an archive that is compressed as a whole is unpacked."""
    if path.is_file() and not is_tar(path):
        size = path.stat().st_size
        return [RecordFile(InputFile(name, path, 0, size), split, str(path), stored_bytes=size)]
    inputs = list_inputs(path, (*suffixes, ".gz"), staging)
    inputs = [each for each in inputs if each.name.lower().removesuffix(".gz").endswith(suffixes)]
    if not inputs:
        raise UserInputError(f"{path}: holds no {' or '.join(suffixes)} file")
    if path.is_dir():
        return [RecordFile(each, split, str(each.path), stored_bytes=each.size) for each in inputs]
    size = path.stat().st_size
    return [
        RecordFile(each, split, f"{path}: {each.name}", stored_bytes=size if each.path == path else None)
        for each in inputs
    ]


def refuse_doubled(sources: Iterable[tuple[Path, list[RecordFile]]]) -> None:
    """Refuse a file that is named in two ways: by itself and by its folder, or by a link.

    Args:
        sources: paths of a config and the files in them; of an archive the path alone counts.

    Raises:
        UserInputError: a file would be read more than once.
    """
    refuse_the_same(file for path, files in sources for file in _files_in(path, files))


def refuse_the_same(files: Iterable[Path]) -> None:
    """The same for the paths of all files."""
    seen: dict[str, Path] = {}
    folders: dict[Path, str] = {}
    for file in files:
        if file.is_symlink():
            real = os.path.realpath(file)
        else:  # many have the same folder, and to look at every folder above it takes time
            if file.parent not in folders:
                folders[file.parent] = os.path.realpath(file.parent)
            real = f"{folders[file.parent]}/{file.name}"
        first = seen.setdefault(real, file)
        if first is not file:
            also = "" if first == file else f", it is the same file as {first}"
            raise UserInputError(f"{file}: would be read more than once{also}; name it once in source.path")


def _files_in(path: Path, files: list[RecordFile]) -> list[Path]:
    return [each.file.path for each in files] if path.is_dir() else [path]


def _named_apart(listed: list[tuple[str, str, list[RecordFile]]]) -> list[RecordFile]:
    """The files of all paths, with names of which no two are the same.

    Args:
        listed: each path, the shortest end that tells it apart, and its files.
    """
    times = Counter(each.file.name for _, _, files in listed for each in files)
    ways: list[Callable[[str, str, RecordFile], str]] = [
        lambda _, name, each: name if times[each.file.name] > 1 else "",
        lambda _, name, __: name,  # a longer name may be that of another file
        lambda path, _, __: path,
    ]
    found: list[RecordFile] = []
    for way in ways:
        found = [_renamed(each, way(path, name, each), name) for path, name, files in listed for each in files]
        if len({each.file.name for each in found}) == len(found):
            break
    return found


def _renamed(each: RecordFile, folder: str, path_name: str) -> RecordFile:
    """A file by its name in a folder; one that the config names itself is called as its path is."""
    if not folder:
        return each
    name = folder if each.file.name == path_name else f"{folder}/{each.file.name}"
    return replace(each, file=replace(each.file, name=name))


def is_tar(path: Path) -> bool:
    """Whether a file is a tar archive, compressed or not."""
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):  # not to be read, or damaged, which whoever reads it will say
        return False


def is_gzip(entry: InputFile) -> bool:
    """Whether an input is compressed by gzip."""
    return entry.size > 2 and replace(entry, size=2).read() == GZIP


def open_staged(path: Path) -> io.BufferedWriter:
    """A new file for unpacked copies.

    Raises:
        MachineError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        raise MachineError(f"{path}: cannot be written: {error.strerror}") from None


def plain_name(name: str) -> str:
    """The name of a file without `.gz`."""
    return name[:-3] if name.lower().endswith(".gz") else name


def _unpack(packed_file: RecordFile, plain: set[str], target: io.BufferedWriter, path: Path) -> InputFile:
    """An unpacked copy of a file, under its name without `.gz` unless one of `plain` has that."""
    entry, begin = packed_file.file, target.tell()
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(Window(entry), BUFFER_BYTES)) as packed:
            while block := packed.read(BUFFER_BYTES):
                target.write(block)
        target.flush()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserInputError(f"{packed_file.origin}: damaged or cut off, it cannot be unpacked: {error}") from None
    except OSError as error:
        raise MachineError(f"{packed_file.origin}: unpacking to {path} failed: {error.strerror}") from None
    name = plain_name(entry.name)
    # The end must stay: of what kind a file is goes by it.
    name = f"{entry.name}/{Path(name).name}" if name != entry.name and name in plain else name
    return InputFile(name, path, begin, target.tell() - begin)
