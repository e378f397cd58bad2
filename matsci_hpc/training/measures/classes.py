"""One class of several."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from matsci_hpc.confusion import MOST_COUNTED, Confusion
from matsci_hpc.training.measures.base import Compared, Metrics, f1_score, vector


@dataclass(frozen=True, slots=True)
class Classes:
    """A logit for each class; the largest names it.

    Attributes:
        names: of the classes.
        commonest: number of the class that most training samples are of; None where that is not known.
        scored: never.
    """

    names: tuple[str, ...]
    commonest: int | None = None
    scored: bool = False

    @property
    def counts_pairs(self) -> bool:
        """Whether there are few enough classes for counts of each pair of them."""
        return len(self.names) <= MOST_COUNTED

    @property
    def length(self) -> int:
        """Samples of each pair of a true and a named class; of too many classes, as `sums` says."""
        return len(self.names) ** 2 if self.counts_pairs else 3 * len(self.names)

    def losses(self, compared: Compared) -> Tensor:
        """Cross-entropy of every graph that carries the target: [graphs present]."""
        return functional.cross_entropy(*compared.known, reduction="none")

    def sums(self, compared: Compared) -> Tensor:
        """Samples of each true class by the class that they were named: float64 [classes * classes].

        Of more than MOST_COUNTED classes, samples of each class that were named right, that were named so, and that
        are: float64 [3 classes].
        """
        output, values = compared.known
        named = output.argmax(dim=1)
        if self.counts_pairs:
            return vector(torch.bincount(values * len(self.names) + named, minlength=self.length))
        kinds = (values[named == values], named, values)
        return vector(*(torch.bincount(each, minlength=len(self.names)) for each in kinds))

    def metrics(self, sums: list[float], count: int, scores: Tensor | None) -> tuple[Metrics, dict[str, Metrics]]:
        """Accuracy, the mean of it over the classes that are there, F1 as the mean over those and the named ones."""
        del scores
        classes = len(self.names)
        hits, named, true = self._by_class(sums)
        recalls = [right / total for right, total in zip(hits, true, strict=True) if total]
        scored = [f1_score(*each) for each in zip(hits, named, true, strict=True) if each[1] or each[2]]
        by_class: dict[str, Metrics] = {
            name: {"accuracy": right / total if total else None, "count": int(total)}
            for name, right, total in zip(self.names, hits, true, strict=True)
        }
        return {
            "accuracy": sum(hits) / count,
            "balanced_accuracy": sum(recalls) / len(recalls),
            "f1_macro": sum(scored) / len(scored),
            "chance": (max(true) if self.commonest is None else true[self.commonest]) / count,
            "classes": classes,
        }, by_class

    def confusion(self, sums: list[float]) -> Confusion | None:
        """Which class is taken for which; None where there are too many of them to count that.

        Args:
            sums: over all ranks.
        """
        if not self.counts_pairs:
            return None
        return Confusion(self.names, tuple(tuple(map(int, row)) for row in self._pairs(sums).tolist()))

    def _by_class(self, sums: list[float]) -> tuple[list[float], list[float], list[float]]:
        """Samples of each class that were named right, that were named so, and that are."""
        classes = len(self.names)
        if self.counts_pairs:
            pairs = self._pairs(sums)
            return pairs.diagonal().tolist(), pairs.sum(axis=0).tolist(), pairs.sum(axis=1).tolist()
        return sums[:classes], sums[classes : 2 * classes], sums[2 * classes :]

    def _pairs(self, sums: list[float]) -> NDArray[np.float64]:
        return np.array(sums).reshape(len(self.names), len(self.names))
