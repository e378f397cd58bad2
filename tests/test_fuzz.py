"""Mutated real inputs: never a traceback, a hang or a wrong count.

Kinds of input and their seeds are in `helpers/fuzz_kinds.py`. The slow tests try 2,500 of each, some 27,000 in all;
`MATSCI_FUZZ=100000` in the environment tries so many of each, `MATSCI_FUZZ_FIRST=1000000` begins with that number: each
number is another damage.
"""

import faulthandler
import os
import pickle
import resource
import signal
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from fuzz_kinds import KINDS
from mutations import mutated
from ranks import ROOT

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.conversion import block_content, read_block
from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.sources.registry import open_source

LIMIT_S = 30
"""For one input; a sound one takes milliseconds, a list whose bracket was lost can be 15,000 inputs."""
MORE_MEMORY_KB = 1 << 20
"""What all inputs together may add to the largest use of memory; each is a few kilobytes."""


class Hang(BaseException):
    """Not an Exception: what parses damaged text catches every one of those."""


@contextmanager
def at_most(limit_s):
    def stop(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    # Where a library written in C goes round and round, Python handles no signal: this shows where, and ends all.
    faulthandler.dump_traceback_later(3 * limit_s, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def convert(section, folder, inputs):
    """Prepare in memory; the counts must add up, and parts of the input give what the whole gives."""
    config = PrepConfig(source=section, out=folder / "out", neighbors={"cutoff": 5.0})
    try:
        source = open_source(config, folder / "staging")
    except UserInputError as error:
        assert str(error).strip()  # noqa: PT017 - an error that is meant for people is as right as a result
        return "refused"
    count = len(source)
    assert inputs in {None, count}, f"{count} inputs are listed, and there are {inputs}"
    structures, edges, rejected = read_block(config, source, 0, count)
    assert len(structures) + len(rejected) == count
    assert len(edges) == len(structures)
    assert all(np.isfinite(each.position).all() and np.isfinite(each.cell).all() for each in structures)
    assert all(each.reason.strip() and "\n" not in each.reason for each in rejected)
    if count > 1:
        elsewhere = pickle.loads(pickle.dumps(source))  # noqa: S301 - as ranks get it
        parts = [read_block(config, elsewhere, *part) for part in ((count // 2, count), (0, count // 2))]
        assert [each.id for part in parts[::-1] for each in part[0]] == [each.id for each in structures]
        assert [each for part in parts[::-1] for each in part[2]] == rejected
    if structures:
        shard_image(block_content(config, source, structures, edges, 0))
    return "rejected" if rejected else "taken"


def fuzz(kind, folder, count, first=0):
    seeds, outcomes = KINDS[kind].seeds(), {}
    sound = [convert(KINDS[kind].place(data, folder), folder, KINDS[kind].inputs) for data in seeds]
    assert "refused" not in sound
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(first, first + count):
        data = mutated(seeds[seed % len(seeds)], seed)
        try:
            with at_most(LIMIT_S), warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                outcome = convert(KINDS[kind].place(data, folder), folder, KINDS[kind].inputs)
                assert not said, [f"{each.filename}:{each.lineno}: {each.message}" for each in said]
        except BaseException as error:
            error.add_note(f"{kind}, seed {seed}: {data[:3000]!r}")
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < MORE_MEMORY_KB
    return outcomes


def fuzz_yaml(folder, count, first=0):
    paths = sorted([*(ROOT / "data_prep").glob("*.yaml"), *(ROOT / "job_templates/runs").glob("*.yaml")])
    seeds, outcomes = [path.read_bytes() for path in paths], {}
    path = folder / "config.yaml"
    for seed in range(first, first + count):
        data = mutated(seeds[seed % len(seeds)], seed)
        path.write_bytes(data)
        model = TrainConfig if b"run_dir" in seeds[seed % len(seeds)] else PrepConfig
        try:
            with at_most(LIMIT_S):
                load_config(model, path)
            outcome = "taken"
        except UserInputError as error:
            assert str(error).startswith(str(path)), f"seed {seed}: {error}"  # noqa: PT017 - as right as a config
            outcome = "refused"
        except BaseException as error:
            error.add_note(f"yaml, seed {seed}: {data!r}")
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def wanted(default):
    """How many of each kind, and the number of the first."""
    return int(os.environ.get("MATSCI_FUZZ", default)), int(os.environ.get("MATSCI_FUZZ_FIRST", "10000"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_mutated_inputs(kind, tmp_path):
    outcomes = fuzz(kind, tmp_path, 200)
    assert len(outcomes) > 1, f"all inputs alike: {outcomes}"


def test_a_few_mutated_configs(tmp_path):
    assert len(fuzz_yaml(tmp_path, 150)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_inputs(kind, tmp_path):
    print(kind, fuzz(kind, tmp_path, *wanted(2_500)))


@pytest.mark.slow
def test_many_mutated_configs(tmp_path):
    print("yaml", fuzz_yaml(tmp_path, *wanted(2_500)))
