"""How far classes lie apart among embeddings, and how much of a target a linear model reads off them.

All of it is computed on the standardised embeddings, never on a picture of them, and needs scikit-learn.

| measure | is | of no structure |
|---|---|---|
| k-NN purity | mean share of the k nearest neighbours of a sample (Euclidean) that are of its own class | `sum_c n_c (n_c - 1) / (n (n - 1))` |
| silhouette | mean of `(b - a) / max(a, b)`; a, b are the mean distances to the own and to the nearest other class (Rousseeuw 1987, doi 10.1016/0377-0427(87)90125-7) | about 0, or below |
| linear probe of classes | accuracy of a logistic regression on samples that it was not fitted to | share of the commonest class |
| linear probe of numbers | R2 and mean absolute error of a ridge regression on such samples | R2 of 0, and the error of the mean of the fitted ones |

Probes are cross-validated. Samples of one reduced formula stay in one fold, for they are often near copies of each
other, wherever there are formulas enough for that.
"""  # noqa: E501 - rows of a table

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.analysis.map_data import Points, Target
from matsci_hpc.analysis.projection import EXTRA, Floats, standardised
from matsci_hpc.errors import MachineError
from matsci_hpc.loading.permutation import Permutation
from matsci_hpc.versions import installed

Labels = NDArray[np.int64]
DATA_SET = "data set"
MOST_SAMPLES = 20_000
"""More than these are drawn from, for silhouettes take a time that grows with the square of their number."""


@dataclass(frozen=True, slots=True)
class ClassSeparation:
    """How far the classes of one label lie apart.

    Attributes:
        label: `data set`, or a target.
        samples: that carry it.
        classes: that occur.
        purity, purity_by_chance: see the module.
        purity_by_class: of the samples of each class.
        silhouette: see the module; None for a single class.
        probe: of the label; None where there is not enough to fit one.
    """

    label: str
    samples: int
    classes: int
    purity: float
    purity_by_chance: float
    purity_by_class: dict[str, float]
    silhouette: float | None
    probe: "ClassProbe | None"


@dataclass(frozen=True, slots=True)
class ClassProbe:
    """A logistic regression of a label.

    Attributes:
        accuracy: mean of the folds.
        spread: standard deviation of the folds.
        balanced_accuracy: mean over classes of the share that is recognised, mean of the folds.
        by_chance: accuracy of naming the commonest class.
        samples: that took part: classes with fewer samples than folds do not.
        classes: that took part.
        formulas_apart: whether no formula stood in two folds.
    """

    accuracy: float
    spread: float
    balanced_accuracy: float
    by_chance: float
    samples: int
    classes: int
    formulas_apart: bool


@dataclass(frozen=True, slots=True)
class NumberProbe:
    """A ridge regression of a numeric target.

    Attributes:
        label: the target.
        unit: of it.
        samples: that carry it.
        r2: of all samples, each predicted by the fold that it was left out of.
        mae: mean absolute error of the same.
        spread: standard deviation of the mean absolute errors of the folds.
        mae_of_mean: the error of predicting the mean of the samples fitted to.
        formulas_apart: whether no formula stood in two folds.
    """

    label: str
    unit: str | None
    samples: int
    r2: float
    mae: float
    spread: float
    mae_of_mean: float
    formulas_apart: bool


@dataclass(frozen=True, slots=True)
class Separation:
    """Everything that is measured of one encoder's embeddings.

    Attributes:
        samples: that were looked at.
        classes, numbers: a line for each label.
        neighbors: [data sets][data sets], share of the neighbours of a sample of the first that are of the second.
        k: neighbours looked at.
        notes: what was left out, and why.
    """

    samples: int
    classes: list[ClassSeparation]
    numbers: list[NumberProbe]
    neighbors: list[list[float]]
    k: int
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """For map.json."""
        return asdict(self)


def require_sklearn() -> None:
    """See to it that the numbers can be computed.

    Raises:
        MachineError: scikit-learn is missing.
    """
    if not installed("scikit-learn"):
        raise MachineError(
            f"the separation in numbers needs scikit-learn, which is not installed: {EXTRA}; or draw the map alone "
            "with --no-numbers"
        )


