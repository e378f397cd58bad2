"""Fine-tuning: which encoder a run begins with, and that it begins with it once."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from ranks import mpirun, run_command, run_ranks
from safetensors.torch import load_file

from matsci_hpc.training.checkpoint import list_checkpoints
from matsci_hpc.whole_files import file_checksum

pytestmark = pytest.mark.mpi
# Every rank leaves what it is about to begin its steps with.
WRAPPER = """\
import sys
from pathlib import Path
from safetensors.torch import save_file
from matsci_hpc import cli
from matsci_hpc.training import loop
original = loop.Trainer.train
folder = Path(sys.argv.pop(1))
def observed(self):
    folder.mkdir(exist_ok=True)
    tensors = {name: value.clone() for name, value in self.run.model.state_dict().items()}
    save_file(tensors, folder / f"rank-{self.run.comm.rank}.safetensors")
    return original(self)
loop.Trainer.train = observed
cli.main()
"""


@pytest.fixture(scope="module")
def pretrained(train_in, clouds, tmp_path_factory) -> Path:
    """A run on symmetry clouds that was best at step 8 of 12; not to be changed."""
    options = (f"data.train=[{clouds}]", "evaluate.every_steps=8", "checkpoint.every_steps=4")
    run = train_in(tmp_path_factory.mktemp("pretrained") / "run", 2, *options, "steps=8")
    train_in(run, 2, *options, "steps=12", "optimizer.lr=1.0", "optimizer.clip_norm=null")
    losses = {
        line["step"]: line["loss"] for line in map(json.loads, (run / "evaluations.jsonl").read_text().splitlines())
    }
    assert min(losses, key=losses.__getitem__) == 8
    assert [path.name for path in list_checkpoints(run / "checkpoints")][:2] == ["step-000012", "step-000008"]
    return run


@pytest.fixture
def copied(pretrained, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(pretrained, tmp_path / "copied"))


@pytest.fixture
def first_parameters(config, tmp_path):
    """Parameters and buffers of each rank of a fresh run before its first step."""
    program = tmp_path / "observed.py"
    program.write_text(WRAPPER)

    def start(name: str, ranks: int, *overrides: str) -> list[dict[str, torch.Tensor]]:
        folder = tmp_path / f"first-{name}"
        words = [program, folder, "train", config, f"run_dir={tmp_path / name}", "steps=1", *overrides]
        result = run_command(mpirun(ranks, sys.executable, *words))
        assert result.returncode == 0, result.stderr
        return [load_file(folder / f"rank-{rank}.safetensors") for rank in range(ranks)]

    return start


def saved(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


def damage(checkpoint: Path) -> None:
    data = bytearray((checkpoint / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(data)


def origin_of(run: Path) -> dict:
    return json.loads((run / "provenance.json").read_text())["init_from"]


def error_of(result) -> str:
    """The one line that a refused start leaves, whatever the number of ranks."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("matsci-hpc: error")]
    return line


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_encoder_is_the_other_runs_best_and_the_heads_are_those_of_the_seed(pretrained, first_parameters, ranks):
    plain = first_parameters("plain", ranks)
    tuned = first_parameters("tuned", ranks, f"init_from={pretrained}")
    theirs = saved(pretrained, 8)
    names = [name for name in tuned[0] if name.startswith("encoder.")]
    assert len(names) > 10
    for rank in range(ranks):
        assert tuned[rank].keys() == plain[rank].keys()
        for name, value in tuned[rank].items():
            assert torch.equal(value, (theirs if name in names else plain[0])[name]), name
    changed = [name for name in names if not torch.equal(plain[0][name], theirs[name])]
    assert len(changed) > 10


