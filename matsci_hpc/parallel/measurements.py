"""What all-reduces were measured to take, kept for later runs: one file, read by whoever predicts or chooses.

It lies in the data folder of the account, which the nodes of a cluster share where they share the home directory.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from matsci_hpc.errors import MatsciError
from matsci_hpc.whole_files import write_atomic


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Key(_Record):
    """What a measurement depends on. One of the same key takes the place of an older one."""

    backend: str
    """As in the config: gloo, mpi, horovod and so on."""
    operations: Literal["mpi", "ccl"] | None = None
    """Who carries out Horovod's sums; None for other backends."""
    ranks: PositiveInt
    nodes: PositiveInt
    ranks_per_node: PositiveInt
    """Most on any node."""
    device: str
    """Type of the device that holds the tensors."""
    host: str
    """Slurm's name of the cluster, else the model of the processor."""
    partition: str | None = None
    """Slurm's."""
    fabric: str
    """Provider of libfabric that was asked for, else the fast network that the kernel lists, else TCP."""
    versions: dict[str, str]
    """Of torch and of the library that carries the data."""


class Point(_Record):
    """An all-reduce of one size. Times are those of the slowest rank in each repeat."""

    bytes: PositiveInt
    time_s: PositiveFloat
    """Median of the repeats."""
    low_s: PositiveFloat
    """Lower quartile."""
    high_s: PositiveFloat
    """Upper quartile."""
    repeats: PositiveInt


class Measurement(_Record):
    """All-reduces of one backend on one set of ranks: time = latency + bytes / bandwidth."""

    key: Key
    date: str
    """ISO 8601, UTC."""
    small_s: PositiveFloat
    """An all-reduce of a single number."""
    latency_s: NonNegativeFloat
    bandwidth_bytes_per_s: PositiveFloat
    """Size of the tensor over the time beyond the latency, whatever is sent for it."""
    points: tuple[Point, ...] = Field(min_length=2)
    """By size, ascending."""


class _File(_Record):
    format: Literal[1] = 1
    measurements: tuple[Measurement, ...] = ()


def measurements_path(environ: Mapping[str, str] = os.environ) -> Path:
    """$MATSCI_HPC_MEASUREMENTS, else matsci-hpc/communication.json in $XDG_DATA_HOME or ~/.local/share."""
    if chosen := environ.get("MATSCI_HPC_MEASUREMENTS"):
        return Path(chosen)
    above = environ.get("XDG_DATA_HOME")
    return (Path(above) if above else Path.home() / ".local/share") / "matsci-hpc" / "communication.json"


def read_measurements(path: Path) -> tuple[list[Measurement], str | None]:
    """All that was measured, and why the file cannot be used if it cannot; a file that is not there is empty."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], f"{path}: cannot be read: {error.strerror}; measurements are left out"
    try:
        return list(_File.model_validate_json(text).measurements), None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        return (
            [],
            f"{path}: {where}: {first['msg']}; measurements are left out: `matsci-hpc doctor --comm` makes new ones",
        )


def keep_measurement(path: Path, new: Measurement) -> str | None:
    """Add a measurement to the file, in the place of one of the same key.

    A file that cannot be understood is set aside first. Of two programs that add to one file at the same moment, the
    last one wins.

    Returns:
        What went wrong, in words, if something did; a measurement is not worth ending a job for.
    """
    known, damage = read_measurements(path)
    kept = [each for each in known if each.key != new.key]
    content = _File(measurements=(*kept, new)).model_dump_json(indent=1)
    aside = path.with_name(path.name + ".damaged")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if damage is not None:
            path.replace(aside)
        write_atomic(path, f"{content}\n".encode())
    except MatsciError as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot be written: {error.strerror}"
    return None if damage is None else f"{damage}; the old file is now {aside.name}"
