"""Operators of this package that the compiler takes as they are."""

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("matsci_hpc", "FRAGMENT")  # type: ignore[no-untyped-call]


def define_operator(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Define `matsci_hpc::NAME` on all devices; derivatives are added by `torch.library.register_autograd`.

    By the plain dispatcher: `torch.library.custom_op` watches each call for outputs that alias inputs, which a
    step of hundreds of calls feels.

    Args:
        schema: `NAME(ARGUMENTS) -> RESULTS`; nothing is changed in place, and no result is a view of an argument.
        kernel: computes the results.
        fake: makes tensors of their shapes and types.

    Returns:
        What calls it.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"matsci_hpc::{name}", fake, lib=_LIBRARY)
    operator: Callable[..., Any] = getattr(torch.ops.matsci_hpc, name).default
    return operator
