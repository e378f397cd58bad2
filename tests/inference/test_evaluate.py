"""`matsci-hpc evaluate`: metrics on splits, and predictions of files."""

import csv
import json
import re
import shutil
import tarfile

import pytest
import torch
from click.testing import CliRunner
from crystals import BROKEN, random_crystal
from ranks import run_ranks

from matsci_hpc import load_model
from matsci_hpc.cli import cli
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.folder_lock import FolderLock
from matsci_hpc.inference import predicting
from matsci_hpc.inference.inputs import source_config
from matsci_hpc.inference.predicting import predict_file, work_folder
from matsci_hpc.parallel.mpi import World

pytestmark = pytest.mark.mpi


def evaluate(ranks, *arguments):
    return run_ranks(ranks, "evaluate", *arguments, "--device", "cpu")


def assert_done(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def at_once(monkeypatch):
    """`matsci-hpc evaluate` in this process, by one rank of one thread; what it prints."""
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*arguments):
        words = ["evaluate", *map(str, arguments), "--device", "cpu"]
        result = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize("ranks", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_metrics_are_those_that_the_run_found(run, data, tmp_path, at_once, ranks):
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    expected = min(lines, key=lambda line: line["loss"])
    words = (run, "--data", data, "--out", tmp_path / "val.json")
    printed = at_once(*words) if ranks == 1 else evaluate(ranks, *words).stdout
    found = json.loads((tmp_path / "val.json").read_text())
    assert found["step"] == expected["step"]
    assert found["samples"] == expected["samples"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    for target, metrics in expected["metrics"].items():
        for name, value in metrics.items():
            wanted = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
            assert found["metrics"][target][name] == wanted, (target, name)
    assert found["confusion"].keys() == {"family", "metal"}
    assert found["confusion"] == expected["confusion"]
    family = found["confusion"]["family"]
    by_class = expected["per_class"]["family"]
    assert family["classes"] == list(by_class)
    assert [sum(row) for row in family["counts"]] == [each["count"] for each in by_class.values()]
    text = (tmp_path / "val.json").read_text()
    for row in family["counts"]:  # each on a line
        assert f"    {json.dumps(row)}" in text.splitlines() or f"    {json.dumps(row)}," in text.splitlines()
    gap = expected["metrics"]["gap"]
    assert re.search(rf"\n  gap +{gap['samples']} .* {gap['mae']:.4g} .* eV ", printed)


@pytest.fixture(scope="module")
def many(inputs, tmp_path_factory):
    """240 CIF files and the broken ones: five blocks."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(4):
        for path in inputs.rglob("crystal-*.cif"):
            shutil.copy(path, folder / f"{path.stem}-{number}.cif")
    shutil.copytree(inputs / "broken", folder / "broken")
    return folder


@pytest.mark.parametrize("several", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_predictions_have_the_same_bytes_for_any_number_of_ranks(run, many, tmp_path, at_once, several):
    made = {}
    for ranks in (1, several):
        out = tmp_path / f"on{ranks}.csv"
        words = (run, "--structures", many, "--out", out)
        printed = at_once(*words) if ranks == 1 else assert_done(evaluate(ranks, *words)).stdout
        made[ranks] = out.read_bytes(), out.with_suffix(".quarantine.jsonl").read_bytes()
        assert f"240 predictions of family, gap, metal by {ranks} rank" in printed
        assert not work_folder(out).exists()
    assert made[1] == made[several]
    quarantine = [json.loads(line) for line in made[1][1].decode().splitlines()]
    assert {each["source"] for each in quarantine} == {f"broken/{name}" for name in BROKEN}
    for each in quarantine:
        assert BROKEN[each["source"].removeprefix("broken/")][1] in each["reason"]
    rows = rows_of(tmp_path / "on1.csv")
    assert sorted(row["id"] for row in rows) == sorted(path.stem for path in many.glob("*.cif"))
    model = load_model(run, device="cpu")
    for row in rows[:5]:
        (expected,) = model.predict(random_crystal(int(row["id"].split("-")[1])))
        assert float(row["gap"]) == pytest.approx(expected["gap"], abs=1e-4)  # CIF rounds positions
        assert row["family"] == expected["family"]
        assert float(row["metal.probability"]) == pytest.approx(expected["metal.probability"], abs=1e-4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same three crystals in every kind of file."""
    import ase.io
    from ase.db import connect
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.vasp import Poscar

    folder = tmp_path_factory.mktemp("kinds")
    crystals = [random_crystal(number) for number in (1, 2, 4)]
    atoms = [AseAtomsAdaptor.get_atoms(each) for each in crystals]
    ase.io.write(folder / "some.extxyz", atoms)
    with connect(folder / "some.db") as database:
        for each in atoms:
            database.write(each)
    (folder / "some.json").write_text(json.dumps([each.as_dict() for each in crystals]))
    texts = [each.to(fmt="cif") for each in crystals]
    with (folder / "some.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name", "text"], *zip("abc", texts, strict=True)])
    (folder / "one.cif").write_text(texts[0])
    (folder / "POSCAR").write_text(Poscar(crystals[0]).get_str())
    (folder / "tree").mkdir()
    for name, crystal in zip("abc", crystals, strict=True):
        (folder / "tree" / f"{name}.vasp").write_text(Poscar(crystal).get_str())
    with tarfile.open(folder / "some.tar.gz", "w:gz") as archive:
        archive.add(folder / "tree", "tree")
    return folder


