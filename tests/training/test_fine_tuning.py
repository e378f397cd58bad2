"""Fine-tuning: what is taken, what stays frozen, how fast layers learn, and what is refused."""

import json
import re
import shutil
import sys
from pathlib import Path

import h5py
import pytest
import torch
from ase.data import chemical_symbols
from ranks import mpirun, run_command, run_ranks
from safetensors.torch import load_file
from test_exactness import assert_same_run

from matsci_hpc.analysis.records import read_run
from matsci_hpc.analysis.report import write_report
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.training.checkpoint import CHECKSUMS
from matsci_hpc.training.learned_from import learned_elements, read_learned_from
from matsci_hpc.whole_files import file_checksum

pytestmark = pytest.mark.mpi
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
STEPS = ("steps=8", "checkpoint={every_steps: 1, keep: 20}", "evaluate.every_steps=8")


@pytest.fixture(scope="module")
def pretrained(train_in, clouds, tmp_path_factory) -> Path:
    """A run on symmetry clouds; not to be changed."""
    options = (f"data.train=[{clouds}]", "steps=8", "evaluate.every_steps=8")
    return train_in(tmp_path_factory.mktemp("pretrained") / "run", 1, *options)


@pytest.fixture
def observed(config, tmp_path):
    """A run of which ranks leave what WRAPPER sees: its folder, and the folder of these."""
    program = tmp_path / "observed.py"
    program.write_text(WRAPPER)

    def start(name: str, ranks: int, *overrides: str) -> tuple[Path, Path]:
        run, folder = tmp_path / name, tmp_path / f"seen-{name}"
        result = run_command(
            mpirun(ranks, sys.executable, program, folder, "train", config, f"run_dir={run}", *overrides)
        )
        assert result.returncode == 0, result.stderr
        return run, folder

    return start


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


