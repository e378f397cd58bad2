"""Mutated real inputs: never a traceback, a hang or a wrong count.

A kind of input is a line in KINDS: seeds to mutate, and a function that puts the mutated file into a folder and gives
the `source` section that reads it. `MATSCI_FUZZ=100000` in the environment tries so many of each.
"""

import os
import signal
import tarfile
from contextlib import contextmanager

import pytest
from crystals import ROCK_SALT, random_crystal
from mutations import mutated
from pymatgen.io.cif import CifWriter
from ranks import ROOT

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.conversion import block_content, read_block
from matsci_hpc.errors import MatsciError
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.sources.registry import open_source

LIMIT_S = 10
"""For one input; a sound one takes milliseconds."""
REAL = ROOT.parent / "shared/data/3dsc_cifs.tar.gz"
TABLE = b"""id,gap,metal,family,split
a,1.5,true,oxide,train
b,-0.25,0,"alloy, binary",test
c,,NaN,,train
"""
TARGETS = {name: {"column": name, "kind": kind} for name, kind in [("metal", "binary"), ("family", "class")]}
TARGETS["gap"] = {"column": "gap", "unit": "eV"}


class Hang(BaseException):
    """Not an Exception: what parses damaged text catches every one of those."""


@contextmanager
def at_most(limit_s):
    def stop(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cif_seeds():
    texts = [ROCK_SALT.encode()]
    texts += [
        str(CifWriter(random_crystal(number), symprec=symprec)).encode()
        for number in (4, 9)
        for symprec in (None, 0.01)
    ]
    if REAL.is_file():
        with tarfile.open(REAL) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".cif") and member.size < 5000:
                    texts.append(archive.extractfile(member).read())
                if len(texts) == 20:
                    break
    return texts


def cif_file(data, folder):
    (folder / "a.cif").write_bytes(data)
    return {"kind": "cif", "path": folder}


def table(data, folder):
    for name in "abc":
        (folder / f"{name}.cif").write_text(ROCK_SALT)
    (folder / "table.csv").write_bytes(data)
    source = {"kind": "cif", "path": folder, "properties": folder / "table.csv"}
    return source | {"targets": TARGETS, "split_column": "split"}


KINDS = {"cif": (cif_seeds, cif_file), "csv": (lambda: [TABLE], table)}


def convert(section, folder):
    """Prepare in memory; the counts must add up."""
    config = PrepConfig(source=section, out=folder / "out", neighbors={"cutoff": 5.0})
    try:
        source = open_source(config, folder / "staging")
        structures, edges, rejected = read_block(config, source, 0, len(source))
        assert len(structures) + len(rejected) == len(source)
        assert len(edges) == len(structures)
        if structures:
            shard_image(block_content(config, source, structures, edges, 0))
    except MatsciError as error:
        assert str(error).strip()  # noqa: PT017 - an error that is meant for people is as right as a result
        return "refused"
    assert all(each.reason.strip() and "\n" not in each.reason for each in rejected)
    return "rejected" if rejected else "taken"


def fuzz(kind, folder, count, first=0):
    make_seeds, place = KINDS[kind]
    seeds, outcomes = make_seeds(), {}
    for seed in range(first, first + count):
        data = mutated(seeds[seed % len(seeds)], seed)
        try:
            with at_most(LIMIT_S):
                outcome = convert(place(data, folder), folder)
        except BaseException as error:
            error.add_note(f"{kind}, seed {seed}: {data!r}")
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
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
        except MatsciError as error:
            assert str(error).startswith(str(path)), f"seed {seed}: {error}"  # noqa: PT017 - as right as a config
            outcome = "refused"
        except BaseException as error:
            error.add_note(f"yaml, seed {seed}: {data!r}")
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def number(default):
    return int(os.environ.get("MATSCI_FUZZ", default))


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_mutated_inputs(kind, tmp_path):
    outcomes = fuzz(kind, tmp_path, 200)
    assert len(outcomes) > 1, f"all inputs alike: {outcomes}"


def test_a_few_mutated_configs(tmp_path):
    assert len(fuzz_yaml(tmp_path, 150)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_inputs(kind, tmp_path):
    print(kind, fuzz(kind, tmp_path, number(4000), 10_000))


@pytest.mark.slow
def test_many_mutated_configs(tmp_path):
    print("yaml", fuzz_yaml(tmp_path, number(4000), 10_000))
