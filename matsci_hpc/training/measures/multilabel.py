"""Any number of labels of several."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from matsci_hpc.training.measures.base import Compared, Metrics, f1_score, vector


@dataclass(frozen=True, slots=True)
class MultiLabel:
    """A logit for each label, which means yes above 0.

    Attributes:
        names: of the labels.
        scored: never.
    """

    names: tuple[str, ...]
    scored: bool = False

    @property
    def length(self) -> int:
        """Samples right in all labels; by label those that are and were named, were named, are."""
        return 1 + 3 * len(self.names)

    def losses(self, compared: Compared) -> Tensor:
        """Binary cross-entropy, the mean over the labels, of every graph that carries the target: [graphs present]."""
        return functional.binary_cross_entropy_with_logits(*compared.known, reduction="none").mean(dim=1)

    def sums(self, compared: Compared) -> Tensor:
        """Samples right in all labels; by label those that are and were named, that were named, and that are."""
        output, values = compared.known
        named, true = output > 0, values > 0.5
        by_label = ((named & true).sum(dim=0), named.sum(dim=0), true.sum(dim=0))
        return vector((named == true).all(dim=1).sum(), *by_label)

    def metrics(self, sums: list[float], count: int, scores: Tensor | None) -> tuple[Metrics, dict[str, Metrics]]:
        """Samples right in all labels; F1 over all labels together (micro), and its mean over the labels (macro)."""
        del scores
        exact, *rest = sums
        labels = len(self.names)
        hits, named, true = (rest[start : start + labels] for start in range(0, 3 * labels, labels))
        by_label = [f1_score(*each) for each in zip(hits, named, true, strict=True)]
        return {
            "exact": exact / count,
            "f1": f1_score(sum(hits), sum(named), sum(true)),
            "f1_macro": sum(by_label) / labels,
        }, {}
