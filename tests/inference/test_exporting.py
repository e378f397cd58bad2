"""A model as a file: the same model, from nothing but the file, and nothing that the file's maker could run."""

import json
import pickletools
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from click.testing import CliRunner
from crystal_data import prepare_crystals
from crystals import random_crystal
from ranks import environment, run_ranks
from run_dirs import EVIL
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from matsci_hpc import load_model
from matsci_hpc.cli import cli
from matsci_hpc.comparison.pretraining import pretraining_of
from matsci_hpc.config.data import Data
from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.exporting import Wishes, export
from matsci_hpc.inference.model_file import _checksum, read_model, write_model
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.opening import open_collection

CRYSTALS = [random_crystal(number) for number in range(8)]
MODULE = """\
import torch
from torch import nn


class Sums(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.elements = nn.Embedding(119, width)

    def forward(self, batch):
        open("{mark}", "w").close()
        return self.elements(batch.atomic_number)
"""


def test_the_file_gives_what_the_run_gives(run, exported):
    there, here = load_model(run, device="cpu"), load_model(exported, device="cpu")
    assert np.array_equal(there.embed(CRYSTALS), here.embed(CRYSTALS))
    assert there.predict(CRYSTALS) == here.predict(CRYSTALS)
    assert load_model(exported.parent, device="cpu").about == here.about
    origin = here.about.origin
    assert origin.cost is not None
    assert origin.model_copy(update={"cost": None}) == there.about.origin
    assert here.about.model_copy(update={"origin": there.about.origin}) == there.about


def test_it_is_used_in_three_lines_of_python_far_from_the_run(exported):
    program = (
        "from matsci_hpc import load_model\n"
        "model = load_model('encoder.safetensors')\n"
        "from ase.build import bulk\n"
        "print(model.embed([bulk('Cu'), bulk('Si')]).shape, sorted(model.predict(bulk('Cu'))[0]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=exported.parent,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    keys = ["family", "family.probabilities", "family.probability", "gap", "id", "metal", "metal.probability"]
    assert done.stdout == f"(2, 10) {keys}\n"


def test_the_same_checkpoint_gives_the_same_bytes(run, exported, tmp_path):
    again, card = export(run, tmp_path / "again", None, Wishes())
    assert again.read_bytes() == exported.read_bytes()
    assert card.read_bytes() == (exported.parent / "README.md").read_bytes()


def test_its_header_says_what_the_numbers_mean(run, exported, data):
    with safe_open(exported, framework="pt") as file:
        metadata = file.metadata()
    about = json.loads(metadata["about"])
    assert metadata["format"] == "matsci-hpc model"
    assert about["model"]["name"] == "egnn"
    assert about["learned"]["cutoff_angstrom"] == 4.0
    assert "ties at the cutoff are edges" in about["learned"]["neighbor_rule"]
    assert about["learned"]["targets"]["gap"]["spec"]["unit"] == "eV"
    manifest = json.loads((data / "dataset.json").read_text())
    assert about["learned"]["targets"]["gap"]["statistics"] == manifest["statistics"]["train"]["gap"]
    assert about["learned"]["targets"]["family"]["spec"]["classes"] == manifest["targets"]["family"]["classes"]
    assert about["origin"]["data"][0]["fingerprint"] == manifest["fingerprint"]
    assert about["elements"]
    assert str(run.parent) not in metadata["about"]  # no place on this machine


def test_without_heads_it_embeds_and_says_that_it_cannot_predict(run, tmp_path):
    file, card = export(run, tmp_path / "encoder.safetensors", None, Wishes(heads=False))
    assert card.name == "encoder.md"
    assert all(name.startswith("encoder.") for name in load_file(file))
    model = load_model(file, device="cpu")
    assert np.array_equal(model.embed(CRYSTALS), load_model(run, device="cpu").embed(CRYSTALS))
    with pytest.raises(UserInputError, match="encoder alone, without heads"):
        model.predict(CRYSTALS)


def test_every_kind_of_damage_is_noticed(exported):
    whole = exported.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 200)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        exported.write_bytes(damaged)
        with pytest.raises(UserInputError, match=re.escape(str(exported))):
            read_model(exported)
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        exported.write_bytes(whole[:length])
        with pytest.raises(UserInputError, match="damaged, or no file of safetensors"):
            load_model(exported, device="cpu")


