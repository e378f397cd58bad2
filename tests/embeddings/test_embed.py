import json
import shutil
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from preparation import data_set, run_on_ranks
from pymatgen.core import Composition, Element
from ranks import run_ranks
from safetensors.torch import load_file, save_file

from matsci_hpc import load_model
from matsci_hpc.analysis.map_data import read_points
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.embeddings import embed as module
from matsci_hpc.embeddings.choice import choose
from matsci_hpc.embeddings.files import read_embeddings
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.models.registry import build_model
from matsci_hpc.parallel.mpi import World
from matsci_hpc.whole_files import file_checksum


def embed(run, out, *data, **options):
    """In this process, without a launcher."""
    return module.embed(module.Question(run, data, out, device="cpu", **options), World())


def alone(model, collection, samples):
    """Embeddings of samples, each in a batch of its own."""
    with torch.no_grad():
        return np.concatenate([model.embed(collate(collection, samples[n : n + 1])) for n in range(len(samples))])


@pytest.fixture(scope="module")
def both(run, crystals, clouds, tmp_path_factory):
    """Embeddings of the crystals and of the clouds."""
    out = tmp_path_factory.mktemp("both") / "out"
    said = run_ranks(1, "embed", run, "--out", out, "--data", crystals, "--data", clouds)
    assert said.returncode == 0, said.stderr
    return read_embeddings(out), said


def test_embeddings_are_those_of_the_best_checkpoint(both, run, crystals, clouds):
    found, said = both
    model = load_model(run).module
    start = 0
    for folder in (crystals, clouds):
        collection = Collection([folder])
        samples = collection.in_split("val")
        rows = slice(start, start + len(samples))
        np.testing.assert_allclose(found.embedding[rows], alone(model, collection, samples), rtol=2e-5, atol=1e-6)
        assert found.samples[rows].tolist() == samples.tolist()
        start += len(samples)
    assert start == len(found.embedding) == found.about.samples
    assert found.embedding.dtype == np.float32
    assert found.about.width == 10
    assert f"{start} embeddings of 10 numbers by gap, step" in said.stdout


def test_ids_formulas_and_targets_are_those_of_the_samples(both, crystals):
    found, _ = both
    collection = Collection([crystals])
    samples = collection.in_split("val")
    batch = collate(collection, samples)
    for number, sample in enumerate(samples.tolist()):
        assert f"({found.ids[number]})" in collection.sample_name(sample)
        atoms = batch.atomic_number[batch.atom_pointer[number] : batch.atom_pointer[number + 1]]
        ours = Composition(found.formulas[number])
        theirs = Composition(Counter(Element.from_Z(z).symbol for z in atoms.tolist()))
        assert ours.fractional_composition.almost_equals(theirs.fractional_composition)
    crystal, cloud = slice(0, len(samples)), slice(len(samples), None)
    gap = found.targets["gap"]
    there = batch.present["gap"].numpy()
    assert np.isfinite(gap[crystal]).tolist() == there.tolist()
    assert gap[crystal][there].tolist() == batch.targets["gap"].numpy()[there].tolist()
    assert (
        (found.targets["family"][crystal][batch.present["family"].numpy()]).tolist()
        == batch.targets["family"][batch.present["family"]].tolist()
    )
    assert np.isnan(gap[cloud]).all()
    assert (found.targets["family"][cloud] == -1).all()
    assert (found.targets["point_group"][cloud] >= 0).all()
    assert [each.name for each in found.about.data_sets] == ["data", "clouds"]
    assert found.data_set.tolist() == [0] * len(samples) + [1] * (len(found.ids) - len(samples))
    with h5py.File(found.folder / "embeddings.h5") as file:  # it can be understood without its JSON
        assert [name.decode() for name in file["data_sets"]] == ["data", "clouds"]
        assert file["targets/gap"].attrs["unit"] == "eV"
        classes = [name.decode() for name in file["classes/family"]]
        assert classes == list(collection.targets["family"].classes)


def test_a_data_set_with_other_edges_is_pointed_out(both):
    found, said = both
    (note,) = [note for note in found.about.notes if "clouds" in note]
    assert "clouds has edges up to 2.5 Å, and the encoder was trained with edges up to 4 Å" in note
    assert note in said.stderr


