"""Energies of the elements and scalings by atoms, fitted to real materials."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file

from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.compositions import compositions
from matsci_hpc.training.least_squares import fit_references


def table(folder: Path, target: str, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Counts of the elements and values, through the batches that training sees: [n, 119], [n]."""
    data = Collection([folder])
    samples = data.in_split(split)
    batch = collate(data, samples[data.present(target, samples)])
    counts = np.zeros((batch.graphs, 119))
    np.add.at(counts, (batch.atom_graph.numpy(), batch.atomic_number.numpy()), 1)
    return counts, batch.targets[target].double().numpy()


def fit(folder: Path, target: str, *, extensive: bool):
    data = Collection([folder])
    return fit_references(compositions(data, target, data.in_split("train")), extensive=extensive)


@pytest.mark.parametrize(
    ("name", "target", "extensive"),
    [("3dsc", "formation_energy", False), ("perov_5", "heat_of_formation", False), ("mptrj", "energy", True)],
)
def test_references_are_those_of_least_squares(materials, name, target, extensive):
    counts, values = table(materials[name], target)
    parts = counts / counts.sum(axis=1, keepdims=True)
    y = values / counts.sum(axis=1) if extensive else values
    found = fit(materials[name], target, extensive=extensive)
    assert found.samples == len(y)
    # numpy's own solution, of least norm where elements cannot be told apart.
    d, *_ = np.linalg.lstsq(parts, y - y.mean(), rcond=1e-6)
    np.testing.assert_allclose(parts @ found.references, parts @ (y.mean() + d), atol=1e-4 * y.std())
    assert (found.elements == counts.any(axis=0)).all()
    left = y - parts @ found.references
    assert (found.value_mean, found.value_std) == pytest.approx((y.mean(), y.std()), rel=1e-9)
    assert found.mean == pytest.approx(left.mean(), abs=1e-9 * y.std())
    assert found.std == pytest.approx(left.std(), rel=1e-6)
    assert found.std < 0.9 * y.std()
    unseen = ~counts.any(axis=0)
    np.testing.assert_allclose(found.references[unseen], y.mean(), rtol=1e-12)


def test_one_element_alone_is_its_mean(materials):
    _, values = table(materials["carbon_24"], "carbon_energy")
    found = fit(materials["carbon_24"], "carbon_energy", extensive=False)
    assert found.references[6] == pytest.approx(values.mean(), rel=1e-6)
    assert found.std == pytest.approx(values.std(), rel=1e-6)


def test_elements_in_one_ratio_share_their_energy():
    """Rock salt alone says nothing of sodium by itself: both get the same, and the sum is right."""
    from matsci_hpc.loading.compositions import Compositions

    counts = np.zeros((4, 119), dtype=np.int64)
    counts[:, [11, 17]] = np.array([1, 2, 3, 4])[:, None]
    values = np.array([-4.0, -4.2, -3.8, -4.0])
    found = fit_references([Compositions(counts, values * counts.sum(axis=1))], extensive=True)
    assert found.references[11] == pytest.approx(found.references[17])
    assert found.references[[11, 17]].mean() == pytest.approx(-4.0)


def test_a_composition_that_says_all_leaves_the_scale_of_the_values():
    from matsci_hpc.loading.compositions import Compositions

    counts = np.zeros((50, 119), dtype=np.int64)
    counts[:, [1, 8, 26]] = np.random.default_rng(2).integers(1, 6, (50, 3))
    values = counts @ np.linspace(-9, 0, 119)
    found = fit_references([Compositions(counts, values)], extensive=True)
    np.testing.assert_allclose(counts @ found.references, values, rtol=1e-6)
    assert found.std == found.value_std


def buffers(run: Path) -> dict[str, torch.Tensor]:
    saved = load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors")
    names = ("mean", "std", "references", "mean_per_atom")
    return {name: each for name, each in saved.items() if name.rpartition(".")[2] in names}


def options(materials: dict[str, Path], *more: str) -> tuple[str, ...]:
    folders = ", ".join(str(materials[name]) for name in ("mptrj", "3dsc", "symmetry"))
    targets = (
        "energy: {extensive: true, references: true}, formation_energy: {references: true}, band_gap: {scaling: none}"
    )
    return (f"data.train=[{folders}]", f"targets={{{targets}}}", "steps=4", "batch.graphs=40", *more)


