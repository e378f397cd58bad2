"""dataset.json: what a data set holds and how to tell that it is whole."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.layout import FORMAT_VERSION
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import TargetSpec
from matsci_hpc.whole_files import checksum, write_atomic

MANIFEST = "dataset.json"
INDEX = "index.h5"
QUARANTINE = "quarantine.jsonl"
PROVENANCE = "provenance.json"
CONFIG = "config.yaml"
_CHECKSUM = "xxh3_128"
_NO_CHECKSUM = "0" * 32


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Strict):
    """One file of the data set, with its XXH3-128 checksum."""

    file: str
    bytes: int
    xxh3_128: str


class ShardRecord(FileRecord):
    """One shard; `number` is the position of its inputs in the source, in units of the shard size."""

    number: int
    samples: int
    atoms: int
    edges: int


class NeighborRecord(_Strict):
    """The rule by which edges were made."""

    cutoff_angstrom: float
    rule: str
    stored: bool = True
    """Whether the shards hold the edges; if not, they are found by the same rule while loading."""


class Counts(_Strict):
    """Inputs = samples + quarantined."""

    inputs: int
    samples: int
    quarantined: int
    atoms: int
    edges: int


class Manifest(_Strict):
    """The content of dataset.json. Nothing in it depends on when, where or by how many ranks it was made."""

    format: Literal["matsci-hpc data set"] = "matsci-hpc data set"
    format_version: int = FORMAT_VERSION
    fingerprint: str
    """Hash of the input and of the config that made the data set."""
    generators: list[str] | None = None
    """Of synthetic samples, also where they came from other data sets: what drew them, seed and split included."""
    counts: Counts
    remarks: dict[str, int]
    fields: dict[str, dict[str, str]]
    """Type and unit of each array in the shards."""
    targets: dict[str, TargetSpec]
    splits: dict[str, int]
    """Samples of each split, in the order of the split numbers."""
    neighbors: NeighborRecord
    statistics: dict[str, dict[str, TargetStatistics]]
    """By split, then by target; `atoms` and `edges` (per sample) stand among the targets."""
    shards: list[ShardRecord]
    index: FileRecord
    quarantine: FileRecord


def holds_something_else(folder: Path) -> bool:
    """Whether there is anything in a folder but a data set, finished or not.

    Raises:
        OSError: it cannot be read.
    """
    ours = (folder / ".work").is_dir() or (folder / MANIFEST).is_file()
    return not ours and folder.is_dir() and any(folder.iterdir())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write dataset.json, with a checksum of its own bytes as the last key.

    Raises:
        UserInputError: the folder may not be written.
        MachineError: the disk is full or failing.
    """
    text = manifest.model_dump_json(indent=1, exclude_none=True).removesuffix("\n}")
    text += f',\n "{_CHECKSUM}": "{_NO_CHECKSUM}"\n}}\n'
    write_atomic(folder / MANIFEST, text.replace(_NO_CHECKSUM, checksum(text.encode())).encode())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the data set in a folder.

    Raises:
        UserInputError: no data set, an unfinished one, a damaged manifest or one of another format version.
    """
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
        data = json.loads(raw.decode())
    except FileNotFoundError:
        if (folder / ".work").is_dir():
            raise UserInputError(
                f"{folder}: preparation was not finished; run the same `matsci-hpc prep` again"
            ) from None
        raise UserInputError(f"{folder}: no data set here ({MANIFEST} is missing)") from None
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise UserInputError(f"{path}: damaged, not JSON") from None
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise UserInputError(
            f"{path}: format version {version}, this program reads version {FORMAT_VERSION}; prepare the data again"
        )
    own = data.pop(_CHECKSUM, None)  # data sets made before there was one lack it
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserInputError(f"{path}: damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if own is not None and checksum(raw.replace(str(own).encode(), _NO_CHECKSUM.encode())) != own:
        raise UserInputError(f"{path}: damaged: its checksum differs; prepare the data again, or restore this file")
    return manifest