def test_stretched_it_is_what_fine_tuning_on_that_data_begins_with(crystals, clouds, config, tmp_path):
    shape = ["model.envelope=true", "model.radial_basis.count=5"]
    done = run_ranks(1, "train", config, f"run_dir={tmp_path}/gap", "steps=1", *shape)
    assert done.returncode == 0, done.stderr
    tuned = [f"data.train=[{clouds}]", f"init_from={tmp_path}/gap", "fine_tune.neighbors=accept"]
    # With a rate that changes no float32 number, what it saves is what it began with.
    still = ["optimizer.lr=1.0e-30", "optimizer.weight_decay=0", "steps=1"]
    done = run_ranks(1, "train", config, f"run_dir={tmp_path}/tuned", *tuned, *still, *shape)
    assert done.returncode == 0, done.stderr
    embed(tmp_path / "tuned", tmp_path / "expected", clouds)
    embed(tmp_path / "gap", tmp_path / "plain", clouds)
    embed(tmp_path / "gap", tmp_path / "stretched", crystals, clouds, stretch=True)
    expected, plain, stretched = (read_embeddings(tmp_path / name) for name in ("expected", "plain", "stretched"))
    ours = stretched.embedding[-len(expected.embedding) :]
    np.testing.assert_array_equal(ours, expected.embedding)
    assert not np.allclose(plain.embedding, expected.embedding, rtol=1e-3)
    assert stretched.about.encoder.stretched
    assert not plain.about.encoder.stretched
    # Another encoder to a map, although the parameters are the same.
    pair = read_points([tmp_path / "plain", tmp_path / "stretched"])
    assert [points.encoder.title for points in pair] == ["gap, step 1", "gap, step 1, stretched"]
    (note,) = [note for note in stretched.about.notes if "clouds" in note]
    assert "are stretched to them" in note


