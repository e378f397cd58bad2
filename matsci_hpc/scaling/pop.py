"""Parallel efficiency as a product: how evenly the work is divided, and what exchanging costs on top.

    parallel efficiency = load balance efficiency * communication efficiency
    load balance        = mean(useful_r) / max(useful_r)
    communication       = max(useful_r) / T

| symbol | means | from metrics.jsonl |
|---|---|---|
| useful_r | time of rank r outside communication, per step | |
| mean(useful_r) | its mean over the ranks | `step_time_mean_s - comm_time_s` |
| max(useful_r) | its maximum | the mean, plus `compute_time_max_s - compute_time_s` |
| T | time of a step | `step_time_s` |

Only computing is recorded with its maximum over the ranks; the other parts of useful time count as equal on all ranks.
Waiting for data counts as useful time here: it is not communication, and the time split shows it.

Source: the POP metrics (https://pop-coe.eu/node/69); C. Rosas, J. Gimenez, J. Labarta, Scalability prediction for
fundamental performance factors, Supercomputing Frontiers and Innovations 1(2), 4-19 (2014).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Efficiencies:
    """Shares of 1."""

    load_balance: float
    communication: float

    @property
    def parallel(self) -> float:
        """Share of the time of all ranks that is spent outside communication."""
        return self.load_balance * self.communication


def efficiencies(
    step_time_s: float, step_time_mean_s: float, comm_time_s: float, compute_time_s: float, compute_time_max_s: float
) -> Efficiencies:
    """The two factors, from times per step in seconds as metrics.jsonl has them; times must be positive.

    Clocks of ranks differ by a little, so the maximum is kept within the step.
    """
    useful = max(step_time_mean_s - comm_time_s, 0.0)
    largest = min(useful + max(compute_time_max_s - compute_time_s, 0.0), step_time_s)
    if largest <= 0:
        return Efficiencies(1.0, 0.0)
    return Efficiencies(min(useful / largest, 1.0), largest / step_time_s)
