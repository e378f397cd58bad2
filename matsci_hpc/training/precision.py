"""In which number format a run computes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from matsci_hpc.loading.batch import Batch


@dataclass(frozen=True, slots=True)
class Precision:
    """float32 or float64 throughout, or bf16: parameters, coordinates and losses in float32, matrix products in bf16.

    Attributes:
        name: as in the config.
        device: type of the device, such as cpu.
    """

    name: str
    device: str = "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """Type of parameters and inputs."""
        return torch.float64 if self.name == "float64" else torch.float32

    def cast(self, batch: Batch) -> Batch:
        """The batch in the type of the inputs."""
        return batch.to(self.device, self.dtype)

    def autocast(self) -> AbstractContextManager[object]:
        """Where the model is called."""
        if self.name != "bf16":
            return nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16)

    def widen(self, output: Tensor) -> Tensor:
        """A model's output in the type that losses are computed in."""
        return output.to(self.dtype)
