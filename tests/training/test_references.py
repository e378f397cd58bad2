"""Energies of the elements and scalings by atoms, fitted to real materials."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from ranks import run_ranks
from real_mixture import few_rows, frames, prepare_one
from safetensors.torch import load_file

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.compositions import Compositions, compositions
from matsci_hpc.loading.subset import draw_subset
from matsci_hpc.training.least_squares import ENOUGH, FIRM, RIDGES, fit_references
from matsci_hpc.training.tasks import build_tasks


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
    return fit_references(lambda: compositions(data, target, data.in_split("train")), extensive=extensive)


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory) -> Path:
    """More frames of MPtrj than there are elements."""
    folder = tmp_path_factory.mktemp("snapshots")
    return prepare_one(folder / "mptrj", frames(folder, 250))


def ridge_of(parts: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Energies by a solution of its own: rows for the ridge below those of the samples, the constant without one."""
    seen = parts.any(axis=0)
    width = int(seen.sum())
    rows = np.block([[np.ones((len(y), 1)), parts[:, seen]], [np.zeros((width, 1)), np.sqrt(ridge) * np.eye(width)]])
    b, *d = np.linalg.lstsq(rows, np.concatenate([y, np.zeros(width)]), rcond=None)[0]
    found = np.full(len(seen), b)
    found[seen] += d
    return found


def left_out(parts: np.ndarray, y: np.ndarray, ridge: float) -> float:
    """Root mean square of the residuals of samples, each by a fit without it."""
    others = [np.arange(len(y)) != n for n in range(len(y))]
    residuals = [y[n] - parts[n] @ ridge_of(parts[some], y[some], ridge) for n, some in enumerate(others)]
    return float(np.sqrt(np.mean(np.square(residuals))))


def check(folder: Path, target: str, *, extensive: bool) -> None:
    """A fit against fits made anew without each sample."""
    counts, values = table(folder, target)
    parts = counts / counts.sum(axis=1, keepdims=True)
    y = values / counts.sum(axis=1) if extensive else values
    found = fit(folder, target, extensive=extensive)
    assert found.samples == len(y)
    scale = (parts**2).sum(axis=0).max()
    few = len(y) < ENOUGH * counts.any(axis=0).sum()
    ridges = [each for each in RIDGES if each >= FIRM or not few]
    place = ridges.index(found.ridge)
    left = [left_out(parts, y, each * scale) for each in ridges[max(place - 1, 0) : place + 2]]
    assert min(left) == left_out(parts, y, found.ridge * scale)
    assert found.std == pytest.approx(min(left), rel=1e-6)
    np.testing.assert_allclose(found.references, ridge_of(parts, y, found.ridge * scale), atol=1e-6 * y.std())
    assert (found.elements == counts.any(axis=0)).all()
    assert (found.value_mean, found.value_std) == pytest.approx((y.mean(), y.std()), rel=1e-9)
    assert found.mean == pytest.approx((y - parts @ found.references).mean(), abs=1e-9 * y.std())
    assert 0.01 * y.std() < found.std < y.std()
    unseen, others = found.references[~found.elements], found.references[found.elements]
    np.testing.assert_allclose(unseen, others.mean(), rtol=1e-6)


def test_references_are_those_of_least_squares(materials, snapshots):
    check(materials["perov_5"], "heat_of_formation", extensive=False)
    check(snapshots, "energy", extensive=True)


def test_one_element_alone_is_its_mean(materials):
    _, values = table(materials["carbon_24"], "carbon_energy")
    found = fit(materials["carbon_24"], "carbon_energy", extensive=False)
    assert found.references[6] == pytest.approx(values.mean(), rel=1e-6)
    assert found.std == pytest.approx(values.std(), rel=1e-6)