def test_foreign_files_are_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "pickle.safetensors")
    for name, said in {
        "foreign": "no model of matsci-hpc",
        "pickle": "damaged, or no file of safetensors",
        "none": "no such file",
    }.items():
        with pytest.raises(UserInputError, match=said):
            load_model(tmp_path / f"{name}.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about: about.model_copy(update={"model": about.model.model_copy(update={"width": 16})}), "of shape"),
        (lambda about: about.model_copy(update={"model": about.model.model_copy(update={"layers": 1})}), "has not"),
        (lambda about: about.model_copy(update={"model": about.model.model_copy(update={"layers": 3})}), "lacks"),
    ],
)
def test_numbers_that_do_not_fit_the_description_are_refused(exported, change, said):
    about, tensors = read_model(exported)
    write_model(exported, change(about), tensors)
    with pytest.raises(UserInputError, match=f"do not fit its description.*{said}"):
        load_model(exported, device="cpu")


def test_a_later_format_is_refused(exported):
    tensors = load_file(exported)
    with safe_open(exported, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, exported, metadata | {"format_version": "2"})
    with pytest.raises(UserInputError, match="format version 2, this program reads 1"):
        load_model(exported, device="cpu")
    about = json.dumps(json.loads(metadata["about"]) | {"news": 1})
    save_file(tensors, exported, metadata | {"about": about, "xxh3_128": _checksum(about, tensors)})
    with pytest.raises(UserInputError, match=r"its description cannot be read: news.*another release"):
        load_model(exported, device="cpu")


def test_nothing_in_the_export_is_a_pickle(exported):
    for path in exported.parent.iterdir():
        with pytest.raises(ValueError, match=r".*"):
            list(pickletools.genops(path.read_bytes()))


@pytest.fixture
def own_module(data, tmp_path, monkeypatch):
    """A run of a module of one's own, which leaves a mark whenever its code runs."""
    (tmp_path / "code").mkdir()
    mark = tmp_path / "mark"
    (tmp_path / "code/sums.py").write_text(MODULE.format(mark=mark))
    config = tmp_path / "train.yaml"
    config.write_text(
        f"run_dir: {tmp_path}/own\ndata: {{train: [{data}]}}\nsteps: 2\nbatch: {{graphs: 7}}\n"
        "model: {target: sums.Sums, arguments: {width: 6}, gives: atoms, embedding_width: 6}\n"
    )
    root = environment()["PYTHONPATH"]
    result = run_ranks(1, "train", config, PYTHONPATH=f"{root}:{tmp_path / 'code'}")
    assert result.returncode == 0, result.stderr
    mark.unlink()
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "sums", raising=False)
    return tmp_path / "own", mark


def test_a_module_from_elsewhere_runs_only_for_who_trusts_it(own_module, tmp_path):
    run, mark = own_module
    file, card = export(run, tmp_path / "out", None, Wishes())
    for path in (run, file):
        with pytest.raises(UserInputError, match=r"its encoder is sums\.Sums, a module from outside.*--trust-module"):
            load_model(path, device="cpu")
    assert "sums" not in sys.modules
    assert not mark.exists()
    there, here = (load_model(path, device="cpu", trust_module=True) for path in (run, file))
    assert np.array_equal(there.embed(CRYSTALS), here.embed(CRYSTALS))
    assert mark.exists()
    assert "trust_module=True" in card.read_text()


