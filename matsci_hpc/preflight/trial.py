"""A few real steps of one rank of a run, here and now: how fast, how large, and how it is divided over its ranks.

    python -m matsci_hpc.preflight.trial CONFIG RANKS SECONDS [KEY=VALUE]...

A process of its own, started with the environment of a rank: memory and speed depend on it, and a trial that is killed
for want of memory takes nothing along. It writes nothing but one JSON object, as the last line that it prints.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from matsci_hpc.analysis.plan_report import PlanReport, make_plan_report
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import MatsciError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.loading.divide import evaluation_share
from matsci_hpc.loading.grouping import resolve_grouping
from matsci_hpc.loading.loader import Cursor, Division, Loader
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.loading.plan import COST, Plan
from matsci_hpc.loading.sanity import checked_batch
from matsci_hpc.loading.spec import plan_spec
from matsci_hpc.parallel.communicator import SingleProcess
from matsci_hpc.parallel.gradients import FlatGradients
from matsci_hpc.preflight.measured import Trial
from matsci_hpc.telemetry.recorder import private_bytes
from matsci_hpc.training.evaluation import BATCH_COST, BATCHES_PER_LOOK
from matsci_hpc.training.fine_tuning import survey
from matsci_hpc.training.ipex import load_ipex
from matsci_hpc.training.lone_step import accumulate_gradients, update_parameters
from matsci_hpc.training.setup import Run, build_run

MIN_STEPS = 3
"""Measured whatever time they take, after a first one that does not count."""
MAX_STEPS = 400


@dataclass(slots=True)
class Steps:
    """What the steps were like; times and costs without the first one."""

    times_s: list[float]
    costs: list[float]
    first_s: float = 0.0
    bytes: int = 0
    largest_part: float = 0.0


@dataclass(slots=True)
class Evaluation:
    """What evaluations of the held-out and the final split will be like on one rank, from their largest batch."""

    share_s: float = 0.0
    final_s: float = 0.0
    look_s: float = 0.0
    largest: float = 0.0


def run_trial(config: TrainConfig, ranks: int, limit_s: float) -> Trial:
    """Take steps as rank 0 of so many ranks, which never hear of each other.

    Args:
        config: of the run; nothing is written to its folder.
        ranks: of the job.
        limit_s: after so long no further step begins.

    Raises:
        UserInputError: data and config do not fit, or what `init_from` names does not.
        MachineError: a shard is missing or damaged, or IPEX cannot be used here.
    """
    if config.optimize == "ipex":
        load_ipex("cpu" if config.device == "auto" else config.device)
    import_s = process_age_s()
    start_s = time.perf_counter()
    run = build_run(config, open_collection(config.data), SingleProcess(), torch.device("cpu"))
    beginning = None
    if config.init_from is not None:
        beginning = survey(config, run.model, run.tasks, run.collection)
    gradients = FlatGradients(run.model.parameters())
    parameter_bytes = sum(each.numel() * each.element_size() for each in run.model.parameters())
    average_bytes = 0 if run.average is None else sum(each.nbytes for each in run.average.means.values())
    gradient_bytes = sum(each.nbytes for each in gradients.parameters)
    program_bytes = max(private_bytes() - parameter_bytes - gradient_bytes - average_bytes, 0)
    startup_s = import_s + time.perf_counter() - start_s
    steps = _take_steps(run, gradients, ranks, limit_s)
    evaluation = _evaluate(run, ranks)
    peak_bytes = max(steps.bytes, private_bytes())
    # Last, for it leaves memory of its own behind.
    report = make_plan_report(config, ranks)
    memory, taken = report.memory, report.taken
    return Trial(
        threads=torch.get_num_threads(),
        step_times_s=steps.times_s,
        step_costs=steps.costs,
        first_step_s=steps.first_s,
        startup_s=startup_s,
        mean_cost=_mean_cost(report, config),
        largest_cost=taken.largest_share / min(config.balance.speeds or (1.0,)),
        efficiency=taken.time_weighted,
        epochs=report.epochs,
        warnings=report.warnings,
        parameter_bytes=parameter_bytes,
        program_bytes=program_bytes,
        fixed_bytes=memory.fixed,
        work_bytes=memory.work_per_cost * taken.largest_part,
        evaluation_cost=evaluation.largest,
        trial_cost=steps.largest_part,
        trial_work_bytes=memory.work_per_cost * steps.largest_part,
        steps_bytes=steps.bytes,
        peak_bytes=peak_bytes,
        planning_bytes=report.planning.memory_bytes,
        evaluation_s=evaluation.share_s,
        look_s=evaluation.look_s,
        final_s=evaluation.final_s,
        average_bytes=average_bytes,
        beginning=[*beginning.in_words()] if beginning is not None else [],
        beginning_warnings=beginning.warnings if beginning is not None else [],
    )


def process_age_s() -> float:
    """Seconds since this process was started, imports included."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return time.process_time()


