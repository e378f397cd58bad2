"""Results of others on the same split, from a CSV file, to be drawn beside the arms."""

import csv
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from matsci_hpc.config.comparison import Metric
from matsci_hpc.errors import UserInputError

COLUMNS = ("target", "metric", "train_samples", "name", "value")
PLACES = ("split", "data")
"""Columns that may be there as well: what the values are of."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """One value.

    Attributes:
        target, metric: as of the arms; target is empty where the metric is of none.
        train_samples: size of the training set; None if the value is for all.
        name: of who reached it.
        value: in the unit of the metric.
        split: that it is of; empty if the file does not tell.
        data: fingerprint of the data set that it is of; empty likewise.
    """

    target: str
    metric: str
    train_samples: int | None
    name: str
    value: float
    split: str = ""
    data: str = ""

    def is_of(self, metric: Metric) -> bool:
        """Whether it is of this metric."""
        return (self.target, self.metric) == (metric.target or "", metric.name)


def read_baselines(path: Path) -> tuple[Baseline, ...]:
    """Read the file; columns that are in neither `COLUMNS` nor `PLACES` are left alone.

    Raises:
        UserInputError: it cannot be read, lacks a column, or a cell is no number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserInputError(
                    f"baselines: {path} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}"
                )
            return tuple(_baseline(path, reader.line_num, row) for row in reader)
    except OSError as error:
        raise UserInputError(f"baselines: {path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserInputError(f"baselines: {path}: no CSV in UTF-8: {error}") from None


def _baseline(path: Path, line: int, row: dict[str, str | None]) -> Baseline:
    cells = {name: (row[name] or "").strip() for name in COLUMNS}
    samples = cells["train_samples"].replace(",", "")
    try:
        value = float(cells["value"])
        size = int(samples) if samples and samples != "all" else None
    except ValueError:
        raise UserInputError(f"baselines: {path}:{line}: value and train_samples are numbers") from None
    if not math.isfinite(value) or (size is not None and size < 1):
        raise UserInputError(f"baselines: {path}:{line}: value has to be finite and train_samples positive")
    places = [(row.get(name) or "").strip() for name in PLACES]
    return Baseline(cells["target"], cells["metric"], size, cells["name"], value, *places)


def refuse_elsewhere(path: Path, baselines: Iterable[Baseline], split: str, data: Collection[str]) -> None:
    """Refuse values of another split or other data than the results, as far as the file tells.

    Args:
        path: of the file, for messages.
        baselines: out of it.
        split: of the results.
        data: fingerprints of the data of the runs; of several data sets, with spaces between them. A baseline is of one
            of them: that which has its target.

    Raises:
        UserInputError: a value is of something else.
    """
    for each in baselines:
        if each.split not in {"", split}:
            raise UserInputError(
                f"baselines: {path}: {each.name} is of split {each.split!r} and the results are of {split!r}; "
                f"`matsci-hpc baseline --split {split}` makes others"
            )
        if each.data and each.data not in {word for words in data for word in words.split()}:
            raise UserInputError(
                f"baselines: {path}: {each.name} is of the data set with fingerprint {each.data} and the runs are of "
                f"{' and '.join(data)}; call `matsci-hpc baseline` with the data set of the runs"
            )