def test_the_card_tells_what_the_run_was(run, data, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["--data", data, "--split", "val", "--out", tmp_path / "val.json", "--device", "cpu"]
    CliRunner().invoke(cli, ["evaluate", *map(str, [run, *words])], catch_exceptions=False)
    words = ["--licence", "apache-2.0", "--data-licence", "data=CC-BY-4.0", "--evaluation", tmp_path / "val.json"]
    words = ["export", run, "--out", tmp_path / "out", *words]
    result = CliRunner().invoke(cli, list(map(str, words)), catch_exceptions=False)
    assert result.stdout.split() == [str(tmp_path / "out" / name) for name in ("encoder.safetensors", "README.md")]
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("---\nlibrary_name: matsci-hpc\nlicense: apache-2.0\n")
    manifest = json.loads((data / "dataset.json").read_text())
    found = json.loads((tmp_path / "val.json").read_text())
    metrics = found["metrics"]
    for expected in (
        'model = load_model("encoder.safetensors")',
        manifest["fingerprint"],
        "CC-BY-4.0",
        f"{metrics['gap']['mae']:.4g} eV",
        f"split val of data, {found['samples']} samples",
        "## Training\n\n",
        "rank hours",
        "averaged over the last steps",
    ):
        assert expected in card, expected
    assert len(re.findall(r"\| gap \(\d+ samples\) \| loss", card)) == 2  # the run's own evaluation, and the given one


def test_the_card_has_the_metrics_of_its_own_parameters(run, tmp_path):
    data = prepare_crystals(tmp_path, splits="train: 0.6, val: 0.2, test: 0.2")
    changes = [f"run_dir={tmp_path}/run", f"data.train=[{data}]", "optimizer={lr: 0.3}", "average.decay=null"]
    changes += ["evaluate={every_steps: 2, final_split: test}", "checkpoint.every_steps=2"]
    result = run_ranks(1, "train", run.parent / "train.yaml", *changes)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/evaluations.jsonl").read_text().splitlines()]
    (final,) = [line for line in lines if line["split"] == "test"]
    assert final["weights_step"] < final["step"] == 12  # the step is too large, so an early one stays the best

    def card(checkpoint):
        return export(tmp_path / "run", tmp_path / checkpoint, checkpoint, Wishes())[1].read_text()

    best, newest = card("best"), card("newest")
    for text, step in ((best, final["weights_step"]), (newest, 12)):
        (val,) = [line for line in lines if line["split"] == "val" and line["step"] == step]
        assert "split val of the training data" in text
        assert f"{val['metrics']['gap']['mae']:.4g} eV" in text
    assert "split test of the training data" in best
    assert f"{final['metrics']['gap']['mae']:.4g} eV" in best
    assert "split test of the training data" not in newest


def test_the_card_tells_what_was_learned_from_and_what_came_before(run, data, tmp_path):
    targets = "targets={gap: {}, wide: {of: gap, above: 0.5}}"
    changes = (f"run_dir={tmp_path}/tuned", f"init_from={run}", targets, "data.subset={samples: 2, seed: 2}")
    result = run_ranks(1, "train", run.parent / "train.yaml", *changes)
    assert result.returncode == 0, result.stderr
    wishes = Wishes(data_licences={"data": "MIT"})
    file, card = export(tmp_path / "tuned", tmp_path / "out", "newest", wishes)
    text = card.read_text()
    of = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    splits = json.loads((data / "dataset.json").read_text())["splits"]
    assert f"| 60 | train {splits['train']}, val {splits['val']} | 2 of train | MIT |" in of["Training data"]
    assert f"| {splits['train']} of train | MIT |" in of["Pretraining"]
    origin = json.loads((tmp_path / "tuned/provenance.json").read_text())["init_from"]
    assert (
        f"began with the encoder of step {origin['step']} of demo (XXH3-128 {origin['checksum']})" in of["Pretraining"]
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (seen,) = [line["samples_seen"] for line in lines if line["step"] == origin["step"]]
    assert f"it took {origin['step']} steps, {seen} samples seen, " in of["Pretraining"]
    own_cost, earlier = pretraining_of(file)
    assert (earlier.run, earlier.steps, earlier.samples_seen) == ("demo", origin["step"], seen)
    assert own_cost.steps == int(read_model(file)[0].origin.step)
    fingerprint = json.loads((data / "dataset.json").read_text())["fingerprint"]
    assert own_cost.fingerprints == earlier.fingerprints == (fingerprint,)
    assert 0 < own_cost.node_hours < 1 > earlier.node_hours > 0
    (row,) = [line for line in of["Targets"].splitlines() if line.startswith("| wide")]
    assert row.startswith("| wide | binary, yes where gap is above 0.5 eV |  | ")
    assert row.endswith("|  |  |")
    own, before = (
        set(re.search(rf"samples{words}: \d+, (.*)\.", text)[1].split()) for words in ("", " before this run")
    )
    drawn = open_collection(Data(train=[data], subset={"samples": 2, "seed": 2}))
    learned = collate(drawn, drawn.in_split("train")).atomic_number.unique().tolist()
    assert own == {chemical_symbols[number] for number in learned} != before
    shutil.move(run.parent, tmp_path / "elsewhere")
    try:
        text = export(tmp_path / "tuned", tmp_path / "out", "newest", Wishes())[1].read_text()
    finally:
        shutil.move(tmp_path / "elsewhere", run.parent)
    assert "of demo (XXH3-128" in text
    assert "Its records were not found." in text


def test_names_cannot_become_markup(copied, tmp_path):
    entry = json.loads((copied / "data.json").read_text())[0] | {"path": f"somewhere/a|b`{EVIL}".replace("/script", "")}
    (copied / "data.json").write_text(json.dumps([entry]))
    _, card = export(copied, tmp_path / "out", None, Wishes())
    text = card.read_text()
    assert "<" not in text
    assert r"a\|b\`" in text


def test_what_is_no_card_of_ours_stays(run, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserInputError, match=r"README\.md: is no model card"):
        export(run, tmp_path, None, Wishes())
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    with pytest.raises(UserInputError, match="no run, and no checkpoint"):
        export(tmp_path, tmp_path / "out", None, Wishes())
    with pytest.raises(UserInputError, match="licence of other: the run has no such data set; it has data"):
        export(run, tmp_path / "out", None, Wishes(data_licences={"other": "MIT"}))
