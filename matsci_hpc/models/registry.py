"""Encoders by their section of the config, and what a run trains: one encoder and a head for each target."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from matsci_hpc.config import model as config
from matsci_hpc.config.base import Section
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.egnn import EGNN, Encoding
from matsci_hpc.models.heads import Head
from matsci_hpc.models.layout import require_backend
from matsci_hpc.models.megnet import MegNet
from matsci_hpc.models.own_module import OwnModule
from matsci_hpc.models.painn import PaiNN
from matsci_hpc.models.scaling import Scaling
from matsci_hpc.models.schnet import SchNet
from matsci_hpc.targets import TargetSpec

ENCODERS: dict[type[Section], Callable[[Any, float], nn.Module]] = {
    config.Egnn: EGNN,
    config.SchNet: SchNet,
    config.PaiNN: PaiNN,
    config.MegNet: MegNet,
    config.OwnModule: OwnModule,
}
"""By section: from (sizes and options, cutoff in angstrom) to a module that makes an `Encoding` of a `Batch`."""


class Model(nn.Module):
    """An encoder and a head for each target.

    `forward` gives what the loss compares with `standardise`d targets; `physical` turns it into units and
    probabilities.

    Args:
        encoder: makes an `Encoding` of a `Batch`.
        heads: by target name.
    """

    def __init__(self, encoder: nn.Module, heads: dict[str, Head]) -> None:
        super().__init__()
        self.encoder = encoder
        self.targets = tuple(heads)
        self.heads = nn.ModuleDict({_key(name): head for name, head in heads.items()})

    def head(self, target: str) -> Head:
        """The head of a target."""
        return cast("Head", self.heads[_key(target)])

    def encode(self, batch: Batch) -> Encoding:
        """Features and positions of the atoms, and embeddings of the graphs."""
        return cast("Encoding", self.encoder(batch))

    def embed(self, batch: Batch) -> Tensor:
        """Embeddings of the graphs, [G, embedding_width]."""
        return self.encode(batch).embedding

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs by target: [G] standardised value or logit, or [G, classes] logits.

        Heads work in the type of their parameters even under autocast: they are cheap, and bf16 would round every
        prediction to three digits.
        """
        embedding = self.embed(batch)
        with torch.autocast(embedding.device.type, enabled=False):
            embedding = embedding.to(next(self.heads.parameters()).dtype)
            return {name: self.head(name)(embedding) for name in self.targets}

    def standardise(self, target: str, values: Tensor, batch: Batch | None = None) -> Tensor:
        """Values of a target, in its unit, as the loss compares them with the output; `batch` as in `Head`."""
        return self.head(target).standardise(values, batch)

    def physical(self, outputs: dict[str, Tensor], batch: Batch | None = None) -> dict[str, Tensor]:
        """Outputs in the unit of their target (regression) or as probabilities (other kinds); `batch` as in `Head`."""
        return {name: self.head(name).physical(output, batch) for name, output in outputs.items()}


def _key(target: str) -> str:
    """A name that a ModuleDict takes: no dots, and nothing that is an attribute of it, such as `values`."""
    return "target:" + target.replace("%", "%25").replace(".", "%2E")


def build_model(
    config: config.Model,
    targets: dict[str, TargetSpec],
    cutoff: float,
    scaling: Mapping[str, Scaling | tuple[float, float]],
) -> Model:
    """A model with fresh parameters, which depend on torch's seed alone.

    Heads are made in the order of their names, so neither the order of `targets` nor, for the encoder, their
    number changes the parameters.

    Args:
        config: the encoder's name, sizes and options.
        targets: what to learn, by name.
        cutoff: radius of the neighbour list of the data, angstrom.
        scaling: of regression targets: mean and standard deviation in their units, and whether they are extensive and
            have references; absent means (0, 1).
    """
    require_backend(config.backend)
    encoder = ENCODERS[type(config)](config, cutoff)
    heads = {
        name: Head(name, spec, config.embedding_width, config.head_layers, *scaling.get(name, (0.0, 1.0)))
        for name, spec in sorted(targets.items())
    }
    return Model(encoder, heads)
