"""The config section `model`: which encoder, its sizes and options. A section of its own for each, told by `name`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, NonNegativeInt, PositiveInt, Tag

from matsci_hpc.config.base import Section


class RadialBasis(Section):
    """Gaussian expansion of the distance, as extra input of the edge network."""

    count: NonNegativeInt = 0
    """Gaussians up to the cutoff; 0 uses the squared distance alone, as in the original E(n)-GNN."""


class Encoder(Section):
    """What every encoder has."""

    readout: Literal["sum", "mean"] = "sum"
    """How atoms make a graph: sum for extensive and counting tasks, mean for intensive properties."""
    embedding_width: PositiveInt = 128
    """Features of a graph, the input of every head."""
    head_layers: PositiveInt = 2
    backend: Literal["own", "dgl"] = "own"
    """Who gathers and sums along edges: `own` operators, or those of DGL (extra `dgl`), with the same numbers."""


class Egnn(Encoder):
    """The E(n)-equivariant graph network. Defaults are the published pretraining settings."""

    name: Literal["egnn"] = "egnn"
    layers: PositiveInt = 5
    width: PositiveInt = 32
    """Features of an atom."""
    message_width: PositiveInt = 128
    """Features of a message along an edge."""
    position_width: PositiveInt = 64
    """Hidden width of the network that moves atoms."""
    update_positions: bool = True
    """Let each layer move the atoms (the equivariant part); off is faster and still invariant."""
    envelope: bool = False
    """Fade messages to zero at the cutoff, so that outputs change smoothly as atoms cross it."""
    radial_basis: RadialBasis = RadialBasis()


class SchNet(Encoder):
    """Continuous-filter convolutions. Filters of 50 Gaussians and the other sizes are those of its common use."""

    name: Literal["schnet"]
    layers: PositiveInt = 6
    """Interaction blocks."""
    width: PositiveInt = 128
    """Features of an atom."""
    filter_width: PositiveInt = 128
    """Features that a filter acts on."""
    gaussians: PositiveInt = 50
    """Gaussians in which a distance is expanded, from 0 to the cutoff."""
    envelope: bool = True
    """Fade filters to zero at the cutoff, so that outputs change smoothly as atoms cross it."""


class PaiNN(Encoder):
    """Polarizable atom interaction: features with a direction beside invariant ones. Sizes as published."""

    name: Literal["painn"]
    layers: PositiveInt = 3
    """Pairs of a message and an update block."""
    width: PositiveInt = 128
    """Invariant features of an atom, and as many vectors."""
    radial: PositiveInt = 20
    """Sine waves in which a distance is expanded."""
    envelope: bool = True
    """Fade filters to zero at the cutoff, so that outputs change smoothly as atoms cross it."""


class MegNet(Encoder):
    """Edges, atoms and the whole graph update each other, as in MEGNet. Sizes as published."""

    name: Literal["megnet"]
    layers: PositiveInt = 3
    """Blocks."""
    width: PositiveInt = 32
    """Features of an edge, of an atom and of the state of a graph."""
    hidden_width: PositiveInt = 64
    """Hidden width of the networks that update them."""
    gaussians: PositiveInt = 100
    """Gaussians in which a distance is expanded, from 0 to the cutoff."""
    envelope: bool = False
    """Fade what an edge gives to zero at the cutoff, so that outputs change smoothly as atoms cross it."""


def name(section: Any) -> Any:
    """The encoder that a section of the config is about."""
    if isinstance(section, dict):
        return section.get("name", "egnn")
    return getattr(section, "name", "egnn")


Model = Annotated[
    Annotated[Egnn, Tag("egnn")]
    | Annotated[SchNet, Tag("schnet")]
    | Annotated[PaiNN, Tag("painn")]
    | Annotated[MegNet, Tag("megnet")],
    Discriminator(name),
]
"""Of the function `name`, pydantic says its name where none of these fits."""
