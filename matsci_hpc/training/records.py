"""What a run writes down of itself: metrics, evaluations, and, if asked to, which rank trained on which samples."""

import socket
from textwrap import indent
from typing import Any

from matsci_hpc.cores import list_text
from matsci_hpc.loading.loader import StepWork
from matsci_hpc.parallel.device import peak_device_bytes
from matsci_hpc.parallel.together import on_first, texts_of_all
from matsci_hpc.telemetry.clock import StepClock
from matsci_hpc.telemetry.energy import open_meter
from matsci_hpc.telemetry.interval import Interval, Reading, gather_interval, summary
from matsci_hpc.telemetry.recorder import JsonLines
from matsci_hpc.training.evaluation_table import evaluation_table
from matsci_hpc.training.run_files import RunFiles
from matsci_hpc.training.run_folder import note_in_provenance
from matsci_hpc.training.setup import Run


class RunRecords:
    """The records of one life on one rank; rank 0 writes those of the run, and says on the screen what is in them.

    Args:
        run: its folder, state and ranks.
        life: number of this life, from 0.
    """

    def __init__(self, run: Run, life: int) -> None:
        """Collective."""
        self._run = run
        self._life = life
        hosts = texts_of_all(run.comm, socket.gethostname())
        self._meter = open_meter(run.comm, run.device)
        energy = {
            "cpu": _by_ranks(texts_of_all(run.comm, self._meter.cpu)),
            "gpu": _by_ranks(texts_of_all(run.comm, self._meter.gpu)),
        }
        about = {"hosts": _by_ranks(hosts), "energy": energy}
        on_first(run.comm, lambda: note_in_provenance(run.folder, about))
        self._files = RunFiles(run, life, hosts) if run.comm.rank == 0 else None
        self._samples = JsonLines(run.folder.samples(run.comm.rank)) if run.config.record_samples else None

    def note_samples(self, work: StepWork) -> None:
        """Which samples this rank trains on in a step.

        To be called before the ranks exchange gradients: once a checkpoint holds the step, every rank has noted it.
        """
        if self._samples is not None:
            numbers = work.samples.tolist()
            cursor = work.cursor
            self._samples.append(
                {
                    "step": cursor.step + 1,
                    "epoch": cursor.epoch,
                    "life": self._life,
                    "rollbacks": self._run.state.rollbacks,
                    "samples": numbers,
                }
            )

    def log_step(self, work: StepWork, found: dict[str, Any], clock: StepClock) -> None:
        """A line of metrics about the steps since the last one; collective.

        Args:
            work: of the step.
            found: loss, losses, lr and grad_norm.
            clock: of these steps.
        """
        cpu_j, gpu_j = self._meter.take()
        reading = Reading(peak_device_bytes(self._run.device.type), cpu_j, gpu_j)
        interval = gather_interval(clock, self._run.comm, reading)
        if self._files is not None:
            self._log(self._files, work, found, interval)

    def _log(self, files: RunFiles, work: StepWork, found: dict[str, Any], interval: Interval) -> None:
        state, config = self._run.state, self._run.config
        cost = interval.cost(state.atom_cost, config.balance.speeds)
        stragglers = files.watch.look(interval, cost)
        short = summary(interval)
        files.add_metrics(
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
                "ranks": self._run.comm.size,
                **short,
                "stragglers": [each.to_json() for each in stragglers],
            }
        )
        files.add_ranks(state.step, interval, cost)
        print(
            f"step {state.step}/{config.steps}  loss {found['loss']:.4f}  "
            f"{short['graphs_per_s']:,.0f} graphs/s  lr {found['lr']:.2e}  "
            f"imbalance {short['cost_imbalance']:.2f}  {short['memory_bytes'] / 1e9:.2f} GB",
            flush=True,
        )
        for remark in files.watch.remarks(stragglers):
            print(remark, flush=True)

    def log_evaluation(self, result: dict[str, Any], split: str | None = None) -> None:
        """A line of evaluations; of the held-out split, or of another one that is named."""
        if self._files is None:
            return
        state = self._run.state
        where = {"step": state.step, "epoch": state.epoch_of_last_step}
        seen = {
            "samples_seen": state.samples_seen,
            "time_s": state.time_s,
            "split": split or self._run.config.data.held_out,
        }
        self._files.add_evaluation({**where, **seen, "life": self._life, "rollbacks": state.rollbacks, **result})
        what = (
            f"held out at step {state.step}"
            if split is None
            else f"{split}, parameters of step {result['weights_step']}"
        )
        table = indent(evaluation_table(result["metrics"]), "  ")
        print(f"{what}: {result['samples']:,} samples, loss {result['loss']:.4f}\n{table}", flush=True)

    def note_rollback(self) -> None:
        """The run has gone back to the step of its state."""
        if self._files is not None:
            self._files.go_back(self._run.state.step, self._run.state.rollbacks)

    def close(self) -> None:
        """See to it that everything is on disk; errors as of `JsonLines.close`."""
        if self._files is not None:
            self._files.close()
        if self._samples is not None:
            self._samples.close()


def _by_ranks(texts: list[str]) -> dict[str, str]:
    """Each text, and the ranks that gave it: `{"node017": "0-3"}`."""
    ranks: dict[str, list[int]] = {}
    for rank, text in enumerate(texts):
        if text:
            ranks.setdefault(text, []).append(rank)
    return {text: list_text(numbers) for text, numbers in ranks.items()}
