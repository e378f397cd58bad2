"""What one rank does in a step but for the exchange with the others: for trials, which have no others."""

from collections.abc import Sequence

import torch

from matsci_hpc.loading.batch import Batch
from matsci_hpc.parallel.gradients import FlatGradients
from matsci_hpc.training.setup import Run
from matsci_hpc.training.tasks import local_losses, weighted_sum
from matsci_hpc.training.unit_clipping import UnitClip, last_layers


def accumulate_gradients(
    run: Run, gradients: FlatGradients, batches: Sequence[Batch], target_counts: dict[str, int]
) -> None:
    """Forward and backward passes of a rank's share.

    Args:
        run: of this process alone.
        gradients: of its model.
        batches: of the share; none where a rank has nothing to do.
        target_counts: samples of the step that have each target, or atoms where every atom has a value.
    """
    gradients.zero()
    for part in batches:
        losses = local_losses(run.tasks, run.model, run.precision.cast(part), target_counts, run.precision)
        total = weighted_sum(run.tasks, losses)
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
        for loss in losses.values():  # a step reads them, and waits for the device
            loss.item()


def update_parameters(run: Run, gradients: FlatGradients) -> None:
    """Norm, clipping and the optimiser; as in a run, gradients that are not finite move nothing."""
    norm = gradients.norm()
    if not bool(torch.isfinite(norm)):
        return
    config = run.config.optimizer
    if config.clip_ratio is not None:
        UnitClip(config.clip_ratio, run.model.named_parameters(), last_layers(run.model)).clip()
        norm = gradients.norm()
    if config.clip_norm is not None:
        gradients.clip(norm, config.clip_norm)
    run.optimizer.step()
