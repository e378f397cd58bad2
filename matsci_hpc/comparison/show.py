"""`matsci-hpc compare plan`: the runs in their order; nothing is written."""

from collections.abc import Mapping
from typing import Any

from matsci_hpc.comparison.plan import ArmRun, plan_comparison, setting_of
from matsci_hpc.config.comparison import ComparisonConfig
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.preflight.words import counted, time_in_words
from matsci_hpc.scaling.study_folder import StudyFolder, data_to_make, state_of
from matsci_hpc.scaling.study_show import aligned

HEADER = ("", "arm", "training samples", "seed", "setting", "steps", "batch", "begins with", "ranks", "takes", "state")
TEXTS = frozenset({1, 4, 6, 7, 10})


def show_comparison(comparison: ComparisonConfig, site_name: str | None = None) -> str:
    """The runs as a table.

    Raises:
        UserInputError: a run would not be valid, or arms have unequal budgets.
    """
    site = load_site(site_name or comparison.site)
    runs = plan_comparison(comparison, site)
    folder = StudyFolder(comparison)
    times = {name: each["wall_s"] for name, each in folder.started().items() if _finished(each)}
    rows = [_row(number, run, folder, times) for number, run in enumerate(runs, 1)]
    arms, count = " against ".join(comparison.arms), counted(len(runs), "run")
    but = f" but for {', '.join(comparison.allow)}" if comparison.allow else ""
    lines = [
        f"{arms}: {count} of {comparison.base}, below {comparison.out}/runs; the arms have equal budgets{but}",
        *(f"first: prep {job.config} to {job.output}" for job in data_to_make(comparison, site)),
        *aligned([HEADER, *rows], TEXTS),
    ]
    if times:
        mean = sum(times.values()) / len(times)
        left = sum(row[-1] != "complete" for row in rows)
        lines.append(
            f"takes: about {time_in_words(mean * left)} for the {counted(left, 'run')} that are left, one after the "
            f"other, by the {len(times)} made here"
            if left
            else "all runs are complete"
        )
    return "\n".join(lines)


def _row(number: int, run: ArmRun, folder: StudyFolder, times: Mapping[str, float]) -> tuple[str, ...]:
    state = state_of(run, folder.log(run.name))
    begin = run.training.init_from
    return (
        str(number),
        run.arm,
        f"{run.size:,}" if isinstance(run.size, int) else run.size,
        str(run.seed),
        setting_of(run) or "-",
        f"{run.training.steps:,}",
        run.work,
        str(begin) if begin is not None else "random",
        str(run.job.ranks),
        time_in_words(times[run.name]) if run.name in times else "-",
        "to be run" if state.standing == "absent" else state.standing,
    )


def _finished(start: Mapping[str, Any]) -> bool:
    return isinstance(start.get("wall_s"), int | float) and start.get("exit_code") == 0