def _take_steps(run: Run, gradients: FlatGradients, ranks: int, limit_s: float) -> Steps:
    config, speeds = run.config, run.config.balance.speeds
    spec = plan_spec(config, run.collection)
    above = config.batch.group_above
    virtual = config.parallel.virtual_ranks
    if above is None:
        above = resolve_grouping(run.collection, spec, ranks * virtual, config.batch.grouping, speeds)
    plan = Plan(run.collection, plan_spec(config, run.collection, above))
    batch = config.batch
    division = Division(
        0, ranks, tuple(speeds) if speeds else None, batch.micro_batches, batch.micro_cost, virtual=virtual
    )
    found = Steps([], [])
    run.model.train()
    with Loader(run.collection, plan, Cursor(0, 0, 0), MAX_STEPS, division, COST) as loader:
        start_s = last_s = time.perf_counter()
        for number, work in enumerate(loader):
            accumulate_gradients(run, gradients, work.batches, work.target_counts)
            update_parameters(run, gradients)
            now_s = time.perf_counter()
            if number == 0:
                found.first_s, start_s = now_s - last_s, now_s
            else:
                found.times_s.append(now_s - last_s)
                found.costs.append(float(COST.edge * work.rank_edges + COST.atom * work.rank_atoms))
            last_s = now_s
            found.bytes = max(found.bytes, private_bytes())
            found.largest_part = max(found.largest_part, *map(_cost, work.batches), 0.0)
            if len(found.times_s) >= MIN_STEPS and now_s - start_s > limit_s:
                break
    return found


def _evaluate(run: Run, ranks: int) -> Evaluation:
    """Evaluate the largest batch that this rank has in any evaluation, and predict the others from it."""
    held_out, final = (_batches(run, samples, ranks) for samples in (run.held_out, run.final))
    every = held_out + final
    if not every:
        return Evaluation()
    samples, largest = max(every, key=lambda each: each[1])
    run.model.eval()
    start_s = time.perf_counter()
    with torch.no_grad():
        batch = run.precision.cast(checked_batch(run.collection, samples))
        with run.precision.autocast():
            outputs = run.model(batch)
        for task in run.tasks:
            task.sums(run.model, run.precision.widen(outputs[task.name]), batch)
    cost_s = (time.perf_counter() - start_s) / largest
    looks = (sum(sorted(load for _, load in batches)[-BATCHES_PER_LOOK:]) for batches in (held_out, final))
    return Evaluation(
        share_s=cost_s * sum(load for _, load in held_out),
        final_s=cost_s * sum(load for _, load in final),
        look_s=cost_s * max(looks),
        largest=largest,
    )


def _batches(run: Run, samples: NDArray[np.int64], ranks: int) -> list[tuple[NDArray[np.int64], float]]:
    """What this rank evaluates of some samples, batch by batch, with the predicted costs."""
    costs = COST.of(run.collection.atoms(samples), run.collection.edges(samples))
    return [(samples[share], float(costs[share].sum())) for share in evaluation_share(costs, 0, ranks, BATCH_COST)]


def _mean_cost(report: PlanReport, config: TrainConfig) -> float:
    """Cost that a step waits for: that of perfectly divided steps over the efficiency."""
    taken, speeds = report.taken, config.balance.speeds
    whole = taken.mean_share * report.ranks
    return whole / (sum(speeds) if speeds else report.ranks) / max(taken.time_weighted, 1e-9)


def _cost(batch: Batch) -> float:
    return float(COST.edge * batch.edges + COST.atom * batch.atoms)


def main(arguments: Sequence[str]) -> int:
    """Read the arguments, try, and print what was found."""
    config, ranks, limit_s, *overrides = arguments
    try:
        found = run_trial(load_config(TrainConfig, Path(config), overrides), int(ranks), float(limit_s))
    except MatsciError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(asdict(found)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
