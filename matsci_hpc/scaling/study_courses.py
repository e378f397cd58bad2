"""How the loss of each run of a study went, and what the optimiser did meanwhile, as tables."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from matsci_hpc.analysis.plain_text import csv_text
from matsci_hpc.analysis.records import Record, Run, as_mapping, as_number, read_run
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.scaling.study_plan import StudyRun


@dataclass(frozen=True, slots=True)
class Look:
    """What a line of dynamics.jsonl says of the whole model; None where that could not be told.

    Attributes:
        step: optimiser step.
        loss: of it.
        grad_norm: before clipping.
        share_beyond: of the parameters, whose Adam ratio lies beyond 0.9.
        autocorrelation: of gradients with those of the step before, lag 1.
        noise_scale: gradient noise scale, graphs.
        spike: how many robust standard deviations the loss is high, if a spike begins here.
    """

    step: int
    loss: float | None
    grad_norm: float | None
    share_beyond: float | None
    autocorrelation: float | None
    noise_scale: float | None
    spike: float | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """The course of one run.

    Attributes:
        run: its name.
        labels: axes other than the size.
        ranks: that it ran on.
        world: ranks that it was to the optimiser, virtual ones counted.
        repeat: from 1.
        steps: step, samples seen, time in seconds and training loss of each line.
        looks: at the optimiser.
        spikes: step of each spike, and how many robust standard deviations it was high; also of those that the run
            went back from.
        rollbacks: how often it went back to a checkpoint.
        ended: why it did not reach its end; None if it did.
    """

    run: str
    labels: dict[str, str]
    ranks: int
    world: int
    repeat: int
    steps: list[tuple[int, int, float, float]]
    looks: list[Look]
    spikes: list[tuple[int, float]]
    rollbacks: int
    ended: str | None = None


def read_course(run: StudyRun, ended: str | None = None) -> Course | None:
    """The course of a run that has records; a preparation has none.

    Raises:
        UserInputError: the records cannot be read.
    """
    if not isinstance(run.config, TrainConfig):
        return None
    found = read_run(run.job.output)
    return Course(
        run=run.name,
        labels=run.labels,
        ranks=run.job.ranks,
        world=run.job.ranks * run.config.parallel.virtual_ranks,
        repeat=run.repeat,
        steps=list(_steps(found.steps)),
        looks=[_look(line) for line in found.dynamics],
        spikes=list(_spikes(found)),
        rollbacks=len(found.rollbacks),
        ended=ended,
    )


def loss_csv(courses: Iterable[Course]) -> str:
    """Training loss against samples and time, one line per logged step of every run."""
    header = ("run", "ranks", "repeat", "step", "samples_seen", "time_s", "loss")
    return csv_text(
        header,
        (
            (each.run, each.ranks, each.repeat, step, samples, _rounded(time_s, 6), _rounded(loss, 9))
            for each in courses
            for step, samples, time_s, loss in each.steps
        ),
    )


def dynamics_csv(courses: Iterable[Course]) -> str:
    """What the optimiser did, one line per valid line of dynamics.jsonl of every run; spikes with how high they are.

    What a run went back from is no part of its course.
    """
    header = (
        *("run", "ranks", "world", "repeat", "step", "loss", "grad_norm", "share_beyond", "autocorrelation"),
        *("noise_scale", "spike_deviations"),
    )
    return csv_text(header, (line for each in courses for line in _dynamics_lines(each)))


def _dynamics_lines(course: Course) -> Iterator[tuple[object, ...]]:
    for look in course.looks:
        numbers = (
            look.loss,
            look.grad_norm,
            look.share_beyond,
            look.autocorrelation,
            look.noise_scale,
            look.spike,
        )
        shown = (None if value is None else _rounded(value, 6) for value in numbers)
        yield (course.run, course.ranks, course.world, course.repeat, look.step, *shown)


def _steps(lines: list[Record]) -> Iterator[tuple[int, int, float, float]]:
    for line in lines:
        loss, time_s = as_number(line.get("loss")), as_number(line.get("time_s"))
        if loss is not None and time_s is not None:
            yield line["step"], int(line["samples_seen"]), time_s, loss


def _look(line: Record) -> Look:
    lags = line.get("autocorrelation")
    return Look(
        step=int(line["step"]),
        loss=as_number(line.get("loss")),
        grad_norm=as_number(line.get("grad_norm")),
        share_beyond=as_number(line.get("share_beyond")),
        autocorrelation=as_number(lags[0]) if isinstance(lags, list) and lags else None,
        noise_scale=as_number(as_mapping(line.get("noise")).get("scale")),
        spike=_height(line) if isinstance(line.get("spike"), dict) else None,
    )


def _spikes(found: Run) -> Iterator[tuple[int, float]]:
    for line in found.spikes:
        yield int(line["step"]), _height(line)


def _height(line: Record) -> float:
    high = as_number(as_mapping(line["spike"]).get("deviations"))
    return high if high is not None else float("inf")


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
