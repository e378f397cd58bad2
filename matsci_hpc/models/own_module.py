"""A module of the user's own as an encoder."""

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from matsci_hpc.config import model as config
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.convert import to_dgl, to_pyg
from matsci_hpc.models.egnn import Encoding
from matsci_hpc.models.encoder import per_graph

INPUTS: dict[str, Callable[[Batch], Any]] = {"batch": lambda batch: batch, "pyg": to_pyg, "dgl": to_dgl}


class OwnModule(nn.Module):
    """Calls the module with what it takes, and makes an `Encoding` of what it gives.

    Args:
        model: where it is, and what it takes and gives.
        cutoff: radius of the neighbour list, angstrom; the module gets it only as one of its own arguments.

    Raises:
        UserInputError: it cannot be imported or made.
    """

    def __init__(self, model: config.OwnModule, cutoff: float) -> None:
        super().__init__()
        del cutoff
        self.target, self.width, self.readout = model.target, model.embedding_width, model.readout
        self.takes, self.gives_atoms = model.takes, model.gives == "atoms"
        self.module = make(model.target, model.arguments)

    def forward(self, batch: Batch) -> Encoding:
        """Encode a batch.

        Raises:
            UserInputError: the module gives something else than it should.
        """
        made = self.module(INPUTS[self.takes](batch))
        rows, of = (batch.atoms, "atoms") if self.gives_atoms else (batch.graphs, "graphs")
        if not isinstance(made, Tensor) or made.shape != (rows, self.width):
            found = f"a tensor {list(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
            raise UserInputError(
                f"model.target: {self.target} gave {found} for {batch.graphs} graphs of {batch.atoms} atoms; expected "
                f"[{of}, embedding_width] = [{rows}, {self.width}]: see model.gives and model.embedding_width"
            )
        if not self.gives_atoms:
            return Encoding(made, batch.position, made)
        per_atom = made.to(batch.position.dtype)
        return Encoding(made, batch.position, per_graph(per_atom, batch, mean=self.readout == "mean"))


def make(target: str, arguments: dict[str, Any]) -> nn.Module:
    """Import a class and call it with arguments.

    Raises:
        UserInputError: there is no such class, it refuses the arguments, or what it makes is no module.
    """
    place, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(place), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # something that the user's module imports in turn
        raise UserInputError(
            f"model.target: there is no module {error.name!r}; install its package, or put its folder on PYTHONPATH"
        ) from None
    except AttributeError:
        raise UserInputError(f"model.target: module {place} has no {name!r}") from None
    try:
        made = found(**arguments)
    except TypeError as error:
        raise UserInputError(f"model.arguments: {target} does not take them: {error}") from error
    if not isinstance(made, nn.Module):
        raise UserInputError(f"model.target: {target} makes a {type(made).__name__}, not a torch.nn.Module")
    return made
