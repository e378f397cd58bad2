"""Parts of a model by their names, as `fine_tune` calls them: with or without `encoder.` before them."""

from collections.abc import Iterable

from matsci_hpc.errors import UserInputError
from matsci_hpc.telemetry.dynamics.groups import group_name

ENCODER = "encoder"


def full_name(part: str, names: Iterable[str], key: str, more: str = "") -> str:
    """The whole name of a part of the encoder, such as encoder.layers.0.

    Args:
        part: as a config calls it.
        names: of all parameters of the model.
        key: of the config, for messages.
        more: what else may be said there, for messages.

    Raises:
        UserInputError: the encoder has no such part.
    """
    full = part if is_in(part, ENCODER) else f"{ENCODER}.{part}"
    if not any(is_in(each, full) for each in names):
        known = dict.fromkeys(group_name(each).removeprefix(f"{ENCODER}.") for each in names if is_in(each, ENCODER))
        raise UserInputError(f"{key}: the encoder has no {part!r}; it has {', '.join(known)}{more}")
    return full


def is_in(name: str, part: str) -> bool:
    """Whether a parameter, or a module, is that part or lies in it."""
    return name == part or name.startswith(f"{part}.")
