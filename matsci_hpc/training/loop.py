"""The training loop of one rank."""

import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import MatsciError, UserInputError
from matsci_hpc.loading.loader import Loader, StepWork
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.loading.plan import Plan
from matsci_hpc.parallel.communicator import open_communicator
from matsci_hpc.parallel.device import take_device
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.parallel.together import on_every, on_first, until_the_end
from matsci_hpc.staging.stage import staged
from matsci_hpc.telemetry.clock import StepClock
from matsci_hpc.training.allocator import keep_freed_memory
from matsci_hpc.training.checkpoint import Snapshot, take_snapshot
from matsci_hpc.training.derived_labels import with_labels_counted
from matsci_hpc.training.evaluation import evaluate
from matsci_hpc.training.final_evaluation import evaluate_final
from matsci_hpc.training.fine_tuning import learned_here
from matsci_hpc.training.fitted_cost import FittedCost
from matsci_hpc.training.ipex import load_ipex
from matsci_hpc.training.kernels import decide_kernel
from matsci_hpc.training.learned import learned_by, write_learned
from matsci_hpc.training.messages import announce
from matsci_hpc.training.planning import cost_of, cursor_of, division_of, plan_of
from matsci_hpc.training.records import RunRecords
from matsci_hpc.training.rollback import roll_back
from matsci_hpc.training.run_folder import complete_run, open_run, run_lock
from matsci_hpc.training.saving import CheckpointWriter
from matsci_hpc.training.scaling_fit import fit_scalings
from matsci_hpc.training.setup import Run, build_run, limit_threads, resume
from matsci_hpc.training.step import Stepper
from matsci_hpc.training.stopping import ELSEWHERE, StopRequests, StopSignals
from matsci_hpc.whole_files import write_atomic


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a life of a run ended.

    Attributes:
        step: steps taken over all lives.
        complete: whether these are all.
        reason: why it stopped before, if it did.
    """

    step: int
    complete: bool
    reason: str | None = None


def train(config: TrainConfig, signals: StopSignals) -> Outcome:
    """Train as one of the ranks that the launcher started, from the newest checkpoint if there is one.

    Args:
        config: of the run.
        signals: notes signals since the start of the process.

    Raises:
        UserInputError: config and data do not fit, or the loss is no longer finite.
        MachineError: ranks cannot find or have lost each other, or the output cannot be written.
    """
    limit_threads()
    keep_freed_memory()
    device, refusal = torch.device("cpu"), None
    try:
        device = take_device(config.device, discover(os.environ))
        if config.optimize == "ipex":
            load_ipex(device.type)
    except MatsciError as error:  # others may have what this rank lacks, and would wait for it
        refusal = error
    comm = open_communicator(config.parallel, config.checkpoint.timeout_s, device.type, refusal)
    lock = run_lock(config.run_dir)
    try:
        with (
            until_the_end(comm),
            staged(config.data.staging, config.data.folders, comm, comm.activity.tick) as places,
        ):
            collection = on_every(comm, lambda: open_collection(config.data, places))
            run = build_run(config, collection, comm, device)
            # Rank 0 looks: others may see an older state of a shared file system, and all must do the same.
            life, steps_done = on_first(comm, lambda: open_run(config, collection, comm.size, comm.name, lock))
            if steps_done:
                return Outcome(steps_done, complete=True)
            run.tasks = with_labels_counted(run.tasks, config, collection, comm)
            learned = learned_by(run.tasks, collection.cutoff, config.gradients)
            on_first(comm, lambda: write_learned(run.folder.learned, learned))
            if not resume(run):
                fit_scalings(run)
            decide_kernel(run)
            return Trainer(run, plan_of(run), life, signals).train()
    finally:
        lock.release()


class Trainer:
    """The steps of one life of a run on one rank."""

    def __init__(self, run: Run, plan: Plan, life: int, signals: StopSignals) -> None:
        self.run = run
        self.plan = plan
        self.records = RunRecords(run, life)
        self.clock = StepClock()
        first = run.comm.rank == 0
        self.stops = StopRequests(signals, run.folder.stop, looks=first, max_time_s=run.config.max_time_s)
        self.cost = FittedCost(run)
        keep, limit_s = run.config.checkpoint.keep, run.config.checkpoint.timeout_s
        self.writer = CheckpointWriter(
            run.folder.checkpoints,
            keep,
            run.state.step,
            run.comm.activity.tick,
            limit_s,
            may_go_back="rollback" in {run.config.spikes.on_spike, run.config.nonfinite.policy},
        )
        self.stepper = Stepper(run, self.clock, self.cost, self.stops.requested, self._step_on_disk, life)
        self._start_s = time.monotonic() - run.state.time_s
        self._final: dict[str, Any] | None = None

    def train(self) -> Outcome:
        """Take the remaining steps, or as many as there is time for."""
        run = self.run
        if run.comm.rank == 0:
            announce(run, self.plan)
        try:
            if on_first(run.comm, self.stops.look):  # it came while the job waited, or a life before was killed over it
                return self._stop()
            run.comm.activity.at("data", run.state.step + 1)
            run.model.train()
            while (outcome := self._until_rollback()) is None:
                pass
        except UserInputError:  # an orderly end: a loss that is not finite, a full quota
            self._close_records()
            raise
        return outcome

    def _until_rollback(self) -> Outcome | None:
        """Take steps until the life of the run is over, or None where it goes on from an earlier step."""
        run, config = self.run, self.run.config
        learns = config.balance.fit
        with Loader(
            run.collection, self.plan, cursor_of(run), config.steps, division_of(run), cost_of(run), waits=learns
        ) as loader:
            works = iter(loader)
            while True:
                # First what the steps so far call for: a life that was stopped leaves it to the next one.
                if self._evaluation_is_due() and not self._evaluate():
                    return self._stop()
                if run.state.step and run.state.step % config.checkpoint.every_steps == 0:
                    self._save()
                if run.state.step == config.steps:
                    if len(run.final) and not self._evaluate_final():
                        return self._stop()
                    return self._finish()
                stop = self._step(works)
                if stop is None:
                    return None
                if learns and run.state.step_in_epoch == 0:
                    self.cost.decide()
                    loader.begin_epoch(cost_of(run))
                if stop:
                    return self._stop()

    def _stop(self) -> Outcome:
        """End this life with a checkpoint; `STOPPED` says why when all else is on disk."""
        self._save_last()
        stopped = self.run.folder.stopped
        on_first(self.run.comm, lambda: write_atomic(stopped, f"{self.stops.use_up()}\n".encode()))
        return Outcome(self.run.state.step, complete=False, reason=self.stops.reason or ELSEWHERE)

    def _finish(self) -> Outcome:
        """End the run: `DONE` is written when all else is on disk."""
        run = self.run
        self._save_last()
        found = {key: value for key, value in (self._final or {}).items() if key != "confusion"}  # long, and on record
        content = f"{json.dumps({'step': run.state.step} | found, indent=1)}\n".encode()
        on_first(run.comm, lambda: complete_run(run.folder, content))
        return Outcome(run.state.step, complete=True)

    def _step(self, works: Any) -> bool | None:
        """One optimiser step; whether any rank was asked to stop, or None if the run went back because of it."""
        run = self.run
        activity = run.comm.activity
        self.clock.start()
        activity.at("data", run.state.step + 1)
        work: StepWork = next(works)
        self.clock.lap("data")
        self.records.note_samples(work)
        found, stops = self.stepper.take(work)
        self.clock.stop(work)
        if self.stepper.goes_back is not None:
            event = roll_back(run, work, self.writer, self.stepper.goes_back)
            if event is not None:
                self.stepper.dynamics.note_rollback(event)
                self.records.note_rollback()
                self.clock.reset()
                return None
            self.stepper.leave_out(work, found)
        state = run.state
        state.step, state.epoch, state.step_in_epoch = work.after.step, work.after.epoch, work.after.within
        state.samples_seen += work.graphs
        state.time_s = time.monotonic() - self._start_s
        if state.step % run.config.log_every == 0 or state.step == run.config.steps or stops:
            self.records.log_step(work, found, self.clock)
            self.clock.reset()
        return stops

    def _evaluation_is_due(self) -> bool:
        state, config = self.run.state, self.run.config
        if not len(self.run.held_out):
            return False
        if state.step == config.steps:
            return self._final is None or state.evaluated_step != state.step  # DONE holds the result
        return state.step > state.evaluated_step and state.step % config.evaluate.every_steps == 0

    def _evaluate(self) -> bool:
        """Held-out metrics at this step, recorded; a checkpoint if they are the best so far. False if asked to stop."""
        run, state = self.run, self.run.state
        run.comm.activity.at("evaluation", state.step)
        stop_requested = self.stops.requested
        with run.average.in_place() if run.average is not None else nullcontext():
            result = evaluate(
                run.model, run.tasks, run.collection, run.held_out, run.comm, run.precision, stop_requested
            )
        if result is None:
            return False
        if run.average is not None:
            result["weights"] = "average"
        self._final = result
        state.evaluated_step = state.step
        state.time_s = time.monotonic() - self._start_s
        # A loss that is no number is never the best: nothing would compare as better than it.
        improved = math.isfinite(result["loss"]) and (state.best_loss is None or result["loss"] < state.best_loss)
        if improved:
            state.best_loss, state.best_step = result["loss"], state.step
        self._note_plateau(improved=improved)
        self.records.log_evaluation(result)
        if improved:
            self._save()
        return True

    def _evaluate_final(self) -> bool:
        """Metrics of the split that is kept for the end, recorded. False if asked to stop."""
        run = self.run
        # The best parameters are read from their checkpoint, which may just be being written.
        on_first(run.comm, lambda: self.writer.finish(run.state.step, self._snapshot))
        run.comm.activity.at("evaluation", run.state.step)
        result = evaluate_final(run, self.stops.requested)
        if result is None:
            return False
        run.state.time_s = time.monotonic() - self._start_s
        self.records.log_evaluation(result, run.config.evaluate.final_split)
        return True

    def _note_plateau(self, *, improved: bool) -> None:
        """Lower the learning rate if held-out losses have stopped falling, by the schedule `plateau`."""
        state, schedule = self.run.state, self.run.config.schedule
        state.evaluations_since_best = 0 if improved else state.evaluations_since_best + 1
        if schedule.decay == "plateau" and state.evaluations_since_best >= schedule.plateau_evaluations:
            state.plateaus += 1
            state.evaluations_since_best = 0

    def _save(self) -> None:
        """Checkpoint this step, once; training goes on while rank 0 writes it."""
        if self.run.comm.rank == 0 and self.writer.asked_step != self.run.state.step:
            self.run.comm.activity.at("checkpoint", self.run.state.step)
            self.writer.start(self._snapshot())

    def _save_last(self) -> None:
        """See to it that this step and all records are on disk, before anybody says so; collective."""
        step = self.run.state.step
        self.run.comm.activity.at("checkpoint", step)
        on_first(self.run.comm, lambda: self.writer.finish(step, self._snapshot))
        self._close_records()

    def _close_records(self) -> None:
        self.records.close()
        self.stepper.dynamics.close()

    def _snapshot(self) -> Snapshot:
        run = self.run
        run.state.time_s = time.monotonic() - self._start_s
        seed, ranks = run.config.seed, run.comm.size
        return take_snapshot(
            run.model,
            run.optimizer,
            run.state,
            run.config_text,
            seed=seed,
            ranks=ranks,
            course=run.course.tensors(),
            average=run.average.means if run.average is not None else None,
            learned_from=learned_here(run.collection, run.tasks, run.earlier_elements).model_dump(mode="json"),
        )

    def _step_on_disk(self) -> int:
        """Newest step that a checkpoint holds, as rank 0 knows, which is the one that says it."""
        self.writer.wait()
        return self.writer.written_step
