"""The pages say what the program says."""

import ast
import re
from difflib import SequenceMatcher
from functools import cache

import pytest
from ranks import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
FOREIGN = {
    # Said by Slurm, the kernel, HDF5 or the C library.
    "Requested node configuration is not available",
    "waiting: Dependency",
    "waiting: BeginTime",
    "failed: JobLaunchFailure",
    "waiting: PartitionNodeLimit",
    "waiting: AssocGrpCPUMinutesLimit",
    "PartitionTimeLimit",
    "Grp",
    "Unable to lock file",
    "Disk quota exceeded",
    "No space left on device",
    "oom_kill",
    "Out Of Memory",
    "CANCELLED ... DUE TO TIME LIMIT",
    "DUE TO NODE FAILURE",
    "DUE TO PREEMPTION",
}


@cache
def words_of_the_program():
    """Every piece of text in the sources and templates, without what is filled in."""
    pieces = set()
    for path in (ROOT / "matsci_hpc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                pieces.add(" ".join(node.value.split()))
    for path in (ROOT / "job_templates").rglob("*.j2"):
        pieces |= {line.strip() for line in path.read_text(encoding="utf-8").splitlines()}
    return pieces


def complaints():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    return {text for cell in cells for text in re.findall(r"`([^`]+)`", cell)} - {"matsci-hpc jobs"}


@pytest.mark.parametrize("text", sorted(complaints() - FOREIGN))
def test_what_the_page_on_trouble_quotes_is_said_somewhere(text):
    def shared(piece):
        match = SequenceMatcher(None, text, piece, autojunk=False).find_longest_match()
        return match.size

    candidates = [piece for piece in words_of_the_program() if len(piece) >= len(text) // 2]
    assert max(shared(piece) for piece in candidates) >= 0.6 * len(text)


def test_foreign_words_are_on_the_page():
    assert complaints() >= FOREIGN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_pages_exist(page):
    from matsci_hpc.cli import cli

    text = page.read_text(encoding="utf-8")
    for command in set(re.findall(r"matsci-hpc ([a-z]+)(?= )", text)):
        assert command in cli.commands, command
