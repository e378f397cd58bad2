"""The numbers against ones that are known, or computed in another way."""

import numpy as np
import pytest
from embedding_folders import blobs, write_embeddings

from matsci_hpc.analysis import separation as module
from matsci_hpc.analysis.map_data import read_points
from matsci_hpc.analysis.projection import choose_method, principal_components, project, standardised
from matsci_hpc.analysis.separation import require_sklearn, separation
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.targets import TargetSpec

NUMBER = TargetSpec(kind="regression", unit="eV")
FLAG = TargetSpec(kind="binary")


def points_of(folder, *args, **kwargs):
    (points,) = read_points([write_embeddings(folder, *args, **kwargs)])
    return points


def measured(folder, *args, k=10, folds=5, seed=0, **kwargs):
    return separation(points_of(folder, *args, **kwargs), k=k, folds=folds, seed=seed)


def purity_by_hand(embedding, numbers, k):
    scaled = (embedding - embedding.mean(axis=0)) / embedding.std(axis=0)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1)[:, :k]
    return float((numbers[nearest] == numbers[:, None]).mean())


def silhouette_by_hand(embedding, numbers):
    scaled = (embedding - embedding.mean(axis=0)) / embedding.std(axis=0)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    values = []
    for i in range(len(numbers)):
        means = {}
        for c in np.unique(numbers):
            others = (numbers == c) & (np.arange(len(numbers)) != i)
            means[c] = distance[i, others].mean()
        a = means.pop(numbers[i])
        b = min(means.values())
        values.append((b - a) / max(a, b))
    return float(np.mean(values))


def test_purity_and_silhouette_are_those_of_their_definitions(tmp_path):
    embedding, numbers = blobs((30, 50, 20), 2.0)
    embedding = embedding.astype(np.float32).astype(np.float64)
    found = measured(tmp_path / "a", embedding, numbers, names=("a", "b", "c"), k=7)
    (row,) = found.classes
    assert row.label == "data set"
    assert row.purity == pytest.approx(purity_by_hand(embedding, numbers, 7), abs=1e-12)
    assert row.silhouette == pytest.approx(silhouette_by_hand(embedding, numbers), abs=1e-9)
    assert row.purity_by_chance == pytest.approx((30 * 29 + 50 * 49 + 20 * 19) / (100 * 99))
    assert found.k == 7
    shares = np.array(found.neighbors)
    assert shares.sum(axis=1) == pytest.approx(1.0)
    assert row.purity == pytest.approx((shares.diagonal() * np.array([30, 50, 20])).sum() / 100)
    assert row.purity_by_class["b"] == pytest.approx(shares[1, 1])


def test_what_lies_apart_is_told_from_what_does_not(tmp_path):
    apart = measured(tmp_path / "apart", *blobs((60, 60), 9.0)).classes[0]
    mixed = measured(tmp_path / "mixed", *blobs((60, 60), 0.0)).classes[0]
    assert apart.purity > 0.97
    assert apart.silhouette > 0.2
    assert apart.probe.accuracy > 0.98
    assert mixed.purity == pytest.approx(mixed.purity_by_chance, abs=0.1)
    assert abs(mixed.silhouette) < 0.05
    assert mixed.probe.accuracy == pytest.approx(0.5, abs=0.15)


def test_a_linear_target_is_read_off_and_noise_is_not(tmp_path):
    rng = np.random.default_rng(1)
    embedding, numbers = blobs((150, 150), 1.0)
    linear = (embedding @ rng.normal(size=8)).astype(np.float32)
    noise = rng.normal(size=300).astype(np.float32)
    absent = np.where(np.arange(300) % 3 == 0, np.nan, linear).astype(np.float32)
    flag = np.where(np.arange(300) % 4 == 0, np.nan, embedding[:, 2] > 0).astype(np.float32)
    found = measured(
        tmp_path / "a",
        embedding,
        numbers,
        targets={"x": (NUMBER, linear), "noise": (NUMBER, noise), "y": (NUMBER, absent), "flag": (FLAG, flag)},
    )
    x, noise_row, y = found.numbers
    assert x.r2 > 0.999
    assert x.mae < 0.02 * x.mae_of_mean
    assert abs(noise_row.r2) < 0.1
    assert (x.samples, y.samples) == (300, 200)
    assert x.unit == "eV"
    assert y.r2 > 0.999
    assert [row.label for row in found.classes] == ["data set", "flag"]
    assert found.classes[1].samples == 225
    assert found.classes[1].probe.accuracy > 0.9


def test_near_copies_of_one_formula_do_not_help_each_other(tmp_path):
    """Each formula has its own random number and its own place: samples of it in two folds would give it away."""
    rng = np.random.default_rng(3)
    formula = np.repeat(np.arange(40), 10)
    centres, values = rng.normal(size=(40, 60)), rng.normal(size=40)
    embedding = centres[formula] + 0.01 * rng.normal(size=(400, 60))
    targets = {
        "x": (NUMBER, values[formula].astype(np.float32)),
        "flag": (FLAG, (values[formula] > 0).astype(np.float32)),
    }
    names = [f"H{number + 1}C" for number in formula]
    apart = measured(tmp_path / "a", embedding, formula % 2, targets=targets, formulas=names)
    loose = measured(tmp_path / "b", embedding, formula % 2, targets=targets)  # every sample a formula of its own
    assert loose.numbers[0].r2 > 0.9
    assert apart.numbers[0].r2 < 0.3
    assert loose.classes[1].probe.accuracy > 0.95
    assert apart.classes[1].probe.accuracy < 0.75
    assert apart.numbers[0].formulas_apart
    assert apart.classes[1].probe.formulas_apart


