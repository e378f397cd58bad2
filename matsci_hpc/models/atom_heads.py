"""From the features of atoms to numbers and vectors of every atom, such as charges and forces.

| head | of atom i | turns with the structure, because |
|---|---|---|
| `NumberHead` | mlp(h_i) | h_i is invariant |
| `EdgeVectorHead` | sum_j w_ij phi(h_i, h_j, e(d_ij)) r_ij / d_ij | vectors of the structure get invariant weights |
| `NodeVectorHead` | sum_f mlp(h_i)_f v_if | the same with the vectors v_i that PaiNN has learned |

| symbol | here |
|---|---|
| i, j | receiver, sender |
| h_i | features of the encoder [A, width] |
| r_ij, d_ij | vector from i to the image of j, and its length, angstrom |
| e | Gaussians of the distance |
| w_ij | the cosine envelope, which fades out at the cutoff |

`EdgeVectorHead` is eq. 4 of arXiv:2102.09844 without the move, and suits any encoder. phi need not be the same for ij
and ji, so nothing makes the vectors of a structure sum to zero.
"""

import math

import torch
from torch import Tensor, nn

from matsci_hpc.config import model as config
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.activation import silu
from matsci_hpc.models.egnn import Encoding
from matsci_hpc.models.encoder import Gaussians, Graph
from matsci_hpc.models.linear import Linear, linear, mlp
from matsci_hpc.targets import TargetSpec

GAUSSIANS = 16
"""In which `EdgeVectorHead` expands a distance."""


class AtomScaling(nn.Module):
    """What the outputs for a target of every atom mean: values in units of their spread, as the loss compares them.

    The scaling is kept in buffers, so a checkpoint says what its numbers mean.

    Args:
        name: of the target, for messages.
        scaling: mean and spread in the target's unit. The mean of vectors is 0, since another one would give space a
            direction. A spread of 0 counts as 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, scaling: tuple[float, float]) -> None:
        super().__init__()
        mean, std = scaling
        if not (math.isfinite(mean) and math.isfinite(std) and std >= 0.0):
            raise UserInputError(f"target {name!r} cannot be scaled by mean {mean} and deviation {std}")
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std if std > 0.0 else 1.0))

    def standardise(self, values: Tensor, batch: Batch | None = None) -> Tensor:
        """Values of any atoms, in the target's unit, as the loss compares them with the output; `batch` is not read."""
        del batch
        return (values - self.mean) / self.std

    def physical(self, output: Tensor, batch: Batch | None = None) -> Tensor:
        """The output in the target's unit; `batch` is not read."""
        del batch
        return output * self.std + self.mean


class AtomHead(AtomScaling):
    """A network for one target of every atom."""

    def of_atoms(self, encoding: Encoding, batch: Batch) -> Tensor:
        """The output, [A] or [A, 3], from what the encoder made of a batch."""
        raise NotImplementedError


class NumberHead(AtomHead):
    """A multilayer perceptron on the features of an atom.

    Args:
        name: of the target.
        width: features of an atom.
        layers: linear layers, at least 1.
        scaling: as in `AtomScaling`.
    """

    def __init__(self, name: str, width: int, layers: int, scaling: tuple[float, float]) -> None:
        super().__init__(name, scaling)
        self.net = mlp(width, width, 1, layers)

    def of_atoms(self, encoding: Encoding, batch: Batch) -> Tensor:
        """[A]."""
        del batch
        output: Tensor = self.net(encoding.features.to(self.std.dtype))
        return output.squeeze(1)


class EdgeVectorHead(AtomHead):
    """Vectors along the edges that an atom receives, added up with weights that a perceptron gives them.

    The first layer of phi acts on (h_i, h_j, e) as `(h W_i)[i] + (h W_j)[j] + e W_e + b`, as in the E(n)-GNN: its large
    products are over atoms.

    Args:
        name: of the target.
        width: features of an atom.
        layers: linear layers of phi, at least 2.
        cutoff: radius of the neighbour list, angstrom.
        backend: who gathers and sums, `own` or `dgl`.
        scaling: as in `AtomScaling`.
    """

    def __init__(
        self, name: str, width: int, layers: int, cutoff: float, backend: str, scaling: tuple[float, float]
    ) -> None:
        super().__init__(name, scaling)
        self.width, self.cutoff, self.backend = width, cutoff, backend
        self.gaussians = Gaussians(GAUSSIANS, cutoff)
        self.first = Linear(2 * width + GAUSSIANS, width)
        self.rest = mlp(width, width, 1, max(layers, 2) - 1)

    def of_atoms(self, encoding: Encoding, batch: Batch) -> Tensor:
        """[A, 3]."""
        graph = Graph.of(batch, self.cutoff, envelope=True, backend=self.backend)
        features = encoding.features.to(self.std.dtype)
        weight, n = self.first.weight, self.width
        first = graph.layout.to_edges(
            linear(features, weight[:, :n], self.first.bias), linear(features, weight[:, n : 2 * n])
        )
        first = first + linear(self.gaussians(graph.distance), weight[:, 2 * n :])
        size = graph.weighted(self.rest(silu(first)))
        return graph.layout.to_atoms(graph.vector * (size / graph.distance))


class NodeVectorHead(AtomHead):
    """The vectors of an atom added up with weights from its features.

    Args:
        name: of the target.
        width: features of an atom, and as many vectors.
        layers: linear layers, at least 1.
        scaling: as in `AtomScaling`.
    """

    def __init__(self, name: str, width: int, layers: int, scaling: tuple[float, float]) -> None:
        super().__init__(name, scaling)
        self.net = mlp(width, width, width, layers)

    def of_atoms(self, encoding: Encoding, batch: Batch) -> Tensor:
        """[A, 3]."""
        del batch
        if encoding.vectors is None:  # the factory gives this head to encoders that have them
            raise AssertionError("this encoder gives no vectors")
        weights: Tensor = self.net(encoding.features.to(self.std.dtype))
        return (encoding.vectors.to(weights.dtype) * weights.unsqueeze(1)).sum(dim=2)


def atom_head(
    name: str, spec: TargetSpec, model: config.Model, cutoff: float, scaling: tuple[float, float]
) -> AtomHead:
    """The head that suits a target of every atom and an encoder.

    Args:
        name: of the target.
        spec: its shape.
        model: section of the encoder.
        cutoff: radius of the neighbour list, angstrom.
        scaling: as in `AtomScaling`.

    Raises:
        UserInputError: the encoder tells nothing of single atoms.
    """
    if isinstance(model, config.OwnModule) and model.gives != "atoms":
        raise UserInputError(
            f"targets.{name}: every atom has a value, and model.target gives embeddings of graphs; let it give "
            "features of the atoms (model.gives: atoms), or leave the target out"
        )
    width = model.embedding_width if isinstance(model, config.OwnModule) else model.width
    if not spec.shape:
        return NumberHead(name, width, model.head_layers, scaling)
    if isinstance(model, config.PaiNN):
        return NodeVectorHead(name, width, model.head_layers, scaling)
    return EdgeVectorHead(name, width, model.head_layers, cutoff, model.backend, scaling)
