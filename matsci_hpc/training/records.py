"""What a run writes down of itself: metrics, evaluations, and, if asked to, which rank trained on which samples."""

from typing import Any

from matsci_hpc.loading.loader import StepWork
from matsci_hpc.telemetry.recorder import JsonLines
from matsci_hpc.training.messages import in_words
from matsci_hpc.training.setup import Run


class RunRecords:
    """The files of one life on one rank; rank 0 writes those of the whole run, and says on the screen what is in them.

    Args:
        run: its folder, state and ranks.
        life: number of this life, from 0.
    """

    def __init__(self, run: Run, life: int) -> None:
        self._run = run
        self._life = life
        first = run.comm.rank == 0
        self._metrics = JsonLines(run.folder.metrics) if first else None
        self._evaluations = JsonLines(run.folder.evaluations) if first else None
        self._samples = JsonLines(run.folder.samples(run.comm.rank)) if run.config.record_samples else None

    def note_samples(self, work: StepWork) -> None:
        """Which samples this rank trains on in a step.

        To be called before the ranks exchange gradients: once a checkpoint holds the step, every rank has noted it.
        """
        if self._samples is not None:
            numbers = work.samples.tolist()
            cursor = work.cursor
            self._samples.append(
                {"step": cursor.step + 1, "epoch": cursor.epoch, "life": self._life, "samples": numbers}
            )

    def log_step(self, work: StepWork, found: dict[str, Any], interval: dict[str, float]) -> None:
        """A line of metrics.

        Args:
            work: of the step.
            found: loss, losses, lr and grad_norm.
            interval: from `gather_interval`.
        """
        if self._metrics is None:
            return
        run, state = self._run, self._run.state
        self._metrics.append(
            {
                "step": state.step,
                "epoch": work.cursor.epoch,
                "samples_seen": state.samples_seen,
                "time_s": state.time_s,
                "life": self._life,
                **found,
                "skipped_steps": state.skipped_steps,
                "rollbacks": state.rollbacks,
                "graphs": work.graphs,
                "atoms": work.atoms,
                "edges": work.edges,
                "ranks": run.comm.size,
                **interval,
            }
        )
        print(
            f"step {state.step}/{run.config.steps}  loss {found['loss']:.4f}  "
            f"{interval['graphs_per_s']:,.0f} graphs/s  lr {found['lr']:.2e}  "
            f"imbalance {interval['cost_imbalance']:.2f}  {interval['memory_bytes'] / 1e9:.2f} GB",
            flush=True,
        )

    def log_evaluation(self, result: dict[str, Any]) -> None:
        """A line of evaluations."""
        if self._evaluations is None:
            return
        state = self._run.state
        where = {"step": state.step, "epoch": state.epoch_of_last_step}
        seen = {
            "samples_seen": state.samples_seen,
            "time_s": state.time_s,
            "split": self._run.config.data.held_out,
        }
        self._evaluations.append({**where, **seen, "life": self._life, **result})
        print(f"held out at step {state.step}: {in_words(result)}", flush=True)

    def close(self) -> None:
        """See to it that everything is on disk; errors as of `JsonLines.close`."""
        for lines in (self._metrics, self._evaluations, self._samples):
            if lines is not None:
                lines.close()
