import gzip
import io
import os
import pickle
import tarfile
from types import SimpleNamespace

import lmdb
import pytest
from ase.db import connect
from record_inputs import NAMES, section, write_records

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.mpi import World
from matsci_hpc.preflight.prep_sample import list_some, sample_preparation
from matsci_hpc.prepare import prepare
from matsci_hpc.sources import indexed_records
from matsci_hpc.sources.extxyz import ExtxyzFrames
from matsci_hpc.sources.record_heads import MOST_BYTES
from matsci_hpc.sources.record_source import Extent
from matsci_hpc.sources.registry import open_source
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


@pytest.mark.parametrize(
    ("samples", "shard_size", "ranks", "converted"),
    [
        (9000, 4096, 1, 4096),
        (300, 4096, 1, 300),
        (300, 64, 1, 300),
        (300, 64, 4, 128),
        (9000, 128, 1, 4096),
        (9000, 128, 8, 512),
        (9000, 128, 100, 128),
        (20_000, 8192, 4, 8192),
    ],
)
def test_clouds_are_converted_as_preparation_does_it(samples, shard_size, ranks, converted, prep_config, monkeypatch):
    """A rank's shards of a block as arrays; an object per sample takes many times as long and is asked for nowhere."""
    monkeypatch.setattr(SymmetrySource, "read", lambda *_: pytest.fail("asked for objects"))
    config = prep_config(source={"kind": "symmetry", "samples": samples}, shard_size=shard_size)
    sample = sample_preparation(config, ranks)
    assert (sample.inputs, sample.sampled, sample.rejected) == (samples, converted, 0)
    assert sample.input_s > 0


def test_shards_left_out_for_want_of_time_take_as_long_as_the_later_ones(prep_config, monkeypatch):
    """By the clock the first of 32 shards of a block takes 4 s, the block with it, and each later one 1 s."""
    clock = SimpleNamespace(perf_counter=iter([0.0, 4.0, 5.0, 6.0, 7.0]).__next__)
    monkeypatch.setattr("matsci_hpc.preflight.prep_sample.time", clock)
    config = prep_config(source={"kind": "symmetry", "samples": 4096}, shard_size=128)
    sample = sample_preparation(config)
    assert sample.sampled == 4 * 128
    assert sample.input_s == pytest.approx((4 + 31) / 4096)


def test_clouds_that_cannot_be_used(prep_config):
    """Noise of a millimetre: no cloud keeps within what preparation takes."""
    config = prep_config(source={"kind": "symmetry", "samples": 300, "jitter": 1e7})
    with pytest.raises(UserInputError, match=r"none of 300 inputs is usable"):
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


@pytest.mark.parametrize("kind", NAMES)
def test_of_a_large_file_only_the_beginning_is_read(kind, prep_config, tmp_path):
    path = tmp_path / NAMES[kind]
    write_records(kind, path, [2, 3] * 700)
    if kind != "lmdb":  # where that ends the reading; SQLite does not mind what follows
        with path.open("ab") as file:
            file.write({"csv": b'1401,"'}.get(kind, b"no record"))
    sample = sample_preparation(prep_config(source=section(kind, path)))
    exact = kind == "ase_db"  # which knows how many rows it has
    assert (sample.exact, sample.rejected, sample.sampled) == (exact, 0, 256)
    assert sample.inputs == pytest.approx(1400, rel=0.01)


