"""Real structures with energies and forces, for tests that learn them."""

from pathlib import Path

from ase.io import read, write
from shared_data import shared_data

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare


def prepare_frames(folder: Path, count: int, most_atoms: int, cutoff: float, *, bare_every: int = 0) -> Path:
    """Frames of MPtrj of few atoms with energy, force and stress; returns the data set.

    Args:
        folder: to write into.
        count: frames.
        most_atoms: of a frame.
        cutoff: angstrom.
        bare_every: take the forces from one in so many frames; 0 = from none.
    """
    frames = [each for each in read(shared_data("extxyz/mptrj-random-1k.xyz"), ":") if len(each) <= most_atoms]
    chosen = frames[:count]
    assert len(chosen) == count
    for each in chosen[::bare_every] if bare_every else ():
        del each.calc.results["forces"]
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "frames.xyz", chosen, format="extxyz")
    config = folder / "prep.yaml"
    config.write_text(f"""\
source:
  kind: extxyz
  path: {folder}/frames.xyz
  targets:
    energy: {{key: energy, unit: eV}}
    force: {{key: forces, unit: eV/angstrom, shape: [3], per_atom: true}}
    stress: {{key: stress, unit: eV/angstrom^3, shape: [3, 3]}}
out: {folder}/data
shard_size: 32
neighbors: {{cutoff: {cutoff}}}
splits: {{train: 0.8, val: 0.2}}
""")
    prepare(load_config(PrepConfig, config), World())
    return folder / "data"
