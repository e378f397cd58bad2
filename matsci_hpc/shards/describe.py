"""What `matsci-hpc shards info` prints: a data set in words and numbers."""

import json
from pathlib import Path

from matsci_hpc.shards.manifest import PROVENANCE, QUARANTINE, Manifest, read_manifest
from matsci_hpc.shards.records import Quarantined
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import TargetSpec

MAX_REASONS = 5


def describe(folder: Path) -> str:
    """A few lines on counts, splits, sizes, targets and rejected inputs of a data set."""
    manifest = read_manifest(folder)
    counts = manifest.counts
    size_bytes = sum(record.bytes for record in [*manifest.shards, manifest.index, manifest.quarantine])
    shards = counted(len(manifest.shards), "shard")
    lines = [
        f"{folder}: {counted(counts.samples, 'sample')} in {shards}, {size_bytes / 1e6:,.1f} MB",
        f"  inputs     {counts.inputs:,} = {counts.samples:,} samples + {counts.quarantined:,} rejected",
        f"  splits     {', '.join(f'{name} {n:,}' for name, n in manifest.splits.items() if n)}",
        (
            f"  size       {counts.atoms:,} atoms ({counts.atoms / counts.samples:.1f} a sample), "
            f"{counts.edges:,} edges ({counts.edges / counts.samples:.1f} a sample)"
        ),
        f"  neighbors  {manifest.neighbors.cutoff_angstrom:g} angstrom: {manifest.neighbors.rule}",
        f"  edges      {'stored in the shards' if manifest.neighbors.stored else 'not stored: found while loading'}",
    ]
    lines += [f"  target     {_target(manifest, name)}" for name in manifest.targets]
    lines += [f"  remark     {count:,} {what}" for what, count in manifest.remarks.items() if count]
    lines += _reasons(folder / QUARANTINE)
    lines += _made(folder / PROVENANCE)
    return "\n".join(lines)


def _target(manifest: Manifest, name: str) -> str:
    spec = manifest.targets[name]
    merged = TargetStatistics()
    for split in manifest.statistics.values():
        merged = merged.merged(split[name]) if merged.count else split[name]
    unit = f" {spec.unit}" if spec.unit else ""
    head = f"{name} ({_kind(spec)}): {merged.count:,} labelled"
    if merged.class_counts is not None and spec.classes is not None:
        fewest, most = min(merged.class_counts), max(merged.class_counts)
        return f"{head}, {len(spec.classes)} classes of {fewest:,} to {most:,}: {', '.join(spec.classes)}"
    if merged.mean is None or merged.std is None:
        return head
    return f"{head}, mean {merged.mean:.4g}{unit}, std {merged.std:.4g}, range {merged.min:.4g} to {merged.max:.4g}"


def _kind(spec: TargetSpec) -> str:
    """`regression`, `regression of 3 x 3`, `regression of 3 per atom`."""
    of = f" of {' x '.join(map(str, spec.shape))}" if spec.shape else ""
    return f"{spec.kind}{of}{' per atom' if spec.per_atom else ''}"


def _reasons(quarantine: Path) -> list[str]:
    """The first few rejected inputs; all of them stand in the file."""
    try:
        text = quarantine.read_text(encoding="utf-8")
        records = [Quarantined.model_validate_json(line) for line in text.split("\n") if line]
    except (OSError, ValueError):
        return [f"  rejected   {quarantine} is missing or damaged"]
    lines = [f"  rejected   {record.source}: {record.reason}" for record in records[:MAX_REASONS]]
    if len(records) > MAX_REASONS:
        lines.append(f"  rejected   and {len(records) - MAX_REASONS:,} more in {quarantine}")
    return lines


def _made(provenance: Path) -> list[str]:
    try:
        record = json.loads(provenance.read_text(encoding="utf-8"))
        ranks = counted(record["ranks"], "rank")
        return [f"  made       {record['time']} by {ranks} in {record['time_s']:,.1f} s on {record['host']}"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def counted(number: int, thing: str) -> str:
    """`1 shard`, `2 shards`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
