"""A model as one file of safetensors: numbers by name, and in the header all that is needed to use them.

    metadata["format"]          matsci-hpc model
    metadata["format_version"]  1
    metadata["xxh3_128"]        checksum of `about`, and of names, types, shapes and bytes of all tensors
    metadata["about"]           `About` as JSON

Reading it runs no code of the file's maker: safetensors holds numbers alone, the header is checked JSON, and an encoder
from outside this package is built only for who says that he trusts it.
"""

import json
from pathlib import Path

import xxhash
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.about import About
from matsci_hpc.inference.model_header import FORMAT, FORMAT_VERSION, refuse_other_formats
from matsci_hpc.whole_files import write_atomic


def write_model(path: Path, about: About, tensors: dict[str, Tensor]) -> None:
    """Write a model; the same model gives the same bytes.

    Raises:
        UserInputError, MachineError: it cannot be written.
    """
    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    text = about.model_dump_json(exclude_none=True)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "xxh3_128": _checksum(text, ordered),
        "about": text,
    }
    write_atomic(path, _with_header_in_order(save(ordered, metadata)))


def read_model(path: Path) -> tuple[About, dict[str, Tensor]]:
    """What is known of a model, and its parameters and buffers.

    Raises:
        UserInputError: there is no such file, it is damaged, or it is none of this format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = refuse_other_formats(path, file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except FileNotFoundError:
        raise UserInputError(f"{path}: no such file") from None
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise UserInputError(f"{path}: damaged, or no file of safetensors: {' '.join(str(error).split())}") from None
    text = metadata.get("about", "")
    if _checksum(text, tensors) != metadata.get("xxh3_128"):
        raise UserInputError(f"{path}: damaged: its checksum differs; copy it again, or export the run again")
    try:
        return About.model_validate_json(text), tensors
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserInputError(
            f"{path}: its description cannot be read: {where}: {first['msg']}; it is damaged, or was made by another "
            "release of matsci-hpc"
        ) from None


def _with_header_in_order(image: bytes) -> bytes:
    """A file of safetensors whose metadata stand in the order of their names: the library takes them as they come."""
    length = int.from_bytes(image[:8], "little")
    header = json.loads(image[8 : 8 + length])
    text = json.dumps(header | {"__metadata__": dict(sorted(header["__metadata__"].items()))}).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8, so that they can be mapped
    return len(text).to_bytes(8, "little") + text + image[8 + length :]


def _checksum(about: str, tensors: dict[str, Tensor]) -> str:
    digest = xxhash.xxh3_128(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
