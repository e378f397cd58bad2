"""What the pages of all reports share: templates that escape, the style sheet, scripts that are named by their hash."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matsci_hpc import __version__
from matsci_hpc.analysis import words
from matsci_hpc.analysis.chart_picture import Drawn
from matsci_hpc.analysis.sheet import Sheet

if TYPE_CHECKING:  # jinja2 is loaded where a page is made
    from jinja2 import Environment


@dataclass(frozen=True)
class Scripts:
    """The only scripts that may run in a page: even markup that slipped through would stay inert."""

    texts: list[str]

    @property
    def hashes(self) -> list[str]:
        """As the content security policy names them."""
        return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in self.texts]


def templates() -> "Environment":
    """Templates of this package; what is filled in is escaped, and a name that is missing is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("matsci_hpc", "analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=words.number, percent=words.percent, duration=words.duration, value_text=words.value_text
    )
    return environment


def plotly_scripts() -> Scripts:
    """Plotly, and what draws the figures of a page by it."""
    from plotly.offline import get_plotlyjs

    return Scripts([get_plotlyjs(), asset("report.js")])


@dataclass(frozen=True)
class Words:
    """What a page of tables and plots says besides these.

    Attributes:
        title: of the page.
        state: in a few words, below it.
        subtitle: in small print below that.
        notes: what a reader should know first.
        beside: the files that hold the same numbers.
        verdicts: the answer in sentences, before everything else.
    """

    title: str
    state: str
    subtitle: str
    notes: Sequence[str]
    beside: str
    verdicts: Sequence[str] = ()


def sheet_page(said: Words, sheets: Sequence[Sheet], plots: Sequence[Drawn], provenance: Mapping[str, object]) -> str:
    """A whole page: tables first, plots second, provenance folded."""
    scripts = plotly_scripts()
    drawn = {f"chart-{index}": plot for index, plot in enumerate(plots)}
    return (
        templates()
        .get_template("sheet_page.html.j2")
        .render(
            title=said.title,
            state=said.state,
            subtitle=said.subtitle,
            verdicts=said.verdicts,
            notes=said.notes,
            beside=said.beside,
            sheets=sheets,
            plots=drawn,
            figures={name: plot.figure for name, plot in drawn.items()},
            provenance=provenance,
            version=__version__,
            style=asset("report.css"),
            scripts=scripts.texts,
            script_hashes=scripts.hashes,
        )
    )


def asset(name: str) -> str:
    """The text of a file of this package."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
