"""What `matsci-hpc --help` costs over an interpreter that does nothing.

    python benchmarks/startup.py [--runs 15]

Both are started in turns on a warm cache; the medians and their difference are printed.
"""

import argparse
import subprocess
import sys
import time
from statistics import median

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "matsci-hpc --help": [sys.executable, "-m", "matsci_hpc", "--help"],
}


def time_s(command: list[str]) -> float:
    """Wall time of one start, in seconds."""
    start_s = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start_s


def main() -> None:
    """Start both in turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs: int = parser.parse_args().runs
    for command in COMMANDS.values():
        time_s(command)  # fills the cache and compiles
    taken_s = [{name: time_s(command) for name, command in COMMANDS.items()} for _ in range(runs)]
    medians_s = [median(each[name] for each in taken_s) for name in COMMANDS]
    for name, middle_s in zip(COMMANDS, medians_s, strict=True):
        print(f"{name:20s}{middle_s * 1e3:7.1f} ms")
    print(f"{'difference':20s}{(medians_s[1] - medians_s[0]) * 1e3:7.1f} ms (median of {runs} alternated runs)")


if __name__ == "__main__":
    main()
