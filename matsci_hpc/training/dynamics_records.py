"""What the optimiser does to the model, recorded: the lines of dynamics.jsonl. Rank 0 looks, as all have the same."""

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from matsci_hpc.loading.loader import StepWork
from matsci_hpc.parallel.gradients import FlatGradients
from matsci_hpc.telemetry.dynamics.adam_ratio import RatioShape, adam_ratios, ratio_shape, together
from matsci_hpc.telemetry.dynamics.autocorrelation import Autocorrelation
from matsci_hpc.telemetry.dynamics.groups import (
    effective_rates,
    group_name,
    group_norms,
    layer_groups,
    total_norm,
)
from matsci_hpc.telemetry.dynamics.noise_scale import NoiseEstimate, NoiseScale
from matsci_hpc.telemetry.dynamics.projection import DIMENSION, Projection, runs_of
from matsci_hpc.telemetry.recorder import JsonLines
from matsci_hpc.training.setup import Run
from matsci_hpc.training.spike_watch import SpikeWatch
from matsci_hpc.training.unit_clipping import ClippedUnits


class DynamicsRecords:
    """Looks at each step in short, and at some in full.

    In a step, `before_move` and `after_move` go around the optimiser's.

    Args:
        run: its model, optimiser, folder and memory.
        life: number of this life, from 0.
        gradients: of the model.
        watch: looks for spikes.
    """

    def __init__(self, run: Run, life: int, gradients: FlatGradients, watch: SpikeWatch) -> None:
        self._run, self._life, self._watch = run, life, watch
        self._gradients = gradients
        config = run.config.dynamics
        self._every = config.every_steps or run.config.log_every
        self._on = config.record
        self._full = False
        self._before: list[Tensor] = []
        self._lines: JsonLines | None = None
        self._share_beyond: float | None = None
        if not self._on or run.comm.rank != 0:
            return
        self._lines = JsonLines(run.folder.dynamics)
        self.follow(gradients)
        self._correlation = Autocorrelation(
            config.lags, DIMENSION, run.config.spikes.before + 1, gradients.buffer.device
        )
        self._noise = NoiseScale()
        run.course.attach("autocorrelation", self._correlation)
        run.course.attach("noise", self._noise)

    def follow(self, gradients: FlatGradients) -> None:
        """Look at the parameters that are trained from now on, whose gradients these are."""
        run = self._run
        self._gradients = gradients
        if self._lines is None:
            return
        self._groups = layer_groups(run.model.named_parameters())
        self._sizes = {name: sum(each.numel() for each in group) for name, group in self._groups.items()}
        self._parameters = [each for group in self._groups.values() for each in group]
        # Counted from the model's end, which for one rank is the order of the buffer itself; and over all that are
        # trained in some step, so that gradients before and after a part thaws are projected alike.
        order = list(run.freezing.named.values())[::-1]
        self._project = Projection(run.config.seed, runs_of(gradients.parameters, order), gradients.buffer.device)

    def measures(self, step: int) -> bool:
        """Whether all ranks measure a step, from 1, in full."""
        return self._on and (step % self._every == 0 or step == self._run.config.steps)

    @torch.no_grad()
    def before_move(self, work: StepWork, found: dict[str, Any]) -> None:
        """Look at the summed gradients, before they are clipped."""
        if self._lines is None:
            return
        step = work.cursor.step + 1
        self._share_beyond = None
        if math.isfinite(found["grad_norm"]):
            self._correlation.add(self._project(self._gradients.buffer), step)
        self._full = self.measures(step) or self._watch.spike is not None
        if self._full:
            self._gradient_norms = group_norms(
                {name: [each.grad for each in group if each.grad is not None] for name, group in self._groups.items()}
            )
            self._before = [each.detach().clone() for each in self._parameters]

    @torch.no_grad()
    def after_move(
        self,
        work: StepWork,
        found: dict[str, Any],
        noise: NoiseEstimate | None,
        clipped: ClippedUnits | None,
        *,
        moved: bool,
    ) -> None:
        """Look at what the step did, and write its line if it has one.

        Args:
            work: of the step.
            found: loss, losses, lr and grad_norm.
            noise: of the gradient, where it was measured.
            clipped: units of the step, where units are clipped.
            moved: whether the parameters were moved at all.
        """
        if self._lines is None:
            return
        if noise is not None and math.isfinite(noise.trace):
            self._noise.add(noise)
        if self._full:
            record = self._record(work, found, noise, moved=moved)
            if clipped is not None:
                record["clipped_units"] = clipped.share
                for name, share in clipped.by_group.items():
                    record["groups"][name]["clipped_units"] = share
            self._lines.append(record)
            self._before = []
        self._watch.last.add(
            step=work.cursor.step + 1,
            loss=found["loss"],
            lr=found["lr"],
            grad_norm=found["grad_norm"],
            share_beyond=self._share_beyond,
        )

    def note_rollback(self, event: dict[str, Any]) -> None:
        """A line about a rollback."""
        if self._lines is not None:
            self._lines.append({"step": self._run.state.step, "life": self._life, **event})

    def close(self) -> None:
        """See to it that everything is on disk; errors as of `JsonLines.close`."""
        if self._lines is not None:
            self._lines.close()

    def _record(
        self, work: StepWork, found: dict[str, Any], noise: NoiseEstimate | None, *, moved: bool
    ) -> dict[str, Any]:
        run, spike = self._run, self._watch.spike
        weights = group_norms(self._by_group(self._before))
        deltas = [now - then for now, then in zip(self._parameters, self._before, strict=True)] if moved else []
        updates = group_norms(self._by_group(deltas)) if moved else {}
        rates = effective_rates(updates, weights)
        shapes = self._shapes()
        self._share_beyond = together(shapes, self._sizes)
        groups = {
            name: {
                "parameters": self._sizes[name],
                "grad_norm": self._gradient_norms[name],
                "weight_norm": weights[name],
                "update_norm": updates.get(name),
                "effective_lr": rates.get(name),
                "ratio": asdict(shapes[name]) if name in shapes else None,
            }
            for name in self._groups
        }
        record = {
            "step": work.cursor.step + 1,
            "epoch": work.cursor.epoch,
            "life": self._life,
            "rollbacks": run.state.rollbacks,
            "loss": found["loss"],
            "lr": found["lr"],
            "grad_norm": found["grad_norm"],
            "weight_norm": total_norm(weights),
            "update_norm": total_norm(updates) if moved else None,
            "share_beyond": self._share_beyond,
            "autocorrelation": self._correlation.correlations(),
            "noise": {"scale": self._noise.value, **asdict(noise)} if noise is not None else None,
            "groups": groups,
        }
        if run.freezing.frozen:
            record["frozen"] = list(dict.fromkeys(group_name(name) for name in sorted(run.freezing.frozen)))
        if spike is not None:
            before = self._watch.last.records()
            likeness = self._correlation.neighbours(len(before) + 1)
            for each in before:
                each["autocorrelation"] = likeness.get(int(each["step"] or 0))
            record["spike"] = {**asdict(spike), "before": before}
        return record

    def _shapes(self) -> dict[str, RatioShape]:
        found = {}
        for name, group in self._groups.items():
            shape = ratio_shape(adam_ratios(group, self._run.optimizer))
            if shape is not None:
                found[name] = shape
        return found

    def _by_group(self, flat: list[Tensor]) -> dict[str, list[Tensor]]:
        rest = iter(flat)
        return {name: [next(rest) for _ in group] for name, group in self._groups.items()}
