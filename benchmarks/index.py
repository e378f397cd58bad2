"""Time and memory of the index of a large data set.

    python benchmarks/index.py [--samples 10000000] [--shard-size 4096]

The columns of each shard are made up as they are wanted, so that the peak is that of writing. Then the manifest that
such a data set has: its size, and the time and memory that reading it takes.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from matsci_hpc.shards.index import write_index
from matsci_hpc.shards.layout import Array
from matsci_hpc.shards.manifest import Counts, FileRecord, Manifest, NeighborRecord, ShardRecord, read_manifest
from matsci_hpc.whole_files import file_checksum


def peak_mb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rows(samples: int, shard_size: int) -> Iterator[dict[str, Array]]:
    """Index columns of one shard after the other."""
    rng = np.random.default_rng(0)
    for start in range(0, samples, shard_size):
        count = min(shard_size, samples - start)
        yield {
            "row": np.arange(count, dtype=np.uint32),
            "split": rng.integers(0, 3, count, dtype=np.uint8),
            "atoms": rng.integers(1, 200, count, dtype=np.uint32),
            "edges": rng.integers(1, 5000, count, dtype=np.uint32),
            "present": rng.integers(0, 2, count, dtype=np.uint8),
        }


def manifest(shards: int, shard_size: int) -> Manifest:
    """One of so many shards."""
    file = {"bytes": 123_456_789, "xxh3_128": "0123456789abcdef" * 2}
    numbers = {"samples": shard_size, "atoms": 30 * shard_size, "edges": 1200 * shard_size}
    return Manifest(
        fingerprint="0" * 32,
        counts=Counts(inputs=1, samples=1, quarantined=0, atoms=1, edges=1),
        remarks={},
        fields={},
        targets={},
        splits={},
        neighbors=NeighborRecord(cutoff_angstrom=6.0, rule="radius"),
        statistics={},
        shards=[ShardRecord(file=f"shard-{n:05d}.h5", number=n, **file, **numbers) for n in range(shards)],
        index=FileRecord(file="index.h5", **file),
        quarantine=FileRecord(file="quarantine.jsonl", **file),
    )


def main() -> None:
    """Read the options and print two lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--shard-size", type=int, default=4096)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        path = Path(base) / "index.h5"
        before_mb, start_s = peak_mb(), time.process_time()
        write_index(path, rows(options.samples, options.shard_size), options.samples)
        file_checksum(path)
        print(
            f"index of {options.samples:,} samples: {path.stat().st_size / 1e6:,.0f} MB, "
            f"{time.process_time() - start_s:.2f} s of processor, {peak_mb() - before_mb:,.0f} MB of memory"
        )
        path = Path(base) / "dataset.json"
        shards = -(-options.samples // options.shard_size)
        text = manifest(shards, options.shard_size).model_dump_json(indent=1, exclude_none=True)
        json.loads(text)
        path.write_text(text)
        del text
        before_mb, start_s = peak_mb(), time.process_time()
        read_manifest(Path(base))
        print(
            f"manifest of {shards:,} shards: {path.stat().st_size / 1e6:,.1f} MB, read in "
            f"{time.process_time() - start_s:.2f} s of processor, peak of the process {peak_mb():,.0f} MB"
        )


if __name__ == "__main__":
    main()
