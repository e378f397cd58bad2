"""Cells of CSV that no spreadsheet takes for a formula."""

import re
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def no_formula(cell: Any) -> Any:
    """A cell as it is, but for text that begins like a formula, which gets an apostrophe.

    Text that has apostrophes there already gets one more, so that `as_it_was` gives back what was written.
    """
    is_formula = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def as_it_was(cell: str) -> str:
    """The text that `no_formula` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
