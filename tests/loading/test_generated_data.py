"""Samples made on the way are the very ones that shards hold."""

import itertools
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from matsci_hpc.config.data import Data
from matsci_hpc.config.generated import MAX_SAMPLES, GeneratedSymmetry
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading import generated_clouds as module
from matsci_hpc.loading.batch import Batch
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.cost import CostModel
from matsci_hpc.loading.generated import GeneratedData
from matsci_hpc.loading.loader import Cursor, Division, Loader, step_work
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.loading.plan import Plan
from matsci_hpc.loading.same_samples import same_samples
from matsci_hpc.loading.sanity import refuse_absurd
from matsci_hpc.loading.spec import PlanSpec
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.sources.cloud_generator import BLOCK

TRAIN, VAL = BLOCK + 300, 150
SETTINGS = {"kind": "symmetry", "seed": 5, "max_atoms": 12, "groups": ["C2", "C3", "Ci", "D2"], "subgroups": True}


def section(**settings):
    return GeneratedSymmetry(**{**SETTINGS, **settings})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The data set in shards of 700, so that they end elsewhere than the blocks of the generator."""
    folder = tmp_path_factory.mktemp("clouds")
    (folder / "prep.yaml").write_text(
        "source: {kind: symmetry, seed: 5, max_atoms: 12, groups: [C2, C3, Ci, D2], subgroups: true, "
        f"samples: {{train: {TRAIN}, val: {VAL}}}}}\nout: {folder}/data\nshard_size: 700\nneighbors: {{cutoff: 2.0}}\n"
    )
    prepare(load_config(PrepConfig, folder / "prep.yaml"), World())
    return Collection([folder / "data"])


@pytest.fixture(scope="module")
def finite():
    return Collection([GeneratedData(section(samples={"train": TRAIN, "val": VAL}), 2.0)])


@pytest.fixture(scope="module")
def endless():
    return Collection([GeneratedData(section(samples={"train": "endless", "val": VAL}, epoch=600), 2.0)])


def assert_same(left: Batch, right: Batch, *, numbered_alike: bool = True) -> None:
    for name in Batch.__dataclass_fields__:
        one, other = getattr(left, name), getattr(right, name)
        if isinstance(one, dict):
            assert one.keys() == other.keys()
            pairs = [(value, other[key]) for key, value in one.items()]
        else:
            pairs = [(one, other)] if name != "sample" or numbered_alike else []
        for a, b in pairs:
            assert (a is None) == (b is None), name
            if a is not None:
                assert a.dtype == b.dtype, name
                assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "numbers",
    [
        range(TRAIN + VAL),
        [0, 3, 4, 4, 699, 700, BLOCK - 1, BLOCK, TRAIN - 1, TRAIN, TRAIN + VAL - 1],
        [TRAIN + 7],
        [],
    ],
)
def test_batches_equal_those_from_shards(prepared, finite, numbers):
    samples = np.array(list(numbers), dtype=np.int64)
    batch = collate(finite, samples)
    refuse_absurd(finite, batch)
    assert_same(batch, collate(prepared, samples))


def test_the_index_and_the_manifest_say_what_those_on_disk_say(prepared, finite):
    everything = np.arange(TRAIN + VAL)
    assert len(finite) == len(prepared)
    for name in ("atoms", "edges"):
        np.testing.assert_array_equal(getattr(finite, name)(everything), getattr(prepared, name)(everything))
    shuffled = np.random.default_rng(0).permutation(everything)
    np.testing.assert_array_equal(finite.atoms(shuffled), prepared.atoms(shuffled))
    for split in ("train", "val"):
        np.testing.assert_array_equal(finite.in_split(split), prepared.in_split(split))
        for target in ("point_group", "subgroups"):
            assert finite.present(target, finite.in_split(split)).all()
            assert finite.statistics(split, target) == prepared.statistics(split, target)
        for size in ("atoms", "edges"):
            one, other = (each.statistics(split, size) for each in (finite, prepared))
            assert (one.count, one.min, one.max) == (other.count, other.min, other.max)
            assert one.std == pytest.approx(other.std)
    assert finite.targets == prepared.targets
    assert finite.cutoff == prepared.cutoff
    counts = finite.datasets[0].manifest.counts
    assert counts == prepared.datasets[0].manifest.counts


def test_endless_samples_are_the_same_under_any_end(finite, endless):
    assert_same(collate(endless, np.arange(TRAIN)), collate(finite, np.arange(TRAIN)))
    held_out = endless.in_split("val")
    assert held_out[0] == MAX_SAMPLES
    assert_same(collate(endless, held_out), collate(finite, finite.in_split("val")), numbered_alike=False)


def test_far_samples_of_a_stream_are_at_hand(endless):
    """Number 10^12, which no run reaches: nothing before it is made."""
    samples = np.array([10**12, 10**12 + 1, MAX_SAMPLES - 1])
    batch = collate(endless, samples)
    np.testing.assert_array_equal(np.diff(batch.atom_pointer.numpy()), endless.atoms(samples))
    assert endless.sample_name(10**12).endswith("seed 5 (train-1000000000000)")
    assert endless.sample_name(MAX_SAMPLES + 3).endswith("(val-000000003)")


def stream_spec(**settings):
    return PlanSpec(seed=3, split="train", repeats=(Fraction(600, MAX_SAMPLES),), in_turn=True, **settings)


@pytest.mark.parametrize(
    "spec", [stream_spec(graphs=64), stream_spec(cost=9000.0), stream_spec(graphs=64, group_above=300)]
)
def test_no_sample_of_a_stream_comes_twice_or_is_left_out(endless, spec):
    plan = Plan(endless, spec)
    for epoch in range(3):
        steps = plan.epoch(epoch)
        drawn = np.concatenate([steps.batch(step) for step in range(steps.steps)])
        assert sorted(drawn.tolist()) == list(range(600 * epoch, 600 * (epoch + 1)))
    if spec.graphs and spec.group_above is None:
        np.testing.assert_array_equal(plan.epoch(2).batch(1), np.arange(1264, 1328))


def test_few_blocks_are_drawn(endless, monkeypatch):
    """Two ranks go through 1.5 blocks in steps of 64: each draws every block once."""
    data, drawn = endless.datasets[0], []
    draw = data._generator.block
    monkeypatch.setattr(data._generator, "block", lambda split, number: drawn.append(number) or draw(split, number))
    plan = Plan(endless, stream_spec(graphs=64))
    for rank in range(2):
        data._kept._blocks.clear()
        with Loader(endless, plan, Cursor(0, 0, 0), 3 * BLOCK // 128, Division(rank, 2), CostModel()) as loader:
            assert sum(len(work.samples) for work in loader) > BLOCK // 2
    assert sorted(drawn) == [0, 0, 1, 1]


def test_a_rank_of_many_draws_its_own_samples_alone(endless, monkeypatch):
    """512 ranks with global batches of several blocks; on one rank the same samples come from whole blocks."""
    data, whole, alone = endless.datasets[0], [], []
    generator = data._generator
    block, samples = generator.block, generator.samples
    monkeypatch.setattr(generator, "block", lambda split, number: whole.append(number) or block(split, number))
    monkeypatch.setattr(
        generator, "samples", lambda split, numbers: alone.append(len(numbers)) or samples(split, numbers)
    )
    plan = Plan(endless, PlanSpec(seed=3, split="train", graphs=9000, repeats=(Fraction(1, 2**20),), in_turn=True))
    data._kept._blocks.clear()
    with Loader(endless, plan, Cursor(0, 0, 0), 3, Division(200, 512), CostModel()) as loader:
        works = list(loader)
    assert not whole
    assert alone == [len(work.samples) for work in works]
    endless.shared_by(1)
    for work in works:
        assert_same(work.batches[0], collate(endless, work.samples))
    assert len(alone) == 3
    assert sorted(whole) == list(range(7))


def test_what_is_kept_is_drawn_no_second_time(finite, endless, monkeypatch):
    """Whole blocks that are there serve any number of ranks, and a data set that can be kept is drawn in blocks."""
    for collection in (finite, endless):
        data = collection.datasets[0]
        collate(collection, np.arange(10))
        collection.shared_by(512)
        monkeypatch.setattr(data._generator, "samples", None)
        collate(collection, np.arange(5, 15))
    collate(finite, np.arange(BLOCK + 5, BLOCK + 10))
    for collection in (finite, endless):
        collection.shared_by(1)


def test_the_blocks_that_are_kept_have_a_limit(finite, monkeypatch):
    data = finite.datasets[0]
    monkeypatch.setattr(module, "CACHE_BYTES", 1)
    data._kept._blocks.clear()
    before = collate(finite, np.arange(TRAIN + VAL))
    assert len(data._kept._blocks) == 1
    assert_same(before, collate(finite, np.arange(TRAIN + VAL)))


def test_a_collection_travels_without_its_blocks(finite):
    collate(finite, np.arange(5))
    again = pickle.loads(pickle.dumps(finite))  # noqa: S301 (our own bytes)
    assert not again.datasets[0]._kept._blocks
    assert_same(collate(again, np.arange(900, 930)), collate(finite, np.arange(900, 930)))


def test_ranks_share_a_step_of_a_stream(endless):
    plan = Plan(endless, stream_spec(graphs=64))
    works = [step_work(endless, plan.epoch(0), Cursor(2, 0, 2), Division(rank, 3), CostModel()) for rank in range(3)]
    assert sorted(np.concatenate([work.samples for work in works]).tolist()) == list(range(128, 192))
    assert works[0].cost_imbalance < 1.1


def test_sources_and_folders_make_a_mixture(prepared):
    other = {**SETTINGS, "seed": 6, "samples": {"train": 200, "val": 50}}
    folder = prepared.datasets[0].folder
    data = Data.model_validate({"train": [{"source": other, "neighbors": {"cutoff": 2.0}}, {"path": folder}]})
    mixed = open_collection(data)
    assert mixed.split_counts("train").tolist() == [200, TRAIN]
    samples = np.array([3, 199, 250, 260])
    expected = collate(prepared, np.array([0, 10]))
    found = collate(mixed, samples)
    atoms = found.atom_pointer[2]
    assert torch.equal(found.position[atoms:], expected.position)
    with pytest.raises(UserInputError, match=r"symmetry clouds of seed 6 .*has another kind|different cutoffs"):
        open_collection(
            data.model_copy(
                update={
                    "train": [
                        folder,
                        data.train[0].model_copy(
                            update={"neighbors": data.train[0].neighbors.model_copy(update={"cutoff": 3.0})}
                        ),
                    ]
                }
            )
        )


@pytest.mark.parametrize("change", [{}, {"samples": {"train": 30}}, {"max_atoms": 24}, {"subgroups": False}])
def test_two_sources_of_one_seed_are_refused(change):
    entry = {"source": {**SETTINGS, "samples": {"train": 20}}, "neighbors": {"cutoff": 2.0}}
    other = {**entry, "source": entry["source"] | change}
    with pytest.raises(ValidationError, match="two sources of seed 5 use the same random numbers"):
        Data.model_validate({"train": [entry, other]})
    other["source"]["seed"] = 6
    assert len(open_collection(Data.model_validate({"train": [entry, other]}))) > 39


def test_a_folder_named_twice_is_refused():
    with pytest.raises(ValidationError, match="datasets/a is named twice"):
        Data.model_validate({"train": ["datasets/a", "datasets/b", {"path": "datasets/a"}]})


def source_of(seed, **samples):
    return {"source": {**SETTINGS, "seed": seed, "samples": samples}, "neighbors": {"cutoff": 2.0}}


def test_a_source_and_a_folder_of_the_same_clouds_are_refused(prepared):
    folder = str(prepared.datasets[0].folder)
    data = Data.model_validate({"train": [source_of(5, train=20), folder]})
    with pytest.raises(UserInputError, match=r"seed 5 and .*data may hold the same samples: .*another seed"):
        open_collection(data)


def test_a_source_and_a_folder_of_other_splits_go_together(prepared):
    """Splits of other names have random numbers of their own, also under one seed."""
    folder = prepared.datasets[0].folder
    both = open_collection(Data.model_validate({"train": [source_of(5, more=20), str(folder)]}))
    assert len(both) == 20 + len(prepared)
    clouds = {
        batch.position[a:b].numpy().tobytes()
        for split, count in (("more", 20), ("train", TRAIN), ("val", VAL))
        for batch in [collate(both, both.in_split(split, count))]
        for a, b in itertools.pairwise(batch.atom_pointer.tolist())
    }
    assert len(clouds) == len(both)


def test_clouds_that_were_cut_anew_are_still_known(prepared, tmp_path):
    """Dealt out anew, clouds of `train` are held out: a source of the same seed would train on them."""
    config = {
        "source": {"kind": "shards", "path": prepared.datasets[0].folder, "only_splits": ["train"]},
        "out": tmp_path / "cut",
        "splits": {"train": 0.5, "val": 0.5},
        "neighbors": {"cutoff": 2.0},
    }
    prepare(PrepConfig.model_validate(config), World())
    cut = Collection([tmp_path / "cut"])
    held_out = cut.in_split("val")[:1]
    name = cut.sample_name(int(held_out[0]))
    assert "(train-" in name
    with pytest.raises(UserInputError, match=r"seed 5 and .*cut may hold .*: both draw on split train of"):
        open_collection(Data.model_validate({"train": [source_of(5, train=TRAIN), str(tmp_path / "cut")]}))
    assert len(open_collection(Data.model_validate({"train": [source_of(6, train=20), str(tmp_path / "cut")]})))
    # Two folders may be two parts of one data set, which is for `check` to warn of.
    both = Collection([prepared.datasets[0].folder, tmp_path / "cut"])
    (found,) = same_samples((each.name, each.manifest) for each in both.datasets)
    assert not found.refused


def test_training_and_held_out_samples_of_a_source_are_other_clouds(endless):
    train, held_out = (collate(endless, endless.in_split(split, VAL)) for split in ("train", "val"))
    clouds = [
        {batch.position[a:b].numpy().tobytes() for a, b in itertools.pairwise(batch.atom_pointer.tolist())}
        for batch in (train, held_out)
    ]
    assert len(clouds[0]) == len(clouds[1]) == VAL
    assert not clouds[0] & clouds[1]


@pytest.mark.parametrize(
    ("settings", "cutoff", "fault"),
    [
        ({}, 1.9, "set it to 2 or more, or prepare"),
        ({"jitter": 0.001}, 2.0, "set it to 2.04 or more"),
        ({"jitter": 0.01}, 2.4, "set min_distance to 0.322 or more"),
        ({"min_distance": 0.0}, 2.0, "set min_distance to 0.011 or more"),
    ],
)
def test_edges_that_are_not_known_beforehand_are_refused(settings, cutoff, fault):
    with pytest.raises(UserInputError, match=fault):
        GeneratedData(section(samples={"train": 10}, **settings), cutoff)


def test_a_small_jitter_is_no_obstacle(tmp_path):
    made = Collection([GeneratedData(section(samples={"train": 300}, jitter=0.001), 2.1)])
    (tmp_path / "prep.yaml").write_text(
        "source: {kind: symmetry, seed: 5, max_atoms: 12, groups: [C2, C3, Ci, D2], subgroups: true, jitter: 0.001, "
        f"samples: {{train: 300}}}}\nout: {tmp_path}/data\nneighbors: {{cutoff: 2.1}}\n"
    )
    prepare(load_config(PrepConfig, tmp_path / "prep.yaml"), World())
    assert_same(collate(made, np.arange(300)), collate(Collection([tmp_path / "data"]), np.arange(300)))


def test_a_full_shuffle_of_more_than_can_be_kept_is_refused(monkeypatch):
    monkeypatch.setattr("matsci_hpc.loading.opening.CACHE_BYTES", 1000)
    entry = {"source": {**SETTINGS, "samples": {"train": 2000, "val": 10}}, "neighbors": {"cutoff": 2.0}}
    with pytest.raises(UserInputError, match=f"set data.block to {8 * BLOCK}"):
        open_collection(Data.model_validate({"train": [entry]}))
    assert len(open_collection(Data.model_validate({"train": [entry], "block": BLOCK}))) == 2010
