"""Many data sets as one sequence, looked up in mapped indexes."""

import multiprocessing
import resource
import shutil
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest
import torch
from crystal_data import prepare_crystals

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.shards.manifest import MANIFEST, read_manifest
from matsci_hpc.shards.reader import MOST_MAPS, DataSet, ShardPool, descriptor_share


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare_crystals(tmp_path_factory.mktemp("crystals"))


@pytest.fixture(scope="module")
def folders(folder, tmp_path_factory):
    """Three data sets of 60, 20 and 60 samples; the third is the first under another fingerprint."""
    other = prepare_crystals(tmp_path_factory.mktemp("other"), count=20)
    third = shutil.copytree(folder, tmp_path_factory.mktemp("third") / "data")
    own = read_manifest(third).fingerprint
    for shard in third.glob("shard-*.h5"):
        shard.write_bytes(shard.read_bytes().replace(own.encode(), own[::-1].encode()))
    manifest = read_manifest(third).model_copy(update={"fingerprint": own[::-1]})
    (third / MANIFEST).write_text(manifest.model_dump_json(exclude_none=True))
    return [folder, other, third]


def plain_column(folders, name):
    """A column of all indexes, read with h5py."""
    columns = []
    for folder in folders:
        with h5py.File(folder / "index.h5") as file:
            columns.append(file[name][:].astype(np.int64))
    return np.concatenate(columns)


@pytest.mark.parametrize("numbers", [range(140), [139, 0, 61, 60, 59, 61, 80], [], [79]])
def test_columns_are_those_of_the_indexes(folders, numbers):
    collection, numbers = Collection(folders), np.array(list(numbers), dtype=np.int64)
    assert len(collection) == 140
    assert collection.offsets.tolist() == [0, 60, 80, 140]
    for name in ("atoms", "edges"):
        found = getattr(collection, name)(numbers)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, plain_column(folders, name)[numbers])
    bits = plain_column(folders, "present")[numbers]
    for target in collection.targets:
        places = [list(each.manifest.targets).index(target) for each in collection.datasets]
        assert len(set(places)) == 1
        np.testing.assert_array_equal(collection.present(target, numbers), bits >> places[0] & 1)
    assert not collection.present("no such target", numbers).any()


def test_splits_are_selected_by_position(folders):
    collection, split = Collection(folders), plain_column(folders, "split")
    for number, name in enumerate(("train", "val")):
        expected = np.flatnonzero(split == number)
        np.testing.assert_array_equal(collection.in_split(name), expected)
        counts = collection.split_counts(name)
        assert counts.tolist() == [
            int(((expected >= a) & (expected < b)).sum()) for a, b in ((0, 60), (60, 80), (80, 140))
        ]
        start = 0
        for dataset, count in enumerate(counts.tolist()):
            positions = np.arange(count)[::-2]
            chosen = collection.select(name, dataset, positions)
            np.testing.assert_array_equal(chosen, expected[start + positions])
            start += count
    with pytest.raises(UserInputError, match="'trian'; the data sets have train, val"):
        collection.split_counts("trian")


def test_names_of_samples(folders):
    collection = Collection(folders)
    with h5py.File(folders[1] / "shard-00001.h5") as file:
        name = file["structures/id"][2].decode()
    assert collection.sample_name(60 + 18) == f"{folders[1]}/shard-00001.h5 row 2 ({name})"


