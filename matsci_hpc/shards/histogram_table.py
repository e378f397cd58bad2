"""Histograms as text: aligned lines with a bar each, for a terminal or a log."""

from pathlib import Path

from matsci_hpc.shards.histograms import Histogram, histograms
from matsci_hpc.shards.reader import DataSet

BINS = 10
WIDTH = 24
"""Letters of the longest bar."""
MAX_TARGETS_SHOWN = 8
MAX_CLASSES_SHOWN = 12
_EIGHTHS = " ▏▎▍▌▋▊▉"


def histogram_table(folder: Path, encoding: str | None = "utf-8") -> str:
    """Sizes in atoms and every target of a data set, in about ten bins each.

    Args:
        folder: of the data set.
        encoding: of where it is printed; bars are of # where it lacks blocks.

    Raises:
        UserInputError, MachineError: the data set is damaged.
    """
    made = [each for each in histograms(DataSet(folder), BINS) if each.name != "edges"]
    lines = []
    for histogram in made[: 1 + MAX_TARGETS_SHOWN]:
        lines += ["", *_block(histogram, fine=_has_blocks(encoding))]
    if len(made) > 1 + MAX_TARGETS_SHOWN:
        lines += ["", f"  and {len(made) - 1 - MAX_TARGETS_SHOWN} more targets; --plot FILE.png shows all"]
    return "\n".join(lines[1:])


def _block(histogram: Histogram, *, fine: bool) -> list[str]:
    counts = histogram.counts.sum(axis=0).tolist()
    rows = list(zip(histogram.bins(), counts, strict=True))
    if histogram.classes and len(rows) > MAX_CLASSES_SHOWN:
        rows.sort(key=lambda row: -row[1])
        rest = rows[MAX_CLASSES_SHOWN - 1 :]
        rows = [*rows[: MAX_CLASSES_SHOWN - 1], (f"{len(rest)} others", sum(count for _, count in rest))]
    # The rest may be larger than every class that is shown; it gets no longer a bar than the largest.
    most, total = max(max(counts, default=0), 1), max(sum(counts), 1)
    names = max(len(name) for name, _ in rows)
    digits = max(len(f"{count:,}") for _, count in rows)
    unit = f" in {histogram.unit}" if histogram.unit else ""
    head = "atoms of a sample" if histogram.name == "atoms" else f"{histogram.name}{unit}"
    align = "<" if histogram.classes else ">"
    lines = [f"  {head}"]
    for name, count in rows:
        bar = _bar(min(count / most, 1.0), fine=fine)
        lines.append(f"    {name:{align}{names}}  {bar:<{WIDTH}}  {count:>{digits},}  {count / total:6.1%}")
    return lines


def _bar(share: float, *, fine: bool) -> str:
    """A bar of WIDTH letters for 1; what is not nothing shows at least a sliver."""
    if not fine:
        return "#" * max(round(share * WIDTH), 1 if share > 0 else 0)
    eighths = max(round(share * WIDTH * 8), 1 if share > 0 else 0)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _has_blocks(encoding: str | None) -> bool:
    try:
        f"█{_EIGHTHS}".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
