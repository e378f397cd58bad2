"""How busy 512 ranks are, as limited by balance alone, under several ways to make batches; and what planning costs.

    python benchmarks/balance.py [EXTXYZ ...] [--cutoff 6] [--ranks 512] [--samples 1000000]
        [--epoch 10000000] [--processes 8]

Sizes come from the structures of extended XYZ files (edges counted at the cutoff), drawn with replacement up to
`--samples`; without a file, from two built-in tables of the size distributions of MPtrj and Alexandria.

Efficiency is the mean over steps of mean / largest cost of the ranks. Both columns hold for the same batches: one if a
step takes edges + 30 atoms, as measured for our model, one if it takes edges alone. The strategies of others:

- fixed count: each rank takes the next samples of a random order (DistributedSampler).
- atom budget: each rank's batch is filled from a random order until the atoms reach the mean of a fixed count.
- node budget, sorted: the same, and batches of similar size meet in a step.
- edge budget, sorted: the same with edges.
- LPT by edges: the global batch, drawn at random, divided largest first by edges.
- LPT: the same by edges + 30 atoms: ours without grouping.
- ours: what `grouping: auto` takes.

"Randomness" is the variance between steps of the mean of a quantity over the step, over what independent draws of as
many samples would give: 1 is a fair draw. Where large samples are grouped, it is also given for the other steps alone.
"Planning" maps one index from a file into several processes, each of which
plans a whole epoch, as the ranks of a node do.
"""

import argparse
import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from matsci_hpc.loading.divide import divide
from matsci_hpc.loading.grouping import GOAL, choose, try_thresholds
from matsci_hpc.loading.plan import COST, Plan
from matsci_hpc.loading.spec import PlanSpec
from matsci_hpc.neighbors import radius_graph
from matsci_hpc.structure import Structure

Numbers = NDArray[np.int64]
STEPS = 64
"""Steps of each strategy that are looked at."""
PLACES = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 100)
TABLES = {
    "MPtrj (table)": (
        (2, 6, 10, 14, 18, 24, 30, 36, 48, 68, 87, 106, 132, 152, 192),
        (1, 26, 37, 45, 52, 58, 64, 70, 76, 84, 91, 99, 103, 106, 124),
    ),
    "Alexandria (table)": (
        (2, 4, 4, 5, 5, 5, 6, 8, 10, 12, 18, 20, 30, 46, 80),
        (9, 21, 26, 29, 32, 40, 45, 50, 57, 62, 72, 82, 88, 99, 165),
    ),
}
"""Percentiles at `PLACES` of the atoms of a structure and of the neighbours of an atom within 6 angstrom, of 1,000
random structures each. The two are drawn independently."""


@dataclass(frozen=True)
class Sizes:
    """Samples of one data set: int64 [N] atoms and edges, and float [N] energy per atom in eV where it is known."""

    name: str
    atom: Numbers
    edge: Numbers
    energy: NDArray[np.float64] | None = None

    def drawn(self, count: int) -> "Sizes":
        """So many samples, drawn with replacement."""
        chosen = np.random.default_rng(0).integers(0, len(self.atom), count)
        energy = None if self.energy is None else self.energy[chosen]
        return Sizes(self.name, self.atom[chosen], self.edge[chosen], energy)

    def split_counts(self, split: str) -> Numbers:
        """All samples are in every split."""
        del split
        return np.array([len(self.atom)])

    def select(self, split: str, dataset: int, positions: Numbers) -> Numbers:
        """Samples are numbered by position."""
        del split, dataset
        return positions

    def atoms(self, samples: Numbers) -> Numbers:
        """Atoms of some samples."""
        return self.atom[samples]

    def edges(self, samples: Numbers) -> Numbers:
        """Edges of some samples."""
        return self.edge[samples]