@pytest.mark.mpi
def test_a_run_fits_once_and_the_same_on_any_number_of_ranks(materials, train, lines):
    one, three = train("one", 1, *options(materials)), train("three", 3, *options(materials))
    mine, theirs = buffers(one), buffers(three)
    assert len(mine) == 4 + 3 + 2
    assert all(torch.equal(theirs[name], value) for name, value in mine.items())
    found = fit(materials["mptrj"], "energy", extensive=True)
    assert mine["heads.target:energy.references"].tolist() == np.float32(found.references).tolist()
    assert float(mine["heads.target:energy.std"]) == np.float32(found.std)
    assert (mine["heads.target:band_gap.mean"], mine["heads.target:band_gap.std"]) == (0, 1)
    for a, b in zip(lines(one), lines(three), strict=True):
        assert b["losses"] == pytest.approx(a["losses"], rel=1e-6)


@pytest.mark.mpi
def test_errors_are_physical_and_beside_those_of_mean_and_composition(materials, train, lines):
    run = train("run", 2, *options(materials))
    metrics = lines(run, "evaluations")[-1]["metrics"]
    counts, values = table(materials["mptrj"], "energy", "val")
    atoms = counts.sum(axis=1)
    found = fit(materials["mptrj"], "energy", extensive=True)
    of_mean = values - found.value_mean * atoms
    alone = values - (counts @ found.references + found.mean * atoms)
    own = metrics["energy"]
    assert own["baseline_mae"] == pytest.approx(np.abs(of_mean).mean(), rel=1e-6)
    assert own["baseline_rmse_per_atom"] == pytest.approx(np.sqrt(np.square(of_mean / atoms).mean()), rel=1e-6)
    assert own["composition_mae"] == pytest.approx(np.abs(alone).mean(), rel=1e-6)
    assert own["composition_mae"] < own["baseline_mae"]
    assert 0 < own["mae_per_atom"] < own["mae"]
    assert own["unit"] == "eV"
    assert "mae_per_atom" not in metrics["formation_energy"]
    assert "composition_mae" not in metrics["band_gap"]


@pytest.mark.mpi
def test_a_resumed_run_keeps_what_it_fitted(materials, train, lines):
    whole, parts = train("whole", 1, *options(materials)), train("parts", 1, *options(materials, "max_time_s=1e-9"))
    assert len(lines(parts)) < 4
    result = run_ranks(1, "train", parts / "config.yaml", "max_time_s=null")
    assert result.returncode == 0, result.stderr
    assert "fitted" not in result.stdout
    assert [line["losses"] for line in lines(parts)] == [line["losses"] for line in lines(whole)]
    assert all(torch.equal(buffers(parts)[name], value) for name, value in buffers(whole).items())


@pytest.mark.mpi
def test_elements_that_training_never_saw_are_named(materials, config, tmp_path):
    result = run_ranks(2, "train", config, f"run_dir={tmp_path / 'run'}", *options(materials))
    assert result.returncode == 0, result.stderr
    from ase.data import chemical_symbols

    for name, target in (("mptrj", "energy"), ("3dsc", "formation_energy")):
        seen, held_out = (table(materials[name], target, split)[0] for split in ("train", "val"))
        missing = ~seen.any(axis=0) & held_out.any(axis=0)
        told = [line for line in result.stderr.splitlines() if f"targets.{target}.references" in line]
        assert len(told) == int(missing.any())
        for z in np.flatnonzero(missing):
            assert f"{chemical_symbols[z]} ({int((held_out[:, z] > 0).sum())})" in told[0]
    assert "targets.energy.references" in result.stderr


@pytest.mark.mpi
def test_targets_that_are_no_numbers_have_no_references(materials, config, tmp_path):
    run = (f"run_dir={tmp_path / 'run'}", f"data.train=[{materials['symmetry']}]")
    for key in ("references", "extensive"):
        refused = run_ranks(1, "train", config, *run, f"targets={{point_group: {{{key}: true}}}}")
        assert refused.returncode == 2
        assert f"targets.point_group.{key}: it is a class target" in refused.stderr


def test_a_fit_is_told(materials, config, tmp_path):
    result = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", *options(materials))
    assert result.returncode == 0, result.stderr
    found = fit(materials["mptrj"], "energy", extensive=True)
    said = f"{found.std:.4g} of {found.value_std:.4g} eV/atom"
    assert any(said in line for line in result.stdout.splitlines())
    assert json.loads((tmp_path / "run/DONE").read_text())["metrics"]["energy"]["samples"] > 0
