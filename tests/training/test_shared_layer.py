"""Which layer all targets share, and the norm of each target's gradient there."""

import pytest
import torch

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.parallel.communicator import SingleProcess
from matsci_hpc.training.setup import build_run
from matsci_hpc.training.tasks import local_losses
from matsci_hpc.training.weights.shared_layer import SharedGradients, last_shared_layer

LAST = {
    "{name: egnn, layers: 1, width: 4, message_width: 4, embedding_width: 6}": "atom_readout.2.weight",
    "{name: schnet, layers: 1, width: 4, filter_width: 4, gaussians: 4, embedding_width: 6}": "readout.net.2.weight",
    "{name: painn, layers: 1, width: 4, radial: 4, embedding_width: 6}": "readout.net.2.weight",
    "{name: megnet, layers: 1, width: 4, hidden_width: 4, gaussians: 4, embedding_width: 6}": "readout.net.2.weight",
}


@pytest.fixture
def run_of(config, crystals, tmp_path):
    def build(*overrides: str):
        loaded = load_config(TrainConfig, config, [f"run_dir={tmp_path}/run", *overrides])
        return build_run(loaded, Collection([crystals]), SingleProcess(), torch.device("cpu"))

    return build


@pytest.mark.parametrize("model", LAST)
def test_the_last_layer_that_all_targets_share_is_found(run_of, model):
    run = run_of(f"model={model}")
    name = last_shared_layer(run)
    parameter = run.model.get_parameter(name)
    assert name == f"encoder.{LAST[model]}"
    # Nothing but the embedding lies between it and the heads: it has as many rows as the embedding has features.
    assert parameter.shape[0] == 6


def test_while_the_encoder_is_frozen_nothing_is_measured_and_the_layer_stays_the_same(run_of):
    name = last_shared_layer(run_of())
    run = run_of("fine_tune={freeze: encoder, freeze_steps: 5}")
    parameter = run.model.get_parameter(name)
    shared = SharedGradients([task.name for task in run.tasks], parameter, run.comm, ordered=False)
    for step, trained in ((0, False), (5, True)):
        run.state.step = step
        run.freezing.begin(step)
        assert last_shared_layer(run) == name
        assert parameter.requires_grad == trained
        shared.begin(active=True)
        assert shared.active == trained
    with pytest.raises(UserInputError, match="gradnorm needs a matrix of the encoder that is trained"):
        last_shared_layer(run_of("fine_tune={freeze: encoder}"))


@pytest.mark.parametrize("parts", [1, 3])
def test_norms_are_those_of_the_whole_batch(run_of, parts):
    """Against one backward pass for each target, and added up over parts whose gradients partly cancel."""
    run = run_of()
    name = last_shared_layer(run)
    samples = run.collection.in_split("train")[:24]
    counts = {each: int(run.collection.present(each, samples).sum()) for each in run.collection.targets}
    whole = run.precision.cast(collate(run.collection, samples))
    expected = {}
    for task in run.tasks:
        run.model.zero_grad()
        local_losses(run.tasks, run.model, whole, counts, run.precision)[task.name].backward()
        expected[task.name] = float(run.model.get_parameter(name).grad.norm())
    shared = SharedGradients([task.name for task in run.tasks], run.model.get_parameter(name), run.comm, ordered=False)
    shared.begin(active=True)
    for part in range(parts):
        batch = run.precision.cast(collate(run.collection, samples[part::parts]))
        shared.add(local_losses(run.tasks, run.model, batch, counts, run.precision))
    shared.end_share()
    assert shared.finish() == pytest.approx(expected, rel=1e-9)
    assert shared.finish() == {}