def test_averaged_parameters_are_taken_where_there_are_any(train, first_parameters):
    averaged = train("averaged", 1, "average.decay=0.9", "evaluate.every_steps=20")
    tuned = first_parameters("tuned", 1, f"init_from={averaged}")[0]
    checkpoint = averaged / "checkpoints" / "step-000020"
    average, model = (load_file(checkpoint / f"{kind}.safetensors") for kind in ("average", "model"))
    names = [name for name in tuned if name.startswith("encoder.")]
    assert all(torch.equal(tuned[name], average[name]) for name in names)
    assert not all(torch.equal(model[name], average[name]) for name in names)
    origin = origin_of(averaged.parent / "tuned")
    assert (origin["weights"], origin["checksum"]) == ("average", file_checksum(checkpoint / "average.safetensors"))


def test_what_belongs_to_a_target_is_not_taken_even_if_it_would_fit(whole, first_parameters):
    """Both runs learn the same targets of the same shapes, scaled by other samples."""
    options = ("data.split=val", "data.held_out=train")
    plain, tuned = (
        first_parameters(name, 1, *options, *more)[0]
        for name, more in (("plain", ()), ("tuned", (f"init_from={whole(1)}",)))
    )
    theirs = load_file(list_checkpoints(whole(1) / "checkpoints")[0] / "model.safetensors")
    heads = [name for name in tuned if name.startswith("heads.")]
    assert theirs.keys() == tuned.keys()
    for name in heads:
        assert torch.equal(tuned[name], plain[name]), name
    assert {name.rpartition(".")[2] for name in heads if not torch.equal(tuned[name], theirs[name])} >= {"mean", "std"}


def test_another_precision_rounds_what_is_taken(pretrained, first_parameters):
    tuned = first_parameters("tuned", 1, f"init_from={pretrained}", "precision=float32")[0]
    theirs = saved(pretrained, 8)
    assert {value.dtype for value in tuned.values()} == {torch.float32}
    assert all(torch.equal(value, theirs[name].float()) for name, value in tuned.items() if name in theirs)


def test_readout_and_heads_may_differ(pretrained, train):
    run = train("run", 1, f"init_from={pretrained}", "model.readout=sum", "model.head_layers=3", "steps=1")
    assert origin_of(run)["step"] == 8


def test_one_rank_and_two_learn_the_same_from_it(pretrained, train, lines):
    one, two, plain = (
        train(name, ranks, *more)
        for name, ranks, more in (
            ("one", 1, (f"init_from={pretrained}",)),
            ("two", 2, (f"init_from={pretrained}",)),
            ("plain", 1, ("steps=1",)),
        )
    )
    assert [line["loss"] for line in lines(one)] == pytest.approx([line["loss"] for line in lines(two)], rel=1e-6)
    assert lines(one)[0]["loss"] != pytest.approx(lines(plain)[0]["loss"], rel=1e-3)
    assert origin_of(one) == origin_of(two)


def test_a_resumed_run_goes_on_from_its_own_checkpoint_and_remembers(pretrained, copied, train, lines):
    whole = train("whole", 1, f"init_from={pretrained}")
    parts = train("parts", 1, f"init_from={copied}", "max_time_s=0.0001")
    checkpoint = copied / "checkpoints" / "step-000008"
    checksum = file_checksum(checkpoint / "model.safetensors")
    origin = {"path": str(checkpoint), "step": 8, "weights": "model", "checksum": checksum}
    assert origin_of(parts) == origin
    shutil.rmtree(copied)  # nothing of it is needed any more
    train("parts", 2, f"init_from={copied}", "max_time_s=0.0001")
    train("parts", 1, f"init_from={copied}")
    assert (parts / "DONE").exists()
    assert origin_of(parts) == origin
    assert {line["step"]: line["loss"] for line in lines(parts)} == pytest.approx(
        {line["step"]: line["loss"] for line in lines(whole)}, rel=1e-6
    )


def test_a_run_that_lost_all_its_checkpoints_begins_with_it_again(pretrained, train, lines):
    run = train("run", 1, f"init_from={pretrained}", "steps=3")
    losses = [line["loss"] for line in lines(run)]
    (run / "DONE").unlink()
    shutil.rmtree(run / "checkpoints")
    train("run", 1, f"init_from={pretrained}", "steps=3")
    assert [line["loss"] for line in lines(run)] == losses * 2
    assert origin_of(run)["step"] == 8


