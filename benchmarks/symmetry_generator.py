"""Symmetric clouds per core second, alone and to a disk: `python benchmarks/symmetry_generator.py [FOLDER] [SAMPLES]`.

FOLDER is one on the disk that is meant (default: that of this file); what is written there is removed at the end. The
bounds are measured in the same run: the random words alone, copying the bytes of the data set once in memory,
checksumming them, and writing them to new files with fsync. "Of the bound" is the time that bound alone would take
over the processor time of the whole preparation. The reference is what preparation did before it took whole arrays:
an object per sample, from the same blocks.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.sources import SymmetrySource as Config
from matsci_hpc.conversion import block_content, read_block
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.sources import exact_random
from matsci_hpc.sources.cloud_generator import BLOCK
from matsci_hpc.sources.symmetry import SymmetrySource
from matsci_hpc.training.allocator import keep_freed_memory
from matsci_hpc.whole_files import checksum, write_atomic

SETTINGS: dict[str, dict[str, Any]] = {
    "32 crystallographic groups": {},
    "the same, subgroups": {"subgroups": True},
    "the same, at most 2 orbits": {"max_orbits": 2},
    "every group to axial order 12": {"groups": "all"},
    "every group, up to 120 atoms": {"groups": "all", "max_atoms": 120},
}
BLOCKS = 24
FEW = 100


def times(work: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall seconds."""
    core_s, wall_s = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - core_s, time.perf_counter() - wall_s


def blocks(title: str, settings: dict[str, Any]) -> None:
    """The rate of the generator alone, and of the random words in it."""
    config = Config(kind="symmetry", samples=10**9, **settings)
    source = SymmetrySource.from_config(config, {"train": 1.0})
    source.block("train", 0)
    core_s = times(lambda: [source.block("train", number) for number in range(1, BLOCKS)])[0] / (BLOCKS - 1) / BLOCK
    atoms = len(source.block("train", 1).position) / BLOCK
    drawn = words_of_a_block(source)
    place = np.arange(drawn, dtype=np.uint64)
    words_s = times(lambda: [exact_random.words(place[:1], place) for _ in range(10)])[0] / 10 / BLOCK
    few = np.sort(np.random.default_rng(0).choice(BLOCKS * BLOCK, FEW, replace=False))
    few_s = times(lambda: [source.generator.samples("train", few + n * BLOCKS * BLOCK) for n in range(5)])[0] / 5
    print(
        f"{title:30} {1 / core_s:9,.0f} samples per core second; {atoms:5.1f} atoms, {drawn / BLOCK:5.1f} random words "
        f"a sample; these alone {1 / words_s:11,.0f}/s, {words_s / core_s:.0%} of the time; {FEW} clouds of {BLOCKS} "
        f"blocks, drawn alone, {few_s * 1e3:.1f} ms"
    )


def words_of_a_block(source: SymmetrySource) -> int:
    """Random words that the streams of a block's clouds give."""
    drawn = [0]
    plain = exact_random.mixed

    def counted(word: Any) -> Any:
        drawn[0] += word.size
        return plain(word)

    exact_random.mixed = counted
    source.block("train", 1)
    exact_random.mixed = plain
    return drawn[0]


def preparation(out: Path, samples: int, *, store: bool) -> None:
    """Rates of a whole preparation, and its bounds."""
    neighbors = {"cutoff": 2.0, "store": store}
    source = {"kind": "symmetry", "samples": samples}
    config = PrepConfig.model_validate({"source": source, "out": out / f"set-{store}", "neighbors": neighbors})
    core_s, wall_s = times(lambda: prepare(config, World()))
    images = [path.read_bytes() for path in sorted(config.out.glob("*.h5"))]
    total = sum(map(len, images))
    print(
        f"prep, edges {'stored' if store else 'counted'}: {samples / core_s:,.0f} samples per core second, "
        f"{samples / wall_s:,.0f} per second; {total / samples:,.0f} bytes a sample"
    )
    room = np.empty(max(map(len, images)), dtype=np.uint8)

    def copied() -> None:
        for image in images:
            room[: len(image)] = np.frombuffer(image, dtype=np.uint8)

    def written() -> None:
        for number, image in enumerate(images):
            write_atomic(out / f"plain-{number}", image)

    bounds = {"copy in memory": copied, "checksum": lambda: [checksum(image) for image in images], "write": written}
    for name, work in bounds.items():
        bound_core_s, bound_wall_s = times(work)
        print(
            f"    {name:15} {total / bound_wall_s / 1e9:6.2f} GB/s, {samples / bound_wall_s:11,.0f} samples/s; "
            f"core time {bound_core_s / core_s:5.1%} of all, wall time {bound_wall_s / wall_s:5.1%} of all"
        )


def reference(samples: int) -> None:
    """Objects per sample: the source, edges by the search, the image; nothing written."""
    source_config = {"kind": "symmetry", "samples": samples}
    config = PrepConfig.model_validate({"source": source_config, "out": "unused", "neighbors": {"cutoff": 2.0}})
    source = SymmetrySource.from_config(config.source, config.splits)  # type: ignore[arg-type]

    def converted() -> None:
        structures, edges, _ = read_block(config, source, 0, samples)
        shard_image(block_content(config, source, structures, edges, 0))

    print(f"reference, an object per sample, edges stored, nothing written: {samples / times(converted)[0]:,.0f}")


def main() -> None:
    """The generator under several settings, then preparation and its bounds."""
    keep_freed_memory()
    for title, settings in SETTINGS.items():
        blocks(title, settings)
    samples = int(sys.argv[2]) if len(sys.argv) > 2 else 200_000
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    with tempfile.TemporaryDirectory(dir=folder) as parent:
        for store in (True, False):
            preparation(Path(parent), samples, store=store)
    reference(4096)


if __name__ == "__main__":
    main()
