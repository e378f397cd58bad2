"""Energy of one GPU of NVIDIA, from its own counter (NVML), through the package nvidia-ml-py."""

from typing import Any

import torch


def gpu_uuid(device: torch.device) -> str:
    """The name of a GPU that is the same for every process that sees it.

    Raises:
        OSError: NVML knows no such device.
    """
    if device.type != "cuda":
        raise OSError(f"NVML reads GPUs of NVIDIA only, and this rank computes on {device.type}")
    if torch.version.hip is not None:
        raise OSError("NVML reads GPUs of NVIDIA only, not of AMD")
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    if uuid is None:
        raise OSError(f"torch {torch.__version__} does not tell the UUID of a GPU")
    return f"GPU-{uuid}"


def open_nvml() -> Any:
    """The package, ready for use.

    Raises:
        OSError: it is not installed, or there is no driver; it says so in words.
    """
    try:
        import pynvml
    except ImportError:
        raise OSError("needs the package nvidia-ml-py: pip install 'matsci-hpc[nvml]'") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise OSError(f"NVML: {error}") from None
    return pynvml


class GpuEnergy:
    """Adds up the energy of one GPU.

    Args:
        uuid: from `gpu_uuid`.

    Attributes:
        name: of the model.

    Raises:
        OSError: its counter cannot be read; it says why in words.
    """

    def __init__(self, uuid: str) -> None:
        self._nvml = open_nvml()
        try:
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid.encode())
            self.name = str(self._nvml.nvmlDeviceGetName(self._handle))
        except self._nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from None
        self._last_mj = self._millijoules()

    def take(self) -> float:
        """Joules since the last call.

        Raises:
            OSError: the counter cannot be read any more.
        """
        now_mj = self._millijoules()
        taken, self._last_mj = 1e-3 * (now_mj - self._last_mj), now_mj
        return taken

    def _millijoules(self) -> int:
        """Since the driver was loaded; GPUs before Volta have no counter."""
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from None