def bytes_of(tensors: dict[str, torch.Tensor], *parts: str) -> int:
    return sum(
        value.nbytes for name, value in tensors.items() if name.startswith(parts) and not name.endswith(("mean", "std"))
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_frozen_encoder_stays_as_it_was_and_costs_neither_backward_nor_exchange(pretrained, observed, ranks):
    options = (f"init_from={pretrained}", "fine_tune.freeze=encoder", "optimizer.weight_decay=0.1", "average.decay=0.9")
    run, seen = observed("run", ranks, *STEPS, *options)
    theirs = saved(pretrained, 8)
    for kind in ("model", "average"):
        ours = saved(run, 8, kind)
        encoder = [name for name in ours if name.startswith("encoder.")]
        assert all(torch.equal(ours[name], theirs[name]) for name in encoder)
    first, last = saved(run, 1), saved(run, 8)
    assert all(
        not torch.equal(first[name], last[name]) for name in last if name.startswith("heads.") and ".net." in name
    )
    assert not [name for name in saved(run, 8, "optimizer") if name.startswith("encoder.")]
    for rank in range(ranks):
        steps = json.loads((seen / f"steps-{rank}.json").read_text())
        assert len(steps) == 8
        assert not any(each["encoder"] for each in steps)
        assert {8 * each["held"] for each in steps} == {bytes_of(last, "heads.")}
        assert {each["sent"] for each in steps} == {bytes_of(last, "heads.") if ranks > 1 else 0}


def test_layers_thaw_one_after_the_other(pretrained, observed):
    freeze = "fine_tune.freeze={encoder: 6, layers.1: 4, atom_readout: 2}"
    run, seen = observed("run", 2, *STEPS, f"init_from={pretrained}", freeze)
    after = {0: saved(pretrained, 8)} | {step: saved(run, step) for step in range(1, 9)}
    moved = [changed(after[step], after[step + 1]) for step in range(8)]
    assert moved[:2] == [set()] * 2
    assert moved[2:4] == [{"atom_readout"}] * 2
    assert moved[4:6] == [{"atom_readout", "layers.1"}] * 2
    assert moved[6:] == [{"atom_readout", "layers.1", "layers.0", "elements"}] * 2
    last = after[8]
    heads, readout = bytes_of(last, "heads."), bytes_of(last, "encoder.atom_readout.")
    top = bytes_of(last, "encoder.layers.1.")
    sent = [each["sent"] for each in json.loads((seen / "steps-1.json").read_text())]
    assert sent == [heads] * 2 + [heads + readout] * 2 + [heads + readout + top] * 2 + [bytes_of(last, "")] * 2
    assert [each["encoder"] for each in json.loads((seen / "steps-0.json").read_text())] == [False] * 2 + [True] * 6
    # Records follow: groups that are trained, and those that are not.
    lines = [json.loads(line) for line in (run / "dynamics.jsonl").read_text().splitlines()]
    trained = [{name for name in line["groups"] if name.startswith("encoder")} for line in lines]
    assert trained[1] == set()
    assert trained[2] == {"encoder.atom_readout"}
    assert trained[4] == {"encoder.atom_readout", "encoder.layers.1"}
    assert trained[6] == {"encoder.atom_readout", "encoder.layers.0", "encoder.layers.1", "encoder.elements"}
    assert lines[4]["frozen"] == ["encoder.elements", "encoder.layers.0"]
    assert "frozen" not in lines[6]
    assert all(group["update_norm"] > 0 for line in lines for group in line["groups"].values())
    assert len(read_run(run).dynamics) == 8
    assert (write_report(run)).stat().st_size > 1e6


PHASES = ("fine_tune.freeze=[elements, layers.0]", "fine_tune.freeze_steps=9", "fine_tune.layer_decay=0.7")


def test_one_rank_and_two_are_the_same_computation(pretrained, train, lines):
    one, two = (train(f"on{ranks}", ranks, f"init_from={pretrained}", *PHASES) for ranks in (1, 2))
    assert_same_run(lines, one, two, steps=20)
    assert noted(one) == noted(two)


@pytest.mark.slow
def test_virtual_ranks_follow_real_ones_to_the_last_bit(pretrained, train):
    options = ("parallel.reduction=ordered", "precision=float32", f"init_from={pretrained}", *PHASES)
    real = train("real", 2, *options)
    virtual = train("virtual", 1, *options, "parallel.virtual_ranks=2")
    for kind in ("model", "optimizer"):
        ours, theirs = saved(virtual, 20, kind), saved(real, 20, kind)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stop_within_a_frozen_phase_changes_nothing(pretrained, train, ranks):
    options = (f"init_from={pretrained}", "fine_tune.optimizer=kept", *PHASES)
    whole = train("whole", ranks, *options)
    parts = train("parts", ranks, *options, "max_time_s=0.0001")
    stopped = max((parts / "checkpoints").glob("step-*")).name
    assert int(stopped.removeprefix("step-")) < 9
    before = noted(parts)
    train("parts", ranks, *options)
    assert noted(parts) == before
    for kind in ("model", "optimizer"):
        ours, theirs = saved(parts, 20, kind), saved(whole, 20, kind)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_every_layer_learns_at_its_own_rate(pretrained, observed):
    rates = ("fine_tune.encoder_lr=0.5", "fine_tune.layer_decay=0.1", "optimizer={lr: 1.0e-3, weight_decay: 0}")
    plain = ("schedule={warmup_steps: 0, decay: constant}", "optimizer.clip_norm=null")
    run, seen = observed("run", 1, "steps=1", f"init_from={pretrained}", *rates, *plain)
    before, after = load_file(seen / "model-0.safetensors"), saved(run, 1)
    for part, factor in (
        ("heads.", 1.0),
        ("encoder.atom_readout.", 0.5),
        ("encoder.layers.1.", 0.05),
        ("encoder.layers.0.", 0.005),
        ("encoder.elements.", 0.0005),
    ):
        moves = [float((after[name] - before[name]).abs().max()) for name in after if name.startswith(part)]
        # Adam's first step moves each number by the learning rate, or by less where the gradient is as small as eps.
        assert max(moves) == pytest.approx(factor * 1e-3, rel=1e-3), part
    assert "encoder.layers.0 0.005" in noted(run)["training"][0]


def test_moments_of_the_encoder_are_kept_if_wanted_and_of_nothing_else(pretrained, observed):
    _, kept = observed("kept", 2, "steps=1", f"init_from={pretrained}", "fine_tune.optimizer=kept")
    _, reset = observed("reset", 1, "steps=1", f"init_from={pretrained}")
    theirs = saved(pretrained, 8, "optimizer")
    assert load_file(reset / "optimizer-0.safetensors") == {}
    for rank in range(2):
        ours = load_file(kept / f"optimizer-{rank}.safetensors")
        assert ours.keys() == {name for name in theirs if name.startswith("encoder.")}
        assert len(ours) > 30
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_parts_that_are_not_wanted_begin_as_those_of_the_seed(pretrained, observed):
    begin = ("steps=1", f"init_from={pretrained}", "fine_tune.reinitialize=[elements]", "fine_tune.optimizer=kept")
    run, seen = observed("anew", 2, *begin)
    _, scratch = observed("scratch", 1, "steps=1")
    theirs, moments = saved(pretrained, 8), saved(pretrained, 8, "optimizer")
    random = load_file(scratch / "model-0.safetensors")
    table = "encoder.elements.weight"
    for rank in range(2):
        ours = load_file(seen / f"model-{rank}.safetensors")
        assert torch.equal(ours[table], random[table])
        assert not torch.equal(ours[table], theirs[table])
        taken = [name for name in ours if name.startswith("encoder.") and name != table]
        assert all(torch.equal(ours[name], theirs[name]) for name in taken)
        assert not all(torch.equal(random[name], theirs[name]) for name in taken)
        kept = load_file(seen / f"optimizer-{rank}.safetensors").keys()
        assert kept == {name for name in moments if name.partition("|")[0] in taken}
    known = noted(run)
    numbers = random[table].numel()
    assert known["not_loaded"][0] == {
        "what": f"elements of the encoder ({numbers:,} parameters)", "why": "fine_tune.reinitialize"
    }  # fmt: skip
    assert not any("never trained on" in each for each in known["warnings"])
    # What this run has learned itself is all that a later one may rely on.
    checkpoint = run / "checkpoints/step-000001"
    assert learned_elements(checkpoint, read_learned_from(checkpoint)) != learned_elements(
        pretrained / "checkpoints/step-000008", read_learned_from(pretrained / "checkpoints/step-000008")
    )


def test_heads_are_taken_where_the_target_is_the_same(whole, observed):
    run, seen = observed(
        "run",
        2,
        "steps=1",
        f"init_from={whole(1)}",
        "fine_tune.heads=matching",
        "data.split=val",
        "data.held_out=train",
    )
    theirs = saved(whole(1), 16) if noted_step(run) == 16 else saved(whole(1), noted_step(run))
    for rank in range(2):
        ours = load_file(seen / f"model-{rank}.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())  # scaling, too
    assert "heads of family, gap, metal, with the scaling" in noted(run)["loaded"]


def test_the_head_of_another_derivation_is_not_taken(train):
    targets = "targets={gap: {}, wide: {of: gap, above: %s}}"
    steps = ("steps=2", "evaluate.every_steps=2", "checkpoint.every_steps=2", "schedule.warmup_steps=0")
    before = train("before", 1, *steps, targets % 0.5)
    options = (*steps, f"init_from={before}", "fine_tune.heads=matching")
    same, other = train("same", 1, *options, targets % 0.5), train("other", 1, *options, targets % 2.0)
    assert "heads of gap, wide, with the scaling" in noted(same)["loaded"]
    assert "head of gap, with the scaling" in noted(other)["loaded"]
    why = "it is yes where gap is above 0.5 there and yes where gap is above 2 here"
    assert {"what": "head of wide", "why": why} in noted(other)["not_loaded"]


def noted_step(run: Path) -> int:
    return json.loads((run / "provenance.json").read_text())["init_from"]["step"]


def test_what_is_not_taken_is_said_with_the_reason(pretrained, whole, config, tmp_path):
    words = ["train", config, f"run_dir={tmp_path / 'run'}", "steps=1", f"init_from={pretrained}"]
    result = run_ranks(2, *words, "fine_tune.heads=matching", "model.head_layers=3", "model.readout=sum")
    assert result.returncode == 0, result.stderr
    known = noted(tmp_path / "run")
    assert known["not_loaded"] == [
        {"what": "Adam's moments", "why": "fine_tune.optimizer is reset"},
        {"what": "heads of family, gap, metal", "why": "it was not learned there"},
        {"what": "head of point_group", "why": "this run does not learn it"},
    ]
    for text in (*known["loaded"], "not loaded: head of point_group: this run does not learn it"):
        assert text in result.stdout
    assert "model.readout is sum here and mean there" in known["differences"]
    assert any(
        "lengths are in radii of a symmetry cloud there and in angstrom here" in each for each in known["differences"]
    )
    report = write_report(tmp_path / "run").read_text()
    assert "What it began with" in report
    assert "this run does not learn it" in report
    other = run_ranks(1, "train", config, f"run_dir={tmp_path / 'other'}", "steps=1", f"init_from={whole(1)}",
                      "fine_tune.heads=matching", "model.head_layers=3")  # fmt: skip
    assert other.returncode == 0, other.stderr
    assert noted(tmp_path / "other")["not_loaded"][1]["why"] == "its net.2.bias is [3] there and [10] here"


def test_a_part_that_nothing_would_ever_train_is_refused(pretrained, config, tmp_path):
    words = ["train", config, f"run_dir={tmp_path / 'run'}", f"init_from={pretrained}", "steps=4"]
    words += ["fine_tune.neighbors=accept", "fine_tune.reinitialize=[elements]", "fine_tune.freeze=encoder"]
    said = error_of(run_ranks(2, *words))
    assert "encoder.elements: random by reinitialize and frozen for the whole run" in said
    assert run_ranks(1, *words, "fine_tune.freeze_steps=3").returncode == 0


def test_an_exported_file_is_as_good_as_its_run(pretrained, whole, config, tmp_path, lines):
    file, heads = tmp_path / "model.safetensors", tmp_path / "whole.safetensors"
    assert run_ranks(1, "export", pretrained, "--out", file, "--encoder-only").returncode == 0
    assert run_ranks(1, "export", whole(1), "--out", heads).returncode == 0
    options = ("steps=2", "fine_tune.neighbors=accept", "fine_tune.heads=matching")
    for name, begin in (("run", pretrained), ("file", file), ("heads-run", whole(1)), ("heads-file", heads)):
        result = run_ranks(2, "train", config, f"run_dir={tmp_path / name}", f"init_from={begin}", *options)
        assert result.returncode == 0, result.stderr
    for pair in (("run", "file"), ("heads-run", "heads-file")):
        assert_same_run(lines, *(tmp_path / name for name in pair), steps=2)
        by_run, by_file = (json.loads((tmp_path / name / "provenance.json").read_text()) for name in pair)
        assert by_file["init_from"] | {"path": ""} == by_run["init_from"] | {"path": ""}
        assert by_file["fine_tune"]["loaded"] == by_run["fine_tune"]["loaded"]
        assert by_file["fine_tune"]["differences"] == by_run["fine_tune"]["differences"]
        for one, other in zip(by_file["fine_tune"]["warnings"], by_run["fine_tune"]["warnings"], strict=True):
            assert one.partition("its encoder")[2] == other.partition("its encoder")[2]
    assert any("lengths are in radii" in each for each in noted(tmp_path / "file")["differences"])
    assert "heads of family, gap, metal, with the scaling" in noted(tmp_path / "heads-file")["loaded"][1]
    # The card of what was fine-tuned tells what the encoder had learned before, also from a file.
    assert run_ranks(1, "export", tmp_path / "file", "--out", tmp_path / "card").returncode == 0
    assert "clouds" in (tmp_path / "card/README.md").read_text()


def test_an_exported_file_that_does_not_fit_is_refused(pretrained, config, tmp_path):
    file = tmp_path / "model.safetensors"
    assert run_ranks(1, "export", pretrained, "--out", file).returncode == 0
    words = ["train", config, f"run_dir={tmp_path / 'run'}", f"init_from={file}", "steps=1"]
    assert "lengths are in radii of" in error_of(run_ranks(1, *words, "fine_tune.neighbors=refuse"))
    assert "model.width=" in error_of(run_ranks(1, *words, "fine_tune.neighbors=accept", "model.width=5"))
    file.write_bytes(file.read_bytes()[:-4] + b"gone")
    assert "init_from: " in (said := error_of(run_ranks(2, *words, "fine_tune.neighbors=accept")))
    assert "damaged" in said


def test_other_neighbours_are_refused(pretrained, config, tmp_path):
    words = ["train", config, f"run_dir={tmp_path / 'run'}", f"init_from={pretrained}", "steps=1"]
    error = error_of(run_ranks(2, *words, "fine_tune.neighbors=refuse"))
    assert "lengths are in radii of a symmetry cloud there and in angstrom here" in error
    assert "set fine_tune.neighbors=accept" in error


def trained_elements(data: Path) -> set[int]:
    """Elements of the training split, from the files alone."""
    data_set, found = DataSet(data), set()
    split = list(data_set.manifest.splits).index("train")
    for record in data_set.manifest.shards:
        with h5py.File(data / record.file) as file:
            offsets, numbers = file["offsets/atoms"][:], file["atoms/atomic_number"][:]
            for row in (file["structures/split"][:] == split).nonzero()[0]:
                found |= set(numbers[offsets[row] : offsets[row + 1]].tolist())
    return found


def test_elements_that_pretraining_never_saw_are_named(pretrained, clouds, crystals, config, tmp_path):
    checkpoint = pretrained / "checkpoints" / "step-000008"
    learned = learned_elements(checkpoint, read_learned_from(checkpoint))
    assert set(learned) == trained_elements(clouds)  # 56 samples in epochs of 21
    data_set = DataSet(crystals)
    here = set()
    for number in range(len(data_set.manifest.shards)):
        here |= set(data_set.shard(number)["atoms/atomic_number"].tolist())
    new = here - set(learned)
    assert new
    assert here - new
    words = ["train", config, f"run_dir={tmp_path / 'run'}", f"init_from={pretrained}", "steps=1"]
    error = error_of(run_ranks(1, *words, "fine_tune.elements=refuse"))
    assert f"never trained on {len(new)} of the {len(here)} elements of these data" in error
    result = run_ranks(2, *words)
    assert result.returncode == 0
    (warning,) = [line for line in result.stderr.splitlines() if "never trained on" in line]
    named = warning.partition("these data: ")[2].partition(";")[0]
    assert set(re.findall(r"([A-Z][a-z]?) \(", named)) == {chemical_symbols[each] for each in new}
    # What the first encoder learned counts for a third one, whatever this one saw in its one step.
    last = tmp_path / "run" / "checkpoints" / "step-000001"
    assert set(learned) <= set(learned_elements(last, read_learned_from(last)))
    assert read_learned_from(last).earlier_elements == learned


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_release_says_less(whole, config, tmp_path):
    run = Path(shutil.copytree(whole(1), tmp_path / "before"))
    for checkpoint in (run / "checkpoints").glob("step-*"):
        state = json.loads((checkpoint / "state.json").read_text())
        del state["learned_from"]
        (checkpoint / "state.json").write_text(json.dumps(state))
        sums = json.loads((checkpoint / CHECKSUMS).read_text()) | {
            "state.json": file_checksum(checkpoint / "state.json")
        }
        (checkpoint / CHECKSUMS).write_text(json.dumps(sums))
    words = ["train", config, f"run_dir={tmp_path / 'run'}", "steps=1", f"init_from={run}"]
    result = run_ranks(1, *words, "fine_tune={heads: matching, neighbors: refuse}")
    assert result.returncode == 0, result.stderr
    known = noted(tmp_path / "run")
    assert (
        known["not_loaded"][1]["why"]
        == "the checkpoint, of an earlier release, does not say of what kind its targets are"
    )
    assert known["differences"] == []  # the cutoff stands in data.json of the run
    shutil.rmtree(tmp_path / "run")
    (run / "data.json").unlink()
    assert run_ranks(1, *words).returncode == 0
    assert noted(tmp_path / "run")["differences"] == ["the cutoff is 4 here; what it was there is not known"]


def test_settings_hold_without_another_run_too(config, train):
    run = train("run", 1, *STEPS, "fine_tune.freeze=encoder", "fine_tune.freeze_steps=4")
    assert changed(saved(run, 1), saved(run, 4)) == set()
    assert changed(saved(run, 4), saved(run, 5)) == {"atom_readout", "layers.0", "layers.1", "elements"}
    assert noted(run)["training"][0].startswith("encoder: frozen for the first 4 steps, ")
    assert "another 'fine_tune'" in error_of(
        run_ranks(
            1, "train", config, f"run_dir={run}", "steps=9", "fine_tune.freeze=encoder", "fine_tune.freeze_steps=5"
        )
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "fine_tune.freeze=[layers.2]",
            "the encoder has no 'layers.2'; it has elements, layers.0, layers.1, atom_readout",
        ),
        ("fine_tune.reinitialize=[encoder]", "nothing of the encoder would be taken over"),
        ("fine_tune.reinitialize=[elements, layers, atom_readout]", "nothing of the encoder would be taken over"),
        ("fine_tune.reinitialize=[elments]", "fine_tune.reinitialize: the encoder has no 'elments'; it has elements"),
        ("fine_tune.freeze_steps=3", "nothing is frozen; give freeze: encoder"),
        ("fine_tune={freeze: {encoder: 3}, freeze_steps: 3}", "leave out freeze_steps"),
        ("fine_tune.layer_decay=1.5", "less than or equal to 1"),
        ("fine_tune.freez=encoder", "did you mean freeze"),
    ],
)
def test_what_cannot_be_meant_is_said(config, tmp_path, override, said):
    result = run_ranks(2 if "layers" in override else 1, "train", config, f"run_dir={tmp_path / 'run'}", override)
    assert said in error_of(result)


@pytest.mark.slow
def test_a_spike_may_lead_back_into_a_frozen_phase(pretrained, train, lines):
    """Steps after a rollback freeze and thaw as those before it."""
    options = (f"init_from={pretrained}", "fine_tune.freeze=encoder", "fine_tune.freeze_steps=11")
    back = "rollback: {back_steps: 4, limit: 12}"
    run = train("run", 2, *options, "steps=30", f"spikes={{window: 10, threshold: 1, on_spike: rollback, {back}}}")
    gone_back = [line for line in lines(run, "dynamics") if "rollback" in line]
    assert any(line["step"] < 11 < line["spike_step"] for line in gone_back)
    lives = [line for line in lines(run, "dynamics") if "groups" in line]
    for line in lives:
        assert ("encoder.elements" in line["groups"]) is (line["step"] > 11)


@pytest.mark.slow
def test_compiled_and_eager_freeze_and_thaw_alike(pretrained, train, lines):
    eager, compiled = (
        train(name, 1, f"init_from={pretrained}", *PHASES, f"optimize={name}", "steps=12")
        for name in ("none", "compile")
    )
    assert_same_run(lines, eager, compiled, steps=12, tolerance=1e-6)