def test_a_checkpoint_by_its_folder(pretrained, train):
    run = train("run", 1, f"init_from={pretrained}/checkpoints/step-000012", "steps=1")
    assert origin_of(run)["step"] == 12


def test_a_damaged_best_checkpoint_is_passed_over_and_said(copied, config, tmp_path):
    damage(copied / "checkpoints" / "step-000008")
    result = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", f"init_from={copied}", "steps=1")
    assert result.returncode == 0, result.stderr
    assert "step-000008/model.safetensors: the checksum differs; taking step-000012" in result.stderr
    assert origin_of(tmp_path / "run")["step"] == 12


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_damage_where_nothing_else_is_left_is_refused(copied, config, tmp_path, ranks):
    only = copied / "checkpoints" / "step-000008"
    for path in list_checkpoints(copied / "checkpoints"):
        damage(path)
    words = ["train", config, f"run_dir={tmp_path / 'run'}"]
    whole_run = error_of(run_ranks(ranks, *words, f"init_from={copied}"))
    assert f"init_from: {copied} holds no usable checkpoint (" in whole_run
    one = error_of(run_ranks(ranks, *words, f"init_from={only}"))
    assert f"{only}/model.safetensors: the checksum differs; name another checkpoint or the whole run" in one
    mended = run_ranks(ranks, *words, "steps=1")  # what never trained binds nobody
    assert mended.returncode == 0, mended.stderr
    assert "init_from" not in json.loads((tmp_path / "run" / "provenance.json").read_text())


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        (("model.width=9",), "this run's model.width=9; set model.width=8, or"),
        (
            ("model.layers=3", "model.radial_basis.count=4", "model.envelope=true"),
            "set model.layers=2 model.envelope=false model.radial_basis.count=0, or",
        ),
    ],
)
def test_another_encoder_is_refused_with_the_keys_to_set(pretrained, config, tmp_path, overrides, advice):
    error = error_of(
        run_ranks(2, "train", config, f"run_dir={tmp_path / 'run'}", f"init_from={pretrained}", *overrides)
    )
    assert str(pretrained / "checkpoints" / "step-000008") in error
    assert advice in error


def test_what_is_no_run_is_refused(config, crystals, tmp_path):
    words = ["train", config, f"run_dir={tmp_path / 'run'}"]
    assert "there is no such folder; name the run_dir" in error_of(run_ranks(2, *words, "init_from=runs/nowhere"))
    assert "neither a run nor a checkpoint" in error_of(run_ranks(1, *words, f"init_from={crystals}"))
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    error = error_of(run_ranks(1, *words, f"init_from={tmp_path / 'empty'}"))
    assert "holds no usable checkpoint; train it until it has saved one" in error


@pytest.mark.slow
def test_it_may_not_change_once_the_run_has_trained(pretrained, config, train, tmp_path):
    train("run", 1, f"init_from={pretrained}", "max_time_s=0.0001")
    words = ["train", str(config), f"run_dir={tmp_path / 'run'}", "steps=20", "max_time_s=0.0001"]
    for other in ("null", str(pretrained / "checkpoints" / "step-000012")):
        assert "another 'init_from'" in error_of(run_ranks(1, *words, f"init_from={other}"))
    program = [sys.executable, "-m", "matsci_hpc"]
    # The same folder in other words is no change.
    same = run_command([*program, *words, f"init_from={pretrained.name}"], cwd=pretrained.parent)
    assert same.returncode == 0, same.stderr
    relative = run_command([*program, *words, f"init_from=./{pretrained.name}"], cwd=pretrained.parent)
    assert relative.returncode == 0, relative.stderr
    assert origin_of(tmp_path / "run")["path"] == str(pretrained / "checkpoints" / "step-000008")


def test_a_run_that_trained_without_it_is_not_given_one(copy_of_whole, pretrained, config):
    run = copy_of_whole(1)
    error = error_of(run_ranks(1, "train", config, f"run_dir={run}", f"init_from={pretrained}", "steps=22"))
    assert "another 'init_from'" in error
