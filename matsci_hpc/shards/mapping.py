"""Arrays of an HDF5 file where they lie in it, as views of one memory map: nothing is read until it is used."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from matsci_hpc.shards.layout import Array

Field = tuple[str, np.dtype[np.generic], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class FileLayout:
    """Where the arrays of a file lie. Small, so that it may be kept for every shard of a large data set.

    Attributes:
        fields: name, type and trailing shape of each array; one tuple for all files that agree in it.
        places: int64 [fields, 2], offset in bytes and length of the first dimension.
        bytes: size of the file.
    """

    fields: tuple[Field, ...]
    places: NDArray[np.int64]
    bytes: int


_FIELDS: dict[tuple[Field, ...], tuple[Field, ...]] = {}
"""The few distinct `FileLayout.fields`, each kept once."""


class OtherShardError(ValueError):
    """A whole file, but not the shard that was expected in its place."""


def file_layout(path: Path, number: int | None = None, fingerprint: str | None = None) -> FileLayout:
    """Find the arrays of a file, in groups or not.

    Args:
        path: the file.
        number: which shard of its data set it must be, if it is one.
        fingerprint: of its data set, if it is a shard. Shards made before they carried one are taken as they are.

    Raises:
        OSError: it cannot be opened.
        OtherShardError: it is another shard, or one of another data set.
        ValueError: it is damaged.
    """
    return _layout(path, path.stat().st_size, number, fingerprint)


def memory_arrays(image: Array) -> dict[str, Array]:
    """The arrays of a file that lies in memory, by name, as views of it.

    Args:
        image: uint8 [bytes], the file.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return _views(image, _layout(_Readable(image), len(image)))
    except OSError as error:
        raise ValueError(str(error)) from None


def _layout(file_or_path: Any, size: int, number: int | None = None, fingerprint: str | None = None) -> FileLayout:
    fields: list[Field] = []
    places: list[tuple[int, int]] = []
    try:
        with h5py.File(file_or_path, "r", locking=False) as file:
            _check_place(file, number, fingerprint)
            for dataset in _datasets(file):
                fields.append((dataset.name.lstrip("/"), dataset.dtype, tuple(dataset.shape[1:])))
                # HDF5 gives no address to arrays without content.
                places.append((dataset.id.get_offset() if dataset.size else 0, len(dataset)))
        distinct = tuple(fields)
        return FileLayout(_FIELDS.setdefault(distinct, distinct), np.array(places, dtype=np.int64), size)
    except OtherShardError:
        raise
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{file_or_path}: {error}") from None  # h5py raises any of these on a damaged file


def _check_place(file: h5py.File, number: int | None, fingerprint: str | None) -> None:
    """A shard in the place of another may be as large, and would give the wrong samples without a word."""
    for name, expected, what in (
        ("fingerprint", fingerprint, "a file of another data set"),
        ("number", number, "another shard of this data set"),
    ):
        if expected is not None and file.attrs.get(name, expected) != expected:
            raise OtherShardError(what)


def map_arrays(path: Path, layout: FileLayout | None = None) -> dict[str, Array]:
    """The arrays of a file by name, read-only views of a map that lives as long as any of them.

    Args:
        path: the file.
        layout: of this file, where it is known from an earlier time.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged.
    """
    layout = layout or file_layout(path)
    buffer = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    if len(buffer) != layout.bytes:
        raise ValueError(f"{path}: its size has changed")
    return _views(buffer, layout)


def _views(buffer: Array, layout: FileLayout) -> dict[str, Array]:
    return {
        name: _view(buffer, dtype, (length, *trailing), offset)
        for (name, dtype, trailing), (offset, length) in zip(layout.fields, layout.places.tolist(), strict=True)
    }


class _Readable(io.RawIOBase):
    """Memory as a file to read; io.BytesIO would copy it."""

    def __init__(self, image: Array) -> None:
        self._image = image.data
        self._place = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: len(self._image)}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, target: Any) -> int:
        piece = self._image[self._place : self._place + len(target)]
        target[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)


def _datasets(group: h5py.Group) -> list[h5py.Dataset]:
    found = []
    for item in group.values():
        found += [item] if isinstance(item, h5py.Dataset) else list(item.values())
    return found


def _view(buffer: Array, dtype: np.dtype[np.generic], shape: tuple[int, ...], offset: int) -> Array:
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    array: Array = buffer[offset : offset + nbytes].view(dtype).reshape(shape)
    return array
