"""From finished shards and their records to index, quarantine and manifest."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from matsci_hpc.config.prep import Neighbors
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.neighbors import RULE
from matsci_hpc.shards.index import index_rows, write_index
from matsci_hpc.shards.layout import Array, target_path
from matsci_hpc.shards.manifest import (
    INDEX,
    QUARANTINE,
    Counts,
    FileRecord,
    Manifest,
    NeighborRecord,
    ShardRecord,
)
from matsci_hpc.shards.reader import map_shard
from matsci_hpc.shards.records import read_block_record
from matsci_hpc.shards.statistics import Merger, SplitStatistics
from matsci_hpc.sources.base import Source, Synthetic
from matsci_hpc.targets import TargetSpec
from matsci_hpc.whole_files import appearing, file_checksum

UNITS = {
    "atoms/position": "angstrom",
    "structures/cell": "angstrom",
    "edges/sender": "atom within the structure",
    "edges/shift": "lattice vectors",
}


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
    with appearing(folder / QUARANTINE) as temporary:
        shards, statistics, rejected = _collect(work, blocks, temporary)
    fields: dict[str, dict[str, str]] = {}
    samples = sum(shard.samples for shard in shards)
    with appearing(folder / INDEX) as temporary:
        write_index(temporary, _index_rows(folder, shards, fingerprint, source.targets, fields), samples, fingerprint)
    return Manifest(
        fingerprint=fingerprint,
        generators=list(source.generators) or None if isinstance(source, Synthetic) else None,
        counts=Counts(
            inputs=inputs,
            samples=samples,
            quarantined=rejected,
            atoms=sum(shard.atoms for shard in shards),
            edges=sum(shard.edges for shard in shards),
        ),
        remarks=source.remarks,
        fields=dict(sorted(fields.items())),
        targets=source.targets,
        splits={split: statistics[split]["atoms"].count for split in source.splits},
        neighbors=NeighborRecord(cutoff_angstrom=neighbors.cutoff, rule=RULE, stored=neighbors.store),
        statistics=statistics,
        shards=shards,
        index=_file_record(folder / INDEX),
        quarantine=_file_record(folder / QUARANTINE),
    )


def _collect(work: Path, blocks: int, quarantine: Path) -> tuple[list[ShardRecord], SplitStatistics, int]:
    """Shards and merged statistics of all blocks, and the number of rejected inputs, which go to a file."""
    shards: list[ShardRecord] = []
    statistics = Merger()
    rejected, first = 0, None
    with quarantine.open("wb") as file:
        for number in range(blocks):
            record = read_block_record(work, number)
            if record is None:
                raise MachineError(f"{work}: the record of block {number} has gone; run the same command again")
            if record.shard is not None:
                shards.append(record.shard)
                statistics.add(record.statistics)
            for each in record.quarantined:
                file.write(f"{each.model_dump_json()}\n".encode())
                first = first or each
            rejected += len(record.quarantined)
    if not shards:
        why = f", the first, {first.source}, because: {first.reason}" if first is not None else ""
        raise UserInputError(f"no usable structure: all {rejected} inputs were rejected{why}")
    return shards, statistics.result(), rejected


def _index_rows(
    folder: Path,
    shards: list[ShardRecord],
    fingerprint: str,
    targets: Mapping[str, TargetSpec],
    fields: dict[str, dict[str, str]],
) -> Iterator[dict[str, Array]]:
    """The index columns of each shard, and on the way, into `fields`, type and unit of every array.

    Raises:
        MachineError: a shard went missing or is damaged.
    """
    units = UNITS | {target_path(name, spec): spec.unit for name, spec in targets.items() if spec.unit}
    for shard in shards:
        arrays = map_shard(folder, shard, fingerprint)
        yield index_rows(arrays, dict(targets))
        for name, array in arrays.items():
            # Ids and senders are as wide as their shard needs: the manifest names the widest.
            dtype = np.promote_types(fields.get(name, {}).get("dtype", array.dtype), array.dtype)
            fields[name] = {"dtype": str(dtype)} | ({"unit": units[name]} if name in units else {})


def _file_record(path: Path) -> FileRecord:
    return FileRecord(file=path.name, bytes=path.stat().st_size, xxh3_128=file_checksum(path))
