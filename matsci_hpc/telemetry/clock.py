"""Where the time of the steps went on this rank."""

import time

from matsci_hpc.loading.loader import StepWork

PHASES = ("data", "forward", "backward", "comm", "optimizer")
"""Parts of a step in order: wait for data, forward pass, backward pass, exposed communication, optimiser."""


class StepClock:
    """Adds up time and work of the steps since the last line.

    `start` begins a step, `lap(phase)` gives the time since the last call to the phase, `stop` ends the step. What no
    phase is given is other time: rank 0's own records, for instance, are no sign that its node is slow.

    Attributes:
        steps: number of steps.
        phase_s, total_s: their time on this rank, by phase and in all.
        graphs, atoms, edges: what all ranks together worked on.
        rank_graphs, rank_atoms, rank_edges: what this rank worked on.
        cost_imbalance: sum over the steps of largest over mean predicted cost of the ranks.
        in_flight_s: time during which gradients were on their way; what of it computing did not hide is phase comm.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new interval between lines."""
        self.steps = 0
        self.phase_s = dict.fromkeys(PHASES, 0.0)
        self.total_s = 0.0
        self.graphs = self.atoms = self.edges = 0
        self.rank_graphs = self.rank_atoms = self.rank_edges = 0
        self.cost_imbalance = 0.0
        self.in_flight_s = 0.0

    def start(self) -> None:
        """Begin a step."""
        self._start_s = self._last_s = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Give the time since the last call to a phase."""
        now_s = time.perf_counter()
        self.phase_s[phase] += now_s - self._last_s
        self._last_s = now_s

    def skip(self) -> None:
        """Give the time since the last call to no phase: it is other time."""
        self._last_s = time.perf_counter()

    def lap_compute(self, forward_s: float) -> None:
        """Give the time since the last call to forward, as much of it as that took, and the rest to backward.

        Several micro-batches go forward and backward in turns, and a GPU tells when it did so only afterwards.
        """
        self.lap("backward")
        self.phase_s["backward"] -= forward_s
        self.phase_s["forward"] += forward_s

    def stop(self, work: StepWork) -> None:
        """End a step that did this work."""
        self.total_s += time.perf_counter() - self._start_s
        self.steps += 1
        self.graphs += work.graphs
        self.atoms += work.atoms
        self.edges += work.edges
        self.rank_graphs += len(work.samples)
        self.rank_atoms += work.rank_atoms
        self.rank_edges += work.rank_edges
        self.cost_imbalance += work.cost_imbalance
