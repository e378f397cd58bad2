"""What a run learns of the cost of an atom from the times of its own steps (`balance.fit`)."""

import torch

from matsci_hpc.loading.cost import CostFit, fit
from matsci_hpc.loading.loader import StepWork
from matsci_hpc.training.setup import Run


class FittedCost:
    """Times of this rank's steps, and the cost that all ranks agree on by them.

    Args:
        run: whose state holds the cost.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._fit = CostFit()
        self._warm = False  # the first step also allocates memory and reads what no disk cache holds yet

    def add(self, work: StepWork, time_s: float) -> None:
        """Note how long this rank computed on its share of a step."""
        if self._warm and work.batches:
            run = self._run
            speeds = run.config.balance.speeds
            speed = speeds[run.comm.rank] if speeds is not None else 1.0  # times as of a rank of speed 1
            self._fit.add(work.rank_atoms, work.rank_edges, speed * time_s)
        self._warm = True

    def decide(self) -> None:
        """At the end of an epoch, learn from its times what an atom costs, for the division of the next; collective."""
        run = self._run
        sums = self._fit.sums.clone()
        run.comm.all_reduce(sums)
        found = fit(sums)
        if found is None:
            return
        atom_cost = torch.tensor(found.atom, dtype=torch.float64)
        run.comm.broadcast(atom_cost)  # one rank's rounding for all, or they would divide differently
        if run.comm.rank == 0 and float(atom_cost) != run.state.atom_cost:
            print(f"from epoch {run.state.epoch} on, an atom counts as {float(atom_cost):g} edges", flush=True)
        run.state.atom_cost = float(atom_cost)
