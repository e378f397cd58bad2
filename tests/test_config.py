from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matsci_hpc.config.gradient_targets import unfit_gradients
from matsci_hpc.config.loading import dump_config, load_config, read_yaml
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.sources import CifSource
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.resources import shipped
from matsci_hpc.targets import TargetSpec

GOOD = """\
source: {kind: symmetry, samples: 10}
out: datasets/x
neighbors:
  cutoff: 6.0
"""
CIF = """\
source:
  kind: cif
  path: cifs
  properties: table.csv
  targets:
    gap: {column: gap}
out: datasets/x
neighbors: {cutoff: 6.0}
"""


@pytest.fixture
def load(tmp_path):
    def load(text, *overrides):
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(PrepConfig, path, overrides)

    return load


def test_defaults_and_values(load):
    config = load(GOOD)
    assert (config.source.samples, config.source.seed, config.shard_size) == (10, 121, 4096)
    assert config.out == Path("datasets/x")


WRONG = [
    pytest.param(GOOD + "shard_sise: 3\n", r"config.yaml:5: unknown key shard_sise; did you mean shard_size\?$"),
    pytest.param(
        GOOD + "zzz: 3\n",
        r":5: unknown key zzz; known here: source, out, shard_size, neighbors, splits, split_by, job$",
    ),
    pytest.param(GOOD.replace("cutoff", "cutof"), r":4: unknown key neighbors.cutof; did you mean cutoff\?$"),
    pytest.param(GOOD.replace("samples", "sample"), r":1: unknown key source.sample; did you mean samples\?$"),
    pytest.param(CIF.replace("column", "colum"), r":6: unknown key source.targets.gap.colum; did you mean column\?$"),
    pytest.param(GOOD + "1: 2\n", r":5: 1: keys should be strings"),
    pytest.param(GOOD.replace("out: datasets/x\n", ""), r"config.yaml:1: out is missing$"),
    pytest.param(GOOD.replace("  cutoff: 6.0", "  {}"), r":3: neighbors.cutoff is missing$"),
    pytest.param(GOOD.replace("6.0", "-6.0"), r":4: neighbors.cutoff: input should be greater than 0 \(given: -6.0\)$"),
    pytest.param(GOOD.replace("6.0", ".inf"), r":4: neighbors.cutoff: input should be a finite number"),
    pytest.param(GOOD.replace("6.0", ".nan"), r":4: neighbors.cutoff: input should be a finite number"),
    pytest.param(GOOD.replace("6.0", "six"), r":4: neighbors.cutoff: input should be a valid.*\(given: 'six'\)$"),
    pytest.param(GOOD.replace("6.0", "6 A"), r":4: neighbors.cutoff: input should be a valid number"),
    pytest.param(GOOD + "shard_size: 1.5\n", r":5: shard_size: input should be a valid integer"),
    pytest.param(GOOD + "shard_size: 0\n", r":5: shard_size: input should be greater than 0"),
    pytest.param(GOOD.replace("10", "-5"), r":1: source.samples: input should be greater than 0 \(given: -5\)$"),
    pytest.param(GOOD.replace("10", "many"), r":1: source.samples: input should be a valid integer"),
    pytest.param(GOOD.replace("10", "{train: -5}"), r"source.samples.train: input should be greater than 0"),
    pytest.param(GOOD.replace("symmetry", "symetry"), r":1: source.*'symetry'.*'symmetry', 'cif'"),
    pytest.param(GOOD.replace("kind: symmetry, ", ""), r":1: source: .*kind"),
    pytest.param("source: [1]\nout: x\nneighbors: {cutoff: 1}\n", r":1: source: "),
    pytest.param(GOOD + "splits: {train: 0.5}\n", r":5: splits: the shares add up to 0.5, not 1$"),
    pytest.param(GOOD + "splits: {train: 1.5, val: -0.5}\n", r":5: splits: .*none with a negative share$"),
    pytest.param(GOOD + "splits: {train: .nan}\n", r":5: splits.train: input should be a finite number"),
    pytest.param(GOOD + "splits: {}\n", r":5: splits: give at least one split"),
    pytest.param(CIF.replace("gap:", "band-gap:"), r":5: source.targets: a target cannot be called 'band-gap'"),
    pytest.param(CIF.replace("gap:", "atoms:"), r"a target cannot be called 'atoms'"),
    pytest.param(CIF.replace("gap}", "gap, kind: multilabel}"), r":6: source.targets.gap.kind: a column of a table"),
    pytest.param(
        CIF.replace("    gap: {column: gap}\n", "".join(f"    g{n}: {{column: g}}\n" for n in range(65))),
        r"source.targets: dictionary should have at most 64 items",
        id="65 targets",
    ),
    pytest.param(GOOD + "out: twice\n", r'config.yaml:5: not valid YAML: found duplicate key "out"'),
    pytest.param(GOOD + "---\nout: x\n", r":5: not valid YAML: but found another document$"),
    pytest.param(GOOD + "x: [1, 2\n", r"config.yaml:6: not valid YAML"),
    pytest.param(GOOD + "\ty: 1\n", r"config.yaml:\d: not valid YAML"),
    pytest.param(GOOD + "x: 2020-13-45\n", r"config.yaml: not valid YAML: month must be in 1..12$"),
    pytest.param(GOOD + "x: !!int one\n", r"config.yaml: not valid YAML"),
    pytest.param(GOOD + "x: \0\n", r"config.yaml: not valid YAML"),
    pytest.param("x: " + "[" * 1000, r"config.yaml: not a config: nested too deeply$", id="deep"),
    pytest.param("", r"config.yaml: a config is a mapping of keys to values$"),
    pytest.param("- a\n- b\n", r"a config is a mapping"),
    pytest.param("just words\n", r"a config is a mapping"),
    pytest.param("out: é\n".encode("latin-1"), r"config.yaml: cannot read the config: not UTF-8 text$"),
    pytest.param(b"\x7fELF\0\1\2\xff", r"config.yaml: cannot read the config: not UTF-8 text$"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_faults_of_the_file(load, text, message):
    with pytest.raises(UserInputError, match=message) as caught:
        load(text)
    assert "\n" not in str(caught.value)


def test_every_fault_gets_its_own_line(load):
    with pytest.raises(UserInputError) as caught:
        load(GOOD.replace("6.0", "-1").replace("10", "0") + "shard_sise: 2\n")
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["1", "4", "5"]


def test_files_that_cannot_be_read(tmp_path):
    for path, reason in [(tmp_path / "missing.yaml", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(UserInputError, match=f"cannot read the config: {reason}"):
            load_config(PrepConfig, path)


def test_overrides_win(load):
    config = load(GOOD, "neighbors.cutoff=1e-4", "source.samples={train: 3}", "source.samples.val=4", "shard_size = 7")
    assert config.neighbors.cutoff == 1e-4
    assert config.source.samples == {"train": 3, "val": 4}
    assert config.shard_size == 7
    assert load(GOOD, "shard_size=1", "shard_size=2").shard_size == 2


def test_an_override_makes_the_sections_it_needs(load):
    assert load(GOOD, "splits.train=1").splits == {"train": 1.0}
    assert load(CIF, "source.targets.metal.column=m", "source.targets.metal.kind=binary").source.targets["metal"]


BAD_OVERRIDES = [
    ("neighbors.cutoff=-1", r"^override: neighbors.cutoff: input should be greater than 0 \(given: -1\)$"),
    ("neighbors.cutof=3", r"^override: unknown key neighbors.cutof; did you mean cutoff\?$"),
    ("neighbors=3", r"^override: neighbors: "),
    ("out=", r"^override: out: "),
    ("neighbors.cutoff", r"^override 'neighbors.cutoff': expected key.sub=value$"),
    ("=3", r"^override '=3': expected key.sub=value$"),
    (".x=3", r"^override: unknown key"),
    ("shard_size=[1", r"^override 'shard_size=\[1': the value is not valid YAML$"),
    ("shard_size={a: 1, a: 2}", r"the value is not valid YAML$"),
    ("shard_size=2020-13-45", r"the value is not valid YAML$"),
    ("shard_size=" + "[" * 1000, r"the value is not valid YAML$"),
]


@pytest.mark.parametrize(("override", "message"), BAD_OVERRIDES, ids=[text[:30] for text, _ in BAD_OVERRIDES])
def test_bad_overrides(load, override, message):
    with pytest.raises(UserInputError, match=message) as caught:
        load(GOOD, override)
    assert "\n" not in str(caught.value)


def test_a_fault_under_a_merge_key_is_not_blamed_on_an_override(load):
    text = GOOD.replace("neighbors:\n  cutoff: 6.0", "splits: &s {train: 1}\nneighbors: {<<: *s}")
    with pytest.raises(UserInputError, match=r"config.yaml:4: unknown key neighbors.train"):
        load(text)


def test_every_missing_key_is_named(load):
    with pytest.raises(UserInputError) as caught:
        load("source: {kind: symmetry, samples: 1}\n")
    assert [line.rpartition(": ")[2] for line in str(caught.value).splitlines()] == [
        "out is missing",
        "neighbors is missing",
    ]


def test_a_section_that_only_an_override_made(load):
    with pytest.raises(UserInputError, match=r"^override: splits: the shares add up to 0.5, not 1$"):
        load(GOOD, "splits.train=0.5")


def test_numbers_of_yaml_1_2(load):
    assert load(GOOD.replace("6.0", "1e-4")).neighbors.cutoff == 1e-4
    assert load(GOOD + "shard_size: 1e3\n").shard_size == 1000
    assert load(CIF.replace("column: gap", "column: no")).source.targets["gap"].column == "no"


words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], include_characters="\t\n"), max_size=90)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=words, unit=st.none() | words, share=st.floats(0, 1), cutoff=st.floats(1e-300, 1e300))
def test_dump_and_reload(tmp_path, column, unit, share, cutoff):
    config = PrepConfig(
        source=CifSource(kind="cif", path="a b", targets={"gap": {"column": column, "unit": unit}}, id_column=column),
        out="1e3",
        neighbors={"cutoff": cutoff},
        splits={"no": share, "1": 1 - share},
    )
    path = tmp_path / "again.yaml"
    path.write_bytes(dump_config(config).encode())
    assert load_config(PrepConfig, path) == config