def test_hundreds_of_data_sets_take_no_memory_by_sample(folder, tmp_path):
    """300 data sets over one index of 60 samples blown up to 400,000: 2 GB of columns, none of which is copied."""
    manifest = read_manifest(folder)
    with h5py.File(folder / "index.h5") as file:
        rows = {name: np.resize(file[name][:], 400_000) for name in file}
    from matsci_hpc.shards.layout import ShardContent
    from matsci_hpc.shards.writer import shard_image
    from matsci_hpc.whole_files import checksum

    image = shard_image(ShardContent(rows))
    index = manifest.index.model_copy(update={"bytes": len(image), "xxh3_128": checksum(image)})
    for number in range(300):
        place = tmp_path / f"{number:03d}"
        place.mkdir()
        if number:
            (place / "index.h5").hardlink_to(tmp_path / "000/index.h5")
        else:
            (place / "index.h5").write_bytes(image)
        changed = manifest.model_copy(update={"fingerprint": str(number), "index": index})
        (place / MANIFEST).write_text(changed.model_dump_json(exclude_none=True))
    code = f"""
import resource, pathlib
from matsci_hpc.loading.collection import Collection
import numpy as np
def anonymous():
    text = pathlib.Path('/proc/self/status').read_text()
    return int(text.partition('RssAnon:')[2].split()[0]) * 1024
before = anonymous()
collection = Collection(sorted(pathlib.Path({str(tmp_path)!r}).iterdir()))
numbers = np.random.default_rng(0).integers(0, len(collection), 10_000)
assert collection.atoms(numbers).min() > 0
assert collection.atoms(np.sort(numbers)).sum() == collection.atoms(numbers).sum()
print(len(collection), anonymous() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    samples, grown_bytes = map(int, done.stdout.split())
    assert samples == 120_000_000
    assert grown_bytes < 100e6


def test_a_small_pool_reads_the_same(folder):
    data, small = DataSet(folder), DataSet(folder, ShardPool(limit=1))
    kept = small.shard(0)
    for number in [0, 3, 1, 1, 2, 0, 3]:
        np.testing.assert_array_equal(small.shard(number)["atoms/position"], data.shard(number)["atoms/position"])
        assert len(small.pool) == 1
    assert len(data.pool) == 4
    np.testing.assert_array_equal(kept["atoms/position"], data.shard(0)["atoms/position"])


def test_the_least_recently_used_shard_leaves_the_pool(folder):
    data = DataSet(folder, ShardPool(limit=2))
    first, second = data.shard(0), data.shard(1)
    assert data.shard(0) is first
    data.shard(2)
    assert data.shard(0) is first
    assert data.shard(1) is not second


def test_fewer_descriptors_than_shards(folder, tmp_path):
    """A process with 40 descriptors reads 32 shards of 8 data sets: 20 may be mapped at once."""
    for number in range(8):
        shutil.copytree(folder, tmp_path / str(number))
    code = f"""
import os, pathlib, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from matsci_hpc.shards.reader import DataSet, ShardPool
pool, most = ShardPool(), 0
for turn in range(2):
    for place in pathlib.Path({str(tmp_path)!r}).iterdir():
        data = DataSet(place, pool)
        for number in range(4):
            assert data.shard(number)['atoms/position'].any()
            most = max(most, len(os.listdir('/proc/self/fd')))
print(pool.limit, len(pool), most)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    limit, mapped, descriptors = map(int, done.stdout.split())
    assert limit == mapped == 20
    assert descriptors < 40


def test_the_soft_limit_is_raised_where_shards_need_it():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert descriptor_share(100) == 128
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256
        assert descriptor_share(400) == 400
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 800
        assert descriptor_share(10**9) <= MOST_MAPS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _sums(collection, numbers, results):
    batch = collate(collection, numbers)
    results.put((float(batch.position.double().sum()), int(batch.sender.sum()), batch.sample.tolist()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(folders, method):
    """By fork maps are inherited, by spawn they are not."""
    collection, numbers = Collection(folders), np.arange(0, 140, 3)
    assert len({id(each.pool) for each in collection.datasets}) == 1
    here = collate(collection, numbers)
    context = multiprocessing.get_context(method)
    results = context.Queue()
    children = [context.Process(target=_sums, args=(collection, numbers, results)) for _ in range(2)]
    for child in children:
        child.daemon = True
        child.start()
    expected = (float(here.position.double().sum()), int(here.sender.sum()), here.sample.tolist())
    assert [results.get(timeout=60) for _ in children] == [expected, expected]
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0


def test_a_fork_while_threads_read(folders):
    """Threads open shards all the time in a pool that is too small; forked children read none the less."""
    collection = Collection(folders)
    for each in collection.datasets:
        each.pool = ShardPool(limit=2)
    numbers, stop = np.arange(140), threading.Event()
    expected, failures = collate(collection, numbers), []

    def read():
        try:
            while not stop.is_set():
                collate(collection, numbers)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test fails with it
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    try:
        for _ in range(10):
            child = context.Process(target=_sums, args=(collection, numbers, results))
            child.daemon = True
            child.start()
            assert results.get(timeout=60)[1] == int(expected.sender.sum())
            child.join(timeout=60)
            assert child.exitcode == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_threads_collate_alike(folders):
    collection, numbers = Collection(folders), np.arange(140)
    expected, found = collate(collection, numbers), []

    def read():
        found.extend(collate(collection, numbers) for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(torch.equal(each.sender, expected.sender) and torch.equal(each.cell, expected.cell) for each in found)
