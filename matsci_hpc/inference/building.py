"""A model from what is known about it and its numbers; both may come from a file that somebody else has made."""

import torch
from torch import Tensor

from matsci_hpc.config.model import OwnModule
from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.about import About
from matsci_hpc.models.registry import Model, build_model

ENCODER, HEADS = "encoder.", "heads."
"""How the names of tensors begin."""


def build(about: About, tensors: dict[str, Tensor], where: str, *, trust_module: bool) -> Model:
    """The model, in the number format of its tensors, on the CPU, in evaluation mode.

    Args:
        about: what to build. An encoder by DGL is built with the operators of this package, which give the same.
        tensors: parameters and buffers by name; heads may be missing altogether.
        where: the file or folder, for messages.
        trust_module: whether an encoder that is a module of somebody's own may be imported, which runs its code.

    Raises:
        UserInputError: an encoder of one's own without trust, or tensors that are not those of the model.
    """
    section = about.model
    if isinstance(section, OwnModule):
        if not trust_module:
            raise UserInputError(
                f"{where}: its encoder is {section.target}, a module from outside this package, and importing it runs "
                "its code as you; if you trust that code, say so: --trust-module, or load_model(..., trust_module=True)"
            )
    else:
        section = section.model_copy(update={"backend": "own"})
    has_heads = any(name.startswith(HEADS) for name in tensors)
    tasks = about.learned.tasks if has_heads else []
    specs, scaling = {task.name: task.spec for task in tasks}, {task.name: task.scaling for task in tasks}
    model = build_model(section, specs, about.learned.cutoff_angstrom, scaling, about.learned.gradients)
    kind = next((each.dtype for each in tensors.values() if each.is_floating_point()), torch.float32)
    model = model.to(dtype=kind)
    _refuse_others(model, tensors, where)
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(requires_grad=False)


def _refuse_others(model: Model, tensors: dict[str, Tensor], where: str) -> None:
    expected = model.state_dict()
    missing, beyond = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    wrong = [name for name, each in expected.items() if name in tensors and tensors[name].shape != each.shape]
    faults = [f"lacks {missing[0]}"] if missing else []
    faults += [f"has {beyond[0]}, which such a model has not"] if beyond else []
    faults += [f"has {name} of shape {list(tensors[name].shape)}, not {list(expected[name].shape)}" for name in wrong]
    if faults:
        raise UserInputError(
            f"{where}: its numbers do not fit its description: it {faults[0]}; it is damaged, or was made by another "
            "release of matsci-hpc"
        )
