"""`optimize: ipex`: the same run with Intel's extension, or one line that says why there is none."""

import importlib
import importlib.util
import socket
import sys

import pytest
import torch
from ranks import ROOT, mpirun, run_command, run_ranks
from test_exactness import assert_same_run, newest

from matsci_hpc.errors import UserInputError
from matsci_hpc.training.ipex import load_ipex, why_no_ipex

here = importlib.util.find_spec("intel_extension_for_pytorch") is not None
needs_ipex = pytest.mark.skipif(not here, reason="no intel-extension-for-pytorch here: make test-intel")
IPEX = "optimize=ipex"
NET = """\
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.element = nn.Embedding(119, 16)
        self.body = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.SiLU(), nn.Linear(16, 16))

    def forward(self, batch):
        return self.body(self.element(batch.atomic_number))
"""


@pytest.mark.ipex
@needs_ipex
@pytest.mark.mpi
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
def test_two_ranks_learn_what_one_learns_without_it_from_either_checkpoint(train, lines, precision, tolerance):
    kind = f"precision={precision}"
    one = train("one", 1, kind)
    for first, second in (("none", "ipex"), ("ipex", "none")):
        two = train(first, 2, kind, f"optimize={first}", "max_time_s=0.0001")
        assert not (two / "DONE").exists()
        train(first, 2, kind, f"optimize={second}", "max_time_s=null")
        assert_same_run(lines, one, two, steps=20, tolerance=tolerance)


@pytest.mark.ipex
@needs_ipex
def test_in_bf16_the_extension_computes_and_learns_the_same(train, lines):
    without, one = (train(name, 1, "precision=bf16", f"optimize={name}") for name in ("none", "ipex"))
    losses = [[line["loss"] for line in lines(folder)] for folder in (without, one)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    # Its kernels round otherwise than torch's.
    models = [newest(folder, "model") for folder in (without, one)]
    assert any(not torch.equal(value, models[1][name]) for name, value in models[0].items())


@pytest.mark.ipex
@needs_ipex
def test_layers_of_torch_keep_their_parameters(config, tmp_path, lines):
    (tmp_path / "own_net.py").write_text(NET)
    model = "model={target: own_net.Net, gives: atoms, embedding_width: 16, readout: mean}"
    folders = []
    for name, optimize in (("without", "none"), ("with", "ipex")):
        folders.append(tmp_path / name)
        words = ["train", config, f"run_dir={folders[-1]}", "precision=float32", model, f"optimize={optimize}"]
        done = run_ranks(1, *words, PYTHONPATH=f"{tmp_path}:{ROOT}")
        assert done.returncode == 0, done.stderr
        for noise in (
            "CUDA",
            "previously registered kernel",
            "embeddingbag",
            "deprecated in a future release of Intel",
        ):
            assert noise not in done.stderr
    assert_same_run(lines, *folders, steps=20, tolerance=1e-4)


def test_it_says_why_it_cannot_be_used(tmp_path, monkeypatch):
    with pytest.raises(UserInputError, match="not for cuda; set optimize: compile or none"):
        load_ipex("cuda")
    info = tmp_path / "intel_extension_for_pytorch-2.8.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: intel-extension-for-pytorch\nVersion: 2.8.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert why_no_ipex("2.13.0+cpu", {"avx2"}).endswith("2.8.0: it needs torch 2.8, and this is 2.13.0+cpu")
    assert why_no_ipex("2.8.1", {"sse4_2"}).endswith("needs a processor with AVX2")
    assert why_no_ipex("2.8.0+cpu", {"avx2", "avx512f"}) is None


@pytest.mark.skipif(here and torch.__version__.startswith("2.8."), reason="the extension is here")
@pytest.mark.parametrize("ranks", [1, 2])
def test_without_the_extension_there_is_one_line(config, tmp_path, ranks):
    done = run_ranks(ranks, "train", config, f"run_dir={tmp_path / 'run'}", IPEX)
    assert done.returncode == 3
    said = [line for line in done.stderr.splitlines() if "matsci-hpc" in line]
    assert len(said) == 1
    assert said[0].endswith(
        "optimize: ipex cannot be used here: intel-extension-for-pytorch is not installed; 2.8.0, the last one, needs "
        "torch 2.8.0; set optimize: compile or none"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.mpi
def test_a_rank_that_cannot_use_it_is_named_once(config, tmp_path):
    program = tmp_path / "uneven.py"
    program.write_text(
        "import os, sys\n"
        "from matsci_hpc import cli\n"
        "from matsci_hpc.errors import MachineError\n"
        "from matsci_hpc.training import loop\n"
        "def load(device):\n"
        "    if os.environ['OMPI_COMM_WORLD_RANK'] == '1':\n"
        "        raise MachineError('no AVX2 on this one')\n"
        "loop.load_ipex = load\n"
        "cli.main()\n"
    )
    done = run_command(mpirun(2, sys.executable, program, "train", config, f"run_dir={tmp_path / 'run'}", IPEX))
    assert done.returncode == 3
    said = [line for line in done.stderr.splitlines() if "AVX2" in line]
    assert said == [f"matsci-hpc: error: rank 1 on {socket.gethostname()}: no AVX2 on this one"]
    assert "Traceback" not in done.stderr
