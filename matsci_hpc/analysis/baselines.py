"""What errors mean something: predicting the mean, and a random forest that knows the composition alone.

Nothing here is of this package's models: the forest is scikit-learn's, and it never sees an atom's place. It is trained
on the training split of a prepared data set, or on a part of it, and judged on another split, sample by sample the same
that the networks are judged on.

The part of n samples that seed s draws is the one that `data.subset: {samples: n, seed: s}` of a training run draws.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import matsci_hpc
from matsci_hpc.analysis.baseline_targets import chosen_targets
from matsci_hpc.analysis.composition_features import PROPERTIES, STATISTICS, features
from matsci_hpc.analysis.plain_text import csv_text
from matsci_hpc.analysis.projection import EXTRA
from matsci_hpc.comparison.baselines import COLUMNS, PLACES
from matsci_hpc.config.train import Target
from matsci_hpc.embeddings.table import reduced_formula
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.labels import compositions
from matsci_hpc.loading.subset import draw_subset
from matsci_hpc.scaling.spreadsheet import no_formula
from matsci_hpc.targets import TargetSpec
from matsci_hpc.versions import installed
from matsci_hpc.whole_files import output_error, write_atomic

Floats = NDArray[np.float64]
MEAN, FOREST = "mean", "random forest"
METRICS = {"regression": ("mae", "rmse", "r2"), "binary": ("accuracy", "auroc"), "class": ("accuracy", "f1_macro")}
"""By kind of target, named and defined as those of a network in evaluations.jsonl."""


@dataclass(frozen=True, slots=True)
class BaselineSettings:
    """What is asked.

    Attributes:
        data: folder of a prepared data set.
        targets: names of the data set's; empty for all that are numbers or labels.
        train, split: names of the splits that are learned from and judged on.
        sizes: numbers of training samples; None stands for all.
        seeds: each draws its own part and grows its own forest.
        trees: of a forest.
        derived: targets that follow from numbers of the data set, as `targets` of a training run has them; all of them
            are judged.
    """

    data: Path
    targets: tuple[str, ...] = ()
    train: str = "train"
    split: str = "test"
    sizes: tuple[int | None, ...] = (None,)
    seeds: tuple[int, ...] = (0, 1, 2)
    trees: int = 200
    derived: Mapping[str, Target] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """One model, judged once.

    Attributes:
        target, kind, unit: what was predicted.
        model: `mean`, which names the commonest class where there are classes, or `random forest`.
        size: samples drawn from the training split.
        learned: those of them that carry the target.
        seed: of the draw and the forest.
        samples: judged.
        formulas_seen: share of these whose reduced formula was learned from.
        metrics: see `METRICS`.
    """

    target: str
    kind: str
    unit: str | None
    model: str
    size: int
    learned: int
    seed: int
    samples: int
    formulas_seen: float
    metrics: dict[str, float]


def require_sklearn() -> None:
    """See to it that a forest can be grown.

    Raises:
        MachineError: scikit-learn is missing.
    """
    if not installed("scikit-learn"):
        raise MachineError(f"baselines need scikit-learn, which is not installed: {EXTRA}")


def baselines(settings: BaselineSettings) -> Iterator[Score]:
    """Judge both models on each target, size and seed; warn where a derived target has training samples of one class.

    Raises:
        UserInputError: no such data set, target or split, or a size beyond the split.
        MachineError: scikit-learn is missing, or a shard is damaged.
    """
    require_sklearn()
    collection = Collection([settings.data])
    chosen = chosen_targets(collection, settings.targets, settings.derived)
    if settings.train == settings.split:
        raise UserInputError(f"--split {settings.split} is the split that is learned from; name another one")
    learn, judge = collection.in_split(settings.train), collection.in_split(settings.split)
    known = compositions(collection, learn), compositions(collection, judge)
    inputs = features(known[0]), features(known[1])
    formulas = [np.array([reduced_formula(each) for each in some]) for some in known]
    for target in chosen:
        name, spec = target.name, target.spec
        values = [target.values(collection, some) for some in (learn, judge)]
        there = [value >= 0 if spec.kind == "class" else np.isfinite(value) for value in values]
        if not there[1].any():
            raise UserInputError(f"{name}: no sample of split {settings.split!r} carries it")
        if target.derivation is not None:
            labels = values[0][there[0]]
            what = target.derivation.of_one_class(int(labels.sum()), len(labels)) if len(labels) else None
            if what is not None:
                print(f"matsci-hpc: warning: --derive {name}: {what}", file=sys.stderr, flush=True)
        for size in settings.sizes:
            for seed in settings.seeds:
                drawn = np.arange(len(learn))
                if size is not None:
                    drawn = draw(len(learn), size, seed)
                drawn_size = len(drawn)
                drawn = drawn[there[0][drawn]]
                if not len(drawn):
                    raise UserInputError(f"{name}: none of {drawn_size:,} training samples carries it")
                truth = values[1][there[1]]
                seen = float(np.isin(formulas[1][there[1]], formulas[0][drawn]).mean())
                for model, predicted in (
                    (MEAN, _predict_mean(spec, values[0][drawn], len(truth))),
                    (
                        FOREST,
                        _predict_forest(
                            spec, inputs[0][drawn], values[0][drawn], inputs[1][there[1]], settings.trees, seed
                        ),
                    ),
                ):
                    metrics = _metrics(spec, truth, predicted, float(values[0][drawn].mean()))
                    yield Score(
                        name, spec.kind, spec.unit, model, drawn_size, len(drawn), seed, len(truth), seen, metrics
                    )


def draw(of: int, size: int, seed: int) -> NDArray[np.int64]:
    """Places of a part of the training split, ascending; those of a smaller size are among those of a larger one.

    Raises:
        UserInputError: there are not so many samples.
    """
    if size > of:
        raise UserInputError(f"--sizes {size:,}: the training split has {of:,} samples; ask for no more, or for all")
    return draw_subset([of], size, seed)[0]


def _predict_mean(spec: TargetSpec, learned: Floats, count: int) -> Floats:
    """The mean for every sample; of classes the share of each: [count] or [count, classes]."""
    if spec.kind == "class":
        shares = np.bincount(learned.astype(np.int64), minlength=len(spec.classes or ())) / len(learned)
        return np.tile(shares, (count, 1))
    return np.full(count, learned.mean())


def _predict_forest(spec: TargetSpec, inputs: Any, learned: Floats, judged: Any, trees: int, seed: int) -> Floats:
    """Values [n] (regression), probabilities [n] (binary) or [n, classes] (class) by a random forest."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    cores = len(os.sched_getaffinity(0))
    if spec.kind == "regression":
        # A third of the features at each split, as Breiman (2001) has it for regression.
        regressor = RandomForestRegressor(trees, max_features=1 / 3, random_state=seed, n_jobs=cores)
        regressor.fit(inputs, learned)
        regressor.n_jobs = 1  # threads add up trees in any order, which the last bits would show
        return np.asarray(regressor.predict(judged), dtype=np.float64)
    classifier = RandomForestClassifier(trees, random_state=seed, n_jobs=cores)
    classifier.fit(inputs, learned.astype(np.int64))
    classifier.n_jobs = 1
    found = np.asarray(classifier.predict_proba(judged), dtype=np.float64)
    classes = 2 if spec.kind == "binary" else len(spec.classes or ())
    whole = np.zeros((len(found), classes))
    whole[:, classifier.classes_] = found
    return whole[:, 1] if spec.kind == "binary" else whole


