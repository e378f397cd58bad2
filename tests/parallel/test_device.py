import pytest
import torch

from matsci_hpc.errors import MachineError
from matsci_hpc.parallel.backends import BACKENDS, natural_backend, usable
from matsci_hpc.parallel.device import choose_device, unused_grant, visible_devices


@pytest.mark.parametrize(
    ("wanted", "seen", "local_rank", "expected"),
    [
        ("auto", {}, 3, ("cpu", 0)),
        ("auto", {"cuda": 4}, 3, ("cuda", 3)),
        ("auto", {"cuda": 4}, 5, ("cuda", 1)),  # more ranks than GPUs share them
        ("auto", {"cuda": 1}, 5, ("cuda", 0)),  # bound by the launcher, or shared
        ("auto", {"xpu": 12}, 7, ("xpu", 7)),
        ("cpu", {"cuda": 4}, 3, ("cpu", 0)),
        ("xpu", {"cuda": 2, "xpu": 2}, 1, ("xpu", 1)),
    ],
)
def test_ranks_of_a_node_take_its_devices_in_turn(wanted, seen, local_rank, expected):
    assert choose_device(wanted, seen, local_rank) == expected


@pytest.mark.parametrize(("seen", "others"), [({}, "the CPU alone"), ({"xpu": 2}, "xpu")])
def test_a_device_that_is_not_there_is_said(seen, others):
    with pytest.raises(MachineError, match=f"device: cuda, and torch .* sees none on this node, but {others}; "):
        choose_device("cuda", seen, 0)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, "CUDA_VISIBLE_DEVICES"),
        ({"ROCR_VISIBLE_DEVICES": "2"}, "ROCR_VISIBLE_DEVICES"),
        ({"ZE_AFFINITY_MASK": "0.1"}, "ZE_AFFINITY_MASK"),
    ],
)
def test_gpus_that_the_scheduler_grants_are_noticed(environ, expected):
    assert unused_grant(environ) == expected


def test_the_natural_backend_of_a_device_can_be_used_here():
    assert natural_backend("cpu") == "gloo"
    for device in ("cuda", "xpu"):
        assert usable(natural_backend(device)) is None


@pytest.mark.skipif(bool(visible_devices()), reason="there are GPUs here")
@pytest.mark.parametrize("name", ["nccl", "xccl", "ccl"])
def test_why_a_backend_of_gpus_cannot_be_used_here(name):
    assert name in BACKENDS
    reason = usable(name)
    assert reason is not None
    assert name in reason or "oneccl-bindings-for-pytorch" in reason


def test_torch_knows_the_groups_by_these_names():
    from matsci_hpc.parallel.torch_distributed import GROUPS

    for name, group in GROUPS.items():
        if name != "ccl":  # which its own package adds
            devices = torch.distributed.distributed_c10d.BackendConfig(torch.distributed.Backend(group))
            assert name in devices.get_device_backend_map().values()
