"""A trained model to call from Python: embeddings and predictions of structures."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.about import About
from matsci_hpc.inference.graphs import Graph, batch_of, cost_slices, graph_of
from matsci_hpc.inference.predictions import predictions_of
from matsci_hpc.inference.structures import as_structures
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.registry import Model
from matsci_hpc.training.precision import Precision


class TrainedModel:
    """A model and what it is.

    Args:
        module: in evaluation mode, on the device, in the number format of `precision`.
        about: of it.
        precision: in which it computes, and on which device.

    Attributes:
        module, about, precision: as given.
        cutoff: radius of its neighbour lists, angstrom.
        targets: kind, unit and classes of what it predicts; empty for an encoder without heads.
    """

    def __init__(self, module: Model, about: About, precision: Precision) -> None:
        self.module, self.about, self.precision = module, about, precision
        self.cutoff = about.learned.cutoff_angstrom
        self.targets = {name: spec for name, spec in about.specs.items() if name in module.targets}

    def embed(self, structures: Any) -> NDArray[np.floating[Any]]:
        """Embeddings [n, embedding_width].

        Args:
            structures: one or several `ase.Atoms`, structures of pymatgen, or `matsci_hpc.structure.Structure`s.

        Raises:
            UserInputError: one of them cannot be used.
        """
        made = [self.embed_batch(batch) for _, batch in self._batches(self._graphs(structures))]
        if not made:
            return np.empty((0, self.about.model.embedding_width), dtype=np.float32)
        return np.concatenate([each.cpu().numpy() for each in made])

    def predict(self, structures: Any) -> list[dict[str, Any]]:
        """A dict for each structure: its id, and every target in its unit, as `predictions_of` describes it.

        Args:
            structures: as in `embed`.

        Raises:
            UserInputError: one of them cannot be used, or the model has no heads.
        """
        return self.predict_graphs(self._graphs(structures))

    def predict_graphs(self, graphs: list[Graph]) -> list[dict[str, Any]]:
        """The same of structures whose edges are known."""
        if not self.targets:
            raise UserInputError("this model is an encoder alone, without heads to predict with; export it with heads")
        found: list[dict[str, Any]] = []
        for some, batch in self._batches(graphs):
            with torch.no_grad(), self.precision.autocast():
                outputs = self.module(batch)
            wide = {name: self.precision.widen(each) for name, each in outputs.items()}
            found += predictions_of(self.module, self.targets, wide, batch, [each.structure.id for each in some])
        return found

    def embed_batch(self, batch: Batch) -> torch.Tensor:
        """Embeddings [graphs, embedding_width] of a batch that is on the device already."""
        with torch.no_grad(), self.precision.autocast():
            return self.precision.widen(self.module.embed(batch))

    def unseen_elements(self, graphs: Iterable[Graph]) -> dict[int, int]:
        """How many structures hold an element that no training sample had, by atomic number."""
        if self.about.elements is None:
            return {}
        counts: dict[int, int] = {}
        for each in graphs:
            for number in sorted(set(each.structure.atomic_number.tolist()) - set(self.about.elements)):
                counts[number] = counts.get(number, 0) + 1
        return counts

    def _graphs(self, structures: Any) -> list[Graph]:
        return [graph_of(each, self.cutoff) for each in as_structures(structures)]

    def _batches(self, graphs: list[Graph]) -> Iterator[tuple[list[Graph], Batch]]:
        for part in cost_slices(graphs):
            yield graphs[part], self.precision.cast(batch_of(graphs[part]))
