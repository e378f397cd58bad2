"""embeddings.h5: flat, contiguous arrays, one row for each sample.

    embedding        float32 [n, width]
    id               bytes   [n]           UTF-8
    formula          bytes   [n]           reduced formula, such as TiO2
    data_set         uint16  [n]           row of `data_sets`
    sample           int64   [n]           number of the sample in its data set
    atoms            int32   [n]
    targets/NAME     float32 [n]           regression and binary, NaN where absent
                     int16   [n]           class, -1 where absent; row of classes/NAME
                     uint8   [n, labels]   multilabel
    data_sets        bytes   [data sets]   names
    classes/NAME     bytes   [classes]     names

Rank 0 writes all but `embedding`, whose place in the file is then known, so that each rank writes its rows there.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from matsci_hpc.embeddings.about import FORMAT_VERSION, About, read_about
from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.layout import Array
from matsci_hpc.targets import TargetSpec
from matsci_hpc.whole_files import file_checksum, output_error

FILE = "embeddings.h5"
EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What a folder of embeddings holds, in memory.

    Attributes:
        folder: where it lies.
        about: by what and of what they were made.
        embedding: float32 [n, width].
        ids: of the samples.
        formulas: reduced ones.
        data_set: int64 [n], number of the data set in `about`.
        samples: int64 [n], number of each in its data set.
        targets: as in the file, by name.
    """

    folder: Path
    about: About
    embedding: NDArray[np.float32]
    ids: list[str]
    formulas: list[str]
    data_set: NDArray[np.int64]
    samples: NDArray[np.int64]
    targets: dict[str, Array]


def begin_file(path: Path, columns: Mapping[str, Array], targets: Mapping[str, TargetSpec], width: int) -> int:
    """Write a file that lacks nothing but its embeddings.

    Args:
        path: of a new file.
        columns: all other arrays with a row for each sample, and `data_sets`.
        targets: kind, unit and classes of those among the columns.
        width: of an embedding.

    Returns:
        Where in the file the embeddings begin.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with h5py.File(path, "w", locking=False) as file:
            file.attrs["format"] = "matsci-hpc embeddings"
            file.attrs["format_version"] = FORMAT_VERSION
            for name, column in columns.items():
                file.create_dataset(name, data=column)
            for name, spec in targets.items():
                attributes = file[f"targets/{name}"].attrs
                attributes["kind"] = spec.kind
                if spec.unit is not None:
                    attributes["unit"] = spec.unit
                if spec.classes is not None:
                    file.create_dataset(f"classes/{name}", data=texts(spec.classes))
            embedding = file.create_dataset(EMBEDDING, shape=(len(columns["id"]), width), dtype=np.float32)
            embedding[0, 0] = 0.0  # only then HDF5 gives an array its place in the file
            return int(embedding.id.get_offset())
    except RuntimeError as error:  # what HDF5 raises where closing fails
        raise OSError(errno.EIO, str(error), str(path)) from None


@contextmanager
def open_rows(path: Path, offset: int, width: int) -> Iterator["Rows"]:
    """The embeddings of a file that `begin_file` has made, to be written by this rank.

    Raises:
        UserInputError, MachineError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            yield Rows(descriptor, offset, width)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise output_error(path, error) from None


@dataclass(frozen=True, slots=True)
class Rows:
    """An open file and where its embeddings begin."""

    descriptor: int
    offset: int
    width: int

    def write(self, first: int, rows: NDArray[np.float32]) -> None:
        """Write embeddings, [rows, width], from a row on.

        Raises:
            OSError: they cannot be written.
        """
        place = self.offset + first * self.width * rows.itemsize
        left = np.ascontiguousarray(rows, dtype="<f4").view(np.uint8).reshape(-1).data
        while left:
            written = os.pwrite(self.descriptor, left, place)
            left, place = left[written:], place + written


def read_embeddings(folder: Path) -> Embeddings:
    """Embeddings from a folder, once their checksum holds.

    Raises:
        UserInputError: there are none, or they are damaged.
    """
    about = read_about(folder)
    path = folder / about.file.file
    try:
        if file_checksum(path) != about.file.xxh3_128:
            raise UserInputError(f"{path}: the checksum differs: damaged, or made by another call; make it anew")
        with h5py.File(path, "r", locking=False) as file:
            columns: dict[str, Any] = {
                name: file[name][:] for name in (EMBEDDING, "id", "formula", "data_set", "sample")
            }
            targets = {name: file[f"targets/{name}"][:] for name in about.targets}
    except (OSError, KeyError) as error:
        raise UserInputError(f"{path}: cannot be read: {error}") from None
    return Embeddings(
        folder,
        about,
        columns[EMBEDDING],
        [bytes(each).decode(errors="replace") for each in columns["id"]],
        [bytes(each).decode(errors="replace") for each in columns["formula"]],
        columns["data_set"].astype(np.int64),
        columns["sample"].astype(np.int64),
        targets,
    )


def texts(words: Any) -> NDArray[np.bytes_]:
    """Words as an array of UTF-8, padded with zeros; a lone surrogate of a file name has no such form."""
    return np.array([str(word).encode(errors="replace") for word in words], dtype=np.bytes_)
