"""Re-read every byte of a data set and compare it with the manifest."""

from pathlib import Path

import h5py

from matsci_hpc.shards.layout import FORMAT_NAME, FORMAT_VERSION
from matsci_hpc.shards.manifest import FileRecord, ShardRecord, read_manifest
from matsci_hpc.whole_files import file_checksum


def verify(folder: Path) -> list[str]:
    """Faults of a data set, one line each; empty if it is whole.

    Raises:
        UserInputError: there is no readable manifest to compare with.
    """
    manifest = read_manifest(folder)
    faults = []
    for record in [*manifest.shards, manifest.index, manifest.quarantine]:
        fault = _fault(folder, record)
        if fault is not None:
            faults.append(f"{folder / record.file}: {fault}")
    known = {shard.file for shard in manifest.shards}
    faults += [
        f"{path}: a shard that the manifest does not know"
        for path in sorted(folder.glob("shard-*.h5"))
        if path.name not in known
    ]
    counts = manifest.counts
    if counts.samples + counts.quarantined != counts.inputs:
        faults.append(f"{folder}: {counts.samples} samples and {counts.quarantined} rejected of {counts.inputs} inputs")
    return faults


def _fault(folder: Path, record: FileRecord) -> str | None:
    path = folder / record.file
    try:
        size = path.stat().st_size
        if size != record.bytes:
            return f"{size} bytes, {record.bytes} expected"
        if file_checksum(path) != record.xxh3_128:
            return "the checksum differs: damaged, or a file of another data set"
        if isinstance(record, ShardRecord):
            return _shard_fault(path, record)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None


def _shard_fault(path: Path, record: ShardRecord) -> str | None:
    """Whether a file of the right bytes also is the shard that it is listed as."""
    with h5py.File(path, "r", locking=False) as file:
        if file.attrs.get("format") != FORMAT_NAME or file.attrs.get("format_version") != FORMAT_VERSION:
            return "not a shard of this format version"
        edges = len(file["edges/sender"]) if "edges/sender" in file else int(file["structures/edges"][:].sum())
        found = (len(file["structures/id"]), len(file["atoms/atomic_number"]), edges)
        expected = (record.samples, record.atoms, record.edges)
        if found != expected:
            return f"{found} samples, atoms and edges, {expected} expected"
    return None