def read_extxyz(path: Path, cutoff: float) -> Sizes:
    """Sizes of the structures of an extended XYZ file whose columns begin with species and position."""
    lines = path.read_text(encoding="utf-8").splitlines()
    atoms, edges, energies, place = [], [], [], 0
    while place < len(lines) and lines[place].strip():
        count, head = int(lines[place]), lines[place + 1]
        rows = [line.split()[1:4] for line in lines[place + 2 : place + 2 + count]]
        structure = Structure(
            id=str(len(atoms)),
            atomic_number=np.ones(count, dtype=np.uint8),
            position=np.array(rows, dtype=np.float32),
            cell=np.array(re.findall(r'Lattice="([^"]*)"', head)[0].split(), dtype=np.float32).reshape(3, 3),
            pbc=np.ones(3, dtype=bool),
        )
        atoms.append(count)
        edges.append(len(radius_graph(structure, cutoff).sender))
        energy = re.search(r"(?:^|\s)energy=(\S+)", head)
        energies.append(float(energy[1]) / count if energy else np.nan)
        place += 2 + count
    known = np.array(energies)
    return Sizes(path.stem, np.array(atoms), np.array(edges), None if np.isnan(known).any() else known)


def from_table(name: str) -> Sizes:
    """Sizes drawn from a table of percentiles."""
    rng = np.random.default_rng(1)
    atoms, degree = (np.interp(rng.uniform(0, 100, 20_000), PLACES, row) for row in TABLES[name])
    count = np.maximum(1, atoms.round()).astype(np.int64)
    return Sizes(name, count, (count * degree).round().astype(np.int64))


def by_count(order: Numbers, per_rank: int) -> list[Numbers]:
    """Consecutive runs of a fixed length."""
    return np.split(order, np.arange(per_rank, len(order), per_rank))


def by_budget(order: Numbers, weight: Numbers, budget: float) -> list[Numbers]:
    """Consecutive runs, each as long as its weight stays within the budget."""
    sums, cuts, before = np.cumsum(weight[order], dtype=np.float64), [], 0.0
    while True:
        end = max(int(np.searchsorted(sums, before + budget, side="right")), (cuts[-1] if cuts else 0) + 1)
        if end >= len(order):
            return np.split(order, cuts)
        cuts.append(end)
        before = float(sums[end - 1])


def steps_of(batches: list[Numbers], ranks: int) -> Iterator[list[Numbers]]:
    """Some steps, evenly spread over all: in each, every rank has one of the batches."""
    steps = len(batches) // ranks
    for step in np.unique(np.linspace(0, steps - 1, STEPS).astype(int)).tolist():
        yield batches[step * ranks : (step + 1) * ranks]


def lpt(sizes: Sizes, spec: PlanSpec, ranks: int, atom_cost: float) -> Iterator[list[Numbers]]:
    """Some steps of a plan, divided largest first."""
    epoch = Plan(sizes, spec).epoch(0)
    for step in np.unique(np.linspace(0, epoch.steps - 2, STEPS).astype(int)).tolist():
        samples = epoch.batch(step)
        costs = sizes.edge[samples] + atom_cost * sizes.atom[samples]
        yield [samples[share] for share in divide(costs.astype(np.float64), ranks)]


def efficiency(sizes: Sizes, steps: list[list[Numbers]], atom_cost: float) -> float:
    """Mean over steps of mean / largest cost of the ranks."""
    cost = sizes.edge + atom_cost * sizes.atom
    loads = [np.array([cost[share].sum() for share in step]) for step in steps]
    return float(np.mean([load.mean() / load.max() for load in loads]))