def test_a_data_set_of_one_formula_is_still_probed(tmp_path):
    embedding, numbers = blobs((40, 40), 6.0)
    names = ["C"] * 40 + [f"SiO{number + 2}" for number in range(40)]
    (row,) = measured(tmp_path / "a", embedding, numbers, formulas=names).classes
    assert not row.probe.formulas_apart
    assert row.probe.accuracy == 1.0


def test_what_cannot_be_measured_is_said(tmp_path):
    embedding, _ = blobs((40,), 0.0)
    labels = np.array([0] * 20 + [1] * 17 + [2] * 2 + [-1], dtype=np.int16)
    kind = TargetSpec(kind="class", classes=("x", "y", "z", "never"))
    few = np.full(40, np.nan, dtype=np.float32)
    few[:6] = 1.0
    found = measured(
        tmp_path / "a",
        embedding,
        np.zeros(40),
        names=("only",),
        targets={"kind": (kind, labels), "few": (NUMBER, few), "same": (FLAG, np.ones(40, dtype=np.float32))},
    )
    (row,) = found.classes  # no row for a single data set
    assert (row.label, row.samples, row.classes) == ("kind", 39, 3)
    assert (row.probe.samples, row.probe.classes) == (37, 2)
    assert row.probe.by_chance == pytest.approx(20 / 37)
    assert found.numbers == []
    assert found.notes == [
        "kind: 1 class of fewer than 5 samples left out of the linear probe.",
        "few: no linear probe of 6 samples, or of one value.",
        "same: all samples that carry it are of one class.",
    ]


def test_of_many_samples_some_are_drawn_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_SAMPLES", 50)
    points = points_of(tmp_path / "a", *blobs((60, 60), 3.0))
    found = separation(points, k=5, folds=5, seed=0)
    assert found.samples == 50
    assert found.notes == ["The numbers are of 50 samples, drawn from all 120."]
    assert found == separation(points, k=5, folds=5, seed=0)
    assert found != separation(points, k=5, folds=5, seed=1)


def test_principal_components_are_those_of_scikit_learn_with_signs_that_do_not_depend_on_chance():
    from sklearn.decomposition import PCA

    features = standardised(np.random.default_rng(0).normal(size=(50, 6)) * np.array([3, 1, 2, 1, 1, 1]))
    features = features @ np.diag([3.0, 1, 2, 1, 1, 1])
    place, shares = principal_components(features)
    theirs = PCA(2, svd_solver="full").fit(features)
    assert shares == pytest.approx(theirs.explained_variance_ratio_)
    assert np.abs(place) == pytest.approx(np.abs(theirs.transform(features)), abs=1e-9)
    turned, _ = principal_components(features[::-1])
    assert turned[::-1] == pytest.approx(place, abs=1e-9)


def test_features_that_do_not_vary_are_left_out():
    values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    values[:, 1] = 7.0
    scaled = standardised(values)
    assert scaled.shape == (20, 2)
    assert scaled.std(axis=0) == pytest.approx(1.0)
    with pytest.raises(UserInputError, match="all embeddings are the same"):
        standardised(np.ones((5, 3), dtype=np.float32))


def test_umap_is_the_same_with_the_same_seed():
    features = standardised(blobs((40, 40), 6.0)[0])
    first, again = (project(features, "umap", seed=1, neighbors=10).place for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert not np.allclose(first, project(features, "umap", seed=2, neighbors=10).place)
    assert np.isfinite(first).all()


def test_without_the_extra_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr("matsci_hpc.analysis.projection.installed", lambda _: None)
    monkeypatch.setattr(module, "installed", lambda _: None)
    assert choose_method("auto", 100) == "pca"
    with pytest.raises(MachineError, match=r"needs umap-learn.*pip install 'matsci-hpc\[embed\]'"):
        choose_method("umap", 100)
    with pytest.raises(MachineError, match=r"needs scikit-learn.*--no-numbers"):
        require_sklearn()
    monkeypatch.undo()
    with pytest.raises(UserInputError, match="3 samples are too few for UMAP"):
        choose_method("umap", 3)


def test_folders_of_one_encoder_are_one_map_and_no_sample_stands_there_twice(tmp_path):
    embedding, numbers = blobs((10, 10), 1.0)
    first = write_embeddings(tmp_path / "first", embedding, numbers)
    other = write_embeddings(tmp_path / "other", embedding, numbers, names=("c", "d"))
    fresh = write_embeddings(tmp_path / "fresh", embedding, numbers, untrained=3)
    points = read_points([first, fresh, other])
    assert [len(each) for each in points] == [40, 20]
    assert points[0].data_sets == ("a", "b", "c", "d")
    assert np.bincount(points[0].data_set).tolist() == [10, 10, 10, 10]
    with pytest.raises(UserInputError, match=r"sample sample-0 of a stands in .*first, too"):
        read_points([first, write_embeddings(tmp_path / "again", embedding, numbers)])
