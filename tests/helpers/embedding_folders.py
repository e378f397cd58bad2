"""Folders as `matsci-hpc embed` writes them, with embeddings of one's choice."""

from pathlib import Path

import numpy as np

from matsci_hpc.embeddings.about import About, EmbeddedData, EncoderOrigin, write_about
from matsci_hpc.embeddings.files import FILE, begin_file, open_rows, texts
from matsci_hpc.shards.manifest import FileRecord
from matsci_hpc.whole_files import file_checksum


def write_embeddings(
    folder,
    embedding,
    data_set,
    names=("a", "b"),
    targets=None,
    ids=None,
    formulas=None,
    run="pretrain",
    untrained=None,
    notes=(),
):
    """Write a folder of embeddings [n, width] of data sets; `targets` are kinds and values by name."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    embedding = np.asarray(embedding, dtype=np.float32)
    count, width = embedding.shape
    targets = targets or {}
    columns = {
        "id": texts(ids or [f"sample-{number}" for number in range(count)]),
        "formula": texts(formulas or [f"H{number + 2}O" for number in range(count)]),
        "data_set": np.asarray(data_set, dtype=np.uint16),
        "sample": np.arange(count),
        "atoms": np.full(count, 4, dtype=np.int32),
        "data_sets": texts(names),
        **{f"targets/{name}": np.asarray(values) for name, (_, values) in targets.items()},
    }
    specs = {name: spec for name, (spec, _) in targets.items()}
    offset = begin_file(folder / FILE, columns, specs, width)
    with open_rows(folder / FILE, offset, width) as rows:
        rows.write(0, embedding)
    described = [
        EmbeddedData(
            name=name,
            path=f"datasets/{name}",
            fingerprint=f"print of {name}",
            split="val",
            samples=int((columns["data_set"] == number).sum()),
            of=count,
            cutoff_angstrom=6.0,
            rule="rule",
        )
        for number, name in enumerate(names)
    ]
    encoder = EncoderOrigin(
        run=run,
        weights="model" if untrained is None else "untrained",
        step=500 if untrained is None else None,
        seed=untrained,
        checksum="0123456789abcdef" if untrained is None else None,
        model={"name": "egnn", "embedding_width": width},
        cutoff_angstrom=6.0,
        precision="float32",
    )
    path = folder / FILE
    about = About(
        encoder=encoder,
        width=width,
        samples=count,
        limit=None,
        seed=0,
        data_sets=described,
        targets=specs,
        notes=list(notes),
        file=FileRecord(file=FILE, bytes=path.stat().st_size, xxh3_128=file_checksum(path)),
    )
    write_about(folder, about)
    return folder


def blobs(counts, distance, width=8, seed=0):
    """Normal clouds of points, each `distance` from the origin along an axis of its own, and their numbers."""
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(len(counts)), counts)
    points = rng.normal(size=(len(numbers), width))
    points[np.arange(len(numbers)), numbers] += distance
    return points, numbers
