"""Data sets for `loading.py`, and the same samples as other codes store them."""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from pymatgen.core import Element

from matsci_hpc.config import prep, sources
from matsci_hpc.loading.batch import Batch
from matsci_hpc.neighbors import Edges, radius_graph
from matsci_hpc.shards.assemble import assemble, shard_name
from matsci_hpc.shards.layout import build_content
from matsci_hpc.shards.manifest import MANIFEST, ShardRecord
from matsci_hpc.shards.records import BlockRecord, write_block_record
from matsci_hpc.shards.statistics import shard_statistics
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.sources.symmetry import SymmetrySource
from matsci_hpc.structure import Structure
from matsci_hpc.targets import TargetSpec
from matsci_hpc.whole_files import checksum, write_atomic

CUTOFF = 6.0
SHARD_SIZE = 4096


@dataclass
class Samples:
    """Distinct structures and their edges, and what their target is called."""

    structures: list[Structure]
    edges: list[Edges]
    targets: dict[str, TargetSpec]


@dataclass
class Described:
    """The part of a source that the manifest shows."""

    targets: dict[str, TargetSpec]
    splits: tuple[str, ...] = ("train",)
    identity: str = ""

    @property
    def remarks(self) -> dict[str, int]:
        """None."""
        return {}


def crystals(path: Path | None) -> Samples:
    """The structures of an extxyz file, or as many random ones of MPtrj's sizes: 31 atoms of 14.8 cubic angstrom."""
    structures = read_extxyz(path) if path else [random_crystal(seed) for seed in range(1000)]
    structures = [replace(each, targets={"energy": float(i)}) for i, each in enumerate(structures)]
    edges = [radius_graph(each, CUTOFF) for each in structures]
    return Samples(structures, edges, {"energy": TargetSpec(kind="regression", unit="eV")})


def clouds() -> Samples:
    """4,096 symmetric point clouds."""
    config = sources.SymmetrySource(kind="symmetry", samples=4096)
    source = SymmetrySource.from_config(config, {"train": 1.0})
    structures = list(source.read(0, 4096))
    return Samples(structures, [radius_graph(each, CUTOFF) for each in structures], source.targets)


def read_extxyz(path: Path) -> list[Structure]:
    """Periodic structures of a file whose columns begin with species and position."""
    found, lines = [], path.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        atoms, header = int(lines[at]), lines[at + 1]
        rows = [line.split()[:4] for line in lines[at + 2 : at + 2 + atoms]]
        cell = header.partition('Lattice="')[2].partition('"')[0].split()
        found.append(
            Structure(
                id=f"frame-{len(found)}",
                atomic_number=np.array([Element(row[0]).Z for row in rows], dtype=np.uint8),
                position=np.array([row[1:] for row in rows], dtype=np.float32),
                cell=np.array(cell, dtype=np.float32).reshape(3, 3),
                pbc=np.ones(3, dtype=bool),
            )
        )
        at += 2 + atoms
    return found


def random_crystal(seed: int) -> Structure:
    """Atoms on the perturbed places of a cubic grid."""
    random = np.random.default_rng(seed)
    atoms = int(np.clip(random.lognormal(3.15, 0.75), 1, 200))
    side = (14.8 * atoms) ** (1 / 3)
    per_side = int(np.ceil(atoms ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(per_side)] * 3), axis=-1).reshape(-1, 3)
    places = random.permutation(grid)[:atoms] + random.uniform(-0.2, 0.2, (atoms, 3))
    return Structure(
        id=f"crystal-{seed}",
        atomic_number=random.integers(1, 90, atoms).astype(np.uint8),
        position=(places / per_side * side).astype(np.float32),
        cell=(side * np.eye(3)).astype(np.float32),
        pbc=np.ones(3, dtype=bool),
    )


