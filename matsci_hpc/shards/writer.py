"""A shard as bytes: the HDF5 file, built in memory."""

import h5py

from matsci_hpc.shards.layout import ALIGNMENT_BYTES, FORMAT_NAME, FORMAT_VERSION, ShardContent

GROWTH_BYTES = 1 << 20
"""HDF5 enlarges a file in memory by this much. Steps of its own choice (64 KiB) took five times as long, most of it in
copies and fresh pages; the bytes of the file do not depend on it."""


def shard_image(content: ShardContent) -> bytes:
    """The HDF5 file of a shard, built in memory: the same bytes for the same content.

    h5py stores no times unless asked, and one writer puts the arrays down in one order, so nothing but the content
    (and the version of the HDF5 library) decides the bytes.
    """
    with h5py.File(
        "shard",  # a name that HDF5 asks for; nothing is written under it
        "w",
        driver="core",
        backing_store=False,
        block_size=GROWTH_BYTES,
        alignment_threshold=1,
        alignment_interval=ALIGNMENT_BYTES,
    ) as file:
        file.attrs["format"] = FORMAT_NAME
        file.attrs["format_version"] = FORMAT_VERSION
        for name, value in sorted(content.attributes.items()):
            file.attrs[name] = value
        for name, array in content.arrays.items():
            file.create_dataset(name, data=array)
        file.flush()
        return bytes(file.id.get_file_image())
