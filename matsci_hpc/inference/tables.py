"""Predictions as a file: CSV, JSON lines, or extended XYZ with the structures.

A file is a head and pieces, each of them the text of some consecutive structures, so that ranks can make the pieces.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.predictions import ID, columns_of
from matsci_hpc.scaling.spreadsheet import no_formula
from matsci_hpc.structure import Structure
from matsci_hpc.targets import TargetSpec

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".xyz": "extxyz", ".extxyz": "extxyz"}
"""By the end of the file's name."""
DIGITS = 7
"""Of a number: as many as single precision has."""


def format_of(path: Path) -> str:
    """The format of a file by its name.

    Raises:
        UserInputError: its name has another end.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise UserInputError(
            f"{path}: predictions are written as {', '.join(FORMATS)}; choose a name like that"
        ) from None


def head(kind: str, specs: Mapping[str, TargetSpec]) -> str:
    """What stands before all predictions."""
    return _csv_lines([columns_of(specs)]) if kind == "csv" else ""


def piece(
    kind: str, specs: Mapping[str, TargetSpec], predictions: Sequence[dict[str, Any]], structures: Sequence[Structure]
) -> str:
    """The text of some predictions and their structures."""
    if kind == "csv":
        columns = columns_of(specs)
        return _csv_lines([[_cell(each[column], column) for column in columns] for each in predictions])
    if kind == "jsonl":
        return "".join(f"{json.dumps(_plain(each), ensure_ascii=False)}\n" for each in predictions)
    return "".join(_frame(specs, *each) for each in zip(predictions, structures, strict=True))


def _csv_lines(rows: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _cell(value: Any, column: str) -> object:
    if column == ID:
        return no_formula(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    if isinstance(value, list | np.ndarray):
        return json.dumps(_plain(value), ensure_ascii=False)
    return value


def _plain(value: Any) -> Any:
    """A value as JSON knows it, numbers with as many digits as they have."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _frame(specs: Mapping[str, TargetSpec], prediction: dict[str, Any], structure: Structure) -> str:
    """One frame; values of every atom are columns, the others entries of the comment line."""
    from ase import Atoms
    from ase.io.extxyz import write_xyz

    atoms = Atoms(
        numbers=structure.atomic_number.astype(int),
        positions=structure.position,
        cell=structure.cell,
        pbc=structure.pbc,
    )
    for key, value in prediction.items():
        if isinstance(value, np.ndarray):
            store = atoms.arrays if specs[key.removesuffix(".")].per_atom else atoms.info
            store[key] = value.astype(np.float64)
        elif isinstance(value, dict | list):
            atoms.info[key] = json.dumps(_plain(value), ensure_ascii=False)
        else:
            atoms.info[key] = _plain(value)
    stream = io.StringIO()
    write_xyz(stream, [atoms])
    return stream.getvalue()