def order(samples: Samples, count: int) -> np.ndarray:
    """Which of the distinct structures stands at each of `count` places: all of them in random order, many times."""
    random = np.random.default_rng(0)
    distinct = len(samples.structures)
    return np.concatenate([random.permutation(distinct) for _ in range(-(-count // distinct))])[:count]


def write_data_set(folder: Path, samples: Samples, which: np.ndarray) -> None:
    """A data set as `matsci-hpc prep` writes it."""
    work = folder / ".work"
    work.mkdir(parents=True)
    blocks = -(-len(which) // SHARD_SIZE)
    for number in range(blocks):
        chosen = which[number * SHARD_SIZE : (number + 1) * SHARD_SIZE].tolist()
        structures = [replace(samples.structures[i], id=f"{number}-{n}") for n, i in enumerate(chosen)]
        content = build_content(structures, [samples.edges[i] for i in chosen], samples.targets, [0] * len(chosen))
        image = shard_image(content)
        write_atomic(folder / shard_name(number), image)
        record = ShardRecord(
            file=shard_name(number),
            bytes=len(image),
            xxh3_128=checksum(image),
            number=number,
            samples=content.samples,
            atoms=content.atoms,
            edges=content.edges,
        )
        statistics = shard_statistics(content, samples.targets, ["train"])
        block = BlockRecord(fingerprint=folder.name, shard=record, statistics=statistics, quarantined=[])
        write_block_record(work, number, block)
    source: Any = Described(samples.targets)
    manifest = assemble(folder, work, blocks, len(which), source, prep.Neighbors(cutoff=CUTOFF), folder.name)
    write_atomic(folder / MANIFEST, manifest.model_dump_json(exclude_none=True).encode())


def plain_arrays(samples: Samples, i: int) -> dict[str, np.ndarray]:
    """One sample in the small types of our shards, which is kinder to the peers than what they store."""
    structure, edges = samples.structures[i], samples.edges[i]
    value = next(iter(structure.targets.values()))
    return {
        "atomic_number": structure.atomic_number,
        "position": structure.position,
        "cell": structure.cell,
        "degree": edges.degree,
        "sender": edges.sender.astype(np.uint8 if len(structure.position) < 256 else np.uint16),
        "shift": edges.shift,
        "target": np.asarray(value),
    }


def write_lmdb(path: Path, samples: Samples, which: np.ndarray) -> None:
    """A pickle of arrays per sample under its number, as Open MatSci ML Toolkit and fairchem keep them."""
    import lmdb

    with lmdb.open(str(path), map_size=1 << 36, subdir=False) as base, base.begin(write=True) as transaction:
        for place, i in enumerate(which.tolist()):
            transaction.put(str(place).encode(), pickle.dumps(plain_arrays(samples, i), protocol=5))


def write_groups(path: Path, samples: Samples, which: np.ndarray) -> None:
    """An HDF5 group per sample, as MACE keeps them."""
    with h5py.File(path, "w") as file:
        for place, i in enumerate(which.tolist()):
            group = file.create_group(str(place))
            for name, array in plain_arrays(samples, i).items():
                group.create_dataset(name, data=array)


def peer_batch(loaded: list[dict[str, np.ndarray]]) -> Batch:
    """A batch from one dictionary per sample, as the peers' collate functions make it: one `cat` per field."""
    sizes = [len(each["position"]) for each in loaded]
    first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    degree = np.concatenate([each["degree"] for each in loaded]).astype(np.int32)
    senders = [each["sender"].astype(np.int32) + start for each, start in zip(loaded, first[:-1], strict=True)]
    return Batch(
        atomic_number=torch.from_numpy(np.concatenate([each["atomic_number"] for each in loaded]).astype(np.int32)),
        position=torch.from_numpy(np.concatenate([each["position"] for each in loaded])),
        cell=torch.from_numpy(np.stack([each["cell"] for each in loaded])),
        atom_graph=torch.from_numpy(np.repeat(np.arange(len(loaded), dtype=np.int32), sizes)),
        atom_pointer=torch.from_numpy(first),
        sender=torch.from_numpy(np.concatenate(senders)),
        receiver=torch.from_numpy(np.repeat(np.arange(len(degree), dtype=np.int32), degree)),
        edge_pointer=torch.from_numpy(np.concatenate([[0], np.cumsum(degree)]).astype(np.int32)),
        edge_image=torch.from_numpy(np.concatenate([each["shift"] for each in loaded])),
        targets={"target": torch.from_numpy(np.stack([each["target"] for each in loaded]))},
    )
