from pathlib import Path

import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.chain import make_chain
from matsci_hpc.launch.job import Element

D, P, F = Path("/d"), Path("/r/pretrain"), Path("/r/finetune")


@pytest.fixture
def links(make_job):
    """A function that chains jobs and gives name, names of the jobs before, and markers that are awaited."""

    def make(*jobs):
        chain = make_chain([make_job(**{"config": Path(f"/{job['name']}.yaml")} | job) for job in jobs])
        return [
            (link.job.name, [chain[i].job.name for i in link.after], [str(n.marker) for n in link.job.needs])
            for link in chain
        ]

    return make


PREP = {"name": "prep", "verb": "prep", "output": D}
PRETRAIN = {"name": "pretrain", "output": P, "reads": (D,)}
FINETUNE = {"name": "finetune", "output": F, "reads": (D, P / "checkpoints/step-000010")}
REPORT = {"name": "report", "verb": "report", "output": F, "reads": (F,)}


def test_what_reads_comes_after_what_writes(links):
    expected = [
        ("prep", [], []),
        ("pretrain", ["prep"], ["/d/dataset.json"]),
        ("finetune", ["prep", "pretrain"], ["/d/dataset.json", "/r/pretrain/DONE"]),
        ("report", ["finetune"], ["/r/finetune/DONE"]),
    ]
    assert links(PREP, PRETRAIN, FINETUNE, REPORT) == expected
    assert links(REPORT, FINETUNE, PRETRAIN, PREP) == expected


def test_jobs_without_a_bond_keep_their_order(links):
    other = {"name": "other", "output": Path("/r/other"), "reads": (Path("/dd"),)}
    assert links(other, PREP) == [("other", [], []), ("prep", [], [])]


def test_a_name_that_begins_alike_is_no_bond(links):
    assert links({**PREP, "output": Path("/r/pre")}, {**PRETRAIN, "reads": (Path("/r/prefix"),)})[1][1] == []


def test_one_run_of_an_array(links):
    runs = tuple(Element(overrides=(f"seed={i}",), output=P / f"seed={i}") for i in (1, 2))
    later = {"name": "later", "output": F, "reads": (P / "seed=2",)}
    assert links({**PRETRAIN, "elements": runs}, later)[1] == ("later", ["pretrain"], ["/r/pretrain/seed=2/DONE"])


def test_who_has_dependents(make_job):
    chain = make_chain([make_job(**PREP), make_job(**PRETRAIN)])
    assert [link.job.has_dependents for link in chain] == [True, False]


def test_a_circle_is_refused(links):
    with pytest.raises(UserInputError, match=r"wait for each other: /(a|b)\.yaml -> /"):
        links({"name": "a", "output": P, "reads": (F,)}, {"name": "b", "output": F, "reads": (P,)})


def test_two_that_write_the_same_are_refused(links):
    with pytest.raises(UserInputError, match=r"/a\.yaml and /b\.yaml both write /r/pretrain"):
        links({"name": "a", "output": P}, {"name": "b", "output": P})
