"""Targets and splits from a CSV table with a row per structure."""

import csv
from dataclasses import dataclass
from pathlib import Path

from matsci_hpc.config.record_sources import TargetColumn
from matsci_hpc.config.sources import FileSource
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.values import WrongValueError, checked_classes, typed
from matsci_hpc.targets import MAX_SPLITS, TargetSpec


@dataclass(frozen=True, slots=True)
class PropertyTable:
    """The rows that matter, by structure id.

    Attributes:
        targets: kind, unit and classes of each target.
        values: target values by id and target name; absent values are left out.
        splits: name of the split by id, empty if the table has none.
    """

    targets: dict[str, TargetSpec]
    values: dict[str, dict[str, float | int]]
    splits: dict[str, str]


def read_properties(config: FileSource) -> PropertyTable:
    """Read and check the table of properties that a config names.

    Raises:
        UserInputError: unreadable file, missing column, doubled id or a value of the wrong kind, with its line.
    """
    path = config.properties
    if path is None:
        if config.targets or config.split_column:
            raise UserInputError("source.targets and source.split_column need source.properties, a CSV file")
        return PropertyTable({}, {}, {})
    if not config.targets and not config.split_column:
        raise UserInputError(f"{path} is given, but no column of it: name columns under source.targets")
    rows = _read_rows(path, config)
    classes = {
        name: checked_classes({row[target.column].strip() for _, row in rows.values()}, f"{path}: {target.column}")
        for name, target in config.targets.items()
        if target.kind == "class"
    }
    specs = {
        name: TargetSpec(kind=target.kind, unit=target.unit, classes=classes.get(name))
        for name, target in config.targets.items()
    }
    values = {
        identifier: {
            name: value
            for name, target in config.targets.items()
            if (value := _value(row[target.column], target, classes.get(name, ()), f"{path}:{line}")) is not None
        }
        for identifier, (line, row) in rows.items()
    }
    column = config.split_column
    splits = {identifier: row[column].strip() for identifier, (_, row) in rows.items()} if column else {}
    if len(set(splits.values())) > MAX_SPLITS // 2:
        raise UserInputError(f"{path}: {column} has {len(set(splits.values())):,} values; it should name a few splits")
    return PropertyTable(specs, values, {key: split for key, split in splits.items() if split})


def _read_rows(path: Path, config: FileSource) -> dict[str, tuple[int, dict[str, str]]]:
    wanted = [config.id_column, *(target.column for target in config.targets.values())]
    wanted += [config.split_column] if config.split_column else []
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns = reader.fieldnames or []
            for column in wanted:
                if column not in columns:
                    raise UserInputError(f"{path}: no column {column!r}; its columns are {', '.join(columns)}")
                if columns.count(column) > 1:
                    raise UserInputError(f"{path}: {columns.count(column)} columns are called {column!r}")
            for row in reader:
                identifier = row[config.id_column].strip()
                if identifier in rows:
                    first = rows[identifier][0]
                    raise UserInputError(f"{path}:{reader.line_num}: id {identifier!r} stands in line {first} already")
                rows[identifier] = (reader.line_num, {column: row[column] for column in wanted})
    except OSError as error:
        raise UserInputError(f"{path}: cannot read the properties: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserInputError(f"{path}: not a CSV file in UTF-8: {error}") from None
    return rows


def _value(text: str, target: TargetColumn, classes: tuple[str, ...], where: str) -> float | int | None:
    try:
        return typed(text, target.kind, classes)
    except WrongValueError as fault:
        raise UserInputError(f"{where}: {target.column} {fault}") from None
