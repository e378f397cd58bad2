"""What of an exchange of gradients is not hidden behind the backward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

from matsci_hpc.scaling.communication import Algorithm, CommTime, Network, all_reduce_time


@dataclass(frozen=True, slots=True)
class Bucket:
    """Gradients that are sent together.

    Attributes:
        size_bytes: on the way.
        left: share of a rank's computing time in a step that is still ahead when the bucket is whole; 0 if it is whole
            only at the end.
    """

    size_bytes: float
    left: float


@dataclass(frozen=True, slots=True)
class Exposed:
    """Time of a step in which ranks only wait for gradients to arrive.

    Attributes:
        latency_s: what of it would vanish on a network without latency.
        bandwidth_s: the rest.
    """

    latency_s: float
    bandwidth_s: float

    @property
    def total_s(self) -> float:
        """Both."""
        return self.latency_s + self.bandwidth_s


def exposed_time(
    buckets: Sequence[Bucket],
    compute_s: float,
    network: Network,
    *,
    last_bytes: float = 16.0,
    algorithm: Algorithm | None = None,
) -> Exposed:
    """Send buckets in turn, each when it is whole on the slowest rank and the one before has arrived.

    Args:
        buckets: in the order in which they are sent.
        compute_s: of the slowest rank.
        network: that joins the ranks.
        last_bytes: of the sum that follows the last bucket: losses, and whether to stop.
        algorithm: None for the quickest.
    """
    if network.ranks == 1:
        return Exposed(0.0, 0.0)
    last = all_reduce_time(last_bytes, network, algorithm)
    times = [all_reduce_time(each.size_bytes, network, algorithm) for each in buckets]
    total_s = _beyond(buckets, times, compute_s, latency=True) + last.total_s
    bandwidth_s = _beyond(buckets, times, compute_s, latency=False) + last.transfer_s
    return Exposed(total_s - bandwidth_s, bandwidth_s)


def _beyond(buckets: Sequence[Bucket], times: Sequence[CommTime], compute_s: float, *, latency: bool) -> float:
    """Time from the end of computing to the arrival of the last bucket."""
    free_s = 0.0
    for bucket, time in zip(buckets, times, strict=True):
        start_s = max(free_s, (1 - bucket.left) * compute_s)
        free_s = start_s + (time.total_s if latency else time.transfer_s)
    return max(free_s - compute_s, 0.0)
