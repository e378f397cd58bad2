"""A check that fails by itself says so and stops nobody."""

from collections.abc import Callable, Iterable

from matsci_hpc.errors import MatsciError
from matsci_hpc.preflight.finding import Finding


def guarded(topic: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check finds.

    A failure that the run itself would meet (a data set that cannot be read, a wrong target) is an error. Any other is
    a fault of the check: a note.
    """
    found: list[Finding] = []
    try:
        # One by one, so that what was found before a failure stays.
        found.extend(check())
    except MatsciError as error:
        found += [Finding("error", topic, line) for line in str(error).splitlines()]
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks are still worth having
        found.append(Finding("note", topic, f"could not be looked at: {type(error).__name__}: {one_line(error)}"))
    return found


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:300]