@pytest.mark.parametrize(
    ("name", "told", "ids"),
    [
        ("some.extxyz", (), ["some.extxyz#0", "some.extxyz#1", "some.extxyz#2"]),
        ("some.db", (), ["some.db#1", "some.db#2", "some.db#3"]),
        ("some.json", (), ["some.json#0", "some.json#1", "some.json#2"]),
        ("some.csv", ("structure_column=text", "id_column=name"), ["a", "b", "c"]),
        ("tree", (), ["a", "b", "c"]),
        ("some.tar.gz", (), ["a", "b", "c"]),
        ("one.cif", (), ["one"]),
        ("POSCAR", (), ["POSCAR"]),
    ],
)
def test_every_kind_of_file_is_known_by_its_name(run, files, tmp_path, name, told, ids):
    model = load_model(run, device="cpu")
    out = tmp_path / "out.jsonl"
    config = source_config(files / name, told, model.cutoff, work_folder(out))
    done = predict_file(config, model, out, World())
    assert (done.inputs, done.rejected) == (len(ids), 0)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["id"] for each in found] == ids
    expected = [model.predict(random_crystal(number))[0]["gap"] for number in (1, 2, 4)][: len(ids)]
    assert [each["gap"] for each in found] == pytest.approx(expected, abs=1e-4)
    assert done.quarantine.read_text() == ""


def test_predictions_stand_in_extended_xyz_with_their_structures(run, files, tmp_path):
    from ase.io.extxyz import read_xyz

    model = load_model(run, device="cpu")
    out = tmp_path / "out.xyz"
    config = source_config(files / "some.extxyz", (), model.cutoff, work_folder(out))
    predict_file(config, model, out, World())
    with out.open() as file:
        frames = list(read_xyz(file, slice(None)))
    for frame, number in zip(frames, (1, 2, 4), strict=True):
        crystal = random_crystal(number)
        assert frame.get_chemical_symbols() == [site.specie.symbol for site in crystal]
        assert frame.cell.array == pytest.approx(crystal.lattice.matrix, abs=1e-5)
        (expected,) = model.predict(crystal)
        assert frame.info["gap"] == pytest.approx(expected["gap"], abs=1e-4)
        assert frame.info["family"] == expected["family"]


def test_a_data_set_or_a_config_of_preparation_can_be_read_too(run, data, tmp_path, at_once):
    at_once(run, "--structures", data, "--split", "val", "--out", tmp_path / "val.csv")
    at_once(run, "--structures", data.parent / "prep.yaml", "--out", tmp_path / "all.csv")
    some, everything = rows_of(tmp_path / "val.csv"), rows_of(tmp_path / "all.csv")
    assert 0 < len(some) < len(everything) == 60
    by_id = {row["id"]: row for row in everything}
    for row in some:
        assert float(row["gap"]) == pytest.approx(float(by_id[row["id"]]["gap"]), abs=1e-5)


