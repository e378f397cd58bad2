"""Learning rates by layer: what lies deep in an encoder is more general, and changes less.

    factor = encoder_lr * layer_decay ^ (L + 1 - depth)

for L layers, with depth 0 before the first layer (the table of elements), 1 to L in the layers and L + 1 after the last
one (discriminative fine-tuning: Howard and Ruder 2018, arXiv:1801.06146, there with a factor of 1 / 2.6). Everything
outside of the encoder has a factor of 1.
"""

from torch import nn

from matsci_hpc.config.fine_tune import FineTune
from matsci_hpc.errors import UserInputError


def rate_factors(model: nn.Module, encoder: nn.Module, section: FineTune) -> dict[str, float]:
    """Factor of the learning rate of each parameter of a model, by name.

    Args:
        model: that holds the encoder as `encoder`.
        encoder: with its layers in a `torch.nn.ModuleList` if they are told apart.
        section: the factors.

    Raises:
        UserInputError: layers are to be told apart, and the encoder has none.
    """
    factors = dict.fromkeys((name for name, _ in model.named_parameters()), 1.0)
    depths = layer_depths(encoder)
    top = max(depths.values(), default=0)
    if section.layer_decay != 1.0 and top == 0:
        raise UserInputError(
            "fine_tune.layer_decay: this encoder keeps its layers in no torch.nn.ModuleList, so they cannot be told "
            "apart; leave it out, or keep them in one"
        )
    for name, depth in depths.items():
        factors[f"encoder.{name}"] = section.encoder_lr * section.layer_decay ** (top - depth)
    return factors


def layer_depths(encoder: nn.Module) -> dict[str, int]:
    """Depth of each parameter of an encoder by its name; 0 for all where there is no list of layers.

    Of several lists (those of messages and of updates, say) the members of the same number are one layer.
    """
    lists = [name for name, each in encoder.named_modules() if isinstance(each, nn.ModuleList)]
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    numbers: dict[str, int | None] = {}
    for name, _ in encoder.named_parameters():
        holder = next((each for each in outer if name.startswith(f"{each}.")), None)
        numbers[name] = None if holder is None else int(name.removeprefix(f"{holder}.").partition(".")[0])
    top = 1 + max((number + 1 for number in numbers.values() if number is not None), default=-1)
    found, begun = {}, False
    for name, number in numbers.items():
        begun = begun or number is not None
        found[name] = number + 1 if number is not None else top if begun else 0
    return found
