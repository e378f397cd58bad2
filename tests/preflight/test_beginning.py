"""What a run begins with, looked at before it is queued."""

import shutil

import pytest
from crystal_data import prepare_crystals
from ranks import run_ranks

from matsci_hpc.errors import UserInputError
from matsci_hpc.preflight import measured
from matsci_hpc.preflight.beginning import beginning_findings
from matsci_hpc.preflight.data import read_manifests
from matsci_hpc.preflight.measured import measure
from matsci_hpc.preflight.quick import look
from matsci_hpc.preflight.thorough import check


@pytest.fixture
def before(train_config, tmp_path):
    """A run that has trained on the crystals, and how to continue with its encoder."""
    # One crystal does not hold every element.
    train_config(run_dir=str(tmp_path / "before"), evaluate={"every_steps": 1}, steps=1, batch={"graphs": 1})
    done = run_ranks(1, "train", tmp_path / "train.yaml")
    assert done.returncode == 0, done.stderr
    return tmp_path / "before"


@pytest.fixture
def farther(tmp_path):
    """The same crystals with edges up to another cutoff."""
    return prepare_crystals(tmp_path / "farther", 20, cutoff=4.5)


def errors(findings):
    return [each.text for each in findings if each.level == "error"]


def test_what_does_not_fit_is_an_error_without_reading_a_tensor(before, farther, train_config, subject):
    for path in before.rglob("*.safetensors"):
        path.unlink()
    fits = train_config(init_from=str(before))
    assert errors(look(subject(fits))) == []
    other = train_config(init_from=str(before), data={"train": [str(farther)]})
    (text,) = errors(look(subject(other)))
    assert "the cutoff of the edges is 4 there and 4.5 here; set fine_tune.neighbors=accept" in text
    taken = train_config(init_from=str(before), data={"train": [str(farther)]}, fine_tune={"neighbors": "accept"})
    assert errors(look(subject(taken))) == []
    wider = train_config(init_from=str(before), model={"layers": 2, "width": 9})
    (text,) = errors(look(subject(wider)))
    assert "model.width=8" in text


def test_what_is_not_there_yet_or_of_no_account_any_more_is_no_error(before, farther, train_config, subject):
    config = train_config(init_from=str(before), data={"train": [str(farther)]})
    manifests, _ = read_manifests(config, subject(config))
    assert list(beginning_findings(config, manifests, subject(config, awaited=[before]))) == []
    (config.run_dir / "checkpoints/step-000002").mkdir(parents=True)
    assert list(beginning_findings(config, manifests, subject(config))) == []
    shutil.rmtree(config.run_dir)
    shutil.rmtree(before / "checkpoints")
    (found,) = beginning_findings(config, manifests, subject(config))
    assert (found.level, found.topic) == ("error", "init_from")


def test_a_trial_tells_what_is_taken_and_refuses_new_elements(before, train_config, subject, monkeypatch, tmp_path):
    monkeypatch.setattr(measured, "TRIAL_S", 0.2)
    train = {"init_from": str(before), "fine_tune": {"heads": "matching", "freeze": "encoder"}}
    found = measure(subject(train_config(**train)), 2, 1)
    assert any("heads of" in text for text in found.beginning)
    findings = check(subject(train_config(**train)), None)
    assert any(each.topic == "init_from" and each.text.startswith("loaded: encoder") for each in findings)
    assert not (tmp_path / "run").exists()
    train["fine_tune"] = {"elements": "refuse"}
    config = train_config(**train)
    assert "never trained on" in found.beginning_warnings[0]
    with pytest.raises(UserInputError, match="never trained on"):
        measure(subject(config), 2, 1)
    assert any("never trained on" in text for text in errors(check(subject(config), None)))
