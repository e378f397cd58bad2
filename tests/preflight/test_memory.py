import os

import pytest

from matsci_hpc.preflight.memory import expected_bytes, least_bytes, memory_findings, node_bytes


def look(trial, job, site, staged=0):
    (finding,) = memory_findings(trial, job, site, staged)
    return finding


def test_least_is_never_above_what_is_expected(trial):
    found = trial(work_bytes=1e9)
    assert least_bytes(found) == found.program_bytes + found.fixed_bytes + 1e9
    assert expected_bytes(found) > least_bytes(found) + 1e9 / 2


def test_what_was_measured_counts_where_it_is_more(trial):
    assert expected_bytes(trial(peak_bytes=10**11)) >= 10**11


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_levels(ranks, trial, job, site):
    found = trial()
    least, expected = (int(function(found) * ranks) >> 20 for function in (least_bytes, expected_bytes))
    asked = job(ranks_per_node=ranks, memory=f"{least // 2}M")
    assert look(found, asked, site()).level == "error"
    assert look(found, job(ranks_per_node=ranks, memory=f"{(least + expected) // 2}M"), site()).level == "warning"
    assert look(found, job(ranks_per_node=ranks, memory=f"{expected + 2}M"), site()).level == "ok"
    assert look(found, job(ranks_per_node=ranks, memory=f"{expected + 2}M"), site(), staged=10**12).level == "error"


def test_memory_of_a_node(job, site):
    asked = job(memory="2G").components[0]
    assert node_bytes(asked, site(memory_per_node="9G")) == 2 << 30
    assert node_bytes(job(memory="0").components[0], site(memory_per_node="9G")) == 9 << 30
    assert node_bytes(job().components[0], site()) is None
    assert node_bytes(job().components[0], site(scheduler="local")) == os.sysconf("SC_PHYS_PAGES") * 4096


def test_what_to_ask_for_where_nobody_knows(trial, job, site):
    found = trial()
    finding = look(found, job(ranks_per_node=8), site())
    assert finding.level == "note"
    asked = finding.advice.split()[2]
    assert look(found, job(ranks_per_node=8, memory=asked), site()).level == "ok"
