"""Yes or no."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from matsci_hpc.confusion import Confusion
from matsci_hpc.training.measures.auroc import auroc
from matsci_hpc.training.measures.base import Compared, Metrics, f1_score, vector


@dataclass(frozen=True, slots=True)
class Binary:
    """A logit per structure, which means yes above 0.

    Attributes:
        commonest: whether more training samples are yes than no; None where that is not known.
        length: samples right with yes, named yes, truly yes.
        scored: for AUROC.
    """

    commonest: bool | None = None
    length: int = 3
    scored: bool = True

    def losses(self, compared: Compared) -> Tensor:
        """Binary cross-entropy of every graph that carries the target: [graphs present]."""
        return functional.binary_cross_entropy_with_logits(*compared.known, reduction="none")

    def sums(self, compared: Compared) -> Tensor:
        """Samples that are yes and were named yes, that were named, and that are."""
        output, values = compared.known
        named, true = output > 0, values > 0.5
        return vector((named & true).sum(), named.sum(), true.sum())

    def scores(self, compared: Compared) -> Tensor:
        """Logit, and 1 or 0 for what is true: float64 [graphs present, 2]."""
        return torch.stack([each.detach().double() for each in compared.known], dim=1)

    def metrics(self, sums: list[float], count: int, scores: Tensor | None) -> tuple[Metrics, dict[str, Metrics]]:
        """Accuracy, the mean of it over both classes, F1 of yes, AUROC."""
        hits, named, true = sums
        rejected = count - named - true + hits
        recalls = [right / total for right, total in ((hits, true), (rejected, count - true)) if total]
        area = None if scores is None else auroc(scores[:, 0].numpy(), scores[:, 1].numpy() > 0.5)
        commonest = true > count - true if self.commonest is None else self.commonest
        return {
            "accuracy": (hits + rejected) / count,
            "balanced_accuracy": sum(recalls) / len(recalls),
            "f1": f1_score(hits, named, true),
            "auroc": area,
            "chance": (true if commonest else count - true) / count,
            "classes": 2,
        }, {}

    def confusion(self, sums: list[float], count: int) -> Confusion:
        """Which of no and yes is taken for which.

        Args:
            sums: over all ranks.
            count: samples that they are over.
        """
        hits, named, true = map(int, sums)
        return Confusion(("no", "yes"), ((count - named - true + hits, named - hits), (true - hits, hits)))
