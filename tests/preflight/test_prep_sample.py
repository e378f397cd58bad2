import gzip
import tarfile

import pytest

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.mpi import World
from matsci_hpc.preflight.prep_sample import list_some, sample_preparation
from matsci_hpc.prepare import prepare
from matsci_hpc.sources.symmetry import SymmetrySource


def cif(path, **more):
    return {"kind": "cif", "path": str(path)} | more


@pytest.fixture
def archive(cif_folder, tmp_path):
    """The crystals as an archive, compressed or not."""

    def make(name, mode):
        with tarfile.open(tmp_path / name, mode) as file:
            file.add(cif_folder, "cifs")
        return tmp_path / name

    return make


def test_foretold_size_is_that_of_the_data_set(prep_config, tmp_path):
    config = prep_config(source={"kind": "symmetry", "samples": 1000}, shard_size=250)
    sample = sample_preparation(config)
    assert (sample.inputs, sample.exact, sample.rejected) == (1000, True, 0)
    assert not (tmp_path / "out").exists()
    prepare(load_config(PrepConfig, tmp_path / "prep.yaml"), World())
    real = sum(each.stat().st_size for each in (tmp_path / "out").glob("shard-*.h5"))
    assert sample.bytes_per_input * sample.inputs == pytest.approx(real, rel=0.15)


@pytest.mark.parametrize(("samples", "shard_size", "converted"), [(9000, 4096, 4096), (300, 4096, 300), (300, 64, 64)])
def test_clouds_are_converted_as_preparation_does_it(samples, shard_size, converted, prep_config, monkeypatch):
    """A whole shard as arrays; an object per sample takes many times as long and is asked for nowhere."""
    monkeypatch.setattr(SymmetrySource, "read", lambda *_: pytest.fail("asked for objects"))
    config = prep_config(source={"kind": "symmetry", "samples": samples}, shard_size=shard_size)
    sample = sample_preparation(config)
    assert (sample.inputs, sample.sampled, sample.rejected) == (samples, converted, 0)
    assert sample.input_s > 0


def test_clouds_that_cannot_be_used(prep_config):
    """Noise of a millimetre: no cloud keeps within what preparation takes."""
    config = prep_config(source={"kind": "symmetry", "samples": 300, "jitter": 1e7})
    with pytest.raises(UserInputError, match=r"none of 64 inputs is usable"):
        sample_preparation(config)


def test_crystals_of_a_folder(prep_config, cif_folder, tmp_path):
    targets = {"gap": {"column": "gap"}}
    config = prep_config(source=cif(cif_folder, properties=str(cif_folder / "properties.csv"), targets=targets))
    sample = sample_preparation(config)
    assert (sample.inputs, sample.exact, sample.rejected, sample.unpacked_bytes) == (60, True, 0, 0)
    assert sample.input_s > 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "mode", "packed"), [("a.tar", "w", False), ("a.tar.gz", "w:gz", True)])
def test_crystals_of_an_archive(name, mode, packed, prep_config, archive, cif_folder):
    sample = sample_preparation(prep_config(source=cif(archive(name, mode))))
    size = sum(each.stat().st_size for each in cif_folder.rglob("*.cif"))
    assert (sample.inputs, sample.unpacked_bytes) == (60, size if packed else 0)


def test_a_large_archive_is_estimated(archive, tmp_path):
    listing = list_some(archive("a.tar", "w"), tmp_path, limit_s=0.0)
    assert not listing.exact
    assert 6 < listing.inputs < 600


def test_unusable_inputs(prep_config, broken_cifs, tmp_path):
    config = prep_config(source=cif(broken_cifs))
    with pytest.raises(UserInputError, match=r"none of .* inputs is usable"):
        sample_preparation(config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserInputError, match=r"holds no \.cif file"):
        sample_preparation(prep_config(source=cif(tmp_path / "empty")))
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(UserInputError, match="cannot be read"):
        sample_preparation(prep_config(source=cif(tmp_path / "text")))


def frames(count):
    return "".join(f'1\nLattice="3 0 0 0 3 0 0 0 3" energy={n}\nCu 0 0 0\n' for n in range(count))


@pytest.mark.parametrize("packed", [False, True])
def test_frames_of_extended_xyz(packed, prep_config, tmp_path):
    path = tmp_path / "frames"
    path.write_bytes(gzip.compress(frames(40).encode()) if packed else frames(40).encode())
    targets = {"energy": {"key": "energy"}}
    config = prep_config(source={"kind": "extxyz", "path": str(path), "targets": targets})
    sample = sample_preparation(config)
    assert (sample.inputs, sample.exact, sample.rejected) == (40, True, 0)
    assert sample.unpacked_bytes == (len(frames(40)) if packed else 0)
    assert not (tmp_path / "out").exists()
