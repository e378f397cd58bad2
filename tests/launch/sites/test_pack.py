import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

import matsci_hpc
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.check import findings
from matsci_hpc.launch.sites.find import site_names
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.launch.sites.pack import pack

SOURCE = Path(matsci_hpc.__file__).parent.parent
PACKAGES = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def run(python, *words, **options):
    # Elsewhere, and without PYTHONPATH: only what the environment itself finds counts.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        [python, *words], cwd="/", env=environment, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """An environment of its own that finds matsci-hpc in its source tree, packed; afterwards it is moved away."""
    folder = tmp_path_factory.mktemp("pack")
    venv.EnvBuilder(symlinks=True).create(folder / "env")
    site_packages = folder / "env" / PACKAGES
    # What matsci-hpc needs stays in the environment of the tests: a gigabyte is not copied for this.
    needed = "\n".join(path for path in sys.path if path.endswith("site-packages"))
    (site_packages / "needed.pth").write_text(needed + "\n")
    (site_packages / "_editable_matsci_hpc.pth").write_text(f"{SOURCE}\n")
    (site_packages / "odd name é.txt").write_text("kept")
    archive = folder / "my env.tar"
    answer = run(folder / "env/bin/python", "-m", "matsci_hpc", "site", "pack", archive)
    assert answer.returncode == 0, answer.stderr
    (folder / "env").rename(folder / "gone")
    return archive, answer.stdout


def test_unpacked_elsewhere_it_runs_without_the_source_tree(packed, tmp_path):
    archive, _ = packed
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path], check=True)
    python = tmp_path / "bin/python"
    where = run(python, "-c", "import matsci_hpc; print(matsci_hpc.__file__)").stdout.strip()
    assert where == f"{tmp_path}/{PACKAGES}/matsci_hpc/__init__.py"
    version = run(python, "-m", "matsci_hpc", "--version")
    assert version.stdout.strip() == f"matsci-hpc, version {matsci_hpc.__version__}"
    listed = run(python, "-m", "matsci_hpc", "site", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == site_names()


def test_it_says_what_to_write_and_what_stays_behind(packed):
    archive, said = packed
    assert f"environment_archive: {archive}\n" in said
    assert f"{Path(sys.executable).resolve()} must be on the nodes" in said
    assert str(SOURCE) not in said.replace(f"{SOURCE}/.venv", "")


def test_members_are_sorted_and_belong_to_nobody(packed):
    with tarfile.open(packed[0]) as opened:
        members = opened.getmembers()
    names = [member.name for member in members]
    assert names == sorted(set(names))
    assert f"{PACKAGES}/odd name é.txt" in names
    assert f"{PACKAGES}/needed.pth" in names
    assert f"{PACKAGES}/_editable_matsci_hpc.pth" not in names
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}


def test_compiled_files_are_valid_after_unpacking(packed, tmp_path):
    archive, _ = packed
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path], check=True)
    told = run(tmp_path / "bin/python", "-v", "-c", "import matsci_hpc.cli").stderr
    package = f"{tmp_path}/{PACKAGES}/matsci_hpc"
    assert f"# {package}/__pycache__/cli.cpython-{sys.version_info.major}{sys.version_info.minor}.pyc matches" in told


def test_the_check_of_a_site_knows_the_archive(packed, tmp_path):
    site = Site(scheduler="slurm", node_local="/tmp", environment_archive=packed[0])  # noqa: S108 - a folder of nodes
    assert [each.level for each in findings(site) if each.topic == "environment"] == ["ok"]
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w"):
        pass
    site = Site(scheduler="slurm", node_local="/tmp", environment_archive=empty)  # noqa: S108
    assert [each.text for each in findings(site) if each.topic == "environment"] == [f"{empty} holds no bin/python"]


def test_only_a_virtual_environment_can_be_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(UserInputError, match="is not a virtual environment"):
        pack(tmp_path / "x.tar")
    assert list(tmp_path.iterdir()) == []


def test_the_archive_cannot_hold_itself(tmp_path, monkeypatch):
    (tmp_path / "pyvenv.cfg").write_text("")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(UserInputError, match="inside the environment"):
        pack(tmp_path / "x.tar")


def test_nothing_is_left_where_the_archive_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "env").mkdir()
    (tmp_path / "env/pyvenv.cfg").write_text("")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    (tmp_path / "out.tar").mkdir()
    with pytest.raises(UserInputError, match=r"out\.tar: cannot be written"):
        pack(tmp_path / "out.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["env", "out.tar"]
