"""`matsci-hpc plan`: what a training run will do on so many ranks, before any job is queued."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from matsci_hpc.config.generated import MAX_SAMPLES
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.forecast import Balance, Planning, Spread, add_up, forecast_balance, measure_planning
from matsci_hpc.loading.grouping import GOAL, MIN_RANKS, choose, try_thresholds
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.loading.oversized import judge_oversized
from matsci_hpc.loading.plan import COST, Plan
from matsci_hpc.loading.spec import PlanSpec, SampleSizes, plan_spec
from matsci_hpc.models.memory import ModelMemory, measure_memory
from matsci_hpc.models.registry import build_model
from matsci_hpc.telemetry.recorder import private_bytes
from matsci_hpc.training.freezing import Freezing
from matsci_hpc.training.precision import Precision
from matsci_hpc.training.tasks import build_tasks, local_losses, weighted_sum

MEASURED_COST = 100_000.0
"""Predicted cost of the real samples that the model's memory is measured on."""
COLUMN = 12
CLEARLY = 0.05
"""Gain in efficiency at which the other plan is worth naming."""
BUSY = 0.8
"""Efficiency below which a person is warned."""
NOTICEABLE = 0.01
"""Share of (rank, step) pairs without work at which a person is warned."""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What `matsci-hpc plan` found.

    Attributes:
        ranks: asked for.
        steps: of the whole run.
        datasets: folder, samples of the split, those of them that are left out, and occurrences in the first epoch.
        samples: of the first epoch.
        plain, grouped: balance without grouping and with it.
        takes: which of the two the run will take, `plain` or `grouped`.
        why: the reason.
        epochs: that the run's steps make.
        last_graphs: samples of the last step of the first epoch, if that is shorter than the others by plan.
        memory: of the model, in the last phase of a run that freezes some of it.
        rank_bytes: tensors of the rank with the largest share at their peak.
        program_bytes: private memory of this process with the model built, without the model's weights.
        least_bytes: both together.
        planning: time and memory of planning.
        warnings: for a person.
    """

    ranks: int
    steps: int
    datasets: list[dict[str, Any]]
    samples: int
    plain: Balance
    grouped: Balance
    takes: str
    why: str
    epochs: float
    last_graphs: int | None
    memory: ModelMemory
    rank_bytes: float
    program_bytes: int
    least_bytes: float
    planning: Planning
    warnings: list[str]

    @property
    def taken(self) -> Balance:
        """The balance that the run will have."""
        return self.grouped if self.takes == "grouped" else self.plain

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def make_plan_report(config: TrainConfig, ranks: int) -> PlanReport:
    """Forecast a run on so many ranks.

    Raises:
        UserInputError: the data and the config do not fit, or the speeds are not those of so many ranks.
    """
    speeds = config.balance.speeds
    if speeds is not None and len(speeds) != ranks:
        raise UserInputError(f"balance.speeds names {len(speeds)} ranks, and the plan is for {ranks}")
    collection = open_collection(config.data)
    sizes = collection
    spec = plan_spec(config, sizes)
    whole = Plan(sizes, spec)
    warning = judge_oversized(sizes, spec, whole.oversized, COST, sizes.sample_name)
    memory, program_bytes = _measure(config, collection, sizes, whole)
    takes, above, why = _choose(config, sizes, spec, ranks)
    totals = add_up(sizes, whole)
    parts = (config.batch.micro_batches, config.batch.micro_cost)
    plain = forecast_balance(sizes, spec, totals, ranks, speeds, *parts)
    grouped = forecast_balance(sizes, replace(spec, group_above=above), totals, ranks, speeds, *parts)
    taken, other = (grouped, plain) if takes == "grouped" else (plain, grouped)
    rank_bytes = memory.total(taken.largest_part)
    left_out = whole.oversized if spec.oversized_policy == "skip" else np.empty(0, dtype=np.int64)
    return PlanReport(
        ranks=ranks,
        steps=config.steps,
        datasets=[
            {"path": each.name, "samples": count, "left_out": without, "in_epoch": in_epoch}
            for each, count, without, in_epoch in zip(
                collection.datasets,
                sizes.split_counts(spec.split).tolist(),
                np.diff(np.searchsorted(left_out, collection.offsets)).tolist(),
                whole.counts(0),
                strict=True,
            )
        ],
        samples=whole.samples(0),
        plain=plain,
        grouped=grouped,
        takes=takes,
        why=why,
        epochs=config.steps / taken.steps,
        last_graphs=whole.samples(0) % spec.graphs or None if spec.graphs else None,
        memory=memory,
        rank_bytes=rank_bytes,
        program_bytes=program_bytes,
        least_bytes=rank_bytes + program_bytes,
        planning=measure_planning(sizes, replace(spec, group_above=taken.group_above)),
        warnings=([warning] if warning else []) + list(_warnings(config, taken, other, takes, ranks)),
    )


def _choose(config: TrainConfig, sizes: SampleSizes, spec: PlanSpec, ranks: int) -> tuple[str, float | None, str]:
    """Which plan the run takes, the threshold to show for grouping, and the reason, as `resolve_grouping` decides."""
    batch = config.batch
    if batch.group_above is not None:
        return "grouped", batch.group_above, "batch.grouping is similar, with batch.group_above"
    trials = try_thresholds(sizes, spec, ranks, config.balance.speeds)
    best = choose(trials[1:]) if len(trials) > 1 else trials[0]
    if best.group_above is None:  # the first trial, without grouping, was good enough
        best = choose(try_thresholds(sizes, spec, ranks, config.balance.speeds, plain=False))
    if batch.grouping != "auto":
        takes = "grouped" if batch.grouping == "similar" else "plain"
        return takes, best.group_above, f"batch.grouping is {batch.grouping}"
    if ranks < MIN_RANKS:
        return "plain", best.group_above, f"auto groups from {MIN_RANKS} ranks on"
    chosen = choose(trials)
    if chosen.group_above is None:
        reached = f"reaches the goal of {GOAL:.2f}" if chosen.efficiency >= GOAL else "is as good as any grouping"
        return "plain", best.group_above, f"plain {reached}"
    if chosen.efficiency >= GOAL:
        why = f"plain stays below the goal of {GOAL:.2f}; grouping the largest {chosen.share:.0%} reaches it"
    else:
        why = f"nothing reaches the goal of {GOAL:.2f}; grouping the largest {chosen.share:.0%} comes nearest"
    return "grouped", chosen.group_above, why


def _measure(config: TrainConfig, collection: Collection, sizes: SampleSizes, plan: Plan) -> tuple[ModelMemory, int]:
    """Bytes of the run's own model in its last phase, measured on real samples, and those of the program without it."""
    precision = Precision(config.precision)
    tasks = build_tasks(config, collection)
    model = build_model(
        config.model,
        {task.name: task.spec for task in tasks},
        collection.cutoff,
        {task.name: task.scaling for task in tasks},
        config.gradients,
    ).to(dtype=precision.dtype)
    Freezing(model, config.fine_tune).begin(config.steps - 1)  # most is trained in the last phase
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    program_bytes = max(private_bytes() - weights, 0)
    samples = plan.epoch(0).draw(0, min(256, plan.samples(0)))
    costs = COST.of(sizes.atoms(samples), sizes.edges(samples))
    few = samples[: max(1, int(np.searchsorted(np.cumsum(costs), MEASURED_COST)))]
    batch = precision.cast(collate(collection, np.sort(few)))
    ones = {task.column: 1 for task in tasks}

    def loss() -> Tensor:
        return weighted_sum(tasks, local_losses(tasks, model, batch, ones, precision))

    memory = measure_memory(model, batch, float(costs[: len(few)].sum()), loss)
    if config.average.decay is not None:
        memory = replace(memory, average=weights)
    return memory, program_bytes


