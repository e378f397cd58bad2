"""What the runs of a comparison came to, from their records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matsci_hpc.analysis.records import Record, Run, as_number, read_run
from matsci_hpc.comparison.metrics import title_of, unit_of, untrained_value_of, value_of
from matsci_hpc.comparison.plan import ArmRun
from matsci_hpc.comparison.pretraining import SECONDS_PER_HOUR
from matsci_hpc.config.comparison import ComparisonConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.study_code import code_of, of_all_lives
from matsci_hpc.telemetry.provenance import nodes_of


class DivergedError(UserInputError):
    """A run whose result is no finite number."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one complete run came to. Values are in the order of the metrics of the comparison.

    Attributes:
        run: of the plan.
        values: on the split of the results.
        validation: on the held-out split, by the same parameters; None where it was not evaluated then.
        untrained: what predicting the mean or the commonest class would reach on the split; None where unknown.
        units: of the metrics.
        train_samples: samples of the training set.
        test_samples: of the split of the results.
        weights_step: step whose parameters were evaluated.
        curve: of the held-out split: samples seen, and the values.
        time_s: of training and all evaluations.
        nodes: that it ran on.
        facts: what runs that are compared may not differ in.
    """

    run: ArmRun
    values: tuple[float, ...]
    validation: tuple[float | None, ...]
    untrained: tuple[float | None, ...]
    units: tuple[str, ...]
    train_samples: int
    test_samples: int
    weights_step: int
    curve: tuple[tuple[int, tuple[float | None, ...]], ...]
    time_s: float
    nodes: int
    facts: Mapping[str, object]

    @property
    def node_hours(self) -> float:
        """Node-hours of training."""
        return self.nodes * self.time_s / SECONDS_PER_HOUR


def read_result(comparison: ComparisonConfig, run: ArmRun) -> Result:
    """Read what a complete run has recorded.

    Raises:
        DivergedError: a value is no finite number.
        UserInputError: it has not recorded what is needed.
    """
    found = read_run(run.job.output)
    config = run.training
    final = _line(found, comparison.split, config.steps)
    if final is None or "weights_step" not in final:
        raise UserInputError(
            f"{run.name}: its evaluations.jsonl has no evaluation of split {comparison.split!r} at the end"
        )
    weights_step = int(final["weights_step"])
    held_out = config.data.held_out
    lines = [line for line in found.evaluations if held_out is not None and line.get("split") == held_out]
    values = [value_of(metric, final) for metric in comparison.metrics]
    for metric, value in zip(comparison.metrics, values, strict=True):
        if value is None:
            raise DivergedError(f"{run.name}: {title_of(metric)} is no finite number")
    validated = next((line for line in reversed(lines) if line["step"] == weights_step), None)
    last = found.steps[-1] if found.steps else {}
    return Result(
        run=run,
        values=tuple(value for value in values if value is not None),
        validation=tuple(_maybe(comparison, validated)),
        untrained=tuple(untrained_value_of(metric, final) for metric in comparison.metrics),
        units=tuple(unit_of(metric, final) for metric in comparison.metrics),
        train_samples=_train_samples(run, found),
        test_samples=int(as_number(final.get("samples")) or 0),
        weights_step=weights_step,
        curve=tuple((int(line.get("samples_seen") or 0), tuple(_maybe(comparison, line))) for line in lines),
        time_s=as_number(final.get("time_s")) or as_number(last.get("time_s")) or 0.0,
        nodes=nodes_of(found.provenance),
        facts={
            "code": of_all_lives(found.provenance, code_of, "matsci_hpc", "git"),
            "data": " ".join(str(each.get("fingerprint", "unknown")) for each in found.data),
            "steps": found.last_step,
            "samples_seen": last.get("samples_seen"),
            "evaluations": len(lines),
            "skipped_steps": last.get("skipped_steps", 0),
            "test_samples": final.get("samples"),
        },
    )


def _maybe(comparison: ComparisonConfig, line: Record | None) -> list[float | None]:
    return [None if line is None else value_of(metric, line) for metric in comparison.metrics]


def _line(run: Run, split: str, step: int) -> Record | None:
    """The last evaluation of a split at a step."""
    lines = (line for line in reversed(run.evaluations) if line.get("split") == split and line["step"] == step)
    return next((line for line in lines if "weights_step" in line), None)


def _train_samples(run: ArmRun, found: Run) -> int:
    """Samples of the training set."""
    if run.size != "full":
        return run.size
    split = run.training.data.split
    return sum(_count(each.get("splits"), split) for each in found.data)


def _count(splits: Any, split: str) -> int:
    return int(as_number(splits.get(split)) or 0) if isinstance(splits, dict) else 0
