"""Which roads to the other ranks there are, what each needs, and why one cannot be taken here."""

from collections.abc import Callable
from dataclasses import dataclass

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.parallel.watched import Meeting
from matsci_hpc.versions import installed, same_series


@dataclass(frozen=True, slots=True)
class Backend:
    """A road to the other ranks.

    Attributes:
        name: as in the config.
        devices: types of devices whose tensors it takes without a copy, in the order of preference.
        why_not: why it cannot be used in this process, in words that say what would help; None if it can.
        open: joins ranks that have met; collective.
    """

    name: str
    devices: tuple[str, ...]
    why_not: Callable[[], str | None]
    open: Callable[[Meeting], Communicator]


def _gloo_is_missing() -> str | None:
    import torch.distributed as dist

    return None if dist.is_gloo_available() else "this build of torch has no gloo"


def _open_torch(name: str) -> Callable[[Meeting], Communicator]:
    def open_group(meeting: Meeting) -> Communicator:
        from matsci_hpc.parallel.torch_distributed import TorchCommunicator

        return TorchCommunicator(name, meeting)

    return open_group


def _nccl_is_missing() -> str | None:
    import torch
    import torch.distributed as dist

    if not dist.is_nccl_available():
        return "this build of torch has no nccl, which comes with those for CUDA and ROCm"
    return None if torch.cuda.is_available() else "torch sees no GPU here, and nccl joins GPUs alone"


def _xccl_is_missing() -> str | None:
    import torch
    import torch.distributed as dist

    if not dist.is_xccl_available():
        return "this build of torch has no xccl, which comes with those for GPUs of Intel from 2.8 on"
    return None if torch.xpu.is_available() else "torch sees no GPU of Intel here, and xccl joins these alone"


def _ccl_is_missing() -> str | None:
    import torch

    found = installed("oneccl-bindings-for-pytorch")
    if found is None:
        return "oneccl-bindings-for-pytorch is not installed; Intel's own package index has it, for torch up to 2.8"
    reason = same_series(found, torch.__version__)  # before it is imported: a pair that does not fit ends the process
    return None if reason is None else f"oneccl-bindings-for-pytorch {found}: {reason}"


def natural_backend(device: str) -> str:
    """The backend of several ranks that compute on a type of device, where nothing else is known."""
    wanted = next((each.name for each in BACKENDS.values() if each.devices[0] == device), "gloo")
    return wanted if usable(wanted) is None else "gloo"


def _mpi_is_missing() -> str | None:
    from importlib.util import find_spec

    # Loading MPI itself waits for all ranks, so only opening it shows whether there is one.
    return None if find_spec("mpi4py") else "mpi4py is not installed: `pip install mpi4py`"


def _open_mpi(meeting: Meeting) -> Communicator:
    from matsci_hpc.parallel.mpi_communicator import join

    return join(meeting)


def _horovod_is_missing() -> str | None:
    from matsci_hpc.parallel.horovod import why_not

    return why_not()


def _open_horovod(meeting: Meeting) -> Communicator:
    from matsci_hpc.parallel.horovod import join

    return join(meeting)


BACKENDS = {
    each.name: each
    for each in (
        Backend("gloo", ("cpu", "cuda"), _gloo_is_missing, _open_torch("gloo")),
        Backend("mpi", ("cpu",), _mpi_is_missing, _open_mpi),
        Backend("horovod", ("cpu",), _horovod_is_missing, _open_horovod),
        Backend("nccl", ("cuda",), _nccl_is_missing, _open_torch("nccl")),
        Backend("xccl", ("xpu",), _xccl_is_missing, _open_torch("xccl")),
        Backend("ccl", ("cpu", "xpu"), _ccl_is_missing, _open_torch("ccl")),
    )
}
"""By name; `none` and `auto` of the config are no backends of several ranks."""


def usable(name: str) -> str | None:
    """Why a backend cannot be used in this process; None if it can."""
    return BACKENDS[name].why_not()


def require_backend(name: str) -> None:
    """See to it that a backend can be used, before ranks meet: one that ends while others look for it leaves a mess.

    Raises:
        UserInputError: there is no such backend.
        MachineError: this machine lacks what it needs.
    """
    if name not in BACKENDS:
        raise UserInputError(f"parallel.backend: there is no {name!r}; there are: none, {', '.join(BACKENDS)}")
    reason = usable(name)
    if reason is not None:
        raise MachineError(f"parallel.backend: {name} cannot be used here: {reason}")


def open_backend(name: str, meeting: Meeting) -> Communicator:
    """Join ranks that have met.

    Raises:
        UserInputError: there is no such backend.
        MachineError: this machine lacks what it needs, or the ranks cannot be joined.
    """
    require_backend(name)
    return BACKENDS[name].open(meeting)
