"""Structures per core second into written shards with edges: `python benchmarks/prep.py [--only KIND]`.

Needs real data (`--data`, ../shared/data beside the project if left out) and the extra `lmdb`. Each way is timed beside
a plain reference in the same run: the readers of pymatgen and ASE, the neighbour list of ASE, and an HDF5 group for
each structure. Times are those of the processor, from opening the input to the written file.
"""

import argparse
import tarfile
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from prep_ways import WAYS, Inputs, Way, config_of, plain_memory

from matsci_hpc.conversion import convert
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.sources.registry import open_source
from matsci_hpc.training.allocator import keep_freed_memory
from matsci_hpc.whole_files import checksum, write_atomic

CLOUDS = 131_072
"""Clouds to make on our side, which makes a few thousand in the time of one crystal on the other."""


def ours(way: Way, inputs: Inputs) -> tuple[float, float]:
    """Structures per core second by the code of this project, and edges per structure."""
    source = way.prepare(inputs)
    section = source if isinstance(source, dict) else {"kind": "symmetry", "samples": 1}
    config = config_of(section, inputs.work, way.cutoff)
    convert(config, open_source(config, inputs.work) if isinstance(source, dict) else source, 0, 8, 0)  # imports
    start_s, edges = time.process_time(), 0
    opened = open_source(config, inputs.work) if isinstance(source, dict) else source
    for number, begin in enumerate(range(0, len(opened), config.shard_size)):
        content, _ = convert(config, opened, begin, min(begin + config.shard_size, len(opened)), number)
        if content is not None:
            image = shard_image(content)
            write_atomic(inputs.work / f"shard-{number}.h5", image)
            checksum(image)
            edges += content.edges
    return len(opened) / (time.process_time() - start_s), edges / len(opened)


def theirs(way: Way, inputs: Inputs) -> float:
    """Structures per core second by the plain reference."""
    from ase.neighborlist import primitive_neighbor_list

    way.prepare(inputs)
    next(way.reference(inputs))  # imports
    plain = iter(list(way.reference(inputs))) if way.reference is plain_memory else way.reference(inputs)
    count, start_s = 0, time.process_time()
    with h5py.File(inputs.work / "reference.h5", "w") as file:
        for name, numbers, position, cell, pbc in plain:
            i, j, shift = primitive_neighbor_list("ijS", pbc, cell, position, way.cutoff)
            group = file.create_group(name)
            for key, array in {"numbers": numbers, "position": position, "cell": cell, "pbc": pbc}.items():
                group.create_dataset(key, data=array)
            group.create_dataset("edges", data=np.stack([i, j]).astype(np.int32))
            group.create_dataset("shift", data=shift.astype(np.int8))
            count += 1
    return count / (time.process_time() - start_s)


def sample_cifs(data: Path, count: int, whole: int = 106_113) -> dict[str, bytes]:
    """CIF files spread evenly over the set matbench_mp_gap."""
    found: dict[str, bytes] = {}
    step = max(1, whole // count)
    with tarfile.open(data / "matbench_mp_gap/cifs.tar.gz", "r|gz") as archive:
        files = (each for each in archive if each.name.endswith(".cif"))
        for number, member in enumerate(files):
            if number % step == 0 and len(found) < count and (file := archive.extractfile(member)) is not None:
                found[Path(member.name).stem] = file.read()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1].parent / "shared/data")
    parser.add_argument("--structures", type=int, default=4096)
    parser.add_argument("--reference", type=int, default=400, help="structures for the reference, which is slow")
    parser.add_argument("--only", choices=WAYS, action="append")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the ranks of a job do
    cifs = sample_cifs(arguments.data, arguments.structures)
    some = dict(list(cifs.items())[:: max(1, len(cifs) // arguments.reference)])
    print(f"{len(cifs)} structures of matbench_mp_gap, {len(some)} of them for the reference")
    print(
        "| source | edges to | structures per core second | edges per structure | plain reference | ratio |\n"
        "|---|---|---|---|---|---|"
    )
    for kind in arguments.only or WAYS:
        way = WAYS[kind]
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            rate, edges = ours(way, Inputs(Path(one), cifs, CLOUDS))
            reference = theirs(way, Inputs(Path(other), some, len(some)))
        print(
            f"| {way.title} | {way.cutoff:g} angstrom | {rate:,.0f} | {edges:,.0f} | {reference:,.1f} | "
            f"{rate / reference:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