def test_elements_in_one_ratio_share_their_energy():
    """Rock salt alone says nothing of sodium by itself: both get the same, and the sum is right."""
    counts = np.zeros((4, 119), dtype=np.int64)
    counts[:, [11, 17]] = np.array([1, 2, 3, 4])[:, None]
    values = np.array([-4.0, -4.2, -3.8, -4.0])
    found = fit_references(lambda: [Compositions(counts, values * counts.sum(axis=1))], extensive=True)
    assert found.references[11] == pytest.approx(found.references[17])
    assert found.references[[11, 17]].mean() == pytest.approx(-4.0)


@pytest.fixture(scope="module")
def perovskites(tmp_path_factory) -> Path:
    """As many as have to be held out from fits to a few of them."""
    folder = tmp_path_factory.mktemp("perovskites")
    target = "heat_of_formation: {column: heat_all, unit: eV/atom}"
    return prepare_one(folder / "perov_5", few_rows(folder, "perov_5/val.csv", 1700, target))


@pytest.mark.parametrize("count", [40, 64, 100, 1000])
def test_few_samples_do_no_harm(perovskites, count):
    """Held-out errors of the composition are never far above those of the mean, and the deviation is like them."""
    counts, values = table(perovskites, "heat_of_formation")
    held_out, truth = table(perovskites, "heat_of_formation", "val")
    order = np.random.default_rng(count).permutation(len(values))
    for start in range(0, min(len(values) - count, 5 * count) + 1, count):
        some = order[start : start + count]
        found = fit_references(lambda some=some: [Compositions(counts[some], values[some])], extensive=False)
        missed = truth - held_out @ found.references / held_out.sum(axis=1)
        assert np.abs(missed).mean() < 1.05 * np.abs(truth - values[some].mean()).mean()
        assert 0.6 < found.std / np.sqrt(np.square(missed).mean()) < 1.5
        if count == 1000:
            assert found.std < 0.8 * found.value_std


def test_a_composition_that_says_nothing_is_not_taken_off(materials):
    """Values without their samples' compositions: of every draw, most are told from the mean by nothing."""
    counts, values = table(materials["perov_5"], "heat_of_formation")
    draws = [np.random.default_rng(seed).permutation(values) for seed in range(20)]
    found = [fit_references(lambda y=y: [Compositions(counts, y)], extensive=False) for y in draws]
    plain = [each for each in found if each.ridge is None]
    assert len(plain) >= 5
    for each in plain:
        np.testing.assert_allclose(each.references, values.mean(), rtol=1e-12)
        assert (each.mean, each.std) == (0.0, each.value_std)
    assert all(0.8 * values.std() < each.std < 1.1 * values.std() for each in found)


def test_a_composition_that_says_all_leaves_the_scale_of_the_values():
    counts = np.zeros((50, 119), dtype=np.int64)
    counts[:, [1, 8, 26]] = np.random.default_rng(2).integers(1, 6, (50, 3))
    values = counts @ np.linspace(-9, 0, 119)
    found = fit_references(lambda: [Compositions(counts, values)], extensive=True)
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


@pytest.fixture(scope="module")
def said(materials, config, tmp_path_factory):
    """The run on two ranks, and what it said."""
    folder = tmp_path_factory.mktemp("references") / "on2"
    result = run_ranks(2, "train", config, f"run_dir={folder}", *options(materials))
    assert result.returncode == 0, result.stderr
    return folder, result


@pytest.mark.mpi
def test_a_run_fits_once_and_the_same_on_any_number_of_ranks(materials, said, train, lines):
    two, result = said
    found = fit(materials["mptrj"], "energy", extensive=True)
    told = [line for line in result.stdout.splitlines() if line.startswith("  energy: energies of")]
    assert len(told) == 1
    assert told[0].endswith(f"{found.std:.4g} of {found.value_std:.4g} eV/atom")
    mine = buffers(two)
    assert len(mine) == 4 + 3 + 2
    assert mine["heads.target:energy.references"].tolist() == np.float32(found.references).tolist()
    assert float(mine["heads.target:energy.std"]) == np.float32(found.std)
    assert (mine["heads.target:band_gap.mean"], mine["heads.target:band_gap.std"]) == (0, 1)
    for ranks in (1, 3):
        other = train(f"on{ranks}", ranks, *options(materials))
        assert all(torch.equal(buffers(other)[name], value) for name, value in mine.items())
        for a, b in zip(lines(two), lines(other), strict=True):
            assert b["losses"] == pytest.approx(a["losses"], rel=1e-6)


