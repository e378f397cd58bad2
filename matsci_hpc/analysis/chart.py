"""A figure of the report with the words around it."""

from dataclasses import dataclass

from matsci_hpc.analysis.records import Record

TRAINING, DYNAMICS, HELD_OUT, SPEED = "Training", "Loss dynamics", "Held-out data", "Speed and balance"


@dataclass(frozen=True)
class Chart:
    """One figure of the report with the words around it."""

    section: str
    title: str
    caption: str
    figure: Record
    wide: bool = False
    height: int = 280
