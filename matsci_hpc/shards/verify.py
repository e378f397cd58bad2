"""Re-read every byte of a data set and compare it with the manifest; under MPI the ranks share the files."""

import string
from pathlib import Path
from typing import Any

import h5py

from matsci_hpc.parallel.mpi import World
from matsci_hpc.shards.layout import FORMAT_NAME, FORMAT_VERSION
from matsci_hpc.shards.manifest import FileRecord, Manifest, ShardRecord, read_manifest
from matsci_hpc.whole_files import file_checksum


def verify(folder: Path, world: World | None = None) -> list[str]:
    """Faults of a data set, one line each; empty if it is whole. Collective over all ranks of `world`.

    Raises:
        UserInputError: there is no readable manifest to compare with.
    """
    world = world or World()
    manifest = world.on_first(lambda: read_manifest(folder))
    records = [*manifest.shards, manifest.index, manifest.quarantine]
    counter = world.counter()
    mine: list[tuple[int, str]] = []
    with world.ending_all():
        while (number := counter.take()) < len(records):
            fault = _fault(folder, records[number], manifest)
            if fault is not None:
                mine.append((number, f"{folder / records[number].file}: {fault}"))
    counter.free()
    faults = [line for _, line in sorted(each for part in world.gather(mine) for each in part)]
    known = {shard.file for shard in manifest.shards}
    faults += [
        f"{path}: a shard that the manifest does not know"
        for path in world.on_first(lambda: sorted(folder.glob("shard-*.h5")))
        if path.name not in known
    ]
    return faults + [f"{folder}: {fault}" for fault in _sums(manifest)]


def _sums(manifest: Manifest) -> list[str]:
    """Where the numbers of a manifest contradict each other."""
    counts = manifest.counts
    faults = []
    if counts.samples + counts.quarantined != counts.inputs:
        faults.append(f"{counts.samples} samples and {counts.quarantined} rejected of {counts.inputs} inputs")
    for what in ("samples", "atoms", "edges"):
        total = sum(getattr(shard, what) for shard in manifest.shards)
        if total != getattr(counts, what):
            faults.append(f"{total} {what} in the list of shards, {getattr(counts, what)} by the counts")
    return faults


def _fault(folder: Path, record: FileRecord, manifest: Manifest) -> str | None:
    path = folder / record.file
    try:
        size = path.stat().st_size
        found = file_checksum(path)
        if size == record.bytes and found == record.xxh3_128:
            return _shard_fault(path, record, manifest) if isinstance(record, ShardRecord) else None
        return _what_it_is(path, size, found, record, manifest)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _what_it_is(path: Path, size: int, found: str, record: FileRecord, manifest: Manifest) -> str:
    """What a file is that is not the one of the manifest."""
    other = next((each.file for each in manifest.shards if (each.bytes, each.xxh3_128) == (size, found)), None)
    if other is not None:
        return f"is {other} of this data set, in the wrong place"
    if _is_foreign(_attributes(path).get("fingerprint"), manifest.fingerprint):
        return "is a file of another data set"
    if size != record.bytes:
        return f"{'truncated' if size < record.bytes else 'too long'}: {size} bytes, {record.bytes} expected"
    known = manifest.fingerprint and path.suffix == ".h5" and "fingerprint" in _attributes(path)
    return "the checksum differs: damaged" + ("" if known else ", or a file of another data set")


def _is_foreign(found: Any, own: str) -> bool:
    """Whether a fingerprint is another one; a damaged one of our own has most of its digits still."""
    if not isinstance(found, str) or len(found) != len(own) or not set(found) <= set(string.hexdigits):
        return False
    return sum(a != b for a, b in zip(found, own, strict=True)) > len(own) // 2


def _attributes(path: Path) -> dict[str, Any]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            return dict(file.attrs)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError):  # h5py raises any of these on a damaged file
        return {}


def _shard_fault(path: Path, record: ShardRecord, manifest: Manifest) -> str | None:
    """Whether a file of the right bytes also is the shard that it is listed as."""
    with h5py.File(path, "r", locking=False) as file:
        if file.attrs.get("format") != FORMAT_NAME or file.attrs.get("format_version") != FORMAT_VERSION:
            return "not a shard of this format version"
        if file.attrs.get("number", record.number) != record.number:
            return f"holds the inputs of shard {file.attrs['number']}, those of {record.number} expected"
        if _is_foreign(file.attrs.get("fingerprint"), manifest.fingerprint):
            return "is a file of another data set"
        edges = len(file["edges/sender"]) if "edges/sender" in file else int(file["structures/edges"][:].sum())
        found = (len(file["structures/id"]), len(file["atoms/atomic_number"]), edges)
        expected = (record.samples, record.atoms, record.edges)
        if found != expected:
            return f"{found} samples, atoms and edges, {expected} expected"
    return None