@pytest.mark.mpi
def test_errors_are_physical_and_beside_those_of_mean_and_composition(materials, said, lines):
    metrics = lines(said[0], "evaluations")[-1]["metrics"]
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
def test_a_head_that_is_taken_over_keeps_what_it_was_fitted_with(materials, said, config, tmp_path):
    """On other data, whose own energies would be others."""
    run, before = tmp_path / "run", buffers(said[0])
    folders = ", ".join(str(materials[name]) for name in ("mptrj", "3dsc"))
    more = (
        "data.subset={samples: 40, seed: 1}",
        f"init_from={said[0]}",
        "fine_tune={heads: matching, neighbors: accept}",
        "steps=1",
    )
    targets = "targets={energy: {extensive: true, references: true}, formation_energy: {}}"
    result = run_ranks(2, "train", config, f"run_dir={run}", f"data.train=[{folders}]", targets, *more)
    assert result.returncode == 0, result.stderr
    assert "head of energy, with the scaling" in result.stdout
    assert "fitted" not in result.stdout
    after = buffers(run)
    energy = [name for name in before if "target:energy" in name]
    assert len(energy) == 4
    nothing = "heads.target:energy.mean_per_atom"  # says what the mean alone would reach on the data of this run
    assert all(torch.equal(after[name], before[name]) for name in energy if name != nothing)
    data = Collection([materials["mptrj"], materials["3dsc"]])
    data.restrict("train", draw_subset(data.split_counts("train").tolist(), 40, 1))
    blocks = list(compositions(data, "energy", data.in_split("train")))
    per_atom = np.concatenate([each.values / each.counts.sum(axis=1) for each in blocks])
    assert float(after[nothing]) == pytest.approx(per_atom.mean(), rel=1e-6)
    assert float(after[nothing]) != pytest.approx(float(before[nothing]), rel=1e-4)
    assert "not loaded: head of formation_energy: its references is [119] there and missing here" in result.stdout


@pytest.mark.mpi
def test_elements_that_training_never_saw_are_named(materials, said):
    for name, target in (("mptrj", "energy"), ("3dsc", "formation_energy")):
        seen, held_out = (table(materials[name], target, split)[0] for split in ("train", "val"))
        missing = ~seen.any(axis=0) & held_out.any(axis=0)
        warned = [line for line in said[1].stderr.splitlines() if f"targets.{target}.references" in line]
        told = [line for line in warned if "held-out samples hold elements" in line]
        assert len(told) == int(missing.any())
        few = f"{len(seen)} samples are few for the energies of {int(seen.any(axis=0).sum())} elements"
        assert sum(few in line or "; none are taken off" in line for line in warned) == 1
        for z in np.flatnonzero(missing):
            assert f"{chemical_symbols[z]} ({int((held_out[:, z] > 0).sum())})" in told[0]
    assert "targets.energy.references" in said[1].stderr


def test_a_value_per_atom_does_not_grow_with_the_cell(materials, config):
    data = Collection([materials["perov_5"]])
    assert data.targets["heat_of_formation"].unit == "eV/atom"
    loaded = load_config(TrainConfig, config, ["targets={heat_of_formation: {extensive: true}}"])
    with pytest.raises(UserInputError, match=r"targets\.heat_of_formation\.extensive: its unit is eV/atom"):
        build_tasks(loaded, data)


def test_targets_that_are_no_numbers_have_no_references(materials, config):
    for key in ("references", "extensive"):
        loaded = load_config(TrainConfig, config, [f"targets={{point_group: {{{key}: true}}}}"])
        with pytest.raises(UserInputError, match=f"targets.point_group.{key}: it is a class target"):
            build_tasks(loaded, Collection([materials["symmetry"]]))
