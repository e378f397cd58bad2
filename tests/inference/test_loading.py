"""A model out of a run: the right parameters, and what they mean."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from ranks import environment
from safetensors.torch import load_file

from matsci_hpc import load_model
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.sources import ShardsSource as ShardsConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.judging import tasks_for
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.sources.shards import ShardsSource
from matsci_hpc.training.learned import learned_by, read_learned
from matsci_hpc.training.tasks import build_tasks
from matsci_hpc.whole_files import file_checksum


def best_step(run):
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    return min(lines, key=lambda line: line["loss"])["step"]


def parameters(run, step, kind):
    return load_file(run / "checkpoints" / f"step-{step:06d}" / f"{kind}.safetensors")


def same(module, tensors):
    state = module.state_dict()
    return state.keys() == tensors.keys() and all(torch.equal(state[name], each) for name, each in tensors.items())


def test_the_best_checkpoint_and_its_averages_are_taken(run):
    model = load_model(run, device="cpu")
    assert same(model.module, parameters(run, best_step(run), "average"))
    assert not same(model.module, parameters(run, best_step(run), "model"))
    assert (model.about.origin.step, model.about.origin.weights) == (best_step(run), "average")
    assert list(model.targets) == ["family", "gap", "metal"]
    assert model.targets["gap"].unit == "eV"


def test_an_unknown_precision_is_refused(run):
    with pytest.raises(UserInputError, match="precision 'int8': a model computes in float32, float64, bf16"):
        load_model(run, device="cpu", precision="int8")


@pytest.mark.parametrize(("wanted", "step"), [("newest", 12), ("4", 4), (8, 8), ("step-000008", 8)])
def test_another_checkpoint_can_be_named(run, wanted, step):
    assert same(load_model(run, checkpoint=wanted, device="cpu").module, parameters(run, step, "average"))
    assert same(
        load_model(run / "checkpoints" / f"step-{step:06d}", device="cpu").module, parameters(run, step, "average")
    )


def test_structures_give_what_their_batch_from_shards_gives(run, data):
    model = load_model(run, device="cpu")
    source = ShardsSource.from_config(ShardsConfig(kind="shards", path=data, keep_splits=True), ())
    structures = list(source.read(0, len(source)))
    collection = Collection([data])
    batch = model.precision.cast(collate(collection, np.arange(len(collection))))
    with torch.no_grad():
        expected = model.module.embed(batch).numpy()
    np.testing.assert_allclose(model.embed(structures), expected, rtol=0, atol=2e-6)
    outputs = model.module.physical(model.module(batch))
    predicted = model.predict(structures)
    assert [each["id"] for each in predicted] == [each.id for each in structures]
    np.testing.assert_allclose([each["gap"] for each in predicted], outputs["gap"].numpy(), rtol=0, atol=2e-6)
    classes = np.array(model.targets["family"].classes)
    assert [each["family"] for each in predicted] == classes[outputs["family"].argmax(dim=1).numpy()].tolist()
    for each in predicted:
        assert sum(each["family.probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert each["family.probability"] == max(each["family.probabilities"].values())
        assert each["metal"] is (each["metal.probability"] > 0.5)


def test_atoms_of_ase_and_structures_of_pymatgen_are_the_same_structures(run):
    from ase.build import bulk
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = [bulk("NaCl", "rocksalt", a=5.64), bulk("Cu")]
    atoms[1].info["id"] = "copper"
    model = load_model(run, device="cpu")
    by_ase = model.predict(atoms)
    assert [each["id"] for each in by_ase] == ["0", "copper"]
    by_pymatgen = model.predict([AseAtomsAdaptor.get_structure(each) for each in atoms])
    assert [each["gap"] for each in by_pymatgen] == pytest.approx([each["gap"] for each in by_ase], abs=1e-6)
    assert model.embed(atoms[0]).shape == (1, 10)
    assert model.embed([]).shape == (0, 10)


def test_elements_are_those_of_the_training_samples(run, data):
    collection = Collection([data])
    numbers = collate(collection, collection.in_split("train")).atomic_number
    # The run saw all samples: 12 steps of 7.
    assert set(load_model(run, device="cpu").about.elements) <= set(numbers.unique().tolist())
    assert len(load_model(run, checkpoint="newest", device="cpu").about.elements) == len(numbers.unique())


def test_a_run_of_an_earlier_release_asks_its_data_sets(copied, data, tmp_path):
    expected = load_model(copied, device="cpu").about
    (copied / "targets.json").unlink()
    assert load_model(copied, device="cpu").about == expected
    for checkpoint in (copied / "checkpoints").iterdir():
        sums = json.loads((checkpoint / "checksums.json").read_text())
        config = (checkpoint / "config.yaml").read_text().replace(str(data), str(tmp_path / "gone"))
        (checkpoint / "config.yaml").write_text(config)
        sums["config.yaml"] = file_checksum(checkpoint / "config.yaml")
        (checkpoint / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(UserInputError, match=r"no targets\.json, so .* must come from its data sets: .*gone"):
        load_model(copied, device="cpu")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [("5", "no checkpoint step-000005; it keeps step-000004, "), ("worst", "say best, newest, or a step")],
)
def test_what_is_not_there_is_said(run, wanted, said):
    with pytest.raises(UserInputError, match=said):
        load_model(run, checkpoint=wanted, device="cpu")


def test_damage_is_noticed(copied):
    best = copied / "checkpoints" / f"step-{best_step(copied):06d}"
    content = bytearray((best / "average.safetensors").read_bytes())
    content[-1] ^= 1
    (best / "average.safetensors").write_bytes(content)
    with pytest.raises(UserInputError, match="checksum differs"):
        load_model(best, device="cpu")
    (copied / "targets.json").write_text("{}")
    with pytest.raises(UserInputError, match=r"targets\.json: damaged"):
        load_model(copied, checkpoint="4", device="cpu")
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(UserInputError, match="holds no run and no model"):
        load_model(copied, device="cpu")


@pytest.mark.parametrize("given", [["Cu"], 7, "POSCAR"])
def test_something_else_than_structures_is_refused(run, given):
    with pytest.raises(UserInputError, match=r"give ase\.Atoms"):
        load_model(run, device="cpu").predict(given)


def test_the_package_stays_light():
    program = "import sys, matsci_hpc; print(sorted({'torch', 'numpy', 'ase', 'pymatgen'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    with pytest.raises(ImportError):
        from matsci_hpc import load_modle  # noqa: F401


def test_targets_json_is_what_the_run_learned(run, data):
    config = load_config(TrainConfig, run / "config.yaml")
    collection = Collection([data])
    assert read_learned(run / "targets.json") == learned_by(build_tasks(config, collection), collection.cutoff, {})


def test_data_that_do_not_fit_the_model_are_refused(run, data, tmp_path):
    about = load_model(run, device="cpu").about
    assert [task.name for task in tasks_for(about, Collection([data]))] == ["family", "gap", "metal"]
    text = (data.parent / "prep.yaml").read_text()
    targets = text[text.index("  targets:") : text.index("out:")]
    for name, old, new, said in [
        ("cutoff", "cutoff: 4.0", "cutoff: 3.0", "edges up to 3 angstrom and the model was trained with 4"),
        ("unit", "unit: eV", "unit: meV", "than to the model: unit is meV in the data and eV in the model; prep"),
        ("names", "    gap:", "    other:", None),
        ("none", targets, "  targets: {a: {column: gap}}\n", "no target of"),
    ]:
        config = tmp_path / f"{name}.yaml"
        config.write_text(text.replace(old, new).replace(f"out: {data}", f"out: {tmp_path / name}"))
        prepare(load_config(PrepConfig, config), World())
        if said is None:
            tasks = tasks_for(about, Collection([tmp_path / name]))
            assert [task.name for task in tasks] == ["family", "metal"]
            continue
        with pytest.raises(UserInputError, match=said):
            tasks_for(about, Collection([tmp_path / name]))
