"""What a table of measurements says: efficiency and laws of every series."""

from dataclasses import dataclass

from matsci_hpc.preflight.words import counted
from matsci_hpc.scaling.efficiency import Efficiency, efficiency
from matsci_hpc.scaling.laws import Laws, fit_laws
from matsci_hpc.scaling.table import Row, Series, Table

ENOUGH_REPEATS = 4
"""Intervals from three repeats hold the truth in 90 % of studies, from two in 67 %; seen in test_efficiency.py."""


@dataclass(frozen=True)
class Finding:
    """One series."""

    efficiency: Efficiency
    laws: Laws

    @property
    def series(self) -> Series:
        """What was measured."""
        return self.efficiency.series


@dataclass(frozen=True)
class Study:
    """A table and its findings."""

    table: Table
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """What a reader should know before trusting the numbers."""


def study_table(table: Table, base_ranks: int | None = None, seed: int = 0, *, lone: bool = False) -> Study:
    """Find out all that a table says.

    Args:
        table: with at least one series of two rank counts, unless it is `lone`.
        base_ranks: what efficiency is measured against; None: the fewest ranks of each series.
        seed: of the bootstrap.
        lone: there may be no such series; then nothing is found out about scaling.

    Raises:
        UserInputError: the table has no series, or the base was not measured in one of them.
    """
    made = table.series(lone=lone)
    several = [series for series in made if len(series.ranks) > 1]
    findings = tuple(Finding(efficiency(series, base_ranks, seed), fit_laws(series)) for series in several)
    single = [each for each in made if each not in several] if several else []
    return Study(table, findings, (*table.notes, *_notes_of_rows(table), *_notes(findings, single)))


def _notes_of_rows(table: Table) -> list[str]:
    """What the rows themselves tell."""
    notes = []
    restarted = [row for row in table.rows if row.details.get("lives", "1") not in {"", "1"}]
    if restarted:
        names = ", ".join(row.details.get("run") or f"{row.ranks} ranks" for row in restarted[:3])
        more = f" and {len(restarted) - 3} more" if len(restarted) > 3 else ""
        notes.append(f"Restarted while they ran, so that their times are of several lives: {names}{more}.")
    # The work that a time is of; of a throughput, `samples` are how long it was measured.
    first: dict[tuple[tuple[str, str], ...], Row] = {}
    for row in table.rows:
        if row.scaling != "strong" or row.throughput is not None or row.samples is None:
            continue
        before = first.setdefault(tuple(row.labels.items()), row)
        if row.samples != before.samples:
            notes.append(
                f"Strong scaling keeps the work, and it is {before.samples:g} samples on "
                f"{counted(before.ranks, 'rank')} and "
                f"{row.samples:g} on {row.ranks:,}: efficiencies are of samples per second."
            )
            break
    return notes


def _notes(findings: tuple[Finding, ...], single: list[Series]) -> list[str]:
    notes = [f"{each.name}: one rank count only ({each.ranks[0]}), so it is left out." for each in single]
    for each in findings:
        singles = each.efficiency.singles
        if singles:
            all_of_them = len(singles) == len(each.series.ranks)
            which = "every rank count" if all_of_them else ", ".join(f"{ranks}" for ranks in singles) + " ranks"
            notes.append(f"{each.series.name}: {which} measured once: there is no interval without repeats.")
        few = [count for count in each.series.repeats if 1 < count < ENOUGH_REPEATS]
        if few:
            notes.append(
                f"{each.series.name}: intervals of the mean of {min(few)} repeats are narrower than 95 %; "
                f"{ENOUGH_REPEATS} repeats are enough."
            )
        best = each.laws.best
        held = best.held_out if best is not None else None
        if held is None or held.prediction.low is None or held.prediction.high is None:
            continue
        if not held.prediction.low <= held.measured <= held.prediction.high:
            notes.append(
                f"{each.series.name}: the measurement on {held.prediction.ranks} ranks is outside the interval that "
                "the others predict, so the law that is drawn does not hold there. Do not go beyond it by this law."
            )
    return notes
