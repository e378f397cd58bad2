"""A shard as bytes: the HDF5 file, built in memory; and files of the same form that are filled in piece by piece."""

import errno
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from matsci_hpc.shards.layout import ALIGNMENT_BYTES, FORMAT_NAME, FORMAT_VERSION, ShardContent

_ALIGNED = {"alignment_threshold": 1, "alignment_interval": ALIGNMENT_BYTES}
GROWTH_BYTES = 1 << 20
"""HDF5 enlarges a file in memory by this much. Steps of its own choice (64 KiB) took five times as long, most of it in
copies and fresh pages; the bytes of the file do not depend on it."""


def shard_image(content: ShardContent) -> bytes:
    """The HDF5 file of a shard, built in memory: the same bytes for the same content.

    h5py stores no times unless asked, and one writer puts the arrays down in one order, so nothing but the content
    (and the version of the HDF5 library) decides the bytes.
    """
    # A name that HDF5 asks for; nothing is written under it.
    with h5py.File("shard", "w", driver="core", backing_store=False, block_size=GROWTH_BYTES, **_ALIGNED) as file:
        _write_head(file, content.attributes)
        for name, array in content.arrays.items():
            file.create_dataset(name, data=array)
        file.flush()
        return bytes(file.id.get_file_image())


def reserve(
    path: Path,
    fields: Mapping[str, tuple[tuple[int, ...], np.dtype[np.generic]]],
    attributes: Mapping[str, str | int | float],
) -> dict[str, int]:
    """Write a file of arrays that are filled in later, with the very bytes around them that `shard_image` has.

    Args:
        path: of a new file.
        fields: shape, without a zero in it, and type of each array.
        attributes: of the file, besides format and version.

    Returns:
        Where each array begins in the file.

    Raises:
        OSError: it cannot be written.
    """
    offsets = {}
    try:
        with h5py.File(path, "w", locking=False, **_ALIGNED) as file:
            _write_head(file, attributes)
            for name, (shape, dtype) in fields.items():
                array = file.create_dataset(name, shape=shape, dtype=dtype)
                array[(0,) * len(shape)] = 0  # only then HDF5 gives an array its place in the file
                offsets[name] = array.id.get_offset()
    except RuntimeError as error:  # what HDF5 raises where closing fails
        raise OSError(errno.EIO, str(error), str(path)) from None
    return offsets


def _write_head(file: h5py.File, attributes: Mapping[str, str | int | float]) -> None:
    file.attrs["format"] = FORMAT_NAME
    file.attrs["format_version"] = FORMAT_VERSION
    for name, value in sorted(attributes.items()):
        file.attrs[name] = value
