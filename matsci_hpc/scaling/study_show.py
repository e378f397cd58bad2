"""`matsci-hpc study plan`: what a study would do, in its order; nothing is written."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from matsci_hpc.config.study import StudyConfig
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.preflight.words import time_in_words
from matsci_hpc.scaling.study_folder import StudyFolder, data_to_make, state_of
from matsci_hpc.scaling.study_plan import StudyRun, plan_runs

HEADER = ("", "run", "ranks", "nodes", "threads", "work", "steps", "takes", "state")


def show_plan(study: StudyConfig, site_name: str | None = None) -> str:
    """The runs as a table.

    Raises:
        UserInputError: a combination is no valid run.
    """
    name = site_name or study.site
    site = load_site(name)
    runs = plan_runs(study, site)
    folder = StudyFolder(study)
    measured = _wall_times(runs, folder.started())
    rows = [_row(number, run, study, measured, folder) for number, run in enumerate(runs, 1)]
    lines = [
        f"{study.scaling} scaling of {study.base}: {len(runs)} runs, {study.repeats} repeats, below {study.out}/runs",
        *(f"first: prep {job.config} to {job.output}" for job in data_to_make(study, site)),
        *aligned([HEADER, *rows], frozenset({1, 5, 8})),
    ]
    known = [measured[_point(run)] for run in runs if _point(run) in measured]
    if known:
        part = "" if len(known) == len(runs) else f" for {len(known)} of the {len(runs)} runs; the others are not known"
        lines.append(f"takes: {time_in_words(sum(known))} in all one after the other, as measured here{part}")
    else:
        lines.append("takes: not known before the first runs")
    return "\n".join(lines)


def _row(
    number: int, run: StudyRun, study: StudyConfig, measured: Mapping[str, float], folder: StudyFolder
) -> tuple[str, ...]:
    state = state_of(run, folder.log(run.name))
    takes = measured.get(_point(run))
    return (
        str(number),
        run.name,
        str(run.job.ranks),
        str(run.job.nodes),
        str(run.threads or "-"),
        run.work,
        f"{study.warmup_steps} + {study.steps}" if run.job.verb == "train" else "-",
        time_in_words(takes) if takes is not None else "-",
        "to be run" if state.standing == "absent" else state.standing,
    )


def _wall_times(runs: Iterable[StudyRun], started: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Mean time of the whole process of the repeats that were made on this machine, by combination."""
    times: dict[str, list[float]] = {}
    for run in runs:
        noted = started.get(run.name, {})
        if isinstance(noted.get("wall_s"), int | float) and noted.get("exit_code") == 0:
            times.setdefault(_point(run), []).append(float(noted["wall_s"]))
    return {point: sum(each) / len(each) for point, each in times.items()}


def _point(run: StudyRun) -> str:
    """Name of the combination, without its repeat."""
    return run.name.rpartition("_repeat=")[0]


def aligned(rows: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """Rows of a table as lines: columns as wide as their widest cell, text to the left, numbers to the right.

    Args:
        rows: the header first, all of one length.
        left: columns of text.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
