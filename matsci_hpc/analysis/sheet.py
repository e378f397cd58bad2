"""A table of a report, as people read it: the same for a page, Markdown and every kind of report."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """What stands in a place of a table, with a remark in small print: an interval."""

    text: str
    remark: str = ""


@dataclass(frozen=True)
class Sheet:
    """One table. The first column is text, the others are numbers unless `texts` names them."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    texts: frozenset[int] = frozenset({0})
