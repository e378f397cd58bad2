"""embeddings.json: of what and by which encoder embeddings were made, whenever and on however many ranks."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.manifest import FileRecord
from matsci_hpc.targets import TargetSpec
from matsci_hpc.whole_files import write_atomic

ABOUT = "embeddings.json"
FORMAT_VERSION = 1

Weights = Literal["model", "average", "initial", "untrained"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncoderOrigin(_Strict):
    """Where an encoder comes from."""

    run: str
    """Name of the folder of the run."""
    weights: Weights
    """`model` or `average`: parameters of the checkpoint, or their average, which is what the run was evaluated with;
    `initial`: those that the run begins with; `untrained`: random ones of the same shapes."""
    step: int | None = None
    """Of the run, if a checkpoint was used."""
    seed: int | None = None
    """Of random parameters."""
    checksum: str | None = None
    """XXH3-128 of the file that holds the parameters, if there is one."""
    model: dict[str, Any]
    """Section `model` of the run's config."""
    cutoff_angstrom: float
    """Of the neighbours that the encoder was trained with."""
    precision: Literal["float32", "float64"]
    """In which it computed here."""
    stretched: bool = False
    """Whether its Gaussians and envelope reached to the cutoff of each data set."""

    @property
    def title(self) -> str:
        """What people call it, such as `pretrain, step 500`."""
        stretched = ", stretched" if self.stretched else ""
        if self.weights == "untrained":
            return f"untrained, as {self.run}, seed {self.seed}{stretched}"
        if self.weights == "initial":
            return f"{self.run}, before its first step{stretched}"
        averaged = ", averaged" if self.weights == "average" else ""
        return f"{self.run}, step {self.step:,}{averaged}{stretched}"


class EmbeddedData(_Strict):
    """One data set and what was taken of it."""

    name: str
    path: str
    fingerprint: str
    split: str
    samples: int
    of: int
    """Samples of the split."""
    cutoff_angstrom: float
    rule: str
    """By which its edges were made."""


class About(_Strict):
    """The content of embeddings.json."""

    format: Literal["matsci-hpc embeddings"] = "matsci-hpc embeddings"
    format_version: int = FORMAT_VERSION
    encoder: EncoderOrigin
    width: int
    samples: int
    limit: int | None = None
    """Most samples of a data set."""
    seed: int
    """Of the choice of samples where there is a limit."""
    data_sets: list[EmbeddedData]
    """Column `data_set` of the file counts them from 0."""
    targets: dict[str, TargetSpec]
    notes: list[str]
    """What a reader should know before trusting the numbers."""
    file: FileRecord


def write_about(folder: Path, about: About) -> None:
    """Write embeddings.json.

    Raises:
        UserInputError, MachineError: it cannot be written.
    """
    write_atomic(folder / ABOUT, (about.model_dump_json(indent=1, exclude_none=True) + "\n").encode())


def read_about(folder: Path) -> About:
    """What the embeddings in a folder are.

    Raises:
        UserInputError: there are none, or they are damaged or of another format version.
    """
    path = folder / ABOUT
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record, dict) and record.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise UserInputError(
                f"{path}: format version {record['format_version']}; this program reads {FORMAT_VERSION}: make the "
                "embeddings anew"
            )
        return About.model_validate(record)
    except FileNotFoundError:
        raise UserInputError(
            f"{folder}: no embeddings here ({ABOUT} is missing); `matsci-hpc embed RUN --data DATASET --out {folder}` "
            "makes some"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserInputError(f"{path}: damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserInputError(f"{path}: cannot be read: {error}") from None
