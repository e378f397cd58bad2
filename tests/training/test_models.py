"""Every encoder trains, on one rank and on several alike, stops and goes on, and starts from another run."""

import pytest
from ranks import run_ranks
from test_exactness import assert_same_run

pytestmark = pytest.mark.mpi
MODELS = {
    "schnet": "{name: schnet, layers: 2, width: 8, filter_width: 8, gaussians: 6, embedding_width: 10}",
    "painn": "{name: painn, layers: 2, width: 8, radial: 5, embedding_width: 10}",
    "megnet": "{name: megnet, layers: 2, width: 6, hidden_width: 8, gaussians: 6, embedding_width: 10}",
}


@pytest.mark.parametrize("name", MODELS)
def test_two_ranks_equal_one_also_after_a_stop(train, lines, name):
    model = f"model={MODELS[name]}"
    one, two = train("one", 1, model), train("two", 2, model, "max_time_s=0.0001")
    assert not (two / "DONE").exists()
    train("two", 2, model, "max_time_s=null")
    assert_same_run(lines, one, two, steps=20)
    assert lines(one)[-1]["loss"] < lines(one)[0]["loss"]


def test_dgl_trains_the_same_network(train, lines):
    pytest.importorskip("dgl", reason="DGL has no release for this Python")
    own, dgl = train("own", 1), train("dgl", 2, "model.backend=dgl")
    assert_same_run(lines, own, dgl, steps=20)


def test_dgl_and_the_compiler_exclude_each_other(config, tmp_path):
    words = ["train", config, f"run_dir={tmp_path / 'run'}", "model.backend=dgl", "optimize=compile"]
    refused = run_ranks(1, *words)
    assert refused.returncode == 2
    assert "optimize: compile needs model.backend: own" in refused.stderr


def test_an_encoder_of_one_kind_does_not_start_from_another(config, train, tmp_path):
    model = f"model={MODELS['painn']}"
    first = train("first", 1, model, "steps=4", "checkpoint.every_steps=4")
    train("second", 1, model, "model.readout=sum", "steps=4", f"init_from={first}")
    words = ["train", config, f"run_dir={tmp_path / 'third'}", f"init_from={first}"]
    refused = run_ranks(1, *words, f"model={MODELS['megnet']}")
    assert refused.returncode == 2
    assert 'model.name="megnet"; set model.name="painn"' in refused.stderr
