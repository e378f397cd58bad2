"""What survives a stop: whole, verified and without pickle.

    checkpoints/step-000123/
        model.safetensors       parameters and buffers
        optimizer.safetensors   `NAME|STATE` for every parameter, and the state of torch's random numbers
        course.safetensors      what records and remedies remember of the steps so far (`course.py`)
        average.safetensors     as model.safetensors with averaged parameters, if the run averages them
        state.json              format, program version, seed, ranks; step, time, best evaluation, data; and of what
                                kind these are (`learned_from.py`)
        config.yaml             resolved config of the life that saved it
        checksums.json          XXH3-128 of the files above, written last

The folder is filled under another name, synced and renamed, so a step's folder is whole or not there.
"""

import copy
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

import matsci_hpc
from matsci_hpc.errors import UserInputError
from matsci_hpc.training.run_state import RunState, read_state
from matsci_hpc.whole_files import file_checksum, output_error, sync, write_synced

FORMAT_VERSION = 3
READABLE = (2, 3)
"""Version 2 has no course and no average."""
CHECKSUMS = "checksums.json"
RANDOM_STATE = "random|torch"
FILES = {"model.safetensors", "optimizer.safetensors", "state.json", "config.yaml"}
OPTIONAL = {"course.safetensors", "average.safetensors"}
_NAME = re.compile(r"step-[0-9]{6,18}")


class DamagedCheckpointError(Exception):
    """A checkpoint that cannot be used; the message says why."""


def checkpoint_name(step: int) -> str:
    """Folder name of a step."""
    return f"step-{step:06d}"


def is_checkpoint_name(name: str) -> bool:
    """Whether a folder of this name may be a checkpoint."""
    return _NAME.fullmatch(name) is not None


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, the newest first."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and is_checkpoint_name(path.name)]
    return sorted(found, key=step_of, reverse=True)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at a step boundary, copied so that training can go on while it is written.

    Attributes:
        state: where the run stands.
        model: parameters and buffers, on the CPU.
        optimizer: its state by `NAME|STATE`, and the state of torch's random numbers.
        config_text: resolved config.
        seed, ranks: of the life that made it.
        course: what records and remedies remember.
        average: averaged parameters and the buffers; empty if there are none.
        learned_from: what state.json says of the data (`learned_from.py`), as JSON.
    """

    state: RunState
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    config_text: str
    seed: int
    ranks: int
    course: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    learned_from: dict[str, Any] = field(default_factory=dict)


def take_snapshot(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    config_text: str,
    *,
    seed: int,
    ranks: int,
    course: dict[str, Tensor] | None = None,
    average: dict[str, Tensor] | None = None,
    learned_from: dict[str, Any] | None = None,
) -> Snapshot:
    """Copy everything that a checkpoint holds."""
    return Snapshot(
        state=copy.deepcopy(state),
        model=_copies(model.state_dict()),
        optimizer=_copies(_optimizer_tensors(model, optimizer)),
        config_text=config_text,
        seed=seed,
        ranks=ranks,
        course=_copies(course or {}),
        average=_copies({**model.state_dict(), **average}) if average else {},
        learned_from=learned_from or {},
    )


def write_checkpoint(folder: Path, snapshot: Snapshot, progress: Callable[[], None] = lambda: None) -> Path:
    """Write the checkpoint of a step; on one rank.

    Args:
        folder: `checkpoints` of the run.
        snapshot: what to write.
        progress: called now and then while the disk takes it.

    Raises:
        UserInputError, MachineError: it cannot be written; earlier checkpoints are untouched, nothing of it is left.
    """
    final = folder / checkpoint_name(snapshot.state.step)
    partial = folder / f".{final.name}.part"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        sums = {}
        for name, content in _files(snapshot).items():
            sums[name] = write_synced(partial / name, content(), progress)
        write_synced(partial / CHECKSUMS, _json(sums), progress)
        sync(partial)
        if final.exists():  # damaged, else this life had gone on from it
            shutil.rmtree(final)
        partial.rename(final)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise output_error(final, error if isinstance(error, OSError) else OSError(str(error))) from None
    return final


def prune_checkpoints(folder: Path, keep: int, state: RunState, *, may_go_back: bool = False) -> None:
    """Remove all but the newest `keep` checkpoints up to this step, and the best one.

    Newer ones are damaged, else the run had gone on from them: they must not take the places of good ones.

    Args:
        folder: `checkpoints` of the run.
        keep: how many.
        state: of the run.
        may_go_back: whether the run may take one of them up again, to which another one was the best: that is kept too.
    """
    newest_first = [path for path in list_checkpoints(folder) if step_of(path) <= state.step]
    best = {state.best_step}
    if may_go_back:
        best |= {_best_of(path) for path in newest_first[:keep]}
    for path in newest_first[keep:]:
        if step_of(path) not in best:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".step-*.part"):  # of lives that were killed while they saved
        shutil.rmtree(path, ignore_errors=True)


def verify_checkpoint(path: Path, progress: Callable[[], None] = lambda: None) -> RunState:
    """Compare every file with its checksum, and read the state.

    Args:
        path: of the checkpoint.
        progress: called now and then while the files are read.

    Raises:
        DamagedCheckpointError: a file is missing or differs.
        UserInputError: the checkpoint is of another format version.
    """
    try:
        sums = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
        if not isinstance(sums, dict) or sums.keys() - OPTIONAL != FILES:
            raise DamagedCheckpointError(f"{path / CHECKSUMS}: damaged")
        for name, expected in sums.items():
            if file_checksum(path / name, progress) != expected:
                raise DamagedCheckpointError(f"{path / name}: the checksum differs")
        record = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path}: {error}") from None
    if not isinstance(record, dict):
        raise DamagedCheckpointError(f"{path / 'state.json'}: damaged")
    version = record.get("format_version")
    if version not in READABLE:
        raise UserInputError(
            f"{path}: checkpoint format version {version}, saved by matsci-hpc {record.get('matsci_hpc')}; this is "
            f"matsci-hpc {matsci_hpc.__version__}, which reads versions "
            f"{' and '.join(map(str, READABLE))}: go on with the other release, or start again in another run_dir"
        )
    try:
        state = read_state(record.get("run"))
    except ValueError as error:
        raise DamagedCheckpointError(f"{path / 'state.json'}: {error}") from None
    if state.step != step_of(path):
        raise DamagedCheckpointError(f"{path / 'state.json'}: holds step {state.step}")
    return state


def newest_usable(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and what was wrong with newer ones."""
    faults: list[str] = []
    for path in list_checkpoints(folder):
        try:
            verify_checkpoint(path)
        except DamagedCheckpointError as fault:
            faults.append(str(fault))
        else:
            return path, faults
    return None, faults


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> RunState:
    """Put a verified checkpoint into a model and an optimiser of the same shape.

    Raises:
        UserInputError: the model has another shape than the saved one.
    """
    try:
        model.load_state_dict(load_file(path / "model.safetensors"))
        tensors = load_file(path / "optimizer.safetensors")
        torch.set_rng_state(tensors.pop(RANDOM_STATE))
        optimizer.state.clear()  # of steps after the checkpoint, in which more was trained
        names = dict(model.named_parameters())
        for key, tensor in tensors.items():
            name, _, entry = key.partition("|")
            optimizer.state[names[name]][entry] = tensor.to(names[name].device)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserInputError(f"{path}: the saved model has another shape than the config's: {reason}") from None
    return saved_state(path)


