"""A module of the user's own trains unchanged, however it is made."""

import re

import pytest
import torch
from batches import collate, random_graph
from ranks import ROOT, run_ranks
from test_exactness import assert_same_run

from matsci_hpc.config import model as config_model
from matsci_hpc.errors import UserInputError
from matsci_hpc.models.own_module import OwnModule

pytestmark = pytest.mark.mpi
MODULES = """\
import torch
from torch import nn


class Plain(nn.Module):
    '''Layers of its own, one of them tied, one frozen, one of no use.'''

    def __init__(self, width):
        super().__init__()
        self.elements = nn.Embedding(119, width)
        self.first, self.second, self.spare, self.frozen = (nn.Linear(width, width) for _ in range(4))
        self.second.weight = self.first.weight
        self.frozen.requires_grad_(False)

    def forward(self, batch):
        h = self.elements(batch.atomic_number)
        r = batch.position[batch.sender] - batch.position[batch.receiver]
        m = torch.exp(-r.square().sum(1, keepdim=True)) * self.first(h)[batch.sender]
        h = h + torch.zeros_like(h).index_add_(0, batch.receiver, m)
        h = self.frozen(torch.tanh(self.second(h)))
        return torch.zeros(batch.graphs, h.shape[1], dtype=h.dtype).index_add_(0, batch.atom_graph, h)


def net(width):
    from torch_geometric.nn import CFConv, global_mean_pool

    class Geometric(nn.Module):
        def __init__(self):
            super().__init__()
            self.elements = nn.Embedding(119, width)
            self.net = nn.Sequential(nn.Linear(width, width), nn.Tanh())

        def forward(self, data):
            h = self.elements(data.z)
            sender, receiver = data.edge_index
            h = h + torch.zeros_like(h).index_add_(0, receiver, self.net(h)[sender] / data.edge_weight[:, None])
            return global_mean_pool(h, data.batch, data.num_graphs)

    return Geometric()


class Dgl(nn.Module):
    '''Features of the atoms, by a convolution of DGL.'''

    def __init__(self, width):
        super().__init__()
        from dgl.nn import GraphConv

        self.elements = nn.Embedding(119, width)
        self.conv = GraphConv(width, width, allow_zero_in_degree=True)

    def forward(self, graph):
        return self.conv(graph, self.elements(graph.ndata["z"]))


class Wrong(nn.Linear):
    def forward(self, batch):
        return super().forward(batch.position)


class Broken(nn.Module):
    def forward(self, batch):
        raise ValueError("a fault of my own")


def number():
    return 3
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_models.py").write_text(MODULES.replace("CFConv, ", ""))
    info = folder / "my_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[matsci_hpc.encoders]\nplain_of_mine = my_models:Plain\n")
    return folder


@pytest.fixture
def own(place, config, tmp_path):
    """Train on a model: own(name, ranks, model, overrides...) gives the run's folder and what it said."""

    def run(name, ranks, model, *overrides):
        words = ["train", config, f"run_dir={tmp_path / name}", f"model={model}", *overrides]
        return tmp_path / name, run_ranks(ranks, *words, PYTHONPATH=f"{ROOT}:{place}")

    return run


PLAIN = "{target: my_models.Plain, arguments: {width: 10}, embedding_width: 10}"
REGISTERED = "{name: plain_of_mine, arguments: {width: 10}, embedding_width: 10}"


@pytest.mark.slow
def test_two_ranks_equal_one_with_tied_frozen_and_unused_parameters(own, lines):
    one, said = own("one", 1, PLAIN)
    assert said.returncode == 0, said.stderr
    two, said = own("two", 2, REGISTERED, "parallel.bucket_mb=0.0005", "max_time_s=0.001")
    assert said.returncode == 0, said.stderr
    assert not (two / "DONE").exists()
    assert own("two", 2, REGISTERED, "parallel.bucket_mb=0.0005", "max_time_s=null")[1].returncode == 0
    assert_same_run(lines, one, two, steps=20)
    assert lines(one)[-1]["loss"] < lines(one)[0]["loss"]
    # Its encoder is the start of another run, which cannot know what elements it has met.
    _, said = own("third", 1, PLAIN, f"init_from={one}", "steps=2")
    assert said.returncode == 0, said.stderr
    assert "which elements its encoder was trained on is not known" in said.stderr


@pytest.mark.parametrize(
    ("package", "model"),
    [
        ("torch_geometric", "{target: my_models.net, takes: pyg, arguments: {width: 6}, embedding_width: 6}"),
        ("dgl", "{target: my_models.Dgl, takes: dgl, gives: atoms, arguments: {width: 6}, embedding_width: 6}"),
    ],
)
def test_models_of_other_libraries_train(own, lines, package, model):
    pytest.importorskip(package)
    run, said = own("run", 1, model, "precision=float32")
    assert said.returncode == 0, said.stderr
    assert lines(run)[-1]["loss"] < lines(run)[0]["loss"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"target": "no_such.Net"},
            "there is no module 'no_such'; install its package, or put its folder on PYTHONPATH",
        ),
        ({"target": "my_models.Nothing"}, "model.target: module my_models has no 'Nothing'"),
        ({"target": "my_models.Plain"}, "model.arguments: my_models.Plain does not take them"),
        ({"target": "my_models.number"}, "model.target: my_models.number makes a int, not a torch.nn.Module"),
        (
            {"target": "my_models.Wrong", "arguments": {"in_features": 3, "out_features": 4}, "embedding_width": 4},
            "my_models.Wrong gave a tensor [5, 4] for 1 graphs of 5 atoms; expected [graphs, embedding_width] = [1, 4]",
        ),
    ],
)
def test_what_does_not_fit_is_said(place, monkeypatch, model, message):
    monkeypatch.syspath_prepend(str(place))
    with pytest.raises(UserInputError, match=re.escape(message)):
        OwnModule(config_model.OwnModule(**model), 3.0)(collate([random_graph(1, 5)], 3.0, torch.float32))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{target: Plain}", "model.target"),
        ("{target: my_models.Plain, width: 3}", "model.width"),
        ("{name: plain}", "'plain' is none of"),
        ("{target: no_such.Net}", "model.target: there is no module 'no_such'"),
    ],
)
def test_what_does_not_fit_ends_the_run_in_a_line(own, model, message):
    _, said = own("run", 1, model)
    assert said.returncode == 2, said.stdout + said.stderr
    assert message in said.stderr
    assert "Traceback" not in said.stderr


def test_a_fault_of_the_module_is_shown_where_it_is(own):
    _, said = own("run", 1, "{target: my_models.Broken}")
    assert said.returncode not in {0, 2, 3}
    assert "my_models.py" in said.stderr
    assert "ValueError: a fault of my own" in said.stderr


def test_the_example_of_the_docs_trains(config, tmp_path, lines):
    pytest.importorskip("torch_geometric")
    page = (ROOT / "docs/models.md").read_text()
    code, section = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1] for kind in ("python", "yaml"))
    (tmp_path / "my_models.py").write_text(code)
    text = re.sub("^model: .*$", section, config.read_text(), flags=re.MULTILINE)
    (tmp_path / "train.yaml").write_text(text)
    words = ["train", tmp_path / "train.yaml", f"run_dir={tmp_path / 'run'}"]
    said = run_ranks(2, *words, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert said.returncode == 0, said.stderr
    assert lines(tmp_path / "run")[-1]["loss"] < lines(tmp_path / "run")[0]["loss"]
