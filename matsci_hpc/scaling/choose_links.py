"""Which links a prediction counts with: from a file that is named, from the table, or as measured on this machine."""

import os
from collections.abc import Sequence
from pathlib import Path

from matsci_hpc.config.train import TrainConfig
from matsci_hpc.doctor.surroundings import host_name
from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.device import visible_devices
from matsci_hpc.parallel.measurements import Measurement, measurements_path, read_measurements
from matsci_hpc.scaling.fabrics import FABRICS
from matsci_hpc.scaling.networks import Layout, Links, fabric_links, fabric_names, measured_links


def choose_links(config: TrainConfig, layout: Layout, comm: Path | None, named: Sequence[str]) -> Links:
    """Of the fabrics that are named, else as measured here, else, on one node, of its memory; a named file comes first.

    Args:
        config: of the run.
        layout: of the prediction.
        comm: file of measurements that is named; None for that of the account, where no fabric is named.
        named: fabrics of the table.

    Raises:
        UserInputError: the file holds nothing that fits, or nothing is known of the network between nodes.
    """
    backend = None if config.parallel.backend in {"auto", "none"} else config.parallel.backend
    fabric_names(named)  # mistakes in names that are not needed show, too
    fabrics = [name for name in named if layout.nodes > 1 or FABRICS[name].within_node]
    found: Links | None = None
    others = ""
    if comm is not None:
        found = measured_links(_measured_in(comm, config), backend, layout, fabrics)
        if found is None:
            of = "" if backend is None else f" of {backend}"
            raise UserInputError(f"--comm {comm}: holds no measurement{of} on several ranks")
    elif not named:
        path = measurements_path()
        kept, _ = read_measurements(path)
        here = (_device(config), host_name(os.environ))
        fitting = [each for each in kept if (each.key.device, each.key.host) == here]
        found = measured_links(fitting, backend, layout)
        if len(fitting) < len(kept):
            others = f", or take by --comm what was measured on another machine, as in {path}"
    if found is None:
        found = fabric_links(fabrics)
    if layout.nodes > 1 and found.between is None:
        known = ", ".join(name for name, each in FABRICS.items() if not each.within_node)
        raise UserInputError(
            f"{layout.nodes:,} nodes, and nothing is known of the network between them: name it by --fabric ({known}), "
            f"or measure it in a job on several nodes by `srun matsci-hpc doctor --comm`{others}"
        )
    return found


def _device(config: TrainConfig) -> str:
    """Type of device that the run computes on, as far as it can be told here."""
    return next(iter(visible_devices()), "cpu") if config.device == "auto" else config.device


def _measured_in(path: Path, config: TrainConfig) -> list[Measurement]:
    """What a file that is named holds of the run's device, of this machine if there is any, else of the only other one.

    Raises:
        UserInputError: there is no such file, or none of its measurements fits, or it is not clear which.
    """
    if not path.exists():
        raise UserInputError(f"--comm {path}: no such file; `matsci-hpc doctor --comm` makes one in a job")
    known, trouble = read_measurements(path)
    if trouble is not None:
        raise UserInputError(trouble)
    if config.device == "auto":  # a run elsewhere may have GPUs that are not here
        devices = {each.key.device for each in known}
        device = next(iter(devices)) if len(devices) == 1 else _device(config)
    else:
        device = config.device
    fitting = [each for each in known if each.key.device == device]
    if not fitting:
        raise UserInputError(f"--comm {path}: holds no measurement of tensors on {device}")
    hosts = sorted({each.key.host for each in fitting})
    here = host_name(os.environ)
    host = here if here in hosts else hosts[0]
    if host != here and len(hosts) > 1:
        raise UserInputError(
            f"--comm {path}: holds measurements of several machines ({', '.join(hosts)}), and this one is {here}: "
            "leave those of one machine in it"
        )
    return [each for each in fitting if each.key.host == host]