def _metrics(spec: TargetSpec, truth: Floats, predicted: Floats, mean: float) -> dict[str, float]:
    """See `METRICS`; `mean` is that of the values that were learned from, against which R^2 counts."""
    from sklearn import metrics as of

    if spec.kind == "regression":
        error = predicted - truth
        found = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.square(error).mean()))}
        of_mean = float(np.square(truth - mean).sum())
        return found | {"r2": 1 - float(np.square(error).sum()) / of_mean if of_mean > 0 else float("nan")}
    if spec.kind == "binary":
        right = truth > 0.5
        auroc = float(of.roc_auc_score(right, predicted)) if 0 < right.sum() < len(right) else float("nan")
        return {"accuracy": float(((predicted > 0.5) == right).mean()), "auroc": auroc}
    named = predicted.argmax(axis=1)
    f1 = of.f1_score(truth.astype(np.int64), named, average="macro", zero_division=0.0)
    return {"accuracy": float((named == truth).mean()), "f1_macro": float(f1)}


def write_baselines(out: Path, settings: BaselineSettings, scores: Sequence[Score]) -> None:
    """Write baselines.csv, a row for each score, baselines.json, with how they were made, and compare.csv.

    The last one is what `baselines` of a comparison reads: the forest, in the mean over seeds.

    Raises:
        UserInputError, MachineError: they cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from None
    (data,) = Collection([settings.data]).datasets
    record = {
        "format": "matsci-hpc baselines",
        "format_version": 1,
        "data_set": {"path": str(settings.data), "fingerprint": data.manifest.fingerprint},
        "learned_from": settings.train,
        "judged_on": settings.split,
        "seeds": list(settings.seeds),
        "trees": settings.trees,
        "derived": {
            name: each.model_dump(include={"of", "below", "above"}, exclude_none=True)
            for name, each in settings.derived.items()
        },
        "features": [
            "element fractions",
            "number of elements",
            {"properties": [*PROPERTIES], "of each": [*STATISTICS]},
        ],
        "versions": {"matsci-hpc": matsci_hpc.__version__, "scikit-learn": version("scikit-learn")},
        "scores": [_without_nan(asdict(each)) for each in scores],
    }
    write_atomic(out / "baselines.json", (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    measures = list(dict.fromkeys(name for each in scores for name in each.metrics))
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    about = ("target", "kind", "unit", "model", "size", "learned", "seed", "samples", "formulas_seen")
    table.writerow([*about, *measures])
    for each in scores:
        cells = [getattr(each, name) for name in about] + [each.metrics.get(name) for name in measures]
        table.writerow([no_formula("" if cell is None or cell != cell else cell) for cell in cells])  # noqa: PLR0124
    write_atomic(out / "baselines.csv", stream.getvalue().encode(errors="replace"))
    lines = [[*line, settings.split, data.manifest.fingerprint] for line in _comparison_lines(scores)]
    text = csv_text([*COLUMNS, *PLACES], lines)
    write_atomic(out / "compare.csv", text.encode(errors="replace"))


def _comparison_lines(scores: Sequence[Score]) -> Iterator[list[object]]:
    found: dict[tuple[str, str, int], list[float]] = {}
    for each in scores:
        for name, value in each.metrics.items():
            if each.model == FOREST and np.isfinite(value):
                found.setdefault((each.target, name, each.size), []).append(value)
    for (target, name, size), values in found.items():
        yield [target, name, size, f"{FOREST} of compositions", float(np.mean(values))]


def table_of(scores: Sequence[Score]) -> str:
    """Mean and standard deviation over seeds, for a terminal; `formulas seen` tells what was known from training."""
    rows = [("target", "model", "train", "measure", "mean", "spread", "unit", "formulas seen")]
    groups: dict[tuple[str, int, str], list[Score]] = {}
    for each in scores:
        groups.setdefault((each.target, each.size, each.model), []).append(each)
    for (target, size, model), group in groups.items():
        shown = {"mean": "commonest class"}.get(model, model) if group[0].kind != "regression" else model
        for name in group[0].metrics:
            values = np.array([each.metrics[name] for each in group])
            spread = f"{values.std(ddof=1):.3g}" if len(values) > 1 else ""
            unit = (group[0].unit or "") if name in {"mae", "rmse"} else ""
            seen = f"{100 * np.mean([each.formulas_seen for each in group]):.0f} %"
            rows.append((target, shown, f"{size:,}", name, f"{values.mean():.4g}", spread, unit, seen))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {2, 4, 5, 7}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _without_nan(record: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: None if np.isnan(value) else value for name, value in record["metrics"].items()}
    return record | {"metrics": metrics}
