"""The config section `model`: which encoder, its sizes and options. A section of its own for each, told by `name`."""

from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag, model_validator

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


class OwnModule(Encoder):
    """A `torch.nn.Module` of your own, trained as it is (docs/models.md). Importing it runs its code."""

    name: Literal["module"] = "module"
    target: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    """Where it is: `package.module.Class`, installed or on PYTHONPATH."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments that the class is called with."""
    takes: Literal["batch", "pyg", "dgl"] = "batch"
    """What it is called with: a `Batch` of this package, a batch of PyTorch Geometric, or a graph of DGL."""
    gives: Literal["graphs", "atoms"] = "graphs"
    """What it returns: embeddings of the graphs, [graphs, embedding_width], or features of the atoms, [atoms,
    embedding_width], from which `readout` makes those."""
    backend: Literal["own"] = "own"
    """A module of your own passes its messages itself."""

    @model_validator(mode="before")
    @classmethod
    def _registered_name(cls, section: Any) -> Any:
        if isinstance(section, dict) and "target" not in section:
            target = registered_encoders().get(section.get("name", ""))
            if target is not None:
                return section | {"name": "module", "target": target}
        return section


@cache
def registered_encoders() -> dict[str, str]:
    """Where the encoders of installed packages are, by name: entry points of the group `matsci_hpc.encoders`."""
    return {each.name: each.value.replace(":", ".") for each in entry_points(group="matsci_hpc.encoders")}


def name(section: Any) -> Any:
    """The encoder that a section of the config is about."""
    if not isinstance(section, dict):
        return getattr(section, "name", "egnn")
    if "target" in section:
        return section.get("name", "module")
    named = section.get("name", "egnn")
    return "module" if named in registered_encoders() else named


Model = Annotated[
    Annotated[Egnn, Tag("egnn")]
    | Annotated[SchNet, Tag("schnet")]
    | Annotated[PaiNN, Tag("painn")]
    | Annotated[MegNet, Tag("megnet")]
    | Annotated[OwnModule, Tag("module")],
    Discriminator(name),
]
"""Of the function `name`, pydantic says its name where none of these fits."""
