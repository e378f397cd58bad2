"""What tests of fine-tuning look at."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

# Every rank leaves what a step exchanges, what backward reaches, and what the optimiser began with.
WRAPPER = """\
import json, sys
from pathlib import Path
from safetensors.torch import save_file
from matsci_hpc import cli
from matsci_hpc.models.registry import Model
from matsci_hpc.training import loop, step
folder = Path(sys.argv.pop(1))
folder.mkdir(exist_ok=True)
seen, graphs = [], []
begin, take, encode = loop.Trainer.train, step.Stepper.take, Model.encode
def observed_begin(self):
    run = self.run
    names = {id(each): name for name, each in run.model.named_parameters()}
    state = {f"{names[id(each)]}|{key}": value.clone() for each, held in run.optimizer.state.items()
             for key, value in held.items()}
    save_file(state, folder / f"optimizer-{run.comm.rank}.safetensors")
    save_file({name: value.clone() for name, value in run.model.state_dict().items()},
              folder / f"model-{run.comm.rank}.safetensors")
    return begin(self)
def observed_encode(self, batch):
    found = encode(self, batch)
    if self.training:
        graphs.append(found.embedding.requires_grad)
    return found
def observed_take(self, work):
    found = take(self, work)
    seen.append({"sent": sum(self.exchange.bucket_sizes), "held": self.gradients.buffer.numel(),
                 "encoder": any(graphs)})
    graphs.clear()
    (folder / f"steps-{self.run.comm.rank}.json").write_text(json.dumps(seen))
    return found
loop.Trainer.train, step.Stepper.take, Model.encode = observed_begin, observed_take, observed_encode
cli.main()
"""


def saved(run: Path, step: int, kind: str = "model") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:06d}" / f"{kind}.safetensors")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Parts of the encoder of which some number differs."""
    names = [name for name in before if name.startswith("encoder.") and not torch.equal(before[name], after[name])]
    return {name.split(".")[1] if "layers" not in name else ".".join(name.split(".")[1:3]) for name in names}


def noted(run: Path) -> dict:
    return json.loads((run / "provenance.json").read_text())["fine_tune"]


def error_of(result) -> str:
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("matsci-hpc: error")]
    return line
