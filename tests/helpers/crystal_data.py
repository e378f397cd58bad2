"""A small real data set for tests of loading and training."""

from pathlib import Path

from crystals import write_crystals

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare


def prepare_crystals(
    folder: Path, count: int = 60, cutoff: float = 4.0, *, store: bool = True, splits: str = "train: 0.7, val: 0.3"
) -> Path:
    """Crystals with a number, a flag and a class to learn, each of them sometimes absent; returns the data set."""
    write_crystals(folder / "cifs", count)
    config = folder / "prep.yaml"
    config.write_text(f"""\
source:
  kind: cif
  path: {folder}/cifs
  properties: {folder}/cifs/properties.csv
  targets:
    gap: {{column: gap, unit: eV}}
    metal: {{column: metal, kind: binary}}
    family: {{column: family, kind: class}}
out: {folder}/data
shard_size: 16
neighbors: {{cutoff: {cutoff}, store: {str(store).lower()}}}
splits: {{{splits}}}
""")
    prepare(load_config(PrepConfig, config), World())
    return folder / "data"
