"""Vectors of every atom as the negative gradient of a predicted energy, as forces are.

    F_i = -dE / dx_i

E is the energy of the structure in its unit, x_i the position of atom i in angstrom. All images of an atom move with
it, and vectors along edges follow positions (`edge_vectors`), so this is the force on an atom of a periodic crystal,
too. Since E knows only differences of positions and no direction, forces sum to zero and turn with the structure.

A loss of forces has derivatives of derivatives. All operators of this package have them: each derivative is made of the
same operators again (`segment.py`, `linear.py`), so that no plain path is needed beside the quick one.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.activation import derived_twice
from matsci_hpc.models.atom_heads import AtomScaling
from matsci_hpc.models.linear import no_derivatives_of_parameters


class GradientScaling(AtomScaling):
    """In the place of a head: which energy a gradient is of, and what its numbers mean.

    Args:
        name: of the target.
        energy: name of the energy.
        scaling: 0 and the spread, in the unit of the gradient.
    """

    def __init__(self, name: str, energy: str, scaling: tuple[float, float]) -> None:
        super().__init__(name, scaling)
        self.energy = energy


def with_gradients(
    predict: Callable[[Batch], dict[str, Tensor]],
    energy_of: Callable[[str, Tensor, Batch], Tensor],
    heads: Mapping[str, GradientScaling],
    batch: Batch,
) -> dict[str, Tensor]:
    """The outputs of a model and the gradients among its targets.

    Under `torch.no_grad()`, as in an evaluation, gradients are there as well, but nothing can be derived from them.

    Args:
        predict: outputs of all targets that are no gradient, by name.
        energy_of: an energy in its unit, [G], from its name, its output and the batch.
        heads: of the targets that are gradients.
        batch: positions that require gradients already keep what they came from.

    Returns:
        Outputs of all targets; those of gradients [A, 3], in units of their spread.

    Raises:
        UserInputError: the energy of a module of the user's own does not follow positions.
    """
    learns = torch.is_grad_enabled()
    with torch.enable_grad():
        position = batch.position if batch.position.requires_grad else batch.position.detach().requires_grad_()
        batch = replace(batch, position=position)
        with derived_twice():
            outputs = predict(batch)
        forces = {
            energy: _force(energy, energy_of(energy, outputs[energy], batch), position, learns=learns)
            for energy in sorted({head.energy for head in heads.values()})
        }
        outputs |= {name: head.standardise(forces[head.energy]) for name, head in heads.items()}
    return outputs if learns else {name: output.detach() for name, output in outputs.items()}


def _force(name: str, energy: Tensor, position: Tensor, *, learns: bool) -> Tensor:
    # Graphs of a batch share no atom, so the gradient of the sum has the gradient of each. Derivatives are taken in the
    # types of what they are of: autocast would round those that it meets.
    with torch.autocast(position.device.type, enabled=False), no_derivatives_of_parameters():
        (slope,) = torch.autograd.grad(
            energy.sum(), position, create_graph=learns, retain_graph=True, allow_unused=True
        )
    if slope is None:
        raise UserInputError(
            f"targets: {name} does not depend on the positions of the atoms, so it has no gradient; model.target must "
            "compute distances from `position` of the batch it takes, or `pos`, and not detach them"
        )
    return -slope