def saved_course(path: Path) -> dict[str, Tensor]:
    """What a verified checkpoint holds for records and remedies; nothing in one of an earlier release."""
    file = path / "course.safetensors"
    return load_file(file) if file.is_file() else {}


def saved_average(path: Path) -> dict[str, Tensor]:
    """Averaged parameters, and buffers, of a verified checkpoint; nothing if its run kept none."""
    file = path / "average.safetensors"
    return load_file(file) if file.is_file() else {}


def saved_state(path: Path) -> RunState:
    """The state in a verified checkpoint."""
    return read_state(json.loads((path / "state.json").read_text(encoding="utf-8"))["run"])


def step_of(path: Path) -> int:
    """The step of a checkpoint, from its name."""
    return int(path.name.removeprefix("step-"))


def _best_of(path: Path) -> int | None:
    """The best step when a checkpoint was saved; None where it cannot be read."""
    try:
        return saved_state(path).best_step
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {RANDOM_STATE: torch.get_rng_state()}
    for name, parameter in model.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}|{entry}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return tensors


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _files(snapshot: Snapshot) -> dict[str, Callable[[], bytes]]:
    """Content of each file by its name, made when it is written: never two large ones in memory."""
    about = {"format_version": FORMAT_VERSION, "matsci_hpc": matsci_hpc.__version__}
    about |= {"seed": snapshot.seed, "ranks": snapshot.ranks, "run": asdict(snapshot.state)}
    about |= {"learned_from": snapshot.learned_from} if snapshot.learned_from else {}
    return {
        "model.safetensors": lambda: save(snapshot.model),
        "optimizer.safetensors": lambda: save(snapshot.optimizer),
        "state.json": lambda: _json(about),
        "config.yaml": snapshot.config_text.encode,
        "course.safetensors": lambda: save(snapshot.course),
        **({"average.safetensors": lambda: save(snapshot.average)} if snapshot.average else {}),
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