PLACES = {"data_prep": "*.yaml", "job_templates/runs": "*.yaml", "scaling_studies": "symmetry_learning/*.yaml"}
RECIPES = [path for folder, names in PLACES.items() for path in sorted(shipped(folder).glob(names))]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_shipped_configs_load(path):
    model = TrainConfig if "run_dir" in read_yaml(path) else PrepConfig
    assert load_config(model, path, []) == load_config(model, path)


TRAIN = """\
run_dir: runs/x
data: {train: [a, b]}
steps: 10
batch: {graphs: 8}
"""


ENDLESS = "{source: {kind: symmetry}, neighbors: {cutoff: 2.0}}"


@pytest.fixture
def load_train(tmp_path):
    def load_train(*overrides):
        path = tmp_path / "train.yaml"
        path.write_text(TRAIN)
        return load_config(TrainConfig, path, overrides)

    return load_train


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batch.cost=1e6"], "batch: give either graphs or cost, not both"),
        (["batch={}"], "batch: give either graphs or cost"),
        (["batch.group_above=100"], "batch: group_above needs grouping: similar, not auto"),
        (["batch.oversized={policy: skip}"], "batch.oversized.cost is missing"),
        (
            ["batch.oversized={cost: 5, policy: drop}"],
            "batch.oversized.policy: input should be 'error', 'keep' or 'skip'",
        ),
        (["data.train=[{source: {kind: symmetry}}]"], "data.train.0: a source needs neighbors: {cutoff: ...}"),
        (["data.train=[{path: a, neighbors: {cutoff: 2}}]"], "data.train.0: neighbors: the edges of a data set in"),
        ([f"data.train=[{ENDLESS}, b]"], "data: an endless source trains alone"),
        ([f"data.train=[{ENDLESS[:-1]}, repeat: 2}}]"], "data.train.0: an endless source has no weight or repeat"),
        ([f"data.train=[{ENDLESS}]", "data.temperature=2"], "data: an endless source is no mixture"),
        ([f"data.train=[{ENDLESS}]", "data.held_out=train", "data.split=val"], "data: held_out: split 'train' of the"),
        ([f"data.train=[{ENDLESS}]", "batch.oversized={cost: 5}"], "batch.oversized: an endless source is never"),
        (
            ["data.train=[{source: {kind: symmetry, samples: {a: endless, b: endless}}, neighbors: {cutoff: 2}}]"],
            "data.train.0.source.samples: a and b cannot both be endless",
        ),
        (["data.train=[{path: a, weight: 2}, b]"], "data: b has no weight; give one to every data set or to none"),
        (["data.train=[{path: a, weight: 2}, {path: b, repeat: 2}]"], "data: a has a weight and b a repeat"),
        (
            ["data.train=[{path: a, repeat: 2}, b]", "data.temperature=2"],
            "data: temperature decides .* leave out repeat",
        ),
        (
            ["data.train=[{path: a, repeat: 0}]"],
            r"data.train.0.repeat: input should be greater than or equal to 0.000001 \(given: 0\)",
        ),
        (["data.train=[{path: a, wieght: 1}]"], r"unknown key data.train.0.wieght; did you mean weight\?"),
        (["data.train=[{weight: 1}]"], "data.train.0: give either path or source"),
        (["data.train=[3]"], r"data.train.0: input should be a path \(given: 3\)"),
        (["data.train=[]"], "data.train: list should have at least 1 item"),
        (["balance.speeds=[1, -1]"], "balance.speeds.1: input should be greater than 0"),
        (["model={name: schnt}"], r"model.name: 'schnt' is none of 'egnn', 'schnet', 'painn', 'megnet'"),
        (["model={name: painn, radail: 3}"], r"unknown key model.radail; did you mean radial\?"),
        (
            ["model={name: schnet, message_width: 3}"],
            r"unknown key model.message_width; did you mean embedding_width\?",
        ),
        (["model={mesage_width: 3}"], r"unknown key model.mesage_width; did you mean message_width\?"),
        (["model={name: megnet, radial_basis: 1}"], "unknown key model.radial_basis; known here"),
        (["model.radial_basis.cuont=3"], r"unknown key model.radial_basis.cuont; did you mean count\?"),
        (["model={name: painn, width: 0}"], r"model.width: input should be greater than 0 \(given: 0\)"),
        (["model=3"], "model: "),
        (["batch={cost: 1e6}", "schedule.scaling=sqrt"], "schedule.scaling: sqrt needs batch.graphs"),
        (["targets={f: {gradient_of: e}, e: {}}"], "targets.f.gradient_of: e needs model.envelope: true"),
        (
            ["targets={f: {gradient_of: e}, e: {}}", "model.envelope=true", "optimize=ipex"],
            "targets.f.gradient_of: e needs optimize: none",
        ),
        (["targets={f: {gradient_of: e}}"], "targets.f.gradient_of: e is not among the targets; add e: {} to them"),
        (["targets={f: {gradient_of: f}}"], "targets.f.gradient_of: f is itself a gradient; name an energy"),
    ],
)
def test_contradictions_of_batches_and_mixtures_are_one_line(load_train, overrides, message):
    with pytest.raises(UserInputError, match=rf"(^override|train.yaml:\d): {message}") as caught:
        load_train(*overrides)
    assert "\n" not in str(caught.value)


