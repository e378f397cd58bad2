from pathlib import Path

import pytest

from matsci_hpc.config.job import JobRequest
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.words import key_and_values, runs_of, size_of


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.yaml"], [("a.yaml", ())]),
        (["a.yaml", "steps=3", "data.train=[x, y]"], [("a.yaml", ("steps=3", "data.train=[x, y]"))]),
        (["p.yaml", "out=d", "t.yaml", "steps=1"], [("p.yaml", ("out=d",)), ("t.yaml", ("steps=1",))]),
        (["./a=b.yaml", "x=/a/b.yaml"], [("./a=b.yaml", ("x=/a/b.yaml",))]),
        (["/runs/lr=1/config.yaml"], [("/runs/lr=1/config.yaml", ())]),
    ],
)
def test_overrides_belong_to_the_config_before_them(words, expected):
    assert runs_of(words) == [(Path(config), overrides) for config, overrides in expected]


def test_a_file_with_an_equals_sign_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=1.yaml").touch()
    assert runs_of(["lr=1.yaml"]) == [(Path("lr=1.yaml"), ())]


def test_an_override_before_every_config():
    with pytest.raises(UserInputError, match="behind the config"):
        runs_of(["steps=3", "a.yaml"])


def test_sizes():
    assert size_of("3", 6, "1-00:00:00") == JobRequest(nodes=3, ranks=6, time_limit="1-00:00:00")
    assert size_of("gpu=1, cpu=2", None, None).nodes == {"gpu": 1, "cpu": 2}
    assert list(size_of("cpu=2,gpu=1", None, None).nodes) == ["cpu", "gpu"]


@pytest.mark.parametrize(
    ("nodes", "time_limit", "says"),
    [
        ("0", None, "--nodes 0"),
        ("gpu=0", None, "--nodes gpu=0: it must be at least 1"),
        ("-1", None, "is not a number of nodes"),
        ("two", None, "is not a number of nodes"),
        ("gpu=1,gpu=2", None, "each kind once"),
        ("gpu=1,2", None, "each kind once"),
        (None, "90", "--time 90: write it as HH:MM:SS"),
    ],
)
def test_wrong_sizes(nodes, time_limit, says):
    with pytest.raises(UserInputError, match=says):
        size_of(nodes, None, time_limit)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=1,2", ("seed", ["1", "2"])),
        ("data.train=[a, b],[c]", ("data.train", ["[a, b]", "[c]"])),
        ("optimizer.lr = 1e-3 , 2e-3", ("optimizer.lr", ["1e-3", "2e-3"])),
    ],
)
def test_arrays(text, expected):
    assert key_and_values(text) == expected


@pytest.mark.parametrize("text", ["seed", "=1,2", "seed=", "seed=1,,2"])
def test_wrong_arrays(text):
    with pytest.raises(UserInputError, match="KEY=VALUE,VALUE"):
        key_and_values(text)