def _warnings(config: TrainConfig, taken: Balance, other: Balance, takes: str, ranks: int) -> Iterator[str]:
    if taken.idle >= NOTICEABLE:
        count = config.batch.graphs or taken.graphs.least  # the last step may be shorter, but that is not the cause
        few = f"{count:,.0f} {'graph' if count == 1 else 'graphs'}"
        on = f"{ranks:,} {'rank' if ranks == 1 else 'ranks'}"
        yield f"there are steps of {few} on {on}: over the epoch {taken.idle:.0%} of the ranks have no work"
    made = config.data.folders == []  # whose samples are alike in no block
    if config.data.block > 1 and not made and config.data.block > taken.graphs.mean / 8:
        yield (
            f"data.block: {config.data.block:,} samples that lie together are a large part of a step of "
            f"{taken.graphs.mean:,.0f}; its samples will be alike"
        )
    if taken.time_weighted < BUSY:
        busy = f"the ranks are busy {taken.time_weighted:.0%} of the time"
        if other.time_weighted >= taken.time_weighted + CLEARLY:
            way = "none" if takes == "grouped" else "similar"
            more = "; fewer ranks or a larger batch helps further" if other.time_weighted < BUSY else ""
            yield f"{busy}; with batch.grouping={way} it is {other.time_weighted:.0%}{more}"
        else:
            at_best = " at best" if taken.time_weighted >= other.time_weighted else ""
            yield f"{busy}{at_best}; fewer ranks or a larger batch helps"


