"""One optimiser step on one rank: forward, backward, the exchange of gradients, and the move of the parameters."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from matsci_hpc.loading.batch import Batch
from matsci_hpc.loading.loader import StepWork
from matsci_hpc.parallel.device import finish_work, mark, seconds_between
from matsci_hpc.parallel.exchange import GradientExchange
from matsci_hpc.parallel.gradients import FlatGradients
from matsci_hpc.parallel.tree import TreeSum
from matsci_hpc.telemetry.clock import StepClock
from matsci_hpc.training.clipping import ClipBound
from matsci_hpc.training.dynamics_records import DynamicsRecords
from matsci_hpc.training.fitted_cost import FittedCost
from matsci_hpc.training.gradient_order import in_backward_order
from matsci_hpc.training.noise import NoiseMeter
from matsci_hpc.training.nonfinite import NonFiniteSteps, is_finite
from matsci_hpc.training.optimization import learning_rate, set_learning_rate
from matsci_hpc.training.rollback import Reason
from matsci_hpc.training.setup import Run
from matsci_hpc.training.spike_watch import SpikeWatch
from matsci_hpc.training.tasks import local_losses
from matsci_hpc.training.unit_clipping import ClippedUnits, UnitClip, last_layers
from matsci_hpc.training.weights.weighting import Weighting


class Stepper:
    """Takes optimiser steps.

    Args:
        run: whose parameters move.
        clock: that the parts of a step are timed with, except for the wait for data.
        cost: learns from the times.
        stop_requested: whether this rank was asked to stop.
        saved_step: step of the newest checkpoint on disk, as rank 0 knows.
        life: number of this life, from 0.

    Attributes:
        goes_back: why the run is to go back to a checkpoint because of the step, which has not moved the parameters
            then; None where it goes on.
        dynamics: the records of it.
    """

    def __init__(
        self,
        run: Run,
        clock: StepClock,
        cost: FittedCost,
        stop_requested: Callable[[], bool],
        saved_step: Callable[[], int],
        life: int,
    ) -> None:
        self.run = run
        self.clock = clock
        self.cost = cost
        run.freezing.begin(run.state.step)
        self.gradients, self.exchange = self._lay_out()
        self.nonfinite = NonFiniteSteps(run, saved_step)
        self.watch = SpikeWatch(run)
        self.goes_back: Reason | None = None
        self.dynamics = DynamicsRecords(run, life, self.gradients, self.watch)
        self._noise = NoiseMeter(run)
        self._weighting = Weighting(run)
        self._bound = ClipBound(run.config.optimizer)
        run.course.attach("clipping", self._bound)
        ratio = run.config.optimizer.clip_ratio
        self._units = None if ratio is None else UnitClip(ratio, run.model.named_parameters(), last_layers(run.model))
        self._clipped: ClippedUnits | None = None
        self._stop_requested = stop_requested
        self._forward: list[tuple[Any, Any]] = []  # begin and end of each forward pass of the step

    def take(self, work: StepWork) -> tuple[dict[str, Any], bool]:
        """Take a step; collective.

        Args:
            work: of the step.

        Returns:
            loss, losses by target and their weights, lr (that of the heads) and grad_norm of the global batch; and
            whether any rank was asked to stop.

        Raises:
            UserInputError: the loss or the gradient is not finite, and the config says to stop then.
            RankError: a rank is gone.
        """
        run, activity = self.run, self.run.comm.activity
        activity.at("compute")
        if run.freezing.begin(work.cursor.step):
            self.exchange.detach()
            self.gradients, self.exchange = self._lay_out()
            self.dynamics.follow(self.gradients)
        run.freezing.keep_still()
        rate = self._set_learning_rate(work.cursor.step)
        step = work.cursor.step + 1
        self._noise.begin(active=self.dynamics.measures(step))
        self._weighting.begin(step)
        self.exchange.measures = self._noise.active and len(work.share_parts) == 1
        sums = self._backward(work, sends=True)
        finish_work(run.precision.device)
        self.clock.lap_compute(sum(seconds_between(*each) for each in self._forward))
        activity.at("communication")
        self.exchange.finish(sums)
        self.clock.lap("comm")
        self.clock.in_flight_s += self.exchange.in_flight_s
        if self.exchange.measures and run.comm.size > 1:
            self._noise.add(self.exchange.own_square, len(work.samples), work)
        *losses, stops = sums.tolist()
        by_target = {task.name: loss for task, loss in zip(run.tasks, losses, strict=True)}
        loss, weights = self._weighting.finish(by_target, work)
        activity.at("optimizer")
        norm = self.gradients.norm()
        found: dict[str, Any] = {
            "loss": loss,
            "losses": by_target,
            "weights": weights,
            "lr": rate,
            "grad_norm": float(norm),
        }
        self.clock.lap("optimizer")
        noise = self._noise.finish(work, found["grad_norm"])
        self.watch.look(step, found["loss"])
        self.dynamics.before_move(work, found)
        self.clock.skip()
        self._clipped = None
        self.goes_back = self._why_back(found)
        moved = self.goes_back is None and self._update(work, found, norm)
        self.clock.lap("optimizer")
        self.dynamics.after_move(work, found, noise, self._clipped, moved=moved)
        return found, bool(stops > 0)

    def _why_back(self, found: dict[str, Any]) -> Reason | None:
        if self.watch.rolls_back:
            return "spike"
        return "nonfinite" if self.nonfinite.roll_back(found) else None

    def leave_out(self, work: StepWork, found: dict[str, Any]) -> None:
        """Count a step that the run cannot go back from, for want of a checkpoint, as skipped; collective.

        Raises:
            UserInputError: too many steps in a row were not finite.
        """
        if self.goes_back == "nonfinite":
            self.nonfinite.handle(work, found, lambda: self._backward(work), skips=True)
        else:
            self.run.state.skipped_steps += 1

    def _lay_out(self) -> tuple[FlatGradients, GradientExchange]:
        """Gradients of the parameters that are trained now, and their sum over the ranks; collective."""
        run, parallel = self.run, self.run.config.parallel
        gradients = FlatGradients(in_backward_order(run))
        exchange = GradientExchange(
            gradients,
            run.comm,
            1e6 * parallel.bucket_mb,
            overlap=parallel.overlap,
            compression=parallel.compression,
            ordered=parallel.reduction == "ordered",
        )
        return gradients, exchange

    def _update(self, work: StepWork, found: dict[str, Any], norm: torch.Tensor) -> bool:
        """Move the parameters by the summed gradients, unless these are of no use; whether they moved."""
        run = self.run
        if not is_finite(found):
            self.nonfinite.handle(work, found, lambda: self._backward(work))
            return False
        run.state.skipped_in_row = 0
        if self._units is not None:
            self._clipped = self._units.clip()
            found["clipped_units"] = self._clipped.share
            norm = self.gradients.norm()
        bound = self._bound.bound(float(norm))
        if bound is not None:
            self.gradients.clip(norm, bound)
        run.optimizer.step()
        self._weighting.learn()
        if run.average is not None:
            run.average.update(work.cursor.step + 1)
        return True

    def _backward(self, work: StepWork, *, sends: bool = False) -> torch.Tensor:
        """Accumulate this rank's gradients; give its part of each loss and its wish to stop, float64 [targets + 1].

        Args:
            work: of the step.
            sends: whether gradients set out to the other ranks as soon as they are whole.
        """
        self._forward.clear()
        start_s = time.perf_counter()
        if len(work.share_parts) == 1:
            values = self._share(work, work.batches, sends=sends)
        else:
            values = self._shares_in_turn(work)
        self.cost.add(work, time.perf_counter() - start_s)
        return torch.cat([values, torch.tensor([float(self._stop_requested())], dtype=torch.float64)])

    def _shares_in_turn(self, work: StepWork) -> torch.Tensor:
        """The shares of all ranks that this one stands for, added up as if by those; losses as of `_share`."""
        gradients, values = TreeSum(), TreeSum()
        for share in work.shares:
            values.add(self._share(work, share, sends=False))
            gradients.add(self.gradients.buffer.clone())
            if self._noise.active:
                self._noise.add(_square(self.gradients.buffer), sum(batch.graphs for batch in share), work)
        self.gradients.buffer.copy_(gradients.total())
        return values.total()

    def _share(self, work: StepWork, batches: list[Batch], *, sends: bool) -> torch.Tensor:
        """Accumulate the gradients of one rank's share; its part of each loss, float64 [targets]."""
        run = self.run
        kind = run.device.type
        self.gradients.zero()
        values = dict.fromkeys((task.name for task in run.tasks), 0.0)
        for number, part in enumerate(batches, 1):  # none where a rank has nothing to do in a small step
            begin = mark(kind)
            batch = run.precision.cast(part)
            before = self.gradients.buffer.clone() if self._noise.splits(work) else None
            losses = local_losses(run.tasks, run.model, batch, work.target_counts, run.precision)
            total = self._weighting.total(losses)
            self._forward.append((begin, mark(kind)))
            if total.requires_grad:
                whole = sends and number == len(batches)
                with self.exchange.sending() if whole else nullcontext():
                    total.backward()  # type: ignore[no-untyped-call]
            for name, loss in losses.items():
                values[name] += loss.item()
            if before is not None:
                self._noise.add(_square(self.gradients.buffer - before), batch.graphs, work)
            run.comm.activity.tick()
        self._weighting.end_share()
        return torch.tensor(list(values.values()), dtype=torch.float64)

    def _set_learning_rate(self, step: int) -> float:
        config = self.run.config
        graphs, state = config.batch.graphs or 1, self.run.state
        rate = learning_rate(step, config.steps, config.optimizer.lr, config.schedule, graphs, state.plateaus)
        if step < state.slow_until:
            rate *= config.spikes.rollback.lr_factor
        set_learning_rate(self.run.optimizer, rate)
        return rate


def _square(gradient: torch.Tensor) -> float:
    return float(gradient.double().square().sum())
