"""Histograms of a data set: against numpy, as text and as a picture."""

import numpy as np
import pytest
from crystal_data import prepare_crystals
from hypothesis import given
from hypothesis import strategies as st
from preparation import run_program

from matsci_hpc.shards.histogram_table import histogram_table
from matsci_hpc.shards.histograms import _number_edges, _size_edges, histograms
from matsci_hpc.shards.reader import DataSet


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    return prepare_crystals(tmp_path_factory.mktemp("crystals"), 60)


def column(data, name):
    return np.concatenate([data.shard(n)[name] for n in range(len(data.manifest.shards))])


def test_counts_against_numpy(crystals):
    data = DataSet(crystals)
    made = {each.name: each for each in histograms(data, 10)}
    split = column(data, "structures/split")
    gap = column(data, "targets/gap")
    for number in range(2):
        chosen = gap[(split == number) & ~np.isnan(gap)]
        assert made["gap"].counts[number].tolist() == np.histogram(chosen, made["gap"].edges)[0].tolist()
        sizes = data.index.atoms[data.index.split == number]
        assert made["atoms"].counts[number].tolist() == np.histogram(sizes, made["atoms"].edges)[0].tolist()
        families = column(data, "targets/family")[split == number]
        assert made["family"].counts[number].tolist() == [int((families == k).sum()) for k in range(3)]
    assert made["edges"].counts.sum() == 60
    assert made["metal"].counts.sum() == np.isfinite(column(data, "targets/metal")).sum()


@given(st.floats(-(2.0**99), 2.0**99, width=32), st.floats(-(2.0**99), 2.0**99, width=32))
def test_number_bins_hold_all(a, b):
    low, high = min(a, b), max(a, b)
    edges = _number_edges(low, high, 10)
    assert 2 <= len(edges) <= 24
    assert edges[0] <= low <= high <= edges[-1]
    assert (np.diff(edges) > 0).all() or low == high


@given(st.integers(0, 1000), st.integers(0, 10**7))
def test_size_bins_hold_all(low, more):
    edges = _size_edges(low, low + more, 10)
    assert edges[0] == low
    assert edges[-1] > low + more
    assert len(edges) <= 12
    assert (edges == np.round(edges)).all()
    assert (np.diff(edges) > 0).all()


def test_table(crystals):
    lines = histogram_table(crystals).splitlines()
    assert lines[0] == "  atoms of a sample"
    assert "  gap in eV" in lines
    assert max(len(line) for line in lines) < 80
    assert any("█" in line for line in lines)
    plain = histogram_table(crystals, "latin-1")
    assert plain.encode("ascii")
    assert "####" in plain
    place = lines.index("  family")
    assert [line.split()[0] for line in lines[place + 1 : place + 4]] == ["alloy", "oxide", "zeolite"]
    assert lines[place + 3].split()[1:] == ["0", "0.0%"]


def test_a_terminal_without_blocks(crystals):
    done = run_program("shards", "info", crystals, environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "###" in done.stdout


def test_picture(crystals, tmp_path):
    path = tmp_path / "a b.png"
    done = run_program("shards", "info", crystals, "--plot", path, environment={"DISPLAY": "", "MPLBACKEND": "tkagg"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(path)
    from PIL import Image

    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 800
        assert len(image.convert("RGB").getcolors(1 << 20)) > 20
    assert [each.name for each in tmp_path.iterdir()] == ["a b.png"]


@pytest.mark.parametrize(
    ("path", "message"), [("x.pdf", "ends in .png"), ("none/x.png", "cannot be written: No such file")]
)
def test_pictures_that_cannot_be(crystals, tmp_path, path, message):
    done = run_program("shards", "info", crystals, "--plot", tmp_path / path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
