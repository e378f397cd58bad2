"""`matsci-hpc study collect`: from the records of the runs to one table, and what is missing from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matsci_hpc.config.study import StudyConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.scaling.measure import Measurement, measure, to_target
from matsci_hpc.scaling.study_code import code_of, hardware_of, of_all_lives, read_provenance, threads_of
from matsci_hpc.scaling.study_courses import Course, dynamics_csv, loss_csv, read_course
from matsci_hpc.scaling.study_folder import StudyFolder, state_of
from matsci_hpc.scaling.study_plan import StudyRun, plan_runs
from matsci_hpc.scaling.table import Row, Table
from matsci_hpc.scaling.table_files import write_table
from matsci_hpc.whole_files import write_atomic

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What a study has come to.

    Attributes:
        rows: one for each complete run, in the order of the plan.
        incomplete: name of a run and why it is not in the table.
        lives: name of a run that is in the table though it was restarted, and how many lives it had.
        courses: of the losses, of the runs in the table and of those that ended because a loss was no number.
    """

    rows: list[Row]
    incomplete: dict[str, str]
    lives: dict[str, int]
    courses: list[Course]


@dataclass(frozen=True, slots=True)
class _Measured:
    run: StudyRun
    measurement: Measurement
    course: Course | None
    nodes: int
    provenance: dict[str, Any]
    start: Mapping[str, Any]


def collect_study(study: StudyConfig, site_name: str | None = None) -> Collected:
    """Read every run, compare only what is alike, and write table, curves and the list of what is missing.

    Args:
        study: to be read.
        site_name: where it ran; None: where its runs were last started.

    Raises:
        UserInputError: no run is complete, or runs of one series are not comparable.
        MachineError: the folder cannot be written.
    """
    folder = StudyFolder(study)
    runs = plan_runs(study, load_site(site_name or folder.newest_site() or study.site))
    started = folder.started()
    found: list[_Measured] = []
    incomplete: dict[str, str] = {}
    diverged: list[Course] = []
    for run in runs:
        state = state_of(run, folder.log(run.name))
        if state.standing != "complete":
            incomplete[run.name] = state.reason
            if state.standing == "broken off" and (run.job.output / "nonfinite").is_dir():
                diverged += [course for course in [read_course(run, state.reason)] if course is not None]
            continue
        try:
            measurement = measure(run, study.warmup_steps)
        except UserInputError as error:
            incomplete[run.name] = str(error).removeprefix(f"{run.name}: ")
            continue
        # The site that it was started on may divide ranks over nodes otherwise than the site of the plan.
        start = started.get(run.name, {})
        nodes = int(start.get("nodes") or run.job.nodes)
        found.append(_Measured(run, measurement, read_course(run), nodes, read_provenance(run), start))
    if not found:
        some = "; ".join(f"{name}: {reason}" for name, reason in list(incomplete.items())[:3])
        raise UserInputError(
            f"{study.out}: no run of the study is complete ({some}); `matsci-hpc study run` makes them"
        )
    refuse_unlike(study, [(each.run, facts_of(each.run, each.provenance)) for each in found])
    rows = [_row(study, each) for each in found]
    courses = [*(each.course for each in found if each.course is not None), *diverged]
    _write(folder, rows, courses, incomplete)
    lives = {each.run.name: int(each.measurement.details.get("lives", 1)) for each in found}
    return Collected(rows, incomplete, {name: count for name, count in lives.items() if count > 1}, courses)


def facts_of(run: StudyRun, provenance: Mapping[str, Any]) -> dict[str, str]:
    """What may not differ within a series, by the words of `allow`."""
    hardware = of_all_lives(provenance, hardware_of, "cpu", "gpus")
    return {
        "code": of_all_lives(provenance, code_of, "matsci_hpc", "git"),
        "hardware": f"{hardware}, threads of a rank: {threads_of(provenance)}",
        "data": _data_of(run),
    }