@pytest.mark.mpi
def test_the_bytes_are_the_same_on_any_number_of_ranks(run, crystals, clouds, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_GRAPHS", 5)
    embed(run, tmp_path / "here", crystals, clouds, split="all")
    small = read_embeddings(tmp_path / "here")
    wrapper = tmp_path / "small.py"
    wrapper.write_text(
        "from matsci_hpc import cli\nfrom matsci_hpc.embeddings import embed\nembed.MOST_GRAPHS = 5\ncli.main()\n"
    )
    for ranks in (1, 3):
        out = tmp_path / f"on{ranks}"
        words = [wrapper, "embed", run, "--out", out, "--split", "all", "--data", crystals, "--data", clouds]
        done = run_on_ranks(ranks, words)
        assert done.returncode == 0, done.stderr
        assert data_set(out).keys() == {"embeddings.h5", "embeddings.json", ".lock"}
        assert data_set(out) | {".lock": b""} == data_set(tmp_path / "on1") | {".lock": b""}
    assert read_embeddings(tmp_path / "on3").embedding.tobytes() == small.embedding.tobytes()
    assert len(list(module.cut(choose([crystals, clouds], "all", None, 0)))) >= 12


def test_untrained_is_the_same_architecture_with_the_seed_of_ones_choice(run, crystals, tmp_path):
    embed(run, tmp_path / "out", crystals, untrained=5)
    found = read_embeddings(tmp_path / "out")
    torch.manual_seed(5)
    model = build_model(load_config(TrainConfig, run / "config.yaml").model, {}, 4.0, {}).eval()
    collection = Collection([crystals])
    expected = alone(model, collection, collection.in_split("val"))
    np.testing.assert_allclose(found.embedding, expected, rtol=2e-5, atol=1e-6)
    assert (found.about.encoder.weights, found.about.encoder.seed) == ("untrained", 5)


def test_a_run_that_has_only_begun_stands_for_its_first_parameters(run, crystals, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("config.yaml", "data.json"):
        shutil.copy(run / name, begun / name)
    embed(begun, tmp_path / "begun-out", crystals)
    embed(run, tmp_path / "seed-out", crystals, untrained=7)
    embed(run, tmp_path / "trained-out", crystals)
    first, same, trained = (read_embeddings(tmp_path / f"{name}-out") for name in ("begun", "seed", "trained"))
    assert first.embedding.tobytes() == same.embedding.tobytes()
    assert not np.allclose(first.embedding, trained.embedding)


def test_a_checkpoint_can_be_named_in_two_ways(run, crystals, tmp_path):
    embed(run / "checkpoints" / "step-000003", tmp_path / "a", crystals)
    embed(run, tmp_path / "b", crystals, checkpoint="step-000003")
    assert (tmp_path / "a/embeddings.h5").read_bytes() == (tmp_path / "b/embeddings.h5").read_bytes()
    assert read_embeddings(tmp_path / "a").about.encoder.step == 3


def test_a_limit_draws_the_same_samples_again_and_more_of_them_if_larger(crystals, clouds):
    def drawn(limit, seed=0):
        return [each.samples.tolist() for each in choose([crystals, clouds], "val", limit, seed)]

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(5, seed=1)
    assert [len(each) for each in drawn(5)] == [5, 5]
    assert all(set(few) < set(more) for few, more in zip(drawn(5), drawn(9), strict=True))
    assert all(each == sorted(each) for each in drawn(9))
    assert drawn(1000) == drawn(None)


def test_samples_that_lie_beside_each_other_are_embedded_together(crystals, clouds):
    chosen = choose([crystals, clouds], "all", None, 0)
    pieces = list(module.cut(chosen))
    assert np.concatenate([np.arange(each.first, each.first + len(each.samples)) for each in pieces]).tolist() == list(
        range(100)
    )
    for piece in pieces:
        assert np.isin(piece.samples, chosen[piece.chosen].samples).all()


def test_mistakes_are_the_users(run, crystals, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserInputError, match="no sample in split 'test'; the data sets have train, val; or "):
        embed(run, out, crystals, split="test")
    with pytest.raises(UserInputError, match="is named twice; name it once"):
        embed(run, out, crystals, crystals)
    with pytest.raises(UserInputError, match="/nowhere"):
        embed(run, out, crystals, Path("/nowhere"))
    with pytest.raises(UserInputError, match="has no checkpoint step-000099; it keeps step-000003"):
        embed(run, out, crystals, checkpoint="step-000099")
    with pytest.raises(UserInputError, match="the folder is not empty and holds no embeddings"):
        embed(run, crystals, crystals)
    assert not out.exists()


@pytest.mark.mpi
def test_a_mistake_is_said_once_by_all_ranks(crystals, tmp_path):
    done = run_ranks(2, "embed", tmp_path, "--data", crystals, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("matsci-hpc: error:") == 1


def test_a_run_that_has_diverged_is_named(run, crystals, tmp_path):
    broken = shutil.copytree(run, tmp_path / "broken") / "checkpoints" / "step-000006"
    tensors = load_file(broken / "model.safetensors")
    name = next(name for name in tensors if name.startswith("encoder.") and tensors[name].is_floating_point())
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, broken / "model.safetensors")
    sums = json.loads((broken / "checksums.json").read_text())
    sums["model.safetensors"] = file_checksum(broken / "model.safetensors")
    (broken / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(UserInputError, match=r"\(crystal-.*\): its embedding is not finite"):
        embed(broken, tmp_path / "out", crystals)
    assert not [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".lock")]


def test_damage_is_noticed(both, tmp_path):
    copy = shutil.copytree(both[0].folder, tmp_path / "copy")
    data = bytearray((copy / "embeddings.h5").read_bytes())
    data[-1] ^= 1
    (copy / "embeddings.h5").write_bytes(data)
    with pytest.raises(UserInputError, match=r"embeddings\.h5: the checksum differs"):
        read_embeddings(copy)
    (copy / "embeddings.json").write_text("{}")
    with pytest.raises(UserInputError, match=r"embeddings\.json: damaged: encoder"):
        read_embeddings(copy)
    with pytest.raises(UserInputError, match="no embeddings here"):
        read_embeddings(tmp_path)


def test_a_second_call_replaces_the_first(run, crystals, tmp_path):
    embed(run, tmp_path / "out", crystals)
    embed(run, tmp_path / "out", crystals, limit=4)
    assert len(read_embeddings(tmp_path / "out").ids) == 4
