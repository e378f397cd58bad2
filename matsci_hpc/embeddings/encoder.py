"""The encoder that embeds: of a checkpoint, as a run begins with it, or with random parameters."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import torch
from pydantic import TypeAdapter

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.model import Model as ModelSection
from matsci_hpc.config.model import OwnModule
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.embeddings.about import EncoderOrigin
from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.building import build
from matsci_hpc.inference.opening import find_model
from matsci_hpc.models.registry import Model, build_model
from matsci_hpc.training.checkpoint import is_checkpoint_name, list_checkpoints
from matsci_hpc.training.initial_encoder import choose_origin, load_encoder
from matsci_hpc.training.learned import read_learned
from matsci_hpc.training.run_folder import RunFolder

_SECTION: TypeAdapter[ModelSection] = TypeAdapter(ModelSection)


def encoder_of(
    source: Path, wanted: str | None, untrained: int | None, *, trust_module: bool = False
) -> tuple[Model, EncoderOrigin]:
    """A model without use of its heads, on the CPU, in evaluation mode, and where it comes from.

    Args:
        source: a run, one of its checkpoints, or a file that `matsci-hpc export` wrote. A run that has not yet saved a
            checkpoint stands for the parameters that it begins with.
        wanted: which checkpoint of a run: `best`, `newest` or a step; by default the best one, else the newest one.
        untrained: a seed: random parameters instead, in an encoder of the same shape. The seed of the run gives those
            that it began with, unless it began with those of another run.
        trust_module: whether an encoder from outside this package may be imported.

    Raises:
        UserInputError: there is no such run, or no usable checkpoint.
        MachineError: a checkpoint can no longer be read.
    """
    run = RunFolder(source.resolve().parent.parent if is_checkpoint_name(source.resolve().name) else source)
    if run.config.is_file() and (
        untrained is not None or (wanted is None and run.path == source and not list_checkpoints(run.checkpoints))
    ):
        config = load_config(TrainConfig, run.config)
        seed = config.seed if untrained is None else untrained
        init_from = config.init_from if untrained is None else None
        precision = _precision(config.precision)
        name, anew = run.path.resolve().name, config.fine_tune.reinitialize
        return _random(name, config.model, _cutoff(run), seed, init_from, precision, trust_module, anew)
    about, tensors, where = find_model(source, wanted)
    precision, cutoff = _precision(about.precision), about.learned.cutoff_angstrom
    if untrained is not None:
        return _random(about.origin.run, about.model, cutoff, untrained, None, precision, trust_module)
    origin = EncoderOrigin.model_validate(
        {
            "run": about.origin.run,
            "weights": about.origin.weights,
            "step": about.origin.step,
            "checksum": about.origin.checksum,
            "model": about.model.model_dump(mode="json"),
            "cutoff_angstrom": cutoff,
            "precision": precision,
        }
    )
    return build(about, tensors, where, trust_module=trust_module), origin


def stretched(model: Model, origin: EncoderOrigin, cutoff: float) -> Model:
    """The same encoder with Gaussians and envelopes of another cutoff, as fine-tuning across cutoffs begins with it.

    Args:
        model: with the cutoff that it was trained with.
        origin: what it is.
        cutoff: radius of the neighbour lists that it is to meet, angstrom.

    Raises:
        UserInputError: it is a module of the user's own, which is not told the cutoff.
    """
    section = _SECTION.validate_python(origin.model)
    if isinstance(section, OwnModule):
        raise UserInputError(
            f"--stretch: the encoder of {origin.run} is {section.target}, which is not told the cutoff of the data"
        )
    other = build_model(section, {}, cutoff, {}).to(dtype=next(model.parameters()).dtype)
    other.encoder.load_state_dict(model.encoder.state_dict())
    return other.eval().requires_grad_(requires_grad=False)


def _random(
    name: str,
    section: ModelSection,
    cutoff: float,
    seed: int,
    init_from: Path | None,
    precision: Literal["float32", "float64"],
    trust_module: bool,
    reinitialize: Collection[str] = (),
) -> tuple[Model, EncoderOrigin]:
    """The encoder that a run begins with; with another seed, one like it that nothing has been told."""
    if isinstance(section, OwnModule) and not trust_module:
        raise UserInputError(
            f"{name}: its encoder is {section.target}, a module from outside this package, and importing it runs its "
            "code as you; if you trust that code, say so: --trust-module"
        )
    torch.manual_seed(seed)
    model = build_model(section, {}, cutoff, {})
    checksum = None
    if init_from is not None:
        begun_with = choose_origin(init_from, section)
        load_encoder(Path(begun_with.path), model, reinitialize)
        checksum = begun_with.checksum
    return model.eval(), EncoderOrigin(
        run=name,
        weights="untrained" if init_from is None else "initial",
        seed=seed,
        checksum=checksum,
        model=section.model_dump(mode="json"),
        cutoff_angstrom=cutoff,
        precision=precision,
    )


def _cutoff(run: RunFolder) -> float:
    """Radius of the neighbour lists that a run learns from, angstrom."""
    if run.learned.is_file():
        return read_learned(run.learned).cutoff_angstrom
    try:
        return float(json.loads(run.data.read_text(encoding="utf-8"))[0]["cutoff_angstrom"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserInputError(f"{run.data}: does not tell the cutoff of the run's data: {error}") from None


def _precision(trained: str) -> Literal["float32", "float64"]:
    """In which embeddings are computed: bf16 would round them to three digits."""
    return "float64" if trained == "float64" else "float32"
