"""A file or folder of structures as a source: its kind by its name, or as told."""

import itertools
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from matsci_hpc.config.loading import load_config, read_yaml
from matsci_hpc.config.prep import Neighbors, PrepConfig
from matsci_hpc.config.sources import FileSource, Source
from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.manifest import MANIFEST
from matsci_hpc.sources.base import Source as OpenSource
from matsci_hpc.sources.files import InputFile, name_fits, readable_name
from matsci_hpc.sources.properties import read_properties
from matsci_hpc.sources.record_files import is_tar
from matsci_hpc.sources.registry import READERS, open_source, reader_of

NAMES: dict[str, tuple[str, ...]] = {
    "cif": (".cif",),
    "poscar": ("poscar", "contcar", ".vasp", ".poscar"),
    "extxyz": (".xyz", ".extxyz"),
    "csv": (".csv",),
    "ase_db": (".db",),
    "mp_json": (".json", ".jsonl"),
    "lmdb": (".lmdb",),
}
"""How files of each kind are called; with `.gz` behind it, too."""
LOOKED_AT = 10_000
"""Names in a folder or archive by which its kind is told."""
_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


def source_config(path: Path, told: Sequence[str], cutoff: float, work: Path, split: str | None = None) -> PrepConfig:
    """How to read structures, in the form that preparation takes.

    Args:
        path: structures of any kind that preparation reads; a data set; or a config of `matsci-hpc prep`, whose
            `source` is read.
        told: `key=value` for the section `source`, such as `kind=csv` or `structure_column=structure`.
        cutoff: of the neighbours, angstrom.
        work: folder for what has to be unpacked.
        split: of a data set, the only one to read.

    Raises:
        UserInputError: the kind cannot be told from the names, or the section is wrong.
    """
    given = dict(_told(each) for each in told)
    if path.suffix.lower() in {".yaml", ".yml"}:
        if "source" not in read_yaml(path):
            raise UserInputError(f"{path}: is no config of `matsci-hpc prep`, it has no section source")
        whole = load_config(PrepConfig, path, [f"source.{each.removeprefix('source.')}" for each in told])
        section = whole.source
    else:
        kind = given.get("kind") or kind_of(path)
        known = {"only_splits": [split]} if split is not None and kind == "shards" else {}
        section = _section({"kind": kind, "path": str(path)} | known | given, path)
    if split is not None and section.kind != "shards":
        raise UserInputError(f"--split {split}: {path} is no data set, so it has no splits")
    try:
        return PrepConfig(source=section, out=work, neighbors=Neighbors(cutoff=cutoff))
    except ValidationError as error:  # the output would lie in the data set that is read
        raise UserInputError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def open_input(config: PrepConfig, staging: Path) -> OpenSource:
    """The source of a config, also of a file with a single structure.

    Raises:
        UserInputError: there is nothing to read.
        MachineError: reading fails.
    """
    section = config.source
    if isinstance(section, FileSource) and section.path.is_file() and not is_tar(section.path):
        file = InputFile(readable_name(section.path.name), section.path, 0, section.path.stat().st_size)
        source: OpenSource = reader_of(section.kind).of(section, [file], read_properties(section), config.splits)
        return source
    return open_source(config, staging)


def kind_of(path: Path) -> str:
    """The kind of a source by the names of its files.

    Raises:
        UserInputError: there is nothing, or no name tells, or names tell different kinds.
    """
    if not path.exists():
        raise UserInputError(f"{path}: no such file or folder")
    if (path / MANIFEST).is_file():
        return "shards"
    if (path / "data.mdb").is_file():
        return "lmdb"
    found = {kind for name in itertools.islice(_names(path), LOOKED_AT) for kind in _kinds_of_name(name)}
    if len(found) == 1:
        return found.pop()
    say = f"say which: kind=KIND, one of {', '.join(sorted(READERS))}"
    if not found:
        raise UserInputError(f"{path}: no name in it tells what kind of structures these are; {say}")
    raise UserInputError(f"{path}: holds files of several kinds, {' and '.join(sorted(found))}; {say}")


def _kinds_of_name(name: str) -> list[str]:
    plain = name[:-3] if name.lower().endswith(".gz") else name
    return [kind for kind, names in NAMES.items() if name_fits(plain, names)]


def _names(path: Path) -> Iterator[str]:
    """Names of the files at a path, an archive's members among them."""
    if path.is_dir():
        for _, _, names in os.walk(path):
            yield from names
    elif is_tar(path):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile():
                    yield PurePosixPath(member.name).name
    else:
        yield path.name


def _told(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    try:
        parsed = YAML(typ="safe", pure=True).load(value)
    except (YAMLError, ValueError, RecursionError):
        raise UserInputError(f"{text!r}: the value is not valid YAML") from None
    if not separator or not key.strip():
        raise UserInputError(f"{text!r}: expected key=value of the source, such as kind=csv")
    return key.strip().removeprefix("source."), parsed


def _section(tree: dict[str, Any], path: Path) -> Source:
    try:
        return _SOURCE.validate_python(tree)
    except ValidationError as error:
        lines = []
        for fault in error.errors(include_url=False):
            key = ".".join(str(part) for part in fault["loc"][1:]) or "kind"
            what = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
            lines.append(f"{path}: {key}: {what}")
        raise UserInputError("\n".join(lines)) from None
