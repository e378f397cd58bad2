"""Samples per core second from files in the page cache into ready batches, against other ways to store them.

    python benchmarks/loading.py [EXTXYZ] [--megabytes 512] [--graphs 256] [--block 64] [--rounds 5]

- crystals: the structures of EXTXYZ (such as a sample of MPtrj) or random ones of the same sizes, edges at 6 angstrom,
  repeated in random order until the shards hold so many megabytes that no CPU cache helps.
- clouds: 4,096 symmetric point clouds, repeated likewise.
- random: a batch of samples from anywhere; blocks: a batch of blocks of samples that follow each other.
- checked: with the sanity check that training does on each batch.
- copy bound: the rate at which plain large copies in this process would move the same bytes (read from the shards and
  written to the batch), and the share of it that was reached.
- peers, at random: an LMDB of pickles, and one HDF5 group per sample, the arrays alone and made into the same batch.
  Their arrays have the small types of our shards. Needs `pip install matsci-hpc[bench]`.

One thread; the best of several rounds, in core seconds, because other programs share the machine.
"""

import argparse
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import loading_data
import numpy as np
import torch

from matsci_hpc.loading.batch import Batch
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.sanity import refuse_absurd

ROUND_SAMPLES = 16_384
GROUPS = 2048
"""Samples stored as HDF5 groups: reading them is so slow that more would only take longer."""


