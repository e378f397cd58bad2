"""From a config to predictions: the measurements, the plan and the network brought together."""

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import MachineError
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.preflight.measured import result_of, trial_environment
from matsci_hpc.scaling.choose_links import choose_links
from matsci_hpc.scaling.communication import Algorithm, Network
from matsci_hpc.scaling.exposure import Bucket
from matsci_hpc.scaling.loads import for_ranks, look_at_loads
from matsci_hpc.scaling.networks import Layout, Links
from matsci_hpc.scaling.prediction import Prediction, Storage, predict
from matsci_hpc.scaling.recorded import Recorded, recorded_cost
from matsci_hpc.scaling.step_cost import Line, StepCost, fit_line
from matsci_hpc.shards.manifest import read_manifest

SIZES = 4
"""Sizes of shares that a trial takes."""
GROWTH = 4
FEW_RUNS = 2
"""Runs that are named where it is said what a prediction comes from."""
OF_NO_TRIAL = {"run_dir", "schedule", "optimizer", "steps", "log_every", "checkpoint", "evaluate", "records", "job"}
"""Sections that change nothing in a trial."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be predicted.

    Attributes:
        config: path of the config.
        overrides: `key=value`.
        ranks: numbers of ranks, ascending.
        ranks_per_node: None for as many as the config's job has, else as this machine has cores for.
        threads: of a rank in the trial; None for those of the config's job, else a share of this machine's cores.
        runs: finished runs whose steps are taken.
        computing: time of a step whatever its share, in seconds, and for each unit of predicted cost, as measured
            elsewhere; None for that of a trial or of the runs.
        fabrics: names from the table.
        comm: file of measured all-reduces; None for that of the account.
        ports: of a node.
        algorithm: of all-reduces; None for the quickest.
        weak: whether the batch of a rank stays the same.
        noise: between ranks, relative; None for what the runs tell.
        storage_bytes_per_s: of the file system, for all ranks together; None if it limits nothing.
        seconds: of the trial.
    """

    config: Path
    overrides: tuple[str, ...]
    ranks: tuple[int, ...]
    ranks_per_node: int | None = None
    threads: int | None = None
    runs: tuple[Path, ...] = ()
    computing: tuple[float, float] | None = None
    fabrics: tuple[str, ...] = ()
    comm: Path | None = None
    ports: int = 1
    algorithm: Algorithm | None = None
    weak: bool = False
    noise: float | None = None
    storage_bytes_per_s: float | None = None
    seconds: float = 8.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """The answer.

    Attributes:
        ranks_per_node: that it is for.
        cost: of a step.
        links: of the network.
        epochs: that the run makes.
        predictions: by number of ranks.
        remarks: what to mind, in words.
    """

    ranks_per_node: int
    cost: StepCost
    links: Links
    epochs: float
    predictions: list[Prediction]
    remarks: list[str]


@dataclass(frozen=True, slots=True)
class Size:
    """A number of ranks that is asked about.

    Attributes:
        ranks: of the run.
        per_node: of them.
        config: of the run on so many.
    """

    ranks: int
    per_node: int
    config: TrainConfig


Trials = dict[str, dict[str, Any]]
"""What trials found, by what they were of: runs that compute the same need one only."""


def forecast_run(question: Question) -> Forecast:
    """Measure or read what a step costs, look at the plan, and predict.

    Raises:
        UserInputError: config, data and options do not fit together.
        MachineError: the trial ended without a result.
    """
    config = load_config(TrainConfig, question.config, question.overrides)
    base = question.ranks[0]
    per_node = question.ranks_per_node or _ranks_per_node(config)
    sizes = [Size(ranks, per_node, for_ranks(config, ranks, base, weak=question.weak)) for ranks in question.ranks]
    return forecast_sizes(question, sizes, {})


