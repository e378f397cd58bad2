"""The two numbers of a network that a message's time follows from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """A message of n bytes takes latency + n / bandwidth (Hockney, Parallel Computing 20 (1994) 389-398).

    Attributes:
        latency_s: of a message without content, in seconds.
        bandwidth_bytes_per_s: in one direction, in bytes per second; infinite where times do not grow with the size.
    """

    latency_s: float
    bandwidth_bytes_per_s: float

    def message_s(self, size_bytes: float) -> float:
        """Time of one message in seconds."""
        return self.latency_s + size_bytes / self.bandwidth_bytes_per_s
