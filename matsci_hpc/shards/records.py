"""The record of a finished block of inputs, kept next to its shard until the data set is whole."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from matsci_hpc.shards.manifest import ShardRecord
from matsci_hpc.shards.statistics import SplitStatistics
from matsci_hpc.whole_files import file_checksum, write_atomic


class Quarantined(BaseModel):
    """One rejected input: a line of quarantine.jsonl."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    index: int
    reason: str


class BlockRecord(BaseModel):
    """What became of one block of inputs; `shard` is None where every input was rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    shard: ShardRecord | None
    statistics: SplitStatistics
    quarantined: list[Quarantined]


def record_path(work: Path, number: int) -> Path:
    """Where the record of a block lies."""
    return work / f"block-{number:05d}.json"


def write_block_record(work: Path, number: int, record: BlockRecord) -> None:
    """Write the record of a block, after its shard."""
    write_atomic(record_path(work, number), record.model_dump_json().encode())


def read_block_record(work: Path, number: int) -> BlockRecord | None:
    """The record of a block, or None if there is none or it is damaged."""
    try:
        return BlockRecord.model_validate_json(record_path(work, number).read_bytes())
    except (OSError, ValidationError):
        return None


def finished_block(folder: Path, work: Path, number: int, fingerprint: str) -> BlockRecord | None:
    """The record of a block finished from the same input and config, whose shard still has its checksum."""
    record = read_block_record(work, number)
    if record is None or record.fingerprint != fingerprint:
        return None
    if record.shard is None:
        return record
    try:
        whole = file_checksum(folder / record.shard.file) == record.shard.xxh3_128
    except OSError:
        return None
    return record if whole else None
