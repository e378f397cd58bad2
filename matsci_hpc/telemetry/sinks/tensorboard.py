"""Event files of TensorBoard, in RUN_DIR/tensorboard."""

from matsci_hpc.telemetry.sinks.sink import Numbers, Origin


class TensorBoard:
    """A file of events for each life, and one more after each rollback.

    A file begins with the step from which on TensorBoard forgets what came before.

    Args:
        origin: of the run.
    """

    def __init__(self, origin: Origin) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._open = SummaryWriter
        self._folder = str(origin.folder / "tensorboard")
        purge = origin.step + 1 if origin.step or origin.lines else None
        self._writer = SummaryWriter(self._folder, purge_step=purge)
        if purge is None:
            text = "".join(f"    {line}\n" for line in origin.config.splitlines())
            self._writer.add_text("config", text, 0)

    def write(self, step: int, numbers: Numbers, *, repeated: bool = False) -> None:  # noqa: ARG002 - all are replaced
        """Add the numbers of a step; also those that are repeated, as the older ones were taken back."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def go_back(self, step: int) -> None:
        """Take back what was written beyond a step."""
        self._writer.close()
        self._writer = self._open(self._folder, purge_step=step + 1)

    def close(self) -> None:
        """Write everything."""
        self._writer.close()
