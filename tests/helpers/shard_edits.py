"""Changes to finished data sets: other contents under checksums that fit them."""

import h5py

from matsci_hpc.shards.layout import FORMAT_NAME, FORMAT_VERSION, ShardContent
from matsci_hpc.shards.manifest import MANIFEST, read_manifest
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.whole_files import checksum


def edit_shard(folder, number, change):
    """Write a shard again after `change(arrays)`, and its size and checksum into the manifest."""
    manifest = read_manifest(folder)
    record = manifest.shards[number]
    path = folder / record.file
    with h5py.File(path) as file:
        arrays = {dataset.name[1:]: dataset[()] for group in file.values() for dataset in group.values()}
        attributes = {name: value for name, value in file.attrs.items() if not name.startswith("format")}
        assert (file.attrs["format"], file.attrs["format_version"]) == (FORMAT_NAME, FORMAT_VERSION)
    change(arrays)
    image = shard_image(ShardContent(arrays, attributes))
    path.write_bytes(image)
    shards = list(manifest.shards)
    shards[number] = record.model_copy(update={"bytes": len(image), "xxh3_128": checksum(image)})
    (folder / MANIFEST).write_text(manifest.model_copy(update={"shards": shards}).model_dump_json(exclude_none=True))


def strip_edges(folder):
    """Leave no edges in the shards, as `neighbors: {store: false}` does; the index keeps their numbers."""

    def strip(arrays):
        for name in ("edges/sender", "edges/shift", "atoms/degree", "offsets/edges"):
            arrays.pop(name, None)

    for number in range(len(read_manifest(folder).shards)):
        edit_shard(folder, number, strip)