def compare(sizes: Sizes, ranks: int, per_rank: int) -> PlanSpec:
    """Print the table of one batch size; gives the plan that `auto` takes."""
    order = np.random.default_rng(2).permutation(len(sizes.atom))
    spec = PlanSpec(seed=3, split="train", graphs=ranks * per_rank)
    trials = try_thresholds(sizes, spec, ranks)
    chosen = choose(trials)
    ours = replace(spec, group_above=chosen.group_above)
    atoms = by_budget(order, sizes.atom, sizes.atom.mean() * per_rank)
    edges = by_budget(order, sizes.edge, sizes.edge.mean() * per_rank)
    made = {
        "fixed count": steps_of(by_count(order, per_rank), ranks),
        "atom budget": steps_of(atoms, ranks),
        "node budget, sorted": steps_of(sorted(atoms, key=lambda batch: int(sizes.atom[batch].sum())), ranks),
        "edge budget, sorted": steps_of(sorted(edges, key=lambda batch: int(sizes.edge[batch].sum())), ranks),
        "LPT by edges": lpt(sizes, spec, ranks, 0.0),
        "LPT": lpt(sizes, spec, ranks, COST.atom),
        "ours": lpt(sizes, ours, ranks, COST.atom),
    }
    found = {name: list(steps) for name, steps in made.items()}
    result = {name: [efficiency(sizes, steps, weight) for weight in (COST.atom, 0.0)] for name, steps in found.items()}
    print(f"\n{sizes.name}: {ranks} ranks x {per_rank} graphs")
    print(f"  {'strategy':22}{'edges + 30 atoms':>18}{'edges alone':>14}{'ours over it':>14}")
    for name, (with_atoms, alone) in result.items():
        print(f"  {name:22}{with_atoms:18.3f}{alone:14.3f}{result['ours'][0] / with_atoms:14.2f}")
    tried = ", ".join(f"{trial.share:.0%} {trial.efficiency:.3f}" for trial in trials)
    print(f"  auto groups the largest {chosen.share:.0%} (goal {GOAL}; tried {tried})")
    return ours


def randomness(sizes: Sizes, spec: PlanSpec) -> None:
    """Print how far the means of steps stray, against independent draws."""
    energy = sizes.energy
    quantities = {"cost": COST.of(sizes.atom, sizes.edge), "atoms": sizes.atom.astype(np.float64)}
    if energy is not None:
        quantities["energy per atom"] = energy
    rows = {}
    plans = {"grouping: none": replace(spec, group_above=None)}
    if spec.group_above is not None:
        plans |= {"grouping": spec, "  its other steps": spec}
    for name, each in plans.items():
        epoch = Plan(sizes, each).epoch(0)
        batches = [epoch.batch(step) for step in range(epoch.steps - 1)]
        if name == "  its other steps":
            batches = [batch for batch in batches if quantities["cost"][batch].max() <= (spec.group_above or 0)]
        rows[name] = [
            np.var([values[batch].mean() for batch in batches]) / (values.var() / (spec.graphs or 1))
            for values in quantities.values()
        ]
    print(f"\n{sizes.name}: randomness of steps of {spec.graphs} graphs")
    print(f"  {'':22}" + "".join(f"{name:>18}" for name in quantities))
    for name, row in rows.items():
        print(f"  {name:22}" + "".join(f"{value:18.2f}" for value in row))


class MappedSizes(Sizes):
    """Sizes in an HDF5 file, mapped into memory: processes of a node share its pages."""

    def __init__(self, path: Path) -> None:
        with h5py.File(path, "r") as file:
            columns = {
                name: np.memmap(path, np.uint32, "r", file[name].id.get_offset(), file[name].shape)
                for name in ("by_split", "atoms", "edges")
            }
        super().__init__(path.name, columns["atoms"], columns["edges"])
        object.__setattr__(self, "by_split", columns["by_split"])

    def select(self, split: str, dataset: int, positions: Numbers) -> Numbers:
        """Samples of the split, through the sorted column of the index."""
        del split, dataset
        return self.by_split[positions].astype(np.int64)  # type: ignore[attr-defined]

    def atoms(self, samples: Numbers) -> Numbers:
        """Atoms of some samples."""
        return self.atom[samples].astype(np.int64)

    def edges(self, samples: Numbers) -> Numbers:
        """Edges of some samples."""
        return self.edge[samples].astype(np.int64)