def separation(points: Points, *, k: int, folds: int, seed: int) -> Separation:
    """Measure how far data sets and classes lie apart, and what can be read off linearly.

    Args:
        points: of one encoder.
        k: neighbours of a sample.
        folds: of the probes.
        seed: of folds, and of the samples drawn where there are more than `MOST_SAMPLES`.
    """
    notes: list[str] = []
    kept = np.arange(len(points))
    if len(points) > MOST_SAMPLES:
        kept = np.sort(Permutation(len(points), seed, "separation")(np.arange(MOST_SAMPLES)))
        notes.append(f"The numbers are of {MOST_SAMPLES:,} samples, drawn from all {len(points):,}.")
    features = standardised(points.embedding[kept])
    formulas = np.unique(np.array(points.formulas)[kept], return_inverse=True)[1]
    data_set = points.data_set[kept]
    measure = _Measure(features, formulas, k, folds, seed, notes)
    classes, numbers = [], []
    if len(points.data_sets) > 1:
        classes.append(measure.classes(DATA_SET, points.data_sets, data_set))
    for name, target in points.targets.items():
        if target.is_class:
            if (found := measure.class_target(name, target, kept)) is not None:
                classes.append(found)
        elif (read := measure.number(name, target, kept)) is not None:
            numbers.append(read)
    return Separation(
        samples=len(kept),
        classes=classes,
        numbers=numbers,
        neighbors=_mixing(features, data_set, len(points.data_sets), k),
        k=min(k, len(kept) - 1),
        notes=notes,
    )


@dataclass(frozen=True, slots=True)
class _Measure:
    """What all labels are measured on, and where remarks go."""

    features: Floats
    formulas: Labels
    k: int
    folds: int
    seed: int
    notes: list[str]

    def class_target(self, name: str, target: Target, kept: Labels) -> ClassSeparation | None:
        """A target that sorts samples into classes; None if there is nothing to tell apart."""
        labels = target.labels()[kept]
        if len(np.unique(labels[labels >= 0])) < 2:
            if (labels >= 0).any():
                self.notes.append(f"{name}: all samples that carry it are of one class.")
            return None
        return self.classes(name, target.names, labels)

    def classes(self, label: str, names: tuple[str, ...], labels: Labels) -> ClassSeparation:
        """One label: which class each sample is of, -1 where that is not known."""
        from sklearn.metrics import silhouette_score

        there = np.flatnonzero(labels >= 0)
        features, own = self.features[there], labels[there]
        counts = np.bincount(own, minlength=len(names))
        n, classes = len(own), int((counts > 0).sum())
        same = (own[nearest(features, self.k)] == own[:, None]).mean(axis=1)
        by_class = {name: float(same[own == number].mean()) for number, name in enumerate(names) if counts[number]}
        silhouette = float(silhouette_score(features, own)) if 1 < classes < n else None
        return ClassSeparation(
            label=label,
            samples=n,
            classes=classes,
            purity=float(same.mean()),
            purity_by_chance=float((counts * (counts - 1.0)).sum() / (n * (n - 1.0))),
            purity_by_class=by_class,
            silhouette=silhouette,
            probe=self._class_probe(label, there, own),
        )

    def _class_probe(self, label: str, there: Labels, own: Labels) -> ClassProbe | None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import balanced_accuracy_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        counts = np.bincount(own)
        large = counts[own] >= self.folds
        there, own = there[large], own[large]
        if len(np.unique(own)) < 2:
            self.notes.append(f"{label}: no linear probe, for fewer than two classes have {self.folds} samples.")
            return None
        left_out = int(((counts > 0) & (counts < self.folds)).sum())
        if left_out:
            which = "1 class" if left_out == 1 else f"{left_out} classes"
            self.notes.append(f"{label}: {which} of fewer than {self.folds} samples left out of the linear probe.")
        accuracy, balanced, apart = [], [], _formulas_suffice(own, self.formulas[there], self.folds)
        for fitted, held in self._class_folds(own, self.formulas[there], apart=apart):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                model.fit(self.features[there[fitted]], own[fitted])
            if any(issubclass(each.category, ConvergenceWarning) for each in caught):
                remark = f"{label}: the linear probe has not converged; its accuracy may be a little too low."
                self.notes.extend([remark] if remark not in self.notes else [])
            named = model.predict(self.features[there[held]])
            accuracy.append(float((named == own[held]).mean()))
            with warnings.catch_warnings():  # a class that is named and not there
                warnings.simplefilter("ignore", UserWarning)
                balanced.append(float(balanced_accuracy_score(own[held], named)))
        return ClassProbe(
            accuracy=float(np.mean(accuracy)),
            spread=float(np.std(accuracy)),
            balanced_accuracy=float(np.mean(balanced)),
            by_chance=float(counts.max() / len(own)),
            samples=len(own),
            classes=len(np.unique(own)),
            formulas_apart=apart,
        )

    def _class_folds(self, own: Labels, groups: Labels, *, apart: bool) -> Iterator[tuple[Labels, Labels]]:
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        kind = StratifiedGroupKFold if apart else StratifiedKFold
        chosen = kind(self.folds, shuffle=True, random_state=self.seed)
        yield from chosen.split(own, own, groups) if apart else chosen.split(own, own)

    def number(self, name: str, target: Target, kept: Labels) -> NumberProbe | None:
        """A numeric target; None if too few samples carry it, or all have one value."""
        from sklearn.linear_model import RidgeCV
        from sklearn.model_selection import GroupKFold, KFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        values = target.values[kept].astype(np.float64)
        there = np.flatnonzero(np.isfinite(values))
        values, groups = values[there], self.formulas[there]
        if len(there) < 4 * self.folds or values.std() == 0.0:
            if len(there):
                self.notes.append(f"{name}: no linear probe of {len(there)} samples, or of one value.")
            return None
        apart = _largest_group(groups) <= len(groups) / self.folds
        split = (
            GroupKFold(self.folds).split(values, values, groups)
            if apart
            else KFold(self.folds, shuffle=True, random_state=self.seed).split(values)
        )
        predicted, mean = np.empty_like(values), np.empty_like(values)
        errors = []
        for fitted, held in split:
            model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 5, 17)))
            model.fit(self.features[there[fitted]], values[fitted])
            predicted[held], mean[held] = model.predict(self.features[there[held]]), values[fitted].mean()
            errors.append(float(np.abs(predicted[held] - values[held]).mean()))
        return NumberProbe(
            label=name,
            unit=target.spec.unit,
            samples=len(values),
            r2=float(1 - np.square(predicted - values).sum() / np.square(values - values.mean()).sum()),
            mae=float(np.abs(predicted - values).mean()),
            spread=float(np.std(errors)),
            mae_of_mean=float(np.abs(mean - values).mean()),
            formulas_apart=bool(apart),
        )


def nearest(features: Floats, k: int) -> Labels:
    """The k nearest other points of each, or all others where there are fewer: int64 [n, k]."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=min(k, len(features) - 1)).fit(features).kneighbors(return_distance=False)
    neighbors: Labels = np.asarray(found, dtype=np.int64)
    return neighbors


def _mixing(features: Floats, data_set: Labels, count: int, k: int) -> list[list[float]]:
    """Of the neighbours of the samples of each data set, the shares that belong to each; rows add up to 1."""
    owner = data_set[nearest(features, k)]
    return [
        [float((owner[data_set == one] == other).mean()) if (data_set == one).any() else 0.0 for other in range(count)]
        for one in range(count)
    ]


def _formulas_suffice(own: Labels, formulas: Labels, folds: int) -> bool:
    """Whether every class has formulas enough to be in every fold, and none has most of its samples in one of them."""
    for number in np.unique(own):
        groups = formulas[own == number]
        if len(np.unique(groups)) < folds or _largest_group(groups) > len(groups) / 2:
            return False
    return True


def _largest_group(groups: Labels) -> int:
    return int(np.unique(groups, return_counts=True)[1].max())