def pack(path, form):
    """A file as another one, compressed or in an archive."""
    if form == "gz":
        packed = path.with_name(f"{path.name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        return packed
    packed = path.with_name(f"{path.name}.{form}")
    with tarfile.open(packed, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[form]) as archive:
        archive.add(path, f"folder/{path.name}")
    return packed


@pytest.mark.parametrize("form", ["gz", "tar", "tar.gz", "tar.xz"])
def test_of_a_large_compressed_file_only_the_beginning_is_unpacked(form, prep_config, tmp_path):
    path = tmp_path / "a.xyz"
    write_records("extxyz", path, [600 + number % 97 for number in range(2400)])
    assert path.stat().st_size > 2 * MOST_BYTES
    config = prep_config(source=section("extxyz", pack(path, form)))
    sample = sample_preparation(config)
    assert (sample.exact, sample.rejected) == (False, 0)
    assert sample.inputs == pytest.approx(2400, rel=0.25)
    assert sample.unpacked_bytes == pytest.approx(0 if form == "tar" else path.stat().st_size, rel=0.25)
    ExtxyzFrames.open_some(config.source, tmp_path / "staging")
    assert sum(each.stat().st_size for each in (tmp_path / "staging").rglob("*.bin")) <= MOST_BYTES


def test_one_record_that_is_larger_than_what_is_unpacked_at_first(prep_config, tmp_path):
    path = tmp_path / "a.xyz"
    write_records("extxyz", path, [MOST_BYTES // 12, 1])
    config = prep_config(source={"kind": "extxyz", "path": str(pack(path, "gz"))})
    records = ExtxyzFrames.open_some(config.source, tmp_path / "staging")
    assert records.extent == Extent(2, exact=True, unpacked_bytes=path.stat().st_size)


def test_a_folder_of_many_files(prep_config, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(40):
        write_records("extxyz", folder / f"{number}.xyz", [1] * 70)
    sample = sample_preparation(prep_config(source={"kind": "extxyz", "path": str(folder)}))
    assert not sample.exact
    assert sample.inputs == pytest.approx(2800, rel=0.02)


@pytest.mark.parametrize("kind", NAMES)
def test_a_file_without_a_record(kind, prep_config, tmp_path):
    path = tmp_path / NAMES[kind]
    write_records(kind, path, [])
    with pytest.raises(UserInputError, match=f"this {kind} input holds no structure|it has no table of systems"):
        sample_preparation(prep_config(source=section(kind, path)))


def test_the_files_that_are_looked_into_are_empty(prep_config, tmp_path):
    for number in range(40):
        (tmp_path / f"{number:02d}.xyz").write_text("")
    write_records("extxyz", tmp_path / "01.xyz", [1, 2])
    sample = sample_preparation(prep_config(source={"kind": "extxyz", "path": str(tmp_path)}))
    assert (sample.inputs, sample.exact, sample.sampled) == (2, True, 2)


def test_a_target_that_the_beginning_lacks(prep_config, tmp_path):
    path = tmp_path / "a.xyz"
    write_records("extxyz", path, [1] * 1100)
    with path.open("a") as file:
        file.write('1\nLattice="3 0 0 0 3 0 0 0 3" gap=2\nCu 0 0 0\n')
    config = prep_config(source={"kind": "extxyz", "path": str(path), "targets": {"gap": {"key": "gap"}}})
    assert sample_preparation(config).unseen == ("gap",)
    short = prep_config(source={"kind": "extxyz", "path": str(path), "targets": {"gap": {"key": "gpa"}}})
    assert sample_preparation(short).unseen == ("gap",)


def add_the_target(kind, path):
    """One more record, the only one that has a value under `gap`."""
    more = path.with_name(f"more{path.suffix}")
    if kind == "ase_db":
        with connect(path) as database:
            database.update(1100, gap=2.0)
        return
    if kind == "lmdb":
        environment = lmdb.open(str(path), subdir=False, map_size=1 << 28)
        with environment.begin(write=True) as transaction:
            content = pickle.loads(transaction.get(b"999"))  # noqa: S301 - the last of them, in the order of LMDB
            transaction.put(b"999", pickle.dumps(content | {"gap": 2.0}))
        environment.close()
        return
    write_records(kind, more, [1])
    text = more.read_text()
    text = text.replace(" id=", " gap=2 id=") if kind == "extxyz" else text.replace('{"id"', '{"gap": 2, "id"')
    with path.open("a") as file:
        file.write(text)


@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind != "csv"])  # which has all columns in every row
def test_a_target_that_only_the_last_record_has(kind, prep_config, tmp_path):
    """The count of a database is sure, but that a part of it lacks a target says nothing of the whole."""
    path = tmp_path / NAMES[kind]
    write_records(kind, path, [1] * 1100)
    add_the_target(kind, path)
    config = prep_config(source=section(kind, path) | {"targets": {"gap": {"key": "gap"}}})
    sample = sample_preparation(config)
    assert (sample.unseen, sample.rejected) == (("gap",), 0)
    source = open_source(config, tmp_path / "staging")
    assert "gap" in next(source.read(len(source) - 1, len(source))).targets or kind == "lmdb"
    assert not source.unseen


def test_a_target_that_no_database_has(prep_config, tmp_path):
    write_records("ase_db", tmp_path / "a.db", [1] * 3)
    config = prep_config(source=section("ase_db", tmp_path / "a.db") | {"targets": {"gap": {"key": "gpa"}}})
    with pytest.raises(UserInputError, match=r"no input has anything under 'gpa' \(target gap\); there are number"):
        sample_preparation(config)


def put(archive, name, data):
    """Data as a file in an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("left", [0, 3, 10], ids=["nothing", "a part", "a header that breaks off in a quote"])
def test_a_table_of_which_only_a_part_of_the_header_is_unpacked(left, prep_config, tmp_path, monkeypatch):
    write_records("csv", tmp_path / "a.csv", [1] * 5)
    first = (tmp_path / "a.csv").read_bytes()
    write_records("csv", tmp_path / "last.csv", [2])
    (tmp_path / "last.csv").write_bytes((tmp_path / "last.csv").read_bytes().replace(b"id,cif", b'other,"id","cif"', 1))
    (tmp_path / "last.csv").write_bytes((tmp_path / "last.csv").read_bytes().replace(b"\n000,", b"\n7,777,", 1))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        put(archive, "a.csv", first)
        put(archive, "b.csv", first.replace(b"id,cif", b'"id","cif"', 1))
    monkeypatch.setattr(indexed_records, "MOST_BYTES", 2 * (len(first) + left))
    config = prep_config(source=section("csv", tmp_path / "a.tar.gz", tmp_path / "last.csv") | {"id_column": "id"})
    sample = sample_preparation(config)
    assert (sample.exact, sample.sampled, sample.rejected) == (False, 6, 0)


@pytest.mark.parametrize(("kind", "suffix"), [("extxyz", ".xyz"), ("cif", ".cif")])
def test_names_in_archives_that_are_not_text(kind, suffix, prep_config, tmp_path, cif_folder):
    path = tmp_path / "frames.xyz"
    path.write_text(frames(3))
    data = path.read_bytes() if kind == "extxyz" else next(cif_folder.rglob("*.cif")).read_bytes()
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        put(archive, os.fsdecode(b"\xff" + suffix.encode()), data)
    sample = sample_preparation(prep_config(source={"kind": kind, "path": str(tmp_path / "a.tar.gz")}))
    assert (sample.exact, sample.rejected) == (True, 0)


@pytest.mark.parametrize("archives", [1, 20])
def test_an_archive_whose_first_files_are_small(archives, prep_config, tmp_path):
    paths = [tmp_path / f"{number}.tar.gz" for number in range(archives)]
    for path in paths:
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            for number in range(40):
                put(archive, f"{number:02d}.xyz", frames(1 if number < 16 else 300).encode())
    config = prep_config(source={"kind": "extxyz", "path": [str(path) for path in paths]})
    records = ExtxyzFrames.open_some(config.source, tmp_path / "staging")
    assert records.extent.inputs == pytest.approx(archives * (16 + 24 * 300), rel=0.05)
    assert len(records) <= 1024


def test_no_more_is_unpacked_than_a_record_may_take(prep_config, tmp_path, monkeypatch):
    for name, value in {"MOST_BYTES": 1 << 16, "MOST_BYTES_EVER": 1 << 20}.items():
        monkeypatch.setattr(indexed_records, name, value)
    (tmp_path / "a.xyz.gz").write_bytes(gzip.compress(b"999999999\nc\n" + b"Cu 0 0 0000\n" * (1 << 18)))
    config = prep_config(source={"kind": "extxyz", "path": str(tmp_path / "a.xyz.gz")})
    with pytest.raises(UserInputError, match="no record ends in its first 1 MB"):
        ExtxyzFrames.open_some(config.source, tmp_path / "staging")
    assert sum(each.stat().st_size for each in (tmp_path / "staging").rglob("*.bin")) == 1 << 20