def plan_epoch(path: Path, spec: PlanSpec, out: "multiprocessing.Queue[tuple[float, float, float]]") -> None:
    """Plan a whole epoch in a process of its own: seconds, CPU seconds, and the growth of its own MB."""
    before = _own_mb()
    sizes = MappedSizes(path)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    epoch = Plan(sizes, spec).epoch(0)
    step = samples = 0
    private = 0.0
    while epoch.has(step):
        samples += len(epoch.batch(step))
        if step % 64 == 0:
            private = max(private, _own_mb() - before)
        step += 1
    if samples != len(sizes.atom):
        raise AssertionError(samples)
    out.put((time.perf_counter() - start_s, time.process_time() - start_cpu_s, private))


def _own_mb() -> float:
    """Memory that belongs to this process alone, in MB: not the pages of the index, which the node holds once."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    return int(re.findall(r"Anonymous:\s+(\d+) kB", text)[0]) * 1024 / 1e6


def planning(sizes: Sizes, samples: int, processes: int) -> None:
    """Print time and memory of planning one epoch, for the plans that differ most in work."""
    drawn = sizes.drawn(samples)
    costs = COST.of(drawn.atom[:100_000], drawn.edge[:100_000])
    above = float(np.quantile(costs, 0.9))
    specs = {
        "count 2048": PlanSpec(3, "train", graphs=2048),
        "count 2048, blocks of 64": PlanSpec(3, "train", graphs=2048, block=64),
        "count 2048, 10 % grouped": PlanSpec(3, "train", graphs=2048, group_above=above),
        "count 8192, 10 % grouped": PlanSpec(3, "train", graphs=8192, group_above=above),
        "cost, 10 % grouped": PlanSpec(3, "train", cost=2048 * float(costs.mean()), group_above=above),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.h5"
        with h5py.File(path, "w") as file:
            file["by_split"] = np.arange(samples, dtype=np.uint32)
            file["atoms"] = drawn.atom.astype(np.uint32)
            file["edges"] = drawn.edge.astype(np.uint32)
        print(f"\nplanning an epoch of {samples:,} samples from an index of {path.stat().st_size / 1e6:.0f} MB")
        print(f"  {'plan':26}{'processes':>10}{'slowest s':>11}{'CPU s each':>12}{'own MB each':>13}{'node MB':>9}")
        for name, spec in specs.items():
            for count in sorted({1, processes}):
                _print_planning(name, path, spec, count)


def _print_planning(name: str, path: Path, spec: PlanSpec, count: int) -> None:
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    workers = [context.Process(target=plan_epoch, args=(path, spec, out)) for _ in range(count)]
    for worker in workers:
        worker.start()
    found = np.array([out.get() for _ in workers])
    for worker in workers:
        worker.join()
    private = float(found[:, 2].max())
    node = count * private + path.stat().st_size / 1e6
    print(
        f"  {name:26}{count:10}{found[:, 0].max():11.2f}{found[:, 1].mean():12.2f}{private:13.1f}{node:9.0f}",
        flush=True,
    )


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extxyz", nargs="*", type=Path)
    parser.add_argument("--cutoff", type=float, default=6.0, help="angstrom")
    parser.add_argument("--ranks", type=int, default=512)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--epoch", type=int, default=10_000_000, help="samples of the epoch that is planned; 0: none")
    parser.add_argument("--processes", type=int, default=8, help="that plan it at once")
    options = parser.parse_args()
    known = [read_extxyz(path, options.cutoff) for path in options.extxyz] or [from_table(name) for name in TABLES]
    for each in known:
        sizes = each.drawn(options.samples)
        for per_rank in (16, 4):
            randomness(sizes, compare(sizes, options.ranks, per_rank))
    if options.epoch:
        planning(known[0], options.epoch, options.processes)


if __name__ == "__main__":
    main()
