"""Data sets as memory maps: arrays appear where they lie in the files, shared by all ranks of a node in the page cache.

An open map costs a file descriptor, and a large data set has more shards than a process may have descriptors. So the
maps of all data sets of a process live in one pool, which closes the one that was used least recently.
"""

import resource
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import MachineError, MatsciError, UserInputError
from matsci_hpc.shards.index import Index, read_index
from matsci_hpc.shards.layout import Array
from matsci_hpc.shards.manifest import FileRecord, Manifest, ShardRecord, read_manifest
from matsci_hpc.shards.mapping import FileLayout, OtherShardError, file_layout, map_arrays, memory_arrays
from matsci_hpc.whole_files import file_checksum

MOST_MAPS = 16_384
"""Maps in a pool at most: Linux allows a process 65,530 (vm.max_map_count)."""


def descriptor_share(wanted: int) -> int:
    """How many shards may be mapped at once: half of the descriptors of this process, the rest is for all else.

    The soft limit is raised as far as the hard one allows, if `wanted` maps need that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_MAPS if hard == resource.RLIM_INFINITY else min(MOST_MAPS, hard // 2)
    if soft != resource.RLIM_INFINITY and soft // 2 < min(wanted, most):
        soft = 2 * min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST_MAPS if soft == resource.RLIM_INFINITY else max(1, min(MOST_MAPS, soft // 2))


class ShardPool:
    """Mapped shards of several data sets, the least recently used of which are given up first.

    Threads may share it without a lock, which would not survive a fork: each step on the table is atomic, and the
    worst that two threads can do to each other is to map a shard twice. Arrays in use stay valid when their shard
    leaves the pool.

    Args:
        limit: most shards mapped at once; by default what the descriptors of the process allow.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._wanted = 0
        # Names are plain strings: a Path is hashed and compared by Python code, where threads may change places in the
        # middle of a dict's own work.
        self._mapped: dict[str, dict[str, Array]] = {}
        self._layouts: dict[str, FileLayout] = {}

    @property
    def limit(self) -> int:
        """Most shards mapped at once."""
        if self._limit is None:
            self._limit = descriptor_share(self._wanted)
        return self._limit

    def expect(self, shards: int) -> None:
        """Say that so many more shards may be asked for."""
        self._wanted += shards

    def arrays(self, folder: Path, record: ShardRecord, fingerprint: str) -> dict[str, Array]:
        """Arrays of a shard of the data set with this fingerprint, by their names on disk; read-only.

        Raises:
            MachineError: the file is missing or not the one in the manifest.
        """
        path = f"{folder}/{record.file}"
        arrays = self._mapped.pop(path, None)
        if arrays is None:
            layout = self._layouts.get(path) or shard_layout(folder, record, fingerprint)
            self._layouts[path] = layout
            arrays = map_shard(folder, record, fingerprint, layout)
        self._mapped[path] = arrays
        if len(self._mapped) > self.limit:
            for oldest in list(self._mapped)[: -self.limit]:
                self._mapped.pop(oldest, None)
        return arrays

    def __len__(self) -> int:
        return len(self._mapped)

    def __getstate__(self) -> dict[str, Any]:
        """Maps stay behind; where arrays lie in their files is known at once in the new process."""
        return {**self.__dict__, "_mapped": {}}


class ShardMemory:
    """The shards of a data set as files in memory.

    Args:
        folder: of the data set, for messages.
        images: each shard's file, uint8 [bytes], read-only, by its name.
    """

    def __init__(self, folder: Path, images: dict[str, Array]) -> None:
        self.folder = folder
        self._images = images
        self._arrays: dict[str, dict[str, Array]] = {}

    def arrays(self, record: ShardRecord) -> dict[str, Array]:
        """Arrays of a shard by their names on disk; read-only.

        Raises:
            MachineError: it is damaged.
        """
        if record.file not in self._arrays:
            try:
                self._arrays[record.file] = memory_arrays(self._images[record.file])
            except ValueError:
                raise MachineError(f"{self.folder / record.file}: damaged in memory") from None
        return self._arrays[record.file]

    def clear(self) -> None:
        """Forget the memory, before it is given back."""
        self._images.clear()
        self._arrays.clear()

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("shards in shared memory cannot be sent to another process; fork it, or use threads")


