import numpy as np
import pytest
import torch
from crystal_data import prepare_crystals

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.cost import CostModel
from matsci_hpc.loading.loader import Cursor, Division, Loader
from matsci_hpc.loading.plan import Plan
from matsci_hpc.loading.spec import PlanSpec

START = Cursor(0, 0, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare_crystals(tmp_path_factory.mktemp("crystals"))


@pytest.fixture(scope="module")
def collection(folder):
    return Collection([folder])


def work_of(collection, plan, division, *, start=START, stop=20, **options):
    with Loader(collection, plan, start, stop, division, options.pop("cost", CostModel()), **options) as loader:
        return list(loader)


@pytest.mark.parametrize("spec", [PlanSpec(1, "train", graphs=8), PlanSpec(1, "train", cost=3000.0)])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_together_do_the_global_batches_in_order(collection, ranks, spec):
    plan = Plan(collection, spec)
    works = [work_of(collection, plan, Division(rank, ranks)) for rank in range(ranks)]
    for step, parts in enumerate(zip(*works, strict=True)):
        epoch, within = plan.locate(step)
        assert parts[0].cursor == Cursor(step, epoch, within)
        assert parts[0].ends_epoch == (parts[0].after.epoch != epoch)
        expected = plan.epoch(epoch).batch(within)
        assert np.array_equal(np.sort(np.concatenate([part.samples for part in parts])), expected)
        assert sum(part.rank_edges for part in parts) == parts[0].edges == collection.edges(expected).sum()
        assert sum(part.rank_atoms for part in parts) == parts[0].atoms == collection.atoms(expected).sum()
        for part in parts:
            assert part.target_counts["gap"] == int(collection.present("gap", expected).sum())
            assert (part.graphs, part.after) == (len(expected), parts[0].after)
            assert sorted(s for batch in part.batches for s in batch.sample.tolist()) == part.samples.tolist()


def test_starting_at_a_cursor_gives_the_same_steps(collection):
    plan = Plan(collection, PlanSpec(1, "train", cost=3000.0))
    whole = work_of(collection, plan, Division(0, 2))
    for step in (1, 5, 13):
        for one, other in zip(
            work_of(collection, plan, Division(0, 2), start=whole[step].cursor), whole[step:], strict=True
        ):
            assert one.cursor == other.cursor
            assert torch.equal(one.batches[0].position, other.batches[0].position)


def test_a_share_in_parts(collection):
    plan = Plan(collection, PlanSpec(1, "train", graphs=8))
    thirds = work_of(collection, plan, Division(0, 1, micro_batches=3))
    assert {len(work.batches) for work in thirds[:5]} == {3}
    largest = max(
        CostModel().of(collection.atoms(work.samples), collection.edges(work.samples)).max() for work in thirds
    )
    for work in work_of(collection, plan, Division(0, 1, micro_cost=largest)):
        for batch in work.batches:
            assert batch.edges + 30 * batch.atoms <= largest


def test_an_epoch_waits_for_its_cost_model(collection):
    plan = Plan(collection, PlanSpec(1, "train", graphs=8))
    steps = plan.epoch(0).steps
    atoms_alone = CostModel(edge=0.0, atom=1.0)
    seen = []
    with Loader(collection, plan, START, 2 * steps, Division(1, 3), CostModel(), waits=True) as loader:
        for work in loader:
            seen.append(work.samples.tolist())
            if work.ends_epoch:
                loader.begin_epoch(atoms_alone)
    edges_first = work_of(collection, plan, Division(1, 3), stop=2 * steps)
    second = Cursor(steps, 1, 0)
    by_atoms = work_of(collection, plan, Division(1, 3), start=second, stop=2 * steps, cost=atoms_alone)
    assert seen == [work.samples.tolist() for work in edges_first[:steps] + by_atoms]
    assert seen[steps:] != [work.samples.tolist() for work in edges_first[steps:]]


@pytest.mark.parametrize("waits", [False, True])
def test_errors_are_passed_on_and_closing_early_ends_the_thread(folder, tmp_path, waits):
    broken = prepare_crystals(tmp_path, count=8)
    collection = Collection([broken])
    (broken / "shard-00000.h5").unlink()
    plan = Plan(collection, PlanSpec(1, "train", graphs=2))
    with Loader(collection, plan, START, 5, Division(0, 1), CostModel()) as loader, pytest.raises(MachineError):
        next(iter(loader))
    whole = Collection([folder])
    plan = Plan(whole, PlanSpec(1, "train", graphs=40))
    loader = Loader(whole, plan, START, 10_000, Division(0, 1), CostModel(), waits=waits)
    next(iter(loader))
    loader.close()
    assert not loader._thread.is_alive()
