"""The recipe's own decisions; what it builds is tested by the tests marked `horovod`."""

import subprocess
import sys

import pytest
from ranks import ROOT, environment

from matsci_hpc.errors import MachineError
from matsci_hpc.install import horovod


def source_tree(folder, standard="14"):
    (folder / "horovod" / "torch").mkdir(parents=True)
    top = f"set(CMAKE_CXX_STANDARD {standard})\nset(CMAKE_CXX_STANDARD_REQUIRED ON)\nfind_package(MPI)\n"
    (folder / "CMakeLists.txt").write_text(top)
    (folder / "horovod" / "torch" / "CMakeLists.txt").write_text(f"    set(CMAKE_CXX_STANDARD {standard})\n")
    return folder


def test_the_source_is_raised_to_the_language_of_torch_and_keeps_the_rest(tmp_path):
    tree = source_tree(tmp_path)
    horovod.edit_source(tree)
    top = (tree / "CMakeLists.txt").read_text()
    assert "CMAKE_CXX_STANDARD 17" in top
    assert "CMAKE_CXX_STANDARD 14" not in top
    assert "$ORIGIN" in top
    assert top.endswith("find_package(MPI)\n")
    assert (tree / "horovod" / "torch" / "CMakeLists.txt").read_text() == "    set(CMAKE_CXX_STANDARD 17)\n"


def test_another_source_is_refused(tmp_path):
    with pytest.raises(MachineError, match="this is not Horovod"):
        horovod.edit_source(source_tree(tmp_path, "11"))


def test_the_build_finds_its_tools_first_and_what_was_there_last(tmp_path):
    given = {"PATH": "/usr/bin", "CPATH": "/opt/include", "MAKEFLAGS": "-j3"}
    found = horovod.build_environment(given, tmp_path / "env", tmp_path / "tools")
    assert found["PATH"] == f"{tmp_path}/tools/bin:{tmp_path}/env/bin:/usr/bin"
    assert found["CPATH"] == f"{tmp_path}/env/include:/opt/include"
    assert found["PYTHONPATH"] == f"{tmp_path}/tools"
    assert found["MAKEFLAGS"] == "-j3"


def test_wheels_of_two_torches_do_not_share_a_place():
    assert horovod.wheel_key("2.12.0") != horovod.wheel_key("2.13.0")
    assert str(horovod.cache_folder({"XDG_CACHE_HOME": "/scratch/me"})) == "/scratch/me/matsci-hpc/horovod"


def test_a_failed_step_ends_with_what_to_do():
    said = "\n".join([*map(str, range(50)), "cc1plus: fatal error: No space left on device"])
    told = horovod.advice(said)
    assert "TMPDIR" in told
    assert "41" not in told.split()


def test_no_compiler_is_told_before_anything_is_installed(tmp_path):
    words = [sys.executable, "-m", "matsci_hpc.install.horovod"]
    variables = environment(PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    done = subprocess.run(words, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    assert "c++ is not on PATH" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