def refuse_unlike(study: StudyConfig, facts: list[tuple[StudyRun, Mapping[str, str]]]) -> None:
    """See to it that runs are comparable: in a series they differ in their ranks alone.

    Raises:
        UserInputError: they are not, and the study does not allow it.
    """
    first: dict[tuple[object, ...], tuple[StudyRun, Mapping[str, str]]] = {}
    for run, found in facts:
        series = tuple(run.labels.items())
        before, known = first.setdefault(series, (run, found))
        for what in ("code", "hardware", "data"):
            if what in study.allow or found[what] == known[what]:
                continue
            raise UserInputError(
                f"{before.name} and {run.name} are of one series and differ in {what}: {known[what]} and "
                f"{found[what]}; run one of them again, or say allow: [{what}] in the study"
            )


def _data_of(run: StudyRun) -> str:
    """Fingerprints of the data sets that a run trained on; a preparation reads none."""
    if not isinstance(run.config, TrainConfig):
        return "none"
    try:
        entries = json.loads((run.job.output / "data.json").read_text(encoding="utf-8"))
        return " ".join(str(each.get("fingerprint", "unknown")) for each in entries)
    except (OSError, ValueError, AttributeError, TypeError):
        return "unknown"


def _row(study: StudyConfig, found: _Measured) -> Row:
    run, measurement = found.run, found.measurement
    details: dict[str, Any] = dict(measurement.details)
    if isinstance(run.config, TrainConfig):
        batch = run.config.batch
        details["global_batch"] = batch.graphs if batch.graphs is not None else f"cost {batch.cost:g}"
        details |= _costs(study, found)
    else:
        details["node_hours"] = found.nodes * measurement.time_s / SECONDS_PER_HOUR
    details |= {
        "threads": threads_of(found.provenance),
        "host": found.provenance.get("host", "unknown"),
        "hardware": hardware_of(found.provenance),
        "code": code_of(found.provenance),
        "data": _data_of(run),
        "load_at_start": found.start.get("load", "unknown"),
        "started": found.provenance.get("time", "unknown"),
        "run": run.name,
    }
    if "threads" in run.labels:
        del details["threads"]
    return Row(
        ranks=measurement.ranks,
        throughput=measurement.throughput,
        time_s=measurement.time_s,
        samples=measurement.samples,
        nodes=found.nodes,
        scaling=study.scaling,
        repeat=str(run.repeat),
        labels=run.labels,
        details={name: _cell(value) for name, value in details.items()},
    )


def _costs(study: StudyConfig, found: _Measured) -> dict[str, float | str]:
    """Loss, spikes and node-hours of a training run; its time begins with the first step."""
    course = found.course
    if course is None or not course.steps:
        return {}
    curve = course.steps
    costs: dict[str, float | str] = {
        "samples_seen": curve[-1][1],
        "training_time_s": curve[-1][2],
        "last_loss": curve[-1][3],
        "node_hours": found.nodes * curve[-1][2] / SECONDS_PER_HOUR,
        "spikes": len(course.spikes),
        "rollbacks": course.rollbacks,
    }
    if study.target_loss is not None:
        reached = to_target(curve, study.target_loss)
        samples, time_s = reached if reached is not None else ("not reached", None)
        costs["samples_to_target"] = samples
        costs["node_hours_to_target"] = "not reached" if time_s is None else found.nodes * time_s / SECONDS_PER_HOUR
    return costs


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _write(folder: StudyFolder, rows: list[Row], courses: list[Course], incomplete: Mapping[str, str]) -> None:
    table = Table(tuple(rows), str(folder.results))
    write_table(folder.results, table)
    write_table(folder.results_jsonl, table)
    if courses:
        write_atomic(folder.loss, loss_csv(courses).encode())
        write_atomic(folder.dynamics, dynamics_csv(courses).encode())
    text = "".join(f"{name}: {reason}\n" for name, reason in incomplete.items())
    write_atomic(folder.incomplete, text.encode(errors="replace"))