def test_gradients_of_a_config(load_train):
    targets = "targets={f: {gradient_of: e}, e: {}, g: {}}"
    assert load_train(targets, "model.envelope=true").gradients == {"f": "e"}
    assert load_train(targets, "model={target: my.Net, name: module}").gradients == {"f": "e"}  # answers for itself
    assert load_train().gradients == {}


@pytest.mark.parametrize(
    ("unit", "of", "fits"),
    [
        ("eV/angstrom", "eV", True),
        ("eV / Å", "eV", True),
        ("kcal/mol/A", "kcal/mol", True),
        ("eV/angstrom", "eV/atom", False),
        ("meV/angstrom", "eV", False),
        ("eV/nm", "eV", False),
        ("eV", "eV", False),
    ],
)
def test_units_of_gradients(unit, of, fits):
    specs = {
        "f": TargetSpec(kind="regression", unit=unit, shape=(3,), per_atom=True),
        "e": TargetSpec(kind="regression", unit=of),
    }
    faults = list(unfit_gradients({"f": "e"}, specs))
    assert bool(faults) != fits
    assert all(f"e is in {of}, so its gradient is in {of}/angstrom, and f is in {unit}" in each for each in faults)


def test_data_sets_in_short_and_long_form(load_train, tmp_path):
    config = load_train("data.train=[a, {path: b, repeat: 2.5}]")
    assert config.data.folders == [Path("a"), Path("b")]
    assert [each.repeat for each in config.data.entries] == [None, 2.5]
    saved = tmp_path / "saved.yaml"
    saved.write_text(dump_config(config))
    assert load_config(TrainConfig, saved) == config
    assert load_train().model_dump(mode="json")["data"]["train"] == ["a", "b"]