def main() -> None:
    """Read the options and measure both kinds of data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extxyz", nargs="?", type=Path)
    parser.add_argument("--megabytes", type=float, default=512.0, help="of each data set")
    parser.add_argument("--graphs", type=int, default=256, help="in a batch")
    parser.add_argument("--block", type=int, default=64, help="samples that follow each other")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    makers: dict[str, Callable[[], loading_data.Samples]] = {
        "crystals": lambda: loading_data.crystals(options.extxyz),
        "clouds": loading_data.clouds,
    }
    for kind, make in makers.items():
        with tempfile.TemporaryDirectory() as folder:
            measure(kind, make(), Path(folder), options)


def measure(kind: str, samples: loading_data.Samples, folder: Path, options: argparse.Namespace) -> None:
    """Print the table of one kind of data."""
    sizes = [len(each.position) for each in samples.structures]
    edges = [len(each.sender) for each in samples.edges]
    arrays = [loading_data.plain_arrays(samples, i).values() for i in range(len(sizes))]
    bytes_each = np.mean([sum(array.nbytes for array in each) for each in arrays])
    which = loading_data.order(samples, int(options.megabytes * 1e6 / bytes_each))
    loading_data.write_data_set(folder / "data", samples, which)
    collection = Collection([folder / "data"])
    moved = traffic(collection)
    bound = copy_rate() / moved
    print(
        f"{kind}: {len(which):,} samples of {np.mean(sizes):.0f} atoms and {np.mean(edges):,.0f} edges in "
        f"{options.megabytes:.0f} MB; {options.graphs} graphs a batch; {moved / 1e3:.1f} kB read and written a sample"
    )
    print(f"  {'':34} {'samples/core s':>14} {'of copy bound':>14}")
    show("copy bound", bound)

    def checked(numbers: np.ndarray) -> None:
        refuse_absurd(collection, collate(collection, numbers))

    rates = {}
    for name, block in (("blocks", options.block), ("random", 1)):
        for label, load in ((name, lambda numbers: collate(collection, numbers)), (f"{name}, checked", checked)):
            rates[label] = rate(load, batches(len(which), options.graphs, block), options)
            show(f"shards, {label}", rates[label], bound)
    for name, peer_rate in peers(samples, which, folder, options).items():
        print(f"  {name:34} {peer_rate:14,.0f} {rates['random'] / peer_rate:11,.1f} x slower than random")


def show(name: str, value: float, bound: float | None = None) -> None:
    """One line of the table."""
    print(f"  {name:34} {value:14,.0f} {'' if bound is None else f'{value / bound:14.0%}'}", flush=True)


def batches(count: int, graphs: int, block: int) -> Iterator[np.ndarray]:
    """Ascending sample numbers of batches of shuffled blocks, without end."""
    random = np.random.default_rng(0)
    starts = np.arange(0, count - block + 1, block)
    while True:
        shuffled = random.permutation(starts)
        for i in range(0, len(shuffled) - graphs // block + 1, graphs // block):
            chosen = np.sort(shuffled[i : i + graphs // block])
            yield (chosen[:, None] + np.arange(block)).ravel()


def rate(load: Callable[[np.ndarray], Any], numbers: Iterator[np.ndarray], options: argparse.Namespace) -> float:
    """Samples per core second: the best of several rounds."""
    best = 0.0
    for _ in range(options.rounds):
        todo = [next(numbers) for _ in range(max(1, ROUND_SAMPLES // options.graphs))]
        start = time.process_time()
        for each in todo:
            load(each)
        best = max(best, sum(map(len, todo)) / (time.process_time() - start))
    return best


def traffic(collection: Collection) -> float:
    """Bytes of a sample that have to be read from the shards and written to a batch; also brings all into memory."""
    files = [collection.datasets[0].folder / each.file for each in collection.datasets[0].manifest.shards]
    unused = ("structures/id", "structures/pbc", "structures/split")
    read = 0
    for number in range(len(files)):
        arrays = collection.datasets[0].shard(number)
        read += sum(array.nbytes for name, array in arrays.items() if name not in unused)
        for array in arrays.values():
            array.reshape(-1).view(np.uint8)[::4096].max(initial=0)  # a page that was never touched costs a fault
    written, step = 0, 2048
    for start in range(0, len(collection), step):
        written += tensor_bytes(collate(collection, np.arange(start, min(start + step, len(collection)))))
    return (read + written) / len(collection)


def tensor_bytes(batch: Batch) -> int:
    """Size of a batch."""
    fields = [getattr(batch, name) for name in ("position", "cell", "atomic_number", "atom_graph", "atom_pointer")]
    fields += [batch.sender, batch.receiver, batch.edge_pointer, batch.edge_image, batch.sample]
    fields += [*batch.targets.values(), *batch.present.values()]
    return sum(each.nbytes for each in fields if each is not None)


def copy_rate() -> float:
    """Bytes read plus bytes written per second by plain copies of 256 MB."""
    source, target = np.ones(1 << 25), np.zeros(1 << 25)
    best = np.inf
    for _ in range(7):
        start = time.process_time()
        np.copyto(target, source)
        best = min(best, time.process_time() - start)
    return 2 * source.nbytes / best


def peers(
    samples: loading_data.Samples, which: np.ndarray, folder: Path, options: argparse.Namespace
) -> dict[str, float]:
    """Rates of the other ways, samples at random."""
    import lmdb

    rates = {}
    loading_data.write_lmdb(folder / "peer.lmdb", samples, which)
    base = lmdb.open(str(folder / "peer.lmdb"), subdir=False, readonly=True, lock=False, readahead=False)
    with base.begin(buffers=True) as transaction:

        def unpickle(numbers: np.ndarray) -> list[dict[str, np.ndarray]]:
            return [pickle.loads(transaction.get(str(i).encode())) for i in numbers.tolist()]  # noqa: S301 - our own

        for i in range(len(which)):
            transaction.get(str(i).encode())
        rates |= both("LMDB of pickles", unpickle, len(which), options)
    base.close()
    loading_data.write_groups(folder / "peer.h5", samples, which[:GROUPS])
    with h5py.File(folder / "peer.h5", "r") as file:

        def read(numbers: np.ndarray) -> list[dict[str, np.ndarray]]:
            return [{name: item[()] for name, item in file[str(i)].items()} for i in numbers.tolist()]

        few = argparse.Namespace(**{**vars(options), "rounds": 1})
        rates |= both("group per sample", read, min(GROUPS, len(which)), few)
    return rates


def both(
    name: str, load: Callable[[np.ndarray], list[dict[str, np.ndarray]]], count: int, options: argparse.Namespace
) -> dict[str, float]:
    """Rates without and with building batches."""
    return {
        f"{name}, no batch": rate(load, batches(count, options.graphs, 1), options),
        f"{name}, batch": rate(
            lambda numbers: loading_data.peer_batch(load(numbers)), batches(count, options.graphs, 1), options
        ),
    }


if __name__ == "__main__":
    main()
