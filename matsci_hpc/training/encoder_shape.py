"""Whether the encoder of a checkpoint has the sizes of a run's. Nothing here needs torch, as in `run_rules.py`."""

import json
from pathlib import Path

from matsci_hpc.config.loading import flat, load_config
from matsci_hpc.config.model import Model
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError

OF_NO_PARAMETER = {"backend", "head_layers", "readout"}
"""Keys of the model that the encoder's parameters do not depend on: the readout comes after all of them."""


def refuse_other_shape(path: Path, model: Model) -> None:
    """See to it that a run has an encoder of the same sizes as a checkpoint.

    Args:
        path: of the checkpoint.
        model: of the run.

    Raises:
        UserInputError: they differ; says which keys to set.
    """
    refuse_unlike(path, load_config(TrainConfig, path / "config.yaml").model, model)


def refuse_unlike(path: Path, known: Model, model: Model) -> None:
    """See to it that two encoders have the same sizes.

    Args:
        path: where the one is kept, for messages.
        known: the section of that one.
        model: of the run.

    Raises:
        UserInputError: they differ; says which keys to set.
    """
    there = flat(known.model_dump(mode="json"))
    here = flat(model.model_dump(mode="json"))
    keys = ["name"]  # of another encoder, the other keys tell nothing
    if here["name"] == there["name"]:
        keys = [key for key in here if key not in OF_NO_PARAMETER and here[key] != there[key]]
    if keys:
        wanted = " ".join(f"model.{key}={json.dumps(there[key])}" for key in keys)
        given = " ".join(f"model.{key}={json.dumps(here[key])}" for key in keys)
        raise UserInputError(
            f"init_from: {path} holds another encoder than this run's {given}; set {wanted}, or start from another run"
        )