Place = Path | ShardMemory
"""Where the shards of a data set are read: its own folder, a copy of it, or memory."""


class DataSet:
    """A finished data set. Shards are opened when first touched, in whatever process that happens.

    Args:
        folder: where it lies.
        pool: keeps the maps of its shards; data sets that are used together share one.
        place: where its shards are read instead; a folder holds the index too.

    Attributes:
        folder: where it lies.
        manifest: what it holds.
        index: sizes and splits of every sample.
    """

    def __init__(self, folder: Path, pool: ShardPool | None = None, place: Place | None = None) -> None:
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder)
        self.place: Place = place or folder
        self._index_folder = self.place if isinstance(self.place, Path) else folder
        _check_index(self._index_folder, self.manifest.index)
        self.index: Index = read_index(self._index_folder)
        self.pool = ShardPool() if pool is None else pool
        self.pool.expect(len(self.manifest.shards))

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.folder)

    def part(self, number: int, rows: NDArray[np.int64]) -> tuple[dict[str, Array], NDArray[np.int64]]:
        """Arrays that hold some rows of a shard, and where in them these rows are."""
        return self.shard(number), rows

    def sample_name(self, number: int) -> str:
        """Where a sample lies and what it is called, for messages: `FOLDER/shard-00000.h5 row 17 (ID)`."""
        shard, row = int(self.index.shard[number]), int(self.index.row[number])
        place = f"{self.folder / self.manifest.shards[shard].file} row {row}"
        try:
            name = bytes(self.shard(shard)["structures/id"][row]).decode(errors="replace")
        except (MatsciError, KeyError, IndexError):  # the place alone says enough about a damaged shard
            return place
        return f"{place} ({name})"

    def described(self) -> dict[str, Any]:
        """What a run writes down of it."""
        return {
            "path": str(self.folder),
            "fingerprint": self.manifest.fingerprint,
            "samples": self.manifest.counts.samples,
            "splits": self.manifest.splits,
            "cutoff_angstrom": self.manifest.neighbors.cutoff_angstrom,
        }

    def shard(self, number: int) -> dict[str, Array]:
        """Arrays of the shard that stands at this place in the manifest, by their names on disk; read-only."""
        record = self.manifest.shards[number]
        if isinstance(self.place, ShardMemory):
            return self.place.arrays(record)
        return self.pool.arrays(self.place, record, self.manifest.fingerprint)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "index"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the index anew: its columns would travel as copies."""
        self.__dict__.update(state)
        self.index = read_index(self._index_folder)


def _check_index(folder: Path, record: FileRecord) -> None:
    """Every plan follows from the index, so a damaged one would train on the wrong samples without a word."""
    path = folder / record.file
    try:
        damaged = file_checksum(path) != record.xxh3_128
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if damaged:
        raise UserInputError(f"{path}: the checksum differs; `matsci-hpc shards verify {folder}` tells more")


def shard_layout(folder: Path, record: ShardRecord, fingerprint: str) -> FileLayout:
    """Where the arrays of a shard lie in its file.

    Args:
        folder: of the data set.
        record: the shard.
        fingerprint: of the data set.

    Raises:
        MachineError: the file is missing or not the one in the manifest.
    """
    path = folder / record.file
    try:
        size = path.stat().st_size
        if size != record.bytes:
            raise MachineError(
                f"{path}: {size} bytes, {record.bytes} expected; `matsci-hpc shards verify {folder}` tells more"
            )
        return file_layout(path, record.number, fingerprint)
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror or error}") from None
    except OtherShardError as error:
        raise MachineError(f"{path}: is {error}; `matsci-hpc shards verify {folder}` tells more") from None
    except ValueError:
        raise MachineError(f"{path}: damaged; `matsci-hpc shards verify {folder}` tells more") from None


def map_shard(
    folder: Path, record: ShardRecord, fingerprint: str, layout: FileLayout | None = None
) -> dict[str, Array]:
    """Map every array of a shard.

    Args:
        folder: of the data set.
        record: the shard.
        fingerprint: of the data set.
        layout: of this shard, where it is known from an earlier time.

    Raises:
        MachineError: the file is missing or not the one in the manifest.
    """
    path = folder / record.file
    try:
        return map_arrays(path, layout or shard_layout(folder, record, fingerprint))
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise MachineError(f"{path}: damaged; `matsci-hpc shards verify {folder}` tells more") from None
