"""The sinks that a config names."""

from collections.abc import Sequence

from matsci_hpc.config.records import SinkName
from matsci_hpc.telemetry.sinks.sink import Origin, Sink
from matsci_hpc.telemetry.sinks.thread import SinkThread


def open_sinks(names: Sequence[SinkName], origin: Origin) -> list[SinkThread]:
    """Start a thread for each of them; to be called on rank 0 only."""
    return [SinkThread(name, lambda name=name: _open(name, origin)) for name in dict.fromkeys(names)]  # type: ignore[misc]


def _open(name: SinkName, origin: Origin) -> Sink:
    """Open one, importing its package."""
    if name == "tensorboard":
        from matsci_hpc.telemetry.sinks.tensorboard import TensorBoard

        return TensorBoard(origin)
    if name == "wandb":
        from matsci_hpc.telemetry.sinks.wandb import Wandb

        return Wandb(origin)
    from matsci_hpc.telemetry.sinks.mlflow import Mlflow

    return Mlflow(origin)
