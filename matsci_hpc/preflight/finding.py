"""What a check found."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a preflight.

    Attributes:
        level: `error` for what must fail, `warning` for what may, `note` for what could not be looked at.
        topic: in a word or two, such as `memory`.
        text: what was found, with figures.
        advice: what to do, if anything.
    """

    level: Level
    topic: str
    text: str
    advice: str | None = None
