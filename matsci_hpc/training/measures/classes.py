"""One class of several."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

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
    def length(self) -> int:
        """Samples of each class that were named right, that were named so, and that are."""
        return 3 * len(self.names)

    def losses(self, compared: Compared) -> Tensor:
        """Cross-entropy of every graph that carries the target: [graphs present]."""
        return functional.cross_entropy(*compared.known, reduction="none")

    def sums(self, compared: Compared) -> Tensor:
        """Samples of each class that were named right, that were named so, and that are: float64 [3 classes]."""
        output, values = compared.known
        named = output.argmax(dim=1)
        kinds = (values[named == values], named, values)
        return vector(*(torch.bincount(each, minlength=len(self.names)) for each in kinds))

    def metrics(self, sums: list[float], count: int, scores: Tensor | None) -> tuple[Metrics, dict[str, Metrics]]:
        """Accuracy, the mean of it over the classes that are there, F1 as the mean over those and the named ones."""
        del scores
        classes = len(self.names)
        hits, named, true = (sums[start : start + classes] for start in range(0, 3 * classes, classes))
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