def forecast_sizes(question: Question, sizes: Sequence[Size], trials: Trials) -> Forecast:
    """The same for sizes whose configs are known.

    Args:
        question: whose config is that of the smallest size.
        sizes: by rising number of ranks.
        trials: made before; one that is made is added.

    Raises:
        UserInputError, MachineError: as of `forecast_run`.
    """
    config = sizes[0].config
    layout = Layout(
        message_bytes=1e6 * config.parallel.bucket_mb,
        algorithm=question.algorithm,
        ports=question.ports,
        nodes=max(-(-each.ranks // each.per_node) for each in sizes),
    )
    links = choose_links(config, layout, question.comm, question.fabrics)
    recorded = recorded_cost(question.runs, config) if question.runs else None  # mistakes show before a trial
    cost = _step_cost(question, config, sizes[0].per_node, recorded, trials)
    collection = open_collection(config.data)
    loads = [look_at_loads(each.config, collection, each.ranks) for each in sizes]
    adding = math.inf if links.measured else cost.sum_bytes_per_s
    networks = [
        Network(
            each.ranks,
            min(each.per_node, each.ranks),
            links.within,
            links.between or links.within,
            question.ports,
            adding,
        )
        for each in sizes
    ]
    predictions = predict(
        cost,
        loads,
        networks,
        storage=Storage(question.storage_bytes_per_s, _bytes_per_sample(config)),
        overlap=config.parallel.overlap,
        algorithm=question.algorithm,
    )
    epochs = config.steps / loads[0].steps
    remarks = [*links.remarks, *_remarks(question, cost, predictions)]
    return Forecast(max(each.per_node for each in sizes), cost, links, epochs, predictions, remarks)


def _ranks_per_node(config: TrainConfig) -> int:
    job = config.job
    if job.ranks is not None and isinstance(job.nodes, int):
        return -(-job.ranks // job.nodes)
    return max(1, len(os.sched_getaffinity(0)) // (job.cpus_per_rank or 1))


def _step_cost(
    question: Question, config: TrainConfig, per_node: int, recorded: Recorded | None, trials: Trials
) -> StepCost:
    cores = len(os.sched_getaffinity(0))
    own = config.job.cpus_per_rank or max(1, cores // min(per_node, question.ranks[0]))
    threads = min(question.threads or own, cores)
    key = _trial_key(question, config, threads)
    if key not in trials:
        trials[key] = _trial(question, config, threads)
    trial = trials[key]
    rows = np.array(trial["left"])
    buckets = tuple(
        Bucket(float(size), float(left))
        for size, left in zip(trial["bucket_bytes"], np.median(rows, axis=0).tolist(), strict=True)
    )
    costs = trial["costs"]
    line = fit_line(costs, trial["compute_s"])
    steps = len(costs)
    where = f"{threads} {'core' if threads == 1 else 'cores'}" if trial["device"] == "cpu" else trial["device"]
    cost = StepCost(
        line=line,
        optimizer_s=float(np.median(trial["optimizer_s"])),
        input=fit_line(costs, trial["input_s"]),
        buckets=buckets,
        sum_bytes_per_s=trial["sum_bytes_per_s"],
        noise=question.noise or 0.0,
        shares=(min(costs), max(costs)),
        steps=steps,
        source=f"{steps} steps of one rank on {where} here",
    )
    if question.computing is not None:
        return _as_given(cost, *question.computing)
    return cost if recorded is None else _as_recorded(cost, recorded, question)


def _as_given(cost: StepCost, fixed_s: float, per_cost_s: float) -> StepCost:
    """A line that somebody has measured elsewhere, with what only a trial tells."""
    return replace(
        cost,
        line=Line(fixed_s, per_cost_s, 0.0, fixed_known=True),
        shares=None,
        source=f"{1e3 * fixed_s:.4g} ms and {1e9 * per_cost_s:.4g} ns for each unit of cost, as given; order of "
        f"gradients, optimiser and reading from {cost.source}",
    )


def _as_recorded(cost: StepCost, recorded: Recorded, question: Question) -> StepCost:
    """The times of runs, with what only a trial tells: the order of gradients, and reading."""
    line = cost.line
    # A run whose shares never differed cannot tell what an empty share takes: that is from here then.
    known, shares = recorded.line, recorded.shares
    if not known.fixed_known and line.fixed_known and cost.shares is not None:
        shares = (min(shares[0], cost.shares[0]), max(shares[1], cost.shares[1]))
        mean = sum(recorded.shares) / 2
        ratio = known.per_cost_s * mean / (line.fixed_s + line.per_cost_s * mean)
        known = replace(line, fixed_s=ratio * line.fixed_s, per_cost_s=ratio * line.per_cost_s, noise=known.noise)
    many = len(question.runs) > FEW_RUNS
    names = f"{len(question.runs)} runs" if many else ", ".join(map(str, question.runs))
    return replace(
        cost,
        line=known,
        optimizer_s=recorded.optimizer_s,
        noise=recorded.noise if question.noise is None else question.noise,
        shares=shares,
        steps=recorded.lines,
        source=f"{recorded.lines} records of {names}; order of gradients and reading from {cost.source}",
    )


def _trial_key(question: Question, config: TrainConfig, threads: int) -> str:
    """What a trial depends on; who joins the ranks is no part of it, since it has one."""
    known = config.model_dump(mode="json", exclude=OF_NO_TRIAL)
    known["parallel"] = {name: known["parallel"][name] for name in ("bucket_mb", "compression", "virtual_ranks")}
    return json.dumps([known, question.ranks[0], question.ranks[-1], threads, question.seconds], sort_keys=True)


def _trial(question: Question, config: TrainConfig, threads: int) -> dict[str, Any]:
    """What one rank needs for shares of several sizes, in a process of its own."""
    first, last = question.ranks[0], question.ranks[-1]
    most = config.batch.graphs or last
    sizes = [first * GROWTH**power for power in range(SIZES)]
    kept = [each for each in sizes if each <= max(first, min(most, GROWTH * last))]
    words = [sys.executable, "-m", "matsci_hpc.scaling.trial", str(question.config), ",".join(map(str, kept))]
    words += [str(question.seconds), *question.overrides]
    try:
        result = result_of(words, trial_environment(os.environ, {}, threads))
    except (TimeoutError, RuntimeError) as error:
        raise MachineError(f"{error}; try a smaller batch, or more --threads") from None
    found: dict[str, Any] = json.loads(result)
    return found


def _bytes_per_sample(config: TrainConfig) -> float:
    """Of the shards, mean; 0 where samples are made on the way."""
    shards = [record for folder in config.data.folders for record in read_manifest(folder).shards]
    samples = sum(each.samples for each in shards)
    return sum(each.bytes for each in shards) / samples if samples else 0.0


def _remarks(question: Question, cost: StepCost, predictions: Sequence[Prediction]) -> list[str]:
    found = []
    if not question.runs and question.computing is None:
        found.append("the cost of a step was measured on this machine; --from RUN_DIR takes that of a run elsewhere")
    if not cost.line.fixed_known:
        found.append("the measured shares were alike, so what a step takes without work is counted as nothing")
    if cost.noise == 0:
        varied = f"; the steps here varied by {cost.line.noise:.0%}" if question.computing is None else ""
        found.append(f"ranks are counted as equally fast{varied} (--noise)")
    beyond = [each.ranks for each in predictions if each.extrapolated]
    if beyond and cost.shares is not None:
        least, most = cost.shares
        found.append(
            f"shares of {', '.join(f'{each:,}' for each in beyond)} ranks lie outside of the measured ones "
            f"({least:,.0f} to {most:,.0f} edges + 30 atoms): extrapolated"
        )
    idle = [each for each in predictions if each.idle >= 0.01]
    if idle:
        worst = idle[-1]
        found.append(f"on {worst.ranks:,} ranks {worst.idle:.0%} of the ranks have no sample in a step")
    return found