def test_finished_blocks_outlive_a_failure(run, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "BLOCK", 16)
    model = load_model(run, device="cpu")
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    config = source_config(inputs, ["kind=cif"], model.cutoff, work_folder(out))
    predict_file(config, model, whole, World())
    blocks = []
    predict = model.predict_graphs

    def failing(graphs):
        blocks.append(len(graphs))
        if len(blocks) == 3:
            raise MachineError("the disk is gone")
        return predict(graphs)

    monkeypatch.setattr(model, "predict_graphs", failing)
    with pytest.raises(MachineError, match="the disk is gone"):
        predict_file(config, model, out, World())
    assert not out.exists()
    first = len(blocks)
    predict_file(config, model, out, World())
    assert out.read_bytes() == whole.read_bytes()
    # 84 inputs are six blocks, one of which holds broken files alone; two of the others were finished.
    assert (first, len(blocks)) == (3, 3 + 5 - 2)


def test_blocks_of_another_input_are_thrown_away(run, files, tmp_path):
    model = load_model(run, device="cpu")
    out = tmp_path / "out.csv"
    work_folder(out).mkdir()
    for name in ("block-000000.text", "block-000000.json"):
        (work_folder(out) / name).write_text("{}")
    config = source_config(files / "tree", (), model.cutoff, work_folder(out))
    predict_file(config, model, out, World())
    assert [row["id"] for row in rows_of(out)] == ["a", "b", "c"]


def test_elements_that_the_model_never_saw_are_told(run, tmp_path):
    import ase.io
    from ase.build import bulk

    ase.io.write(tmp_path / "new.extxyz", [bulk("Cu"), bulk("Kr", a=5.7), bulk("Kr", a=5.8)])
    words = ["evaluate", run, "--structures", tmp_path / "new.extxyz", "--out", tmp_path / "new.csv"]
    result = CliRunner().invoke(cli, list(map(str, words)), catch_exceptions=False)
    said = "elements that the model never saw in training, so their predictions mean little: Kr in 2\n"
    assert result.stderr.endswith(said)


def test_a_file_that_another_job_writes_is_left_alone(run, files, tmp_path):
    model = load_model(run, device="cpu")
    out = tmp_path / "out.csv"
    config = source_config(files / "tree", (), model.cutoff, work_folder(out))
    work_folder(out).mkdir()
    lock = FolderLock(work_folder(out), "")
    lock.acquire()
    with pytest.raises(UserInputError, match=r"out\.csv: process \d+ on .* is writing it"):
        predict_file(config, model, out, World())
    assert (work_folder(out) / ".lock").exists()
    lock.release()
    predict_file(config, model, out, World())
    assert len(rows_of(out)) == 3


REFUSED = [
    pytest.param(["--out", "x.csv"], "give either --data", id="nothing to do"),
    pytest.param(["--structures", "tree"], "--structures needs --out", id="no output"),
    pytest.param(["--structures", "tree", "--out", "x.dat"], "predictions are written as .csv", id="format"),
    pytest.param(["--structures", "nowhere", "--out", "x.csv"], "nowhere: no such file", id="no input"),
    pytest.param(["--structures", ".", "--out", "x.csv"], "files of several kinds", id="several kinds"),
    pytest.param(["--structures", "tree", "--out", "no/x.csv"], "x.csv: cannot be written", id="no folder"),
    pytest.param(["--structures", "tree", "--out", "x.csv", "kin=cif"], "kin: unknown key", id="unknown key"),
    pytest.param(["--structures", "tree", "--out", "x.csv", "kind=pdb"], "kind:", id="unknown kind"),
    pytest.param(["--structures", "tree", "--split", "val", "--out", "x.csv"], "has no splits", id="split"),
    pytest.param(["--data", "tree"], "tree: no data set here", id="no data set"),
    pytest.param(["--data", "tree", "kind=cif"], "KEY=VALUE is for --structures", id="key with data"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_mistakes_are_one_line(run, files, monkeypatch, arguments, said):
    monkeypatch.chdir(files)
    result = CliRunner().invoke(cli, ["evaluate", str(run), *arguments])
    assert isinstance(result.exception, UserInputError), result.output
    assert said in str(result.exception)
    assert not list(files.glob(".*.work"))


def test_an_input_of_which_nothing_can_be_used_says_why(run, tmp_path):
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs/empty.cif").write_text("")
    result = evaluate(2, run, "--structures", tmp_path / "cifs", "--out", tmp_path / "x.csv")
    assert result.returncode == 2
    assert "none of the 1 structures can be used" in result.stderr
    assert "Traceback" not in result.stderr
    assert "not a readable CIF" in (tmp_path / "x.quarantine.jsonl").read_text()
    assert not (tmp_path / "x.csv").exists()
