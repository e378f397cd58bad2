"""`matsci-hpc compare collect`: from the records of the runs to tables, and what is missing from them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from matsci_hpc.analysis.plain_text import csv_text
from matsci_hpc.comparison.baselines import read_baselines, refuse_elsewhere
from matsci_hpc.comparison.budget import refuse_unlike
from matsci_hpc.comparison.findings import Findings, find_points
from matsci_hpc.comparison.metrics import title_of
from matsci_hpc.comparison.notes import notes_of
from matsci_hpc.comparison.plan import ArmRun, plan_comparison, setting_of
from matsci_hpc.comparison.pretraining import pretraining_of
from matsci_hpc.comparison.results import DivergedError, Result, read_result
from matsci_hpc.comparison.tuning import choose_trials, place_of
from matsci_hpc.config.comparison import ComparisonConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.scaling.study_folder import StudyFolder, state_of
from matsci_hpc.whole_files import write_atomic


def collect_comparison(comparison: ComparisonConfig, site_name: str | None = None) -> Findings:
    """Read every run, compare only what is alike, and write results, learning curves and the list of what is missing.

    Args:
        comparison: to be read.
        site_name: where it ran; None: where its runs were last started.

    Raises:
        UserInputError: no run is complete, or runs that are compared did unequal work.
        MachineError: the folder cannot be written.
    """
    folder = StudyFolder(comparison)
    runs = plan_comparison(comparison, load_site(site_name or folder.newest_site() or comparison.site))
    baselines = read_baselines(comparison.baselines) if comparison.baselines is not None else ()
    results: list[Result] = []
    incomplete: dict[str, str] = {}
    diverged: list[ArmRun] = []
    for run in runs:
        state = state_of(run, folder.log(run.name))
        if state.standing == "broken off" and (run.job.output / "nonfinite").is_dir():
            diverged.append(run)
            incomplete[run.name] = f"diverged: {state.reason}"
            continue
        if state.standing != "complete":
            incomplete[run.name] = state.reason
            continue
        try:
            results.append(read_result(comparison, run))
        except DivergedError as error:
            diverged.append(run)
            incomplete[run.name] = str(error).replace(f"{run.name}: ", "diverged: ", 1)
        except UserInputError as error:
            incomplete[run.name] = str(error).removeprefix(f"{run.name}: ")
    if not results:
        some = "; ".join(f"{name}: {reason}" for name, reason in list(incomplete.items())[:3])
        raise UserInputError(
            f"{comparison.out}: no run of the comparison is complete ({some}); `matsci-hpc compare run` makes them"
        )
    if comparison.baselines is not None:
        data = dict.fromkeys(str(each.facts["data"]) for each in results)
        refuse_elsewhere(comparison.baselines, baselines, comparison.split, list(data))
    refuse_unlike(comparison, [(each.run, each.facts) for each in results])
    chosen = choose_trials(comparison, results, diverged)
    taken = [each for each in results if chosen[place_of(each.run)] == each.run.trial]
    pretraining = {
        name: pretraining_of(arm.init_from) for name, arm in comparison.arms.items() if arm.init_from is not None
    }
    points = find_points(comparison, taken)
    notes = notes_of(comparison, points, taken, pretraining, incomplete, diverged)
    findings = Findings(
        comparison,
        points,
        tuple(results),
        tuple(taken),
        pretraining,
        baselines,
        incomplete,
        tuple(diverged),
        tuple(notes),
    )
    write_atomic(folder.results, _csv(_result_rows(findings)))
    write_atomic(folder.path / "curves.csv", _csv(_curve_rows(findings)))
    text = "".join(f"{name}: {reason}\n" for name, reason in incomplete.items())
    write_atomic(folder.incomplete, text.encode(errors="replace"))
    return findings


def results_path(comparison: ComparisonConfig) -> Path:
    """Table of all runs."""
    return StudyFolder(comparison).results


def points_csv(findings: Findings) -> bytes:
    """One line for each metric, size and arm, in full precision."""
    return _csv(_point_rows(findings))


def _result_rows(findings: Findings) -> Iterator[Sequence[object]]:
    """One line for each run and metric."""
    yield (
        *("arm", "train_samples", "seed", "setting", "taken", "target", "metric", "unit", "split", "value"),
        *("held_out_value", "weights_step", "test_samples", "samples_seen", "training_time_s", "node_hours", "run"),
    )
    taken = {each.run.name for each in findings.taken}
    for each in findings.results:
        for place, metric in enumerate(findings.comparison.metrics):
            yield (
                *(each.run.arm, each.train_samples, each.run.seed, setting_of(each.run)),
                *("yes" if each.run.name in taken else "no", metric.target, metric.name, each.units[place]),
                *(findings.comparison.split, each.values[place], each.validation[place], each.weights_step),
                *(each.test_samples, each.facts["samples_seen"], each.time_s, each.node_hours, each.run.name),
            )


def _curve_rows(findings: Findings) -> Iterator[Sequence[object]]:
    """The held-out split over the run: one line for each evaluation of every run and metric."""
    yield "arm", "train_samples", "seed", "setting", "samples_seen", "target", "metric", "value"
    for each in findings.results:
        for samples_seen, values in each.curve:
            for metric, value in zip(findings.comparison.metrics, values, strict=True):
                place = (each.run.arm, each.train_samples, each.run.seed, setting_of(each.run))
                yield *place, samples_seen, metric.target, metric.name, value


def _point_rows(findings: Findings) -> Iterator[Sequence[object]]:
    yield (
        *("target", "metric", "unit", "better", "train_samples", "arm", "seeds", "mean", "standard_deviation"),
        *("against", "pairs", "difference", "difference_low", "difference_high", "relative", "relative_low"),
        *("relative_high", "p_paired_t", "p_holm", "p_wilcoxon", "verdict"),
    )
    for point in findings.points:
        for arm in point.arms:
            row: list[object] = [point.metric.target, point.metric.name, point.unit, point.better, point.samples]
            row += [arm.arm, len(arm.values), arm.mean, arm.spread]
            found = next((each for each in point.against if each.arm == arm.arm), None)
            if found is not None:
                paired = found.paired
                row += [findings.comparison.reference, paired.seeds, paired.difference, paired.low, paired.high]
                row += [paired.relative, paired.relative_low, paired.relative_high]
                row += [paired.p, found.holm, paired.wilcoxon, found.verdict]
            yield row + [None] * (21 - len(row))


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    header, *lines = rows
    return csv_text([str(name) for name in header], lines).encode(errors="replace")


def result_words(comparison: ComparisonConfig, result: Result) -> str:
    """What one complete run came to, in a few words."""
    named = zip(comparison.metrics, result.values, result.units, strict=True)
    return ", ".join(f"{title_of(metric)} {value:.4g} {unit}".rstrip() for metric, value, unit in named)


def missing_words(incomplete: Mapping[str, str]) -> list[str]:
    """A line for each run that is not among the results."""
    return [f"not in it: {name}: {reason}" for name, reason in incomplete.items()]
