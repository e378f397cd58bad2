"""The header of a model's file: what it is and where it comes from, readable without torch and without its numbers."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from matsci_hpc.errors import UserInputError

FORMAT, FORMAT_VERSION = "matsci-hpc model", "1"
SUFFIX = ".safetensors"


def refuse_other_formats(path: Path, metadata: dict[str, str] | None) -> dict[str, str]:
    """The header of a file of safetensors if it is that of a model.

    Raises:
        UserInputError: it holds something else, or was written by another release.
    """
    metadata = metadata or {}
    if metadata.get("format") != FORMAT:
        raise UserInputError(
            f"{path}: a file of safetensors, but no model of matsci-hpc; `matsci-hpc export RUN_DIR` makes one"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise UserInputError(
            f"{path}: format version {metadata.get('format_version')}, this program reads {FORMAT_VERSION}; "
            "use the release of matsci-hpc that wrote it, or export the run again"
        )
    return metadata


def read_origin(path: Path) -> dict[str, Any]:
    """The fields of `Origin`, as they stand in the file: neither its checksum nor their types are looked at.

    Raises:
        UserInputError: there is no such file, or it is none of this format.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = refuse_other_formats(path, file.metadata())
        origin = json.loads(metadata.get("about", ""))["origin"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        raise UserInputError(f"{path}: cannot be read as a model") from None
    if not isinstance(origin, dict):
        raise UserInputError(f"{path}: cannot be read as a model")
    return origin
