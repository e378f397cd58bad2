"""Does the quick CIF reader say what pymatgen says? `python benchmarks/cif_identity.py PATH [PATH ...] [--sample N]`.

Each PATH is a folder or archive of CIF files. Compared are atomic numbers, positions and cells bit by bit; a file that
the quick reader takes and pymatgen refuses counts as different. Exit code 1 if anything differs.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from matsci_hpc.sources.cif import CifError, parse_with_pymatgen
from matsci_hpc.sources.files import InputFile, list_inputs
from matsci_hpc.sources.quick_cif import Atoms, read_quick


def compare(data: bytes, times_ns: Counter[str]) -> str:
    """`identical`, `different`, or `left to pymatgen`."""
    quick = timed(read_quick, data, "quick reader", times_ns)
    try:
        general = timed(parse_with_pymatgen, data, "pymatgen", times_ns)
    except CifError:
        general = None
    if quick is None:
        return "left to pymatgen"
    return "identical" if general is not None and same_bytes(quick, general) else "different"


def timed(read: Callable[[bytes], Atoms | None], data: bytes, who: str, times_ns: Counter[str]) -> Atoms | None:
    """What a reader says; its processor time is added to `times_ns`, nanoseconds, also when it raises."""
    start = time.process_time_ns()
    try:
        return read(data)
    finally:
        times_ns[who] += time.process_time_ns() - start


def same_bytes(first: Atoms, second: Atoms) -> bool:
    """Whether all arrays have the same types, shapes and bits."""
    return all(
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        for one, other in zip(first, second, strict=True)
    )


def compare_all(inputs: list[InputFile]) -> bool:
    """Print counts, rates and the names of files on which the readers disagree; whether there were none."""
    counts: Counter[str] = Counter()
    times_ns: Counter[str] = Counter()
    for each in inputs:
        outcome = compare(each.read(), times_ns)
        counts[outcome] += 1
        if outcome == "different":
            print(f"  {each.name}: different")
    print(f"  {len(inputs):,} files: " + ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())))
    print(f"  taken by the quick reader: {1 - counts['left to pymatgen'] / len(inputs):.2%}")
    for who, time_ns in times_ns.items():
        print(f"  {who}: {len(inputs) / time_ns * 1e9:,.0f} files per core second")
    return counts["different"] == 0


def main() -> None:
    """Compare what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--sample", type=int, help="compare this many files of each path, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    alike = True
    for path in arguments.paths:
        with tempfile.TemporaryDirectory() as folder:
            inputs = list_inputs(path, ".cif", Path(folder))
            if arguments.sample and arguments.sample < len(inputs):
                inputs = random.Random(arguments.seed).sample(inputs, arguments.sample)
            print(path)
            alike &= compare_all(inputs)
    sys.exit(0 if alike else 1)


if __name__ == "__main__":
    main()
