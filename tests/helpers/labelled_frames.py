"""Real structures with energies and forces, for tests that learn them."""

from pathlib import Path

from ase import Atoms
from ase.io import read, write
from numpy.linalg import norm
from shared_data import shared_data

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare


def prepare_frames(
    folder: Path, count: int, most_atoms: int, cutoff: float, *, bare_every: int = 0, least_force: float = 0.0
) -> Path:
    """Frames of MPtrj of few atoms with energy, force and stress; returns the data set.

    Args:
        folder: to write into.
        count: frames.
        most_atoms: of a frame.
        cutoff: angstrom.
        bare_every: take the forces from one in so many frames; 0 = from none.
        least_force: mean size of the forces of a frame, eV/angstrom.
    """
    frames = [
        each
        for each in read(shared_data("extxyz/mptrj-random-1k.xyz"), ":")
        if len(each) <= most_atoms and norm(each.get_forces(), axis=1).mean() >= least_force
    ]
    chosen = frames[:count]
    assert len(chosen) == count
    for each in chosen[::bare_every] if bare_every else ():
        del each.calc.results["forces"]
    return prepare_labelled(folder, chosen, cutoff)


def prepare_labelled(folder: Path, frames: list[Atoms], cutoff: float, *, split_key: str | None = None) -> Path:
    """Structures with energy, force and, where they have it, stress; returns the data set.

    Args:
        folder: to write into.
        frames: with results.
        cutoff: angstrom.
        split_key: entry of `info` that names the split; left out, splits are drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "frames.xyz", frames, format="extxyz")
    split = "splits: {train: 0.8, val: 0.2}" if split_key is None else ""
    stress = "stress: {key: stress, unit: eV/angstrom^3, shape: [3, 3]}"
    config = folder / "prep.yaml"
    config.write_text(f"""\
source:
  kind: extxyz
  path: {folder}/frames.xyz
  split_key: {split_key or "null"}
  targets:
    energy: {{key: energy, unit: eV}}
    force: {{key: forces, unit: eV/angstrom, shape: [3], per_atom: true}}
    {stress if "stress" in frames[0].calc.results else ""}
out: {folder}/data
shard_size: 32
neighbors: {{cutoff: {cutoff}}}
{split}
""")
    prepare(load_config(PrepConfig, config), World())
    return folder / "data"
