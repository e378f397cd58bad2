import os
import subprocess
import sys

import pytest
from ranks import environment

from matsci_hpc.launch.environment import SETTINGS, rank_environment
from matsci_hpc.launch.local import placement

# Cores of a thread that is started after OpenMP has worked, as those of gloo and the loader are.
LATER_THREAD = """
import os, threading, torch
torch.ones(4_000_000).sum()
seen = []
thread = threading.Thread(target=lambda: seen.append(len(os.sched_getaffinity(0))))
thread.start()
thread.join()
print(seen[0])
"""


def test_threads_of_torch_follow_those_of_the_site():
    # torch lets MKL's variable win over OpenMP's.
    assert rank_environment(14)["MKL_NUM_THREADS"] == "14"
    chosen = rank_environment(14, {"OMP_NUM_THREADS": "13"})
    assert "OMP_NUM_THREADS" not in chosen
    assert chosen["MKL_NUM_THREADS"] == "13"
    assert "MKL_NUM_THREADS" not in rank_environment(14, {"MKL_NUM_THREADS": "2"})
    assert not any(name.endswith("_NUM_THREADS") for name in rank_environment())


@pytest.mark.parametrize("name", ["OMP_PLACES", "OMP_PROC_BIND", "KMP_AFFINITY", "GOMP_CPU_AFFINITY"])
def test_who_places_threads_is_not_contradicted(name):
    assert rank_environment()["OMP_PROC_BIND"] == "false"
    assert "OMP_PROC_BIND" not in rank_environment(1, {name: "cores"})


def test_every_setting_says_what_it_saves():
    assert all(each.without and not each.without.endswith(".") for each in SETTINGS)
    assert len({each.name for each in SETTINGS}) == len(SETTINGS)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_later_threads_have_all_cores_of_the_rank():
    cores = len(os.sched_getaffinity(0))

    def seen(**variables):
        words = [sys.executable, "-c", LATER_THREAD]
        around = environment(OMP_NUM_THREADS="2") | {"OMP_PROC_BIND": "true"} | variables
        return int(subprocess.run(words, env=around, capture_output=True, text=True, check=True).stdout)

    assert seen(**rank_environment(2)) == cores
    assert seen() == 1  # what a shell with OMP_PROC_BIND=true would do


def test_ranks_are_bound_to_memory_domains_where_there_are_several():
    two = {0: frozenset({0, 1}), 1: frozenset({2, 3})}
    assert placement(2, two, {0, 1, 2, 3}) == ["--map-by", "ppr:1:numa:OVERSUBSCRIBE", "--bind-to", "numa"]
    assert placement(3, two, {0, 1, 2, 3}) == ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
    assert placement(2, {}, {0, 1}) == ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
