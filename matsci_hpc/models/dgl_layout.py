"""The operators of `EdgeLayout` by DGL: its kernels for sparse message passing do every gather and every sum.

`to_atoms` is DGL's sum of edge features over the incoming edges (`copy_e_sum`, an SpMM), `to_edges` and `from_senders`
are its functions of both ends of an edge (`u_add_v`, `copy_u`, an SDDMM), with DGL's own derivatives. DGL 1.1.3 is the
release that works beside torch 2.6 and newer. These sums and copies are linear, and DGL derives each by another of its
own differentiable operators, so second derivatives are right, too, and forces can be trained.
"""

import importlib
import os
import sys
import types
from typing import Any

import torch
from torch import Tensor

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.batch import Batch


def import_dgl() -> Any:
    """The package `dgl`.

    Raises:
        MachineError: it is not installed, or cannot be loaded.
    """
    # Else it asks for a choice of frameworks, and writes one to the home directory.
    os.environ.setdefault("DGLBACKEND", "pytorch")
    try:
        # DGL takes `packaging` out of setuptools, which no longer carries it.
        alias = types.ModuleType("setuptools.extern")
        alias.packaging = importlib.import_module("packaging")  # type: ignore[attr-defined]
        importlib.import_module("packaging.version")
        sys.modules.setdefault("setuptools.extern", alias)
        return importlib.import_module("dgl")
    except Exception as error:  # noqa: BLE001 - it loads libraries of its own, which fail in ways of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MachineError(
            f"DGL cannot be used: {reason}; install it by pip install 'matsci-hpc[dgl]' (Python 3.11), or leave the "
            "model to this package with model.backend: own"
        ) from None


class DglLayout:
    """What passes between the atoms and the edges of one batch, by DGL."""

    def __init__(self, batch: Batch) -> None:
        dgl = import_dgl()
        self.ops = dgl.ops
        self.graph = dgl.graph((batch.sender, batch.receiver), num_nodes=batch.atoms)

    def to_atoms(self, values: Tensor) -> Tensor:
        """Sum over the edges that each atom receives: [E, F] to [A, F]."""
        # DGL wants columns, and no short types on a CPU.
        if values.shape[1] == 0:
            return values.new_zeros((self.graph.num_nodes(), 0))
        total = torch.promote_types(values.dtype, torch.float32)
        summed: Tensor = self.ops.copy_e_sum(self.graph, values.to(total))
        return summed.to(values.dtype)

    def to_edges(self, at_receiver: Tensor, at_sender: Tensor) -> Tensor:
        """`at_receiver[receiver] + at_sender[sender]`, from two [A, F] to [E, F]."""
        total = torch.promote_types(at_sender.dtype, torch.float32)
        joined: Tensor = self.ops.u_add_v(self.graph, at_sender.to(total), at_receiver.to(total))
        return joined.to(at_sender.dtype)

    def from_table(self, ends: Tensor) -> Tensor:
        """The same from a table of both ends, [2A, F]: receivers first."""
        atoms = len(ends) // 2
        return self.to_edges(ends[:atoms], ends[atoms:])

    @property
    def edges(self) -> int:
        """Number of edges."""
        return int(self.graph.num_edges())

    def from_senders(self, values: Tensor) -> Tensor:
        """`values[sender]`, from [A, F] to [E, F]."""
        total = torch.promote_types(values.dtype, torch.float32)
        sent: Tensor = self.ops.copy_u(self.graph, values.to(total))
        return sent.to(values.dtype)
