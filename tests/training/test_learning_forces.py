"""Forces of real structures are learned, by a head of their own or as the gradient of the energy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from labelled_frames import prepare_frames, prepare_labelled
from ranks import run_ranks, trainer
from test_exactness import assert_same_run, newest

from matsci_hpc.config.gradient_targets import unfit_gradients
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.cost import CostModel
from matsci_hpc.loading.loader import Cursor, Division, step_work
from matsci_hpc.loading.plan import Plan
from matsci_hpc.loading.spec import PlanSpec
from matsci_hpc.training.tasks import build_tasks

pytestmark = pytest.mark.mpi
STEPS = 12
CONFIG = """\
run_dir: unused
seed: 7
data: {{train: [{data}]}}
steps: {steps}
batch: {{graphs: 7}}
targets: {{energy: {{}}, force: {{gradient_of: energy}}}}
model:
  {{layers: 2, width: 8, message_width: 12, position_width: 8, embedding_width: 10, head_layers: 1, envelope: true}}
optimizer: {{lr: 3.0e-3, clip_norm: 5.0}}
schedule: {{warmup_steps: 3}}
evaluate: {{every_steps: 6}}
checkpoint: {{every_steps: 6, keep: 10}}
precision: float64
log_every: 1
"""
DIRECT = "targets={energy: {}, force: {}}"


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """60 structures of MPtrj, a fifth of them without forces."""
    return prepare_frames(tmp_path_factory.mktemp("frames"), 60, 12, 4.0, bare_every=5)


@pytest.fixture(scope="module")
def config(frames, tmp_path_factory) -> Path:
    """The config of these runs, in the place of that of the other tests of training."""
    path = tmp_path_factory.mktemp("config") / "train.yaml"
    path.write_text(CONFIG.format(data=frames, steps=STEPS))
    return path


@pytest.fixture(scope="module")
def train_in(config) -> Callable[..., Path]:
    """As that of the other tests: one that was made for these would go by their config."""
    return trainer(config)


@pytest.fixture(scope="module")
def gradient(train_in, tmp_path_factory) -> Path:
    return train_in(tmp_path_factory.mktemp("gradient") / "one", 1)


@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        (2, ("parallel.bucket_mb=0.002",)),
        (3, ()),
        (1, ("parallel.virtual_ranks=3",)),
        (2, ("batch.micro_batches=2", "parallel.overlap=false")),
    ],
    ids=["two", "three", "virtual", "parts"],
)
def test_gradients_of_an_energy_are_the_same_on_any_ranks(gradient, train, lines, ranks, options):
    many = train("many", ranks, *options)
    assert_same_run(lines, gradient, many, STEPS, tolerance=1e-6)


@pytest.mark.parametrize("name", ["egnn", pytest.param("painn", marks=pytest.mark.slow)])
def test_direct_forces_are_the_same_on_one_rank_and_three(train, lines, name):
    painn = "model={name: painn, layers: 2, width: 8, radial: 5, embedding_width: 10}"
    options = (DIRECT,) if name == "egnn" else (DIRECT, painn)
    assert_same_run(lines, train("one", 1, *options), train("three", 3, *options), STEPS)


def test_a_run_that_was_stopped_goes_on(gradient, train, lines):
    train("run", 2, "max_time_s=0.0001")
    whole = train("run", 2, "max_time_s=null")
    assert_same_run(lines, gradient, whole, STEPS)


def test_records_tell_of_forces(gradient, lines):
    evaluation = lines(gradient, "evaluations")[-1]["metrics"]["force"]
    assert evaluation["unit"] == "eV/angstrom"
    assert evaluation["atoms"] > evaluation["samples"] > 0
    assert -1 <= evaluation["cosine"] <= 1
    assert set(lines(gradient)[0]["losses"]) == {"energy", "force"}
    assert "encoder.elements.weight" in newest(gradient)
    assert float(newest(gradient)["heads.target:force.std"]) > 0.01


def test_an_encoder_trained_on_energies_goes_on_with_forces(gradient, train, lines):
    energies = train("energies", 1, "targets={energy: {}}", "evaluate.every_steps=12")
    forces = train("forces", 2, f"init_from={energies}", "precision=bf16", "steps=4", "evaluate.every_steps=4")
    assert all(torch.isfinite(value).all() for value in newest(forces).values())
    assert lines(forces)[-1]["losses"]["force"] > 0
    assert lines(forces)[0]["losses"] != lines(gradient)[0]["losses"]


def test_a_target_that_cannot_be_learned_is_refused(config, tmp_path):
    refused = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", "targets={stress: {}}")
    assert refused.returncode == 2
    assert "targets.stress: tensors, and vectors of a whole structure, are stored and read" in refused.stderr


def test_which_targets_are_learned(frames):
    collection = Collection([frames])
    base = {"run_dir": "run", "data": {"train": [str(frames)]}, "steps": 1, "batch": {"graphs": 4}}

    def tasks(**more):
        return build_tasks(TrainConfig.model_validate(base | more), collection)

    assert [task.name for task in tasks()] == ["energy"]
    envelope = {"model": {"envelope": True}}
    with pytest.raises(UserInputError, match=r"a gradient is a vector of every atom, and energy is not"):
        tasks(targets={"force": {}, "energy": {"gradient_of": "force"}}, **envelope)
    (fault,) = unfit_gradients({"force": "stress"}, collection.targets)
    assert "stress is no energy: it is not one number of a structure" in fault


def test_losses_are_divided_by_the_atoms_that_carry_the_target(frames):
    collection = Collection([frames])
    plan = Plan(collection, PlanSpec(1, "train", graphs=9))
    work = step_work(collection, plan.epoch(0), Cursor(0, 0, 0), Division(0, 1), CostModel())
    (batch,) = work.batches
    with_forces = [s for s in work.samples.tolist() if s % 5]
    assert 0 < len(with_forces) < 9
    assert work.target_counts["energy"] == 9
    assert work.target_counts["force"] == int(collection.atoms(work.samples)[work.samples % 5 > 0].sum())
    assert batch.present["force"].tolist() == [bool(s % 5) for s in work.samples.tolist()]


ENERGY = {"gradient": "energy", "direct": "null"}
LEARNING = (
    "batch.graphs=8",
    "precision=float32",
    "model={layers: 2, width: 32, message_width: 32, embedding_width: 32, head_layers: 1, envelope: true}",
    "model.radial_basis.count=16",
    "model.update_positions=false",
    "optimizer={lr: 5.0e-3, clip_norm: 1.0}",
    "schedule={warmup_steps: 10}",
    "evaluate.every_steps=1000",
    "checkpoint.every_steps=1000",
    "log_every=10",
)


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> Path:
    """24 structures of MPtrj that are far from rest, to train on and, as copies, to look at what was learned."""
    folder = tmp_path_factory.mktemp("twice")
    prepare_frames(folder / "once", 24, 16, 4.0, least_force=0.1)
    copies = [read(folder / "once/frames.xyz", ":") for _ in range(2)]
    for split, frames in zip(("train", "val"), copies, strict=True):
        for each in frames:
            each.info["split"] = split
    return prepare_labelled(folder / "both", copies[0] + copies[1], 4.0, split_key="split")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("way", ["gradient", "direct"])
def test_forces_of_real_structures_are_fitted(train, twice, ranks, way):
    targets = "targets={energy: {weight: 0.01}, force: {loss: mae, gradient_of: " + ENERGY[way] + "}}"
    run = train("run", ranks, f"data.train=[{twice}]", targets, *LEARNING, "steps=300")
    metrics = json.loads((run / "DONE").read_text())["metrics"]["force"]
    assert metrics["mae"] < 0.5 * metrics["baseline_mae"]
    assert metrics["cosine"] > 0.7


def rattled_metals(count: int) -> list[Atoms]:
    """Cells of copper, silver and gold off their places, with energies and forces of effective medium theory."""
    found = []
    for number in range(count):
        atoms = bulk(("Cu", "Ag", "Au")[number % 3], cubic=True).repeat((2, 1, 1))
        atoms.set_cell(atoms.cell * (0.96 + 0.01 * (number % 9)), scale_atoms=True)
        atoms.rattle(0.1, seed=number)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        found.append(atoms)
    return found


@pytest.mark.parametrize("way", ["gradient", pytest.param("direct", marks=pytest.mark.slow)])
def test_forces_of_structures_never_seen_are_right(train, tmp_path, way):
    data = prepare_labelled(tmp_path / "metals", rattled_metals(120), 5.0)
    targets = "targets={energy: {weight: 0.01}, force: {loss: mae, gradient_of: " + ENERGY[way] + "}}"
    run = train("run", 2, f"data.train=[{data}]", targets, *LEARNING, "steps=100")
    metrics = json.loads((run / "DONE").read_text())["metrics"]["force"]
    assert metrics["mae"] < 0.5 * metrics["baseline_mae"]
    assert metrics["cosine"] > 0.8
