"""The plan of a run: made from its config when it begins, and kept by its checkpoints from then on."""

import json
import sys
from collections.abc import Iterator

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.cost import CostModel
from matsci_hpc.loading.grouping import resolve_grouping
from matsci_hpc.loading.loader import Cursor, Division
from matsci_hpc.loading.oversized import judge_oversized
from matsci_hpc.loading.plan import COST, Plan
from matsci_hpc.loading.spec import plan_spec
from matsci_hpc.parallel.together import on_first
from matsci_hpc.training.setup import Run
from matsci_hpc.whole_files import write_atomic

CHUNK = 1 << 14


def plan_of(run: Run) -> Plan:
    """The order of training, after `resume`; collective.

    Whether similar samples are grouped follows from the number of ranks that the run began with. It decides which
    samples form a step, so the state keeps it.

    Raises:
        UserInputError: there are oversized samples and they are errors, or speeds of another number of ranks.
    """
    config, state, comm = run.config, run.state, run.comm
    spec = plan_spec(config, run.collection)
    speeds = config.balance.speeds
    if speeds is not None and len(speeds) != comm.size:
        raise UserInputError(f"balance.speeds names {len(speeds)} ranks, and the run has {comm.size}")
    if state.step == 0 and config.batch.group_above is None:
        grouping, ranks = config.batch.grouping, comm.size * config.parallel.virtual_ranks
        state.group_above = on_first(comm, lambda: resolve_grouping(run.collection, spec, ranks, grouping, speeds))
    elif state.step == 0:
        state.group_above = config.batch.group_above
    plan = Plan(run.collection, plan_spec(config, run.collection, state.group_above))
    warning = judge_oversized(run.collection, plan.spec, plan.oversized, COST, run.collection.sample_name)
    if warning is not None:
        on_first(comm, lambda: _list_oversized(run, plan))
    if comm.rank == 0:
        for text in _remarks(run, warning):
            print(f"matsci-hpc: {text}", file=sys.stderr, flush=True)
    return plan


def division_of(run: Run) -> Division:
    """How this rank's share of a global batch is made."""
    config = run.config
    return Division(
        rank=run.comm.rank,
        ranks=run.comm.size,
        speeds=tuple(config.balance.speeds) if config.balance.speeds is not None else None,
        micro_batches=config.batch.micro_batches,
        micro_cost=config.batch.micro_cost,
        pin=run.device.type == "cuda",
        virtual=config.parallel.virtual_ranks,
    )


def cursor_of(run: Run) -> Cursor:
    """The next step of the run."""
    return Cursor(run.state.step, run.state.epoch, run.state.step_in_epoch)


def cost_of(run: Run) -> CostModel:
    """What the division goes by in the present epoch."""
    return CostModel(atom=run.state.atom_cost) if run.config.balance.fit else COST


def _remarks(run: Run, warning: str | None) -> Iterator[str]:
    if warning is not None:
        yield f"warning: {warning}; listed in {run.folder.oversized}"
    above = run.state.group_above
    if above is not None and run.state.step == 0:
        yield (
            f"samples of a predicted cost above {above:,.0f} are trained with their like, so that fewer ranks wait; "
            "batch.grouping=none draws every step at random"
        )


def _list_oversized(run: Run, plan: Plan) -> None:
    """Every oversized sample by name and size: nothing is left out in silence."""
    rows = []
    for start in range(0, len(plan.oversized), CHUNK):
        samples = plan.oversized[start : start + CHUNK]
        atoms, edges = run.collection.atoms(samples), run.collection.edges(samples)
        costs = COST.of(atoms, edges)
        for row in zip(samples.tolist(), atoms.tolist(), edges.tolist(), costs.tolist(), strict=True):
            keys = ("sample", "atoms", "edges", "cost")
            rows.append({**dict(zip(keys, row, strict=True)), "name": run.collection.sample_name(row[0])})
    policy = {"policy": plan.spec.oversized_policy, "limit": plan.spec.oversized_cost, "samples": len(rows)}
    text = "".join(f"{json.dumps(row)}\n" for row in [policy, *rows])
    write_atomic(run.folder.oversized, text.encode())
