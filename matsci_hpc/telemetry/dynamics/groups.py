"""Layer groups: parameters that are looked at together."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

Named = dict[str, list[Parameter]]


def group_name(parameter: str) -> str:
    """The group of a parameter: its layer where layers are numbered, else the module two levels deep.

    >>> group_name("encoder.layers.3.edge_first.weight"), group_name("encoder.atom_readout.0.weight")
    ('encoder.layers.3', 'encoder.atom_readout')
    """
    parts = parameter.split(".")
    numbered = len(parts) > 4 and parts[2].isdigit()
    return ".".join(parts[: min(3 if numbered else 2, max(1, len(parts) - 1))])


def layer_groups(named: Iterable[tuple[str, Parameter]]) -> Named:
    """Trained parameters by group, in the order in which the groups first appear."""
    groups: Named = {}
    for name, parameter in named:
        if parameter.requires_grad:
            groups.setdefault(group_name(name), []).append(parameter)
    return groups


def group_norms(groups: dict[str, list[Tensor]]) -> dict[str, float]:
    """Euclidean norm of all numbers of each group, added up in float64."""
    flat = [each for tensors in groups.values() for each in tensors]
    if not flat:
        return {}
    squares = torch.stack(torch._foreach_norm([each.detach() for each in flat])).double().square().cpu()  # noqa: SLF001 - one call for all
    found, start = {}, 0
    for name, tensors in groups.items():
        found[name] = float(squares[start : start + len(tensors)].sum().sqrt())
        start += len(tensors)
    return found


def total_norm(norms: dict[str, float]) -> float:
    """Norm over all groups together."""
    return float(sum(each * each for each in norms.values()) ** 0.5)


def effective_rates(updates: dict[str, float], weights: dict[str, float]) -> dict[str, float | None]:
    """Norm of the update over the norm of the weights, by group; None where there are no weights but zeros."""
    return {name: updates[name] / weights[name] if weights[name] > 0 else None for name in updates}
