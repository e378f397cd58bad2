"""Out of a run: its model as one file of safetensors, and a model card beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.about import Origin
from matsci_hpc.inference.building import ENCODER, HEADS
from matsci_hpc.inference.card import MARK, Card
from matsci_hpc.inference.from_run import RunModel, is_run, read_run
from matsci_hpc.inference.lineage import cost_until, earlier_runs, elements_apart
from matsci_hpc.inference.model_file import read_model, write_model
from matsci_hpc.inference.model_header import SUFFIX
from matsci_hpc.telemetry.lines import whole_lines
from matsci_hpc.training.checkpoint import saved_state
from matsci_hpc.training.run_folder import RunFolder
from matsci_hpc.whole_files import output_error, write_atomic

FILE, CARD = "encoder.safetensors", "README.md"
"""In a folder."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What an export is to hold.

    Attributes:
        heads: the heads as well.
        licence: of the model.
        data_licences: by name of the data set.
        evaluations: files that `matsci-hpc evaluate --out` wrote, for the card.
    """

    heads: bool = True
    licence: str | None = None
    data_licences: Mapping[str, str] | None = None
    evaluations: Sequence[Path] = ()


def export(run: Path, out: Path, checkpoint: str | None, wishes: Wishes) -> tuple[Path, Path]:
    """Write the file and the card; the same checkpoint gives the same bytes.

    Args:
        run: a run, or one of its checkpoints.
        out: the file, if it ends in .safetensors; else a folder for both.
        checkpoint: which one, as in `find_checkpoint`.
        wishes: what to write.

    Returns:
        Where the file and the card are.

    Raises:
        UserInputError: there is nothing to export, or the place holds something else.
        MachineError: it cannot be written.
    """
    if not is_run(run):
        raise UserInputError(f"{run}: no run, and no checkpoint of one; name the run_dir of a run")
    given = [(_title(path), _evaluation(path)) for path in wishes.evaluations]  # first: these may be wrong
    found = read_run(run, checkpoint)
    tensors = {
        name: each
        for name, each in found.tensors.items()
        if name.startswith((ENCODER, HEADS) if wishes.heads else ENCODER)
    }
    about = found.about.model_copy(update={"origin": _with_cost(found)})
    if not wishes.heads:
        about = about.model_copy(update={"learned": about.learned.model_copy(update={"targets": {}})})
    known = [*about.origin.data, *(data for each in about.origin.earlier for data in each.data)]
    _refuse_unknown([str(each.get("name")) for each in known], wishes.data_licences or {})
    file, card_file = _places(out)
    counts = [sum(each.numel() for name, each in tensors.items() if name.startswith(part)) for part in (ENCODER, HEADS)]
    card = Card(
        about=about,
        file=file.name,
        parameters=(counts[0], counts[1]),
        heads=wishes.heads,
        elements=elements_apart(found),
        evaluations=[*_own_evaluations(found), *given],
        licence=wishes.licence,
        data_licences=wishes.data_licences or {},
    )
    write_model(file, about, tensors)
    read_model(file)  # what cannot be read again was not exported
    write_atomic(card_file, card.render().encode())
    return file, card_file


def _with_cost(found: RunModel) -> Origin:
    """Where the model comes from, with what it took: the file may go where the records of the runs are not."""
    state = saved_state(found.checkpoint)
    cost = cost_until(_folder(found), state.step).model_copy(
        update={"samples": state.samples_seen, "time_s": state.time_s}
    )
    return found.about.origin.model_copy(update={"cost": cost, "earlier": earlier_runs(_folder(found))})


def _places(out: Path) -> tuple[Path, Path]:
    """The file and the card, and the folder made for them."""
    if out.suffix == SUFFIX:
        file, card = out, out.with_suffix(".md")
    else:
        file, card = out / FILE, out / CARD
    try:
        if card.is_file() and MARK not in card.read_text(encoding="utf-8", errors="replace")[:200]:
            raise UserInputError(f"{card}: is no model card; choose another --out, or move it away")
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from None
    return file, card


def _refuse_unknown(names: Sequence[str], licences: Mapping[str, str]) -> None:
    for name in licences:
        if name not in names:
            known = ", ".join(sorted(set(names)))
            raise UserInputError(f"licence of {name}: the run has no such data set; it has {known}")


def _own_evaluations(found: RunModel) -> list[tuple[str, dict[str, Any]]]:
    """The last evaluation of each split by these parameters; numbers of other parameters would mislead.

    The final evaluation stands at the last step, but `weights_step` says whose parameters it is of.
    """
    step, of_split = found.about.origin.step, {}
    for line in whole_lines(_folder(found).evaluations):
        if line.get("weights_step", line.get("step")) == step and isinstance(line.get("metrics"), dict):
            of_split[str(line.get("split"))] = line
    return [(f"split {split} of the training data, {_count(line)}", line) for split, line in of_split.items()]


def _evaluation(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserInputError(f"{path}: no evaluation can be read: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("metrics"), dict):
        raise UserInputError(
            f"{path}: is no evaluation; `matsci-hpc evaluate ... --data DATASET --out FILE` writes one"
        )
    return found


def _title(path: Path) -> str:
    found = _evaluation(path)
    return f"split {found.get('split')} of {', '.join(map(str, found.get('data', [])))}, {_count(found)}"


def _count(line: Mapping[str, Any]) -> str:
    samples = line.get("samples")
    return f"{samples:,} samples" if isinstance(samples, int) else "samples not told"


def _folder(found: RunModel) -> RunFolder:
    return RunFolder(found.checkpoint.resolve().parent.parent)