def render(report: PlanReport, name: str) -> str:
    """The report as text: two aligned columns, a table of the two plans, and what to mind."""
    rows = [
        f"{name} on {report.ranks:,} {'rank' if report.ranks == 1 else 'ranks'}",
        "",
        *_data_rows(report),
        *_run_rows(report),
        "",
        *_balance_rows(report),
        "",
        *_memory_rows(report),
        _row("planning", _planning(report.planning)),
    ]
    if report.warnings:
        rows += ["", *(_row("mind" if i == 0 else "", text) for i, text in enumerate(report.warnings))]
    return "\n".join(row.rstrip() for row in rows)


def _data_rows(report: PlanReport) -> Iterator[str]:
    for i, each in enumerate(report.datasets):
        kept = each["samples"] - each["left_out"]
        if each["samples"] == MAX_SAMPLES:
            yield _row("data", f"endless, {each['in_epoch']:,} samples an epoch  {each['path']}")
            continue
        ratio = each["in_epoch"] / max(kept, 1)
        text = f"{each['samples']:,} samples"
        if each["left_out"]:
            ones = "one" if each["left_out"] == 1 else "ones"
            text = f"{kept:,} of {text} ({each['left_out']:,} oversized {ones} left out)"
        times = "" if ratio == 1 or kept == 0 else f", {ratio:.4g} times in an epoch"
        yield _row("data" if i == 0 else "", f"{text}{times}  {each['path']}")
    if len(report.datasets) > 1:
        yield _row("", f"{report.samples:,} samples in an epoch")
    graphs, atoms, edges = report.taken.graphs, report.taken.atoms, report.taken.edges
    yield ""
    yield _row("a step has", f"{'mean':>{COLUMN}}{'least':>{COLUMN}}{'most':>{COLUMN}}")
    for what, spread in (("graphs", graphs), ("atoms", atoms), ("edges", edges)):
        yield _row(f"  {what}", _numbers(spread))
    yield ""


def _run_rows(report: PlanReport) -> Iterator[str]:
    taken = report.taken
    last = f"; the last step of an epoch has {report.last_graphs:,}" if report.last_graphs and taken.steps > 1 else ""
    epochs = f"{report.epochs:,.3g} epochs of {taken.steps:,} {'step' if taken.steps == 1 else 'steps'}"
    yield _row("run", f"{report.steps:,} {'step' if report.steps == 1 else 'steps'} = {epochs}{last}")
    if taken.looked_at < taken.steps:
        yield _row(
            "", f"figures of steps and balance are from {taken.looked_at} of {taken.steps:,} steps, means from all"
        )


def _balance_rows(report: PlanReport) -> Iterator[str]:
    plans = {"plain": report.plain, "grouped": report.grouped}
    head = "".join(f"{name:>{COLUMN}}" for name in plans)
    yield _row("balance", head)
    lines = (
        ("  efficiency", "efficiency", ".3f"),
        ("  by time", "time_weighted", ".3f"),
        ("  worst 5 %", "worst", ".3f"),
        ("  mean share", "mean_share", ",.0f"),
        ("  largest", "largest_share", ",.0f"),
    )
    for label, field, form in lines:
        yield _row(label, "".join(f"{getattr(plan, field):>{COLUMN}{form}}" for plan in plans.values()))
    yield _row("takes", f"{report.takes}: {report.why}")
    above = report.grouped.group_above
    if above is not None:
        yield _row("", f"grouped = samples of a cost above {above:,.0f} (edges + 30 atoms) in steps of their own kind")


def _memory_rows(report: PlanReport) -> Iterator[str]:
    memory = report.memory
    fixed = memory.fixed
    frozen = memory.numbers - memory.trained
    counted = f"{memory.trained:,} trained in the last phase, {frozen:,} frozen" if frozen else "all are trained"
    yield _row("parameters", f"{memory.numbers:,}: {counted}")
    yield _row("memory", f"{_bytes(report.least_bytes)} a rank to ask for at least, which is the sum of")
    yield _row("", f"{_bytes(report.rank_bytes)} tensors of the rank with the largest share, at their peak:")
    work = _bytes(report.rank_bytes - fixed)
    average = ", running mean" if memory.average else ""
    of = " of those that are trained" if frozen else ""
    yield _row("", f"  {_bytes(fixed)} parameters, gradients and Adam states{of}{average}, {work} work of a step")
    yield _row("", f"{_bytes(report.program_bytes)} the program itself")
    yield _row("", "memory that the allocator keeps comes on top, which can be several times the work of a step")


def _planning(planning: Planning) -> str:
    about = "about " if planning.extrapolated else ""
    return f"{about}{planning.time_s:.3g} s an epoch on each rank, {_bytes(planning.memory_bytes)}"


def _row(label: str, text: str) -> str:
    return f"  {label:<{COLUMN}}  {text}"


def _numbers(spread: Spread) -> str:
    return "".join(f"{value:>{COLUMN},.0f}" for value in (spread.mean, spread.least, spread.most))


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"
