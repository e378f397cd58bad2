"""A trained model out of the folder of a run: which checkpoint, which of its parameters, and what they mean."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from matsci_hpc.config.data import Data
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.inference.about import About, Origin
from matsci_hpc.loading.subset import draw_subset
from matsci_hpc.training.checkpoint import (
    CHECKSUMS,
    DamagedCheckpointError,
    checkpoint_name,
    is_checkpoint_name,
    list_checkpoints,
    newest_usable,
    saved_state,
    verify_checkpoint,
)
from matsci_hpc.training.learned import Learned, learned_by, read_learned
from matsci_hpc.training.learned_from import learned_elements, read_learned_from
from matsci_hpc.training.run_folder import RunFolder
from matsci_hpc.training.tasks import build_tasks

MODEL, AVERAGE = "model.safetensors", "average.safetensors"
_STEP = re.compile(r"(?:step-)?(\d{1,18})")


@dataclass(frozen=True, slots=True)
class RunModel:
    """A model in a run.

    Attributes:
        about: what it is.
        tensors: its parameters and buffers by name.
        checkpoint: folder that they come from.
        config: of the life of the run that saved it.
    """

    about: About
    tensors: dict[str, Tensor]
    checkpoint: Path
    config: TrainConfig


def is_run(path: Path) -> bool:
    """Whether this is the folder of a run or a checkpoint in one."""
    return (path / "checkpoints").is_dir() or (path.is_dir() and is_checkpoint_name(path.resolve().name))


def find_checkpoint(path: Path, wanted: str | None = None) -> Path:
    """A verified checkpoint.

    Args:
        path: a run, or one of its checkpoints.
        wanted: `best`, `newest`, or a step such as 2000 or step-002000; by default the best one if the run has
            evaluated, else the newest one.

    Raises:
        UserInputError: there is no such checkpoint, or it is damaged.
    """
    if not (path / "checkpoints").is_dir():
        if wanted is not None:
            raise UserInputError(f"{path}: is one checkpoint already; name the run to choose {wanted!r}")
        return _verified(path)
    folder = path / "checkpoints"
    if wanted is not None and (step := _STEP.fullmatch(wanted)):
        named = folder / checkpoint_name(int(step[1]))
        if not named.is_dir():
            known = ", ".join(each.name for each in reversed(list_checkpoints(folder))) or "none"
            raise UserInputError(f"{path}: has no checkpoint {named.name}; it keeps {known}")
        return _verified(named)
    if wanted not in {None, "best", "newest"}:
        raise UserInputError(f"checkpoint {wanted!r}: say best, newest, or a step such as step-002000")
    newest, faults = newest_usable(folder)
    for each in faults:
        print(f"matsci-hpc: warning: {each}; taking an earlier checkpoint", file=sys.stderr, flush=True)
    if newest is None:
        raise UserInputError(f"{path}: holds no usable checkpoint; train it until it has saved one")
    best_step = saved_state(newest).best_step
    if wanted == "newest" or (wanted is None and best_step is None):
        return newest
    if best_step is None:
        raise UserInputError(f"{path}: has not evaluated, so no checkpoint is the best; say newest, or a step")
    return _verified(folder / checkpoint_name(best_step))


def read_run(path: Path, wanted: str | None = None) -> RunModel:
    """The model of a run: averaged parameters where it kept some.

    Args:
        path: a run, or one of its checkpoints.
        wanted: which checkpoint, as in `find_checkpoint`.

    Raises:
        UserInputError: there is none, or what is needed to understand it is gone.
        MachineError: it can no longer be read.
    """
    checkpoint = find_checkpoint(path, wanted)
    run = RunFolder(checkpoint.resolve().parent.parent)
    try:
        sums = json.loads((checkpoint / CHECKSUMS).read_text(encoding="utf-8"))
        file = AVERAGE if AVERAGE in sums else MODEL
        tensors = load_file(checkpoint / file)
        saved = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        raise MachineError(f"{checkpoint}: can no longer be read: {error}; start again") from None
    config = load_config(TrainConfig, checkpoint / "config.yaml")
    origin = Origin(
        run=run.path.name,
        step=saved_state(checkpoint).step,
        weights=file.partition(".")[0],
        checksum=sums[file],
        matsci_hpc=str(saved["matsci_hpc"]),
        git=_record(run.provenance, dict).get("git"),
        data=learned_from(named_data(run), config.data),
    )
    known = read_learned_from(checkpoint)
    elements = learned_elements(checkpoint, known)
    about = About(
        model=config.model,
        learned=_learned(run, config),
        precision=config.precision,
        origin=origin,
        elements=None if elements is None else tuple(elements),
        lengths=known.lengths,
        edges_per_atom=known.edges_per_atom,
    )
    return RunModel(about, tensors, checkpoint, config)


def _learned(run: RunFolder, config: TrainConfig) -> Learned:
    """As the run wrote it down; runs of earlier releases did not, so their data sets are asked."""
    if run.learned.is_file():
        return read_learned(run.learned)
    from matsci_hpc.loading.opening import open_collection

    try:
        collection = open_collection(config.data)
        return learned_by(build_tasks(config, collection), collection.cutoff, config.gradients)
    except UserInputError as error:
        raise UserInputError(
            f"{run.path}: has no {run.learned.name}, so what its targets are must come from its data sets: {error}"
        ) from None


def _verified(path: Path) -> Path:
    try:
        verify_checkpoint(path)
    except DamagedCheckpointError as fault:
        raise UserInputError(f"damaged checkpoint: {fault}; choose another one (--checkpoint)") from None
    return path


def _record(path: Path, kind: type[Any]) -> Any:
    """What a file of JSON holds; empty where it cannot be read or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return kind()
    return found if isinstance(found, kind) else kind()


def named_data(run: RunFolder) -> list[dict[str, Any]]:
    """The data sets of a run as data.json has them, with their names instead of their places on this machine."""
    known = ("fingerprint", "samples", "splits", "cutoff_angstrom", "source")
    return [
        {"name": Path(str(each.get("path", ""))).name} | {key: each[key] for key in known if key in each}
        for each in _record(run.data, list)
        if isinstance(each, dict)
    ]


def learned_from(data: list[dict[str, Any]], section: Data) -> list[dict[str, Any]]:
    """The same, and of each data set how many samples the run learned from."""
    counts = [each.get("splits", {}).get(section.split, 0) for each in data]
    if section.subset is not None and all(isinstance(count, int) for count in counts):
        counts = [len(each) for each in draw_subset(counts, section.subset.samples, section.subset.seed)]
    return [
        each | {"learned_from": {"split": section.split, "samples": count}}
        for each, count in zip(data, counts, strict=True)
    ]
