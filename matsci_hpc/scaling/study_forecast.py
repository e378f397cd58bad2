"""What a study would measure, predicted, beside what it has measured.

Each series of the study is predicted on the ranks that it names, from its own runs where some are complete, else from a
trial here. Where the runs of a size are complete, their mean step time and efficiency stand beside the prediction. What
computing takes is then from these very runs, so that the comparison tests what ranks add to it: imbalance, the exchange
of gradients, and noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from matsci_hpc.config.study import StudyConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.scaling.efficiency import Estimate, efficiency, mean_estimate
from matsci_hpc.scaling.forecast_run import Forecast, Question, Size, Trials, forecast_sizes
from matsci_hpc.scaling.loads import for_ranks
from matsci_hpc.scaling.measure import Measurement, measure
from matsci_hpc.scaling.prediction import Prediction
from matsci_hpc.scaling.recorded import recorded_cost
from matsci_hpc.scaling.study_code import read_provenance
from matsci_hpc.scaling.study_collect import facts_of, refuse_unlike
from matsci_hpc.scaling.study_folder import StudyFolder, state_of
from matsci_hpc.scaling.study_plan import StudyRun, plan_runs
from matsci_hpc.scaling.table import SAMPLES_PER_S, Series

Labels = tuple[tuple[str, str], ...]
Measured = dict[str, Measurement]
"""By name of the run."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """What the complete runs of one size took.

    Attributes:
        repeats: number of runs.
        step_s: mean time of a step.
        efficiency: against the smallest size that is predicted; None where that was not measured.
    """

    repeats: int
    step_s: Estimate
    efficiency: Estimate | None


@dataclass(frozen=True, slots=True)
class SeriesForecast:
    """A series of the study.

    Attributes:
        name: what tells it from other series, in one line; empty if there is one only.
        labels: of it.
        forecast: on all of its sizes.
        measured: by number of ranks, where runs are complete.
    """

    name: str
    labels: Mapping[str, str]
    forecast: Forecast
    measured: Mapping[int, Measurements] = field(default_factory=dict)

    def ratio(self, prediction: Prediction) -> float | None:
        """Predicted over measured step time."""
        found = self.measured.get(prediction.ranks)
        return None if found is None else prediction.step_s / found.step_s.value


@dataclass(frozen=True, slots=True)
class StudyForecast:
    """The answer: a series at least."""

    study: StudyConfig
    series: tuple[SeriesForecast, ...]


def remarks_of(series: Sequence[SeriesForecast]) -> list[str]:
    """What to mind, once each; what is not about all series names its own."""
    about: dict[str, list[str]] = {}
    for each in series:
        for text in each.forecast.remarks:
            about.setdefault(text, []).append(each.name)
    return [
        text if len(names) == len(series) else f"{'; '.join(filter(None, names))}: {text}"
        for text, names in about.items()
    ]


def forecast_study(study: StudyConfig, question: Question, site_name: str | None = None) -> StudyForecast:
    """Predict every size of every series of a study, and set beside it what was measured.

    Args:
        study: of training runs.
        question: options of the prediction; its ranks are predicted besides those of the study, its config and
            overrides are those of the study's runs.
        site_name: where the study is to run; None: where its runs were last started, else the site of the study.

    Raises:
        UserInputError: the study is one of a preparation, runs of a series are not comparable, or options do not fit.
        MachineError: a trial ended without a result.
    """
    folder = StudyFolder(study)
    planned = plan_runs(study, load_site(site_name or folder.newest_site() or study.site))
    runs = sorted(
        planned, key=lambda run: ([values.index(run.point[axis]) for axis, values in study.axes.items()], run.repeat)
    )
    if not all(isinstance(run.config, TrainConfig) for run in runs):
        raise UserInputError(f"{study.base}: prepares data, and predictions are of training runs")
    measured = dict(_measured(study, folder, runs))
    refuse_unlike(study, [(run, facts_of(run, read_provenance(run))) for run in runs if run.name in measured])
    by_series: dict[Labels, list[StudyRun]] = {}
    for run in runs:
        by_series.setdefault(tuple(run.labels.items()), []).append(run)
    common = set.intersection(*map(set, by_series))
    trials: Trials = {}
    found = []
    for labels, of_series in by_series.items():
        name = ", ".join(f"{key}={value}" for key, value in labels if (key, value) not in common)
        found.append(_forecast_series(study, question, name, labels, of_series, measured, trials))
    return StudyForecast(study, tuple(found))


def _measured(study: StudyConfig, folder: StudyFolder, runs: Sequence[StudyRun]) -> Iterator[tuple[str, Measurement]]:
    for run in runs:
        if state_of(run, folder.log(run.name)).standing != "complete":
            continue
        try:
            yield run.name, measure(run, study.warmup_steps)
        except UserInputError:  # `study collect` says why it is of no use
            continue


def _forecast_series(
    study: StudyConfig,
    question: Question,
    name: str,
    labels: Labels,
    runs: Sequence[StudyRun],
    measured: Measured,
    trials: Trials,
) -> SeriesForecast:
    weak = study.scaling == "weak"
    first = {run.job.ranks: run for run in reversed(runs)}
    base = first[min(first)]
    per_node = {ranks: question.ranks_per_node or -(-ranks // run.job.nodes) for ranks, run in first.items()}
    ranks = tuple(sorted({*first, *question.ranks}))
    sizes = [
        Size(each, per_node.get(each, max(per_node.values())), _config_of(first, base, each, weak)) for each in ranks
    ]
    own = [run for run in runs if run.name in measured]
    recorded, note = _recorded(question, own, sizes[0].config)
    asked = replace(
        question,
        config=base.job.config,
        overrides=base.job.overrides,
        ranks=ranks,
        weak=weak,
        threads=question.threads or base.threads or base.job.components[0].cpus_per_rank,
        runs=recorded,
    )
    forecast = forecast_sizes(asked, sizes, trials)
    if note:
        forecast = replace(forecast, remarks=[note, *forecast.remarks])
    return SeriesForecast(name, dict(labels), forecast, _measurements(study, labels, own, measured, ranks[0]))


def _recorded(question: Question, own: Sequence[StudyRun], config: TrainConfig) -> tuple[tuple[Path, ...], str]:
    """The runs that tell what a step costs, and a remark on that."""
    if question.runs or question.computing is not None or not own:
        return question.runs, ""
    folders = tuple(run.job.output for run in own)
    try:
        recorded_cost(folders, config)
    except UserInputError as error:
        return (), f"the runs of the study do not tell what a step costs: {str(error).removeprefix('--from ')}"
    return folders, "what computing takes is from the runs of the study; what ranks add to it is predicted"


def _config_of(first: Mapping[int, StudyRun], base: StudyRun, ranks: int, weak: bool) -> TrainConfig:
    """The config of a size: of the study's run, else as the smallest one would be on so many ranks.

    Raises:
        UserInputError: no such batch can be, or the ranks are not alike.
    """
    run = first.get(ranks)
    config = (run or base).config
    assert isinstance(config, TrainConfig)  # noqa: S101 - all of them are, or nothing is predicted
    return for_ranks(config, ranks, ranks if run is not None else base.job.ranks, weak=weak)


def _measurements(
    study: StudyConfig, labels: Labels, runs: Sequence[StudyRun], measured: Measured, base: int
) -> dict[int, Measurements]:
    by_ranks: dict[int, list[Measurement]] = {}
    for run in sorted(runs, key=lambda run: (run.job.ranks, run.repeat)):
        by_ranks.setdefault(run.job.ranks, []).append(measured[run.name])
    if not by_ranks:
        return {}
    series = Series(
        labels=labels,
        scaling=study.scaling,
        unit=SAMPLES_PER_S,
        ranks=np.array(list(by_ranks), dtype=np.int64),
        rates=tuple(np.array([each.throughput for each in same]) for same in by_ranks.values()),
        nodes=(None,) * len(by_ranks),
        times_s=tuple(np.array([each.time_s for each in same]) for same in by_ranks.values()),
    )
    points = efficiency(series).points if base in by_ranks else ()
    shares = {point.ranks: point.efficiency for point in points}
    return {
        ranks: Measurements(
            repeats=len(same),
            step_s=mean_estimate(np.array([each.step_time_s or 0.0 for each in same])),
            efficiency=shares.get(ranks),
        )
        for ranks, same in by_ranks.items()
    }
