"""Parts of the training split: nested, the same everywhere, and with statistics of their own."""

import json

import h5py
import numpy as np
import pytest
from crystal_data import prepare_crystals
from preparation import run_program

from matsci_hpc.config.data import Data
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.loading.plan import Plan
from matsci_hpc.loading.spec import PlanSpec, repeats
from matsci_hpc.loading.subset import draw_subset, statistics_of
from matsci_hpc.shards.layout import is_present
from matsci_hpc.shards.statistics import TargetStatistics


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two data sets of other seeds."""
    return [prepare_crystals(tmp_path_factory.mktemp(name), count=count) for name, count in (("a", 60), ("b", 45))]


def opened(folders, samples=None, seed=0, **more):
    subset = {"samples": samples, "seed": seed} if samples else None
    return open_collection(Data.model_validate({"train": [str(each) for each in folders], "subset": subset, **more}))


def test_smaller_subsets_lie_in_larger_ones_and_seeds_differ():
    counts = [500, 0, 4000, 37]
    drawn = {size: draw_subset(counts, size, 3) for size in (1, 10, 1000, 4537)}
    for size, parts in drawn.items():
        assert [len(part) == 0 for part in parts][1]
        assert sum(map(len, parts)) == size
        for part, count in zip(parts, counts, strict=True):
            assert (np.diff(part) > 0).all()
            assert len(part) == 0 or (part[0] >= 0 and part[-1] < count)
    for small, large in ((1, 10), (10, 1000), (1000, 4537)):
        for one, other in zip(drawn[small], drawn[large], strict=True):
            assert set(one.tolist()) <= set(other.tolist())
    other = draw_subset(counts, 1000, 4)
    shared = sum(len(np.intersect1d(a, b)) for a, b in zip(drawn[1000], other, strict=True))
    assert 150 < shared < 300  # 220 of 1000 by chance
    # Each sample is as likely: 4000 of 4537 are in the third.
    assert abs(len(drawn[1000][2]) - 1000 * 4000 / 4537) < 50
    with pytest.raises(UserInputError, match="4,538 samples, and the training split has 4,537"):
        draw_subset(counts, 4538, 3)


def test_training_sees_the_subset_alone_and_held_out_splits_stay_whole(folders):
    whole, part = opened(folders), opened(folders, 30, seed=5)
    every = set(whole.in_split("train").tolist())
    mine = part.in_split("train")
    assert len(mine) == 30
    assert set(mine.tolist()) < every
    assert part.split_counts("train").sum() == 30
    np.testing.assert_array_equal(part.in_split("val"), whole.in_split("val"))
    plan = Plan(part, PlanSpec(1, "train", graphs=7))
    for number in (0, 1):
        epoch = plan.epoch(number)
        seen = np.concatenate([epoch.batch(step) for step in range(epoch.steps)])
        assert sorted(seen.tolist()) == mine.tolist()


def test_mixtures_weigh_what_is_left(folders):
    data = Data.model_validate(
        {"train": [{"path": str(each), "weight": 1.0} for each in folders], "subset": {"samples": 30, "seed": 5}}
    )
    part = open_collection(data)
    counts = part.split_counts("train").tolist()
    spec = PlanSpec(1, "train", graphs=5, repeats=repeats(data, counts))
    assert Plan(part, spec).counts(0) == [max(counts), max(counts)]


@pytest.mark.parametrize("samples", [1, 12, 50])
def test_statistics_are_those_of_the_subset(folders, samples):
    """Against the values themselves, as batches hold them: no value of a sample beyond the subset is in them."""
    part = opened(folders, samples, seed=2)
    numbers = part.in_split("train")
    batch = collate(part, numbers)
    whole = opened(folders)
    for name, spec in part.targets.items():
        present = batch.present[name].numpy()
        found = part.statistics("train", name)
        assert found.count == present.sum()
        if spec.kind == "regression" and not spec.shape and not spec.per_atom and present.any():
            values = batch.targets[name].numpy()[present].astype(np.float64)
            assert found.mean == pytest.approx(values.mean(), rel=1e-12)
            assert found.std == pytest.approx(values.std(), rel=1e-9, abs=1e-12)
            assert (found.min, found.max) == (values.min(), values.max())
        if spec.kind == "class":
            classes = np.bincount(batch.targets[name].numpy()[present], minlength=len(spec.classes))
            assert found.class_counts == classes.tolist()
        assert part.statistics("val", name) == whole.statistics("val", name)


def test_statistics_of_everything_are_those_of_the_manifests(folders):
    whole = opened(folders)
    for name, spec in whole.targets.items():
        one, other = statistics_of(whole, whole.in_split("train"), name), whole.statistics("train", name)
        assert (one.count, one.numbers, one.class_counts) == (other.count, other.numbers, other.class_counts)
        if spec.kind == "regression":
            assert one.mean == pytest.approx(other.mean, rel=1e-12)
            assert one.std == pytest.approx(other.std, rel=1e-12)


def test_statistics_of_targets_of_every_atom(tmp_path):
    """Forces from an extended XYZ file, half of the frames without any."""
    frames, random = [], np.random.default_rng(1)
    for number in range(20):
        atoms = 1 + number % 4
        forces = random.normal(size=(atoms, 3)).round(6)
        named = number % 2 == 0
        columns = "species:S:1:pos:R:3" + (":forces:R:3" if named else "")
        frames += [str(atoms), f'Lattice="9 0 0 0 9 0 0 0 9" Properties={columns} pbc="T T T"']
        for atom in range(atoms):
            frames.append(f"Si {2.0 * atom} 0 0" + (" {} {} {}".format(*forces[atom]) if named else ""))
    (tmp_path / "frames.extxyz").write_text("\n".join(frames) + "\n")
    source = {
        "kind": "extxyz",
        "path": str(tmp_path / "frames.extxyz"),
        "targets": {"forces": {"key": "forces", "unit": "eV/angstrom", "shape": [3], "per_atom": True}},
    }
    prep = {"source": source, "out": str(tmp_path / "data"), "shard_size": 6, "neighbors": {"cutoff": 3.0}}
    (tmp_path / "prep.yaml").write_text(json.dumps(prep | {"splits": {"train": 0.8, "val": 0.2}}))
    made = run_program("prep", tmp_path / "prep.yaml")
    assert made.returncode == 0, made.stderr
    part = opened([tmp_path / "data"], 9, seed=1)
    spec = part.targets["forces"]
    assert spec.per_atom
    values, labelled = [], 0
    for number in part.in_split("train").tolist():
        shard, row = int(part.datasets[0].index.shard[number]), int(part.datasets[0].index.row[number])
        with h5py.File(tmp_path / f"data/shard-{shard:05d}.h5") as file:
            first, last = file["offsets/atoms"][row : row + 2]
            forces = file["atoms/forces"][first:last]
        if is_present(forces, spec).all():
            values.append(forces)
            labelled += 1
    expected = TargetStatistics.of_tensors(np.concatenate(values), labelled)
    found = part.statistics("train", "forces")
    assert 0 < labelled < 9
    assert (found.count, found.numbers) == (expected.count, expected.numbers)
    assert found.mean == pytest.approx(expected.mean, rel=1e-12)
    assert found.std == pytest.approx(expected.std, rel=1e-12)


def test_subsets_of_generated_clouds():
    source = {"kind": "symmetry", "seed": 3, "samples": {"train": 300, "val": 20}, "groups": ["C2", "C3", "Ci"]}
    entry = {"source": source, "neighbors": {"cutoff": 2.5}}
    part = open_collection(Data.model_validate({"train": [entry], "subset": {"samples": 40}}))
    numbers = part.in_split("train")
    batch = collate(part, numbers)
    counts = np.bincount(batch.targets["point_group"].numpy(), minlength=3)
    assert part.statistics("train", "point_group").class_counts == counts.tolist()
    endless = entry | {"source": source | {"samples": {"train": "endless", "val": 20}}}
    with pytest.raises(ValueError, match="an endless source has no part that could be drawn"):
        Data.model_validate({"train": [endless], "subset": {"samples": 40}})
