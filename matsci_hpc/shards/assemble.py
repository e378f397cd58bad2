"""From finished shards and their records to index, quarantine and manifest."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from matsci_hpc.config.prep import Neighbors
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.neighbors import RULE
from matsci_hpc.shards.index import index_image, index_rows
from matsci_hpc.shards.layout import Array
from matsci_hpc.shards.manifest import (
    INDEX,
    QUARANTINE,
    Counts,
    FileRecord,
    Manifest,
    NeighborRecord,
    ShardRecord,
)
from matsci_hpc.shards.records import BlockRecord, read_block_record
from matsci_hpc.shards.statistics import merge_statistics
from matsci_hpc.sources.base import Source
from matsci_hpc.targets import TargetSpec
from matsci_hpc.whole_files import checksum, write_atomic

UNITS = {
    "atoms/position": "angstrom",
    "structures/cell": "angstrom",
    "edges/sender": "atom within the structure",
    "edges/shift": "lattice vectors",
}
_FOR_INDEX = ("offsets/atoms", "structures/split")
_EDGES_STORED, _EDGES_COUNTED = "offsets/edges", "structures/edges"


def shard_name(number: int) -> str:
    """File name of the shard of a block."""
    return f"shard-{number:05d}.h5"


def assemble(
    folder: Path, work: Path, blocks: int, inputs: int, source: Source, neighbors: Neighbors, fingerprint: str
) -> Manifest:
    """Write index.h5 and quarantine.jsonl and return the manifest that describes them and the shards.

    Args:
        folder: the data set.
        work: folder of the block records.
        blocks: number of blocks, all finished.
        inputs: number of inputs of the source.
        source: names the targets, splits and remarks.
        neighbors: the rule for edges.
        fingerprint: hash of input and config.

    Raises:
        UserInputError: not one input was usable.
        MachineError: a record went missing.
    """
    records = [_record(work, number) for number in range(blocks)]
    rejected = [each for record in records for each in record.quarantined]
    shards = [record.shard for record in records if record.shard is not None]
    if not shards:
        first = rejected[0]
        raise UserInputError(
            f"no usable structure: all {len(rejected)} inputs were rejected, the first, {first.source}, "
            f"because: {first.reason}"
        )
    quarantine = "".join(f"{each.model_dump_json()}\n" for each in rejected).encode()
    fields, rows = _read_shards(folder, shards, source.targets)
    statistics = merge_statistics([record.statistics for record in records if record.shard is not None])
    return Manifest(
        fingerprint=fingerprint,
        counts=Counts(
            inputs=inputs,
            samples=sum(shard.samples for shard in shards),
            quarantined=len(rejected),
            atoms=sum(shard.atoms for shard in shards),
            edges=sum(shard.edges for shard in shards),
        ),
        remarks=source.remarks,
        fields=fields,
        targets=source.targets,
        splits={split: statistics[split]["atoms"].count for split in source.splits},
        neighbors=NeighborRecord(cutoff_angstrom=neighbors.cutoff, rule=RULE, stored=neighbors.store),
        statistics=statistics,
        shards=shards,
        index=_write(folder / INDEX, index_image(rows, fingerprint)),
        quarantine=_write(folder / QUARANTINE, quarantine),
    )


def _record(work: Path, number: int) -> BlockRecord:
    record = read_block_record(work, number)
    if record is None:
        raise MachineError(f"{work}: the record of block {number} has gone; run the same command again")
    return record


def _read_shards(
    folder: Path, shards: list[ShardRecord], targets: Mapping[str, TargetSpec]
) -> tuple[dict[str, dict[str, str]], list[dict[str, Array]]]:
    """Type and unit of every field, and the index columns of each shard."""
    dtypes: dict[str, np.dtype[np.generic]] = {}
    rows = []
    for shard in shards:
        with h5py.File(folder / shard.file, "r", locking=False) as file:
            edges = _EDGES_STORED if _EDGES_STORED in file else _EDGES_COUNTED
            names = [*_FOR_INDEX, edges, *(f"targets/{name}" for name in targets)]
            rows.append(index_rows({name: file[name][:] for name in names}, dict(targets)))
            for group in file.values():
                for dataset in group.values():
                    name = dataset.name.lstrip("/")
                    # Ids and senders are as wide as their shard needs: the manifest names the widest.
                    dtypes[name] = np.promote_types(dtypes.get(name, dataset.dtype), dataset.dtype)
    units = UNITS | {f"targets/{name}": spec.unit for name, spec in targets.items() if spec.unit}
    fields = {
        name: {"dtype": str(dtype)} | ({"unit": units[name]} if name in units else {})
        for name, dtype in sorted(dtypes.items())
    }
    return fields, rows


def _write(path: Path, data: bytes) -> FileRecord:
    write_atomic(path, data)
    return FileRecord(file=path.name, bytes=len(data), xxh3_128=checksum(data))
