"""Event files of TensorBoard, in RUN_DIR/tensorboard."""

from matsci_hpc.telemetry.sinks.sink import Numbers, Origin


class TensorBoard:
    """A file of events for each life. It begins with the step from which on TensorBoard forgets what came before.

    Args:
        origin: of the run.
    """

    def __init__(self, origin: Origin) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = origin.step + 1 if origin.step or origin.written_step else None
        self._writer = SummaryWriter(str(origin.folder / "tensorboard"), purge_step=purge)
        if purge is None:
            text = "".join(f"    {line}\n" for line in origin.config.splitlines())
            self._writer.add_text("config", text, 0)

    def write(self, step: int, numbers: Numbers) -> None:
        """Add the numbers of a step."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write everything."""
        self._writer.close()
