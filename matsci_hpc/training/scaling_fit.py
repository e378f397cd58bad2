"""Scalings that follow from compositions, fitted once when a run begins and kept in the buffers of its heads.

Rank 0 reads the whole training split and tells the others, so that the numbers are the same for any number of ranks.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from matsci_hpc.loading.compositions import Compositions, compositions
from matsci_hpc.parallel.together import on_first
from matsci_hpc.training.setup import Run
from matsci_hpc.training.tasks import Task

if TYPE_CHECKING:
    from matsci_hpc.training.least_squares import ReferenceFit


def fit_scalings(run: Run) -> None:
    """Fit the scaling of each target that needs it, and put it into its head; collective.

    A head that was taken from another run keeps the scaling that its outputs belong to; what knowing nothing would say
    is of this run's samples.

    Raises:
        MachineError: a shard cannot be read.
    """
    for task in run.tasks:
        taken = task.name in run.taken_heads
        if task.extensive if taken else task.needs_fit:
            fit = _fit_of_mean if taken else _fit
            fitted = on_first(run.comm, lambda: fit(run, task))  # noqa: B023 - called at once
            head = run.model.head(task.name)
            with torch.no_grad():
                for name, values in fitted.items():
                    getattr(head, name).copy_(torch.tensor(values))  # in float32, whatever the precision of the run


def _fit(run: Run, task: Task) -> dict[str, Any]:
    """Buffers of a head by their names, as lists and numbers."""
    from matsci_hpc.training.least_squares import fit_references  # scipy takes a while, and most runs need no fit

    samples = run.collection.in_split(run.config.data.split)
    fit = fit_references(lambda: _blocks(run, task, samples), extensive=task.extensive, references=task.references)
    if task.references:
        _tell(task, fit, _unseen(run, task, fit))
    mean, std = (fit.mean, fit.std) if task.standardised else (0.0, 1.0)
    buffers: dict[str, Any] = {"mean": mean, "std": std if std > 0 else 1.0}
    if task.references:
        buffers["references"] = fit.references.tolist()
    if task.extensive:
        buffers["mean_per_atom"] = fit.value_mean
    return buffers


def _fit_of_mean(run: Run, task: Task) -> dict[str, Any]:
    from matsci_hpc.training.least_squares import fit_references

    samples = run.collection.in_split(run.config.data.split)
    fit = fit_references(lambda: _blocks(run, task, samples), extensive=True, references=False)
    return {"mean_per_atom": fit.value_mean}


def _blocks(run: Run, task: Task, samples: NDArray[np.int64]) -> Iterator[Compositions]:
    for block in compositions(run.collection, task.column, samples):
        run.comm.activity.tick()
        yield block


def _unseen(run: Run, task: Task, fit: "ReferenceFit") -> NDArray[np.int64]:
    """Held-out samples of each element that no training sample has: int64 [119]."""
    found = np.zeros(len(fit.elements), dtype=np.int64)
    for block in _blocks(run, task, run.held_out):
        found += (block.counts > 0).sum(axis=0)
    return np.where(fit.elements, 0, found)


def _tell(task: Task, fit: "ReferenceFit", unseen: NDArray[np.int64]) -> None:
    per_atom = "/atom" if task.extensive else ""
    unit = f" {task.spec.unit}{per_atom}" if task.spec.unit else per_atom.replace("/", " per ")
    from matsci_hpc.training.least_squares import ENOUGH

    elements = int(fit.elements.sum())
    if fit.ridge is None:
        _warn(
            task,
            f"energies of {elements} elements, fitted to {fit.samples:,} samples, tell no more of others than the mean "
            "does; none are taken off",
        )
        return
    print(
        f"  {task.name}: energies of {elements} elements fitted to {fit.samples:,} samples leave a standard deviation "
        f"of {fit.std:.4g} of {fit.value_std:.4g}{unit}",
        flush=True,
    )
    if fit.samples < ENOUGH * elements:
        _warn(
            task,
            f"{fit.samples:,} samples are few for the energies of {elements} elements: with fewer than {ENOUGH} for "
            "each, the energies are drawn towards one another",
        )
    if unseen.any():
        from ase.data import chemical_symbols

        named = ", ".join(f"{chemical_symbols[z]} ({unseen[z]:,})" for z in np.flatnonzero(unseen))
        _warn(
            task,
            "held-out samples hold elements that no training sample with this target has, and count with the mean of "
            f"all: {named}",
        )


def _warn(task: Task, what: str) -> None:
    print(f"matsci-hpc: warning: targets.{task.name}.references: {what}", file=sys.stderr, flush=True)
