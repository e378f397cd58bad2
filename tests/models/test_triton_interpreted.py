"""Triton's kernels where there is no GPU: its interpreter carries out what it would compile."""

import importlib.util
import sys

import pytest
from ranks import run_command

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton here: make test-intel"),
]
PROGRAM = """\
import torch
from matsci_hpc.models.device_sums import scatter
from matsci_hpc.models.segment import EdgeLayout
from matsci_hpc.models.triton_sums import sum_rows

ATOMS, EDGES = 17, 150
generator = torch.Generator().manual_seed(1)
for index in (torch.int32, torch.int64):
    sender, receiver = torch.randint(2, ATOMS, (2, EDGES), generator=generator, dtype=index)
    receiver = receiver.sort().values
    pointer = torch.zeros(ATOMS + 1, dtype=index)
    pointer[1:] = torch.bincount(receiver, minlength=ATOMS).cumsum(0)
    layout = EdgeLayout.of(sender, receiver, pointer)
    for kind, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        for width in (0, 1, 3, 32, 200):
            for part in ("receiver_sum", "receiver_gather", "ends_sum", "ends_gather", "sender_sum"):
                matrix = getattr(layout, part)
                values = torch.randn(2 * EDGES, width, generator=generator, dtype=kind)
                found = sum_rows(values, matrix.column, matrix.pointer, matrix.per_row)
                expected = scatter(values, matrix.column, matrix.pointer, matrix.per_row)
                assert found.dtype == kind
                torch.testing.assert_close(found, expected, rtol=tolerance, atol=10 * tolerance)
"""


def test_interpreted_kernels_give_what_the_processor_gives():
    done = run_command([sys.executable, "-c", PROGRAM], TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr
