"""How the values of a regression target become what its head learns, and back.

    z = (y - sum_a r(Z_a) / N - mean) / std,    y = value / N if the target is extensive, else value

| symbol | here |
|---|---|
| N | atoms of the structure |
| Z_a | atomic number of atom a |
| r | `references` [119], energies of the elements, in the unit of y; zero without them |
| mean, std | of what the references leave of y over the training samples |
"""

from typing import NamedTuple

from torch import Tensor

from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.segment import segment_sum


class Scaling(NamedTuple):
    """The scaling of a target.

    Attributes:
        mean, std: in the unit of the target, of an extensive one per atom.
        extensive: whether the head predicts the value per atom.
        references: whether there are energies of the elements, to be filled in by a fit.
    """

    mean: float = 0.0
    std: float = 1.0
    extensive: bool = False
    references: bool = False


def atom_counts(batch: Batch, like: Tensor) -> Tensor:
    """Atoms of each graph, [G], in the type of `like`."""
    return batch.atom_pointer.diff().to(like.dtype)


def of_composition(references: Tensor, batch: Batch) -> Tensor:
    """Mean of the references over the atoms of each graph: from [119] to [G]."""
    per_atom = references.index_select(0, batch.atomic_number).unsqueeze(1)
    total = segment_sum(per_atom, batch.atom_graph, batch.atom_pointer).squeeze(1)
    return total / atom_counts(batch, total).clamp(min=1)
