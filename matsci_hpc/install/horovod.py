"""Build Horovod with MPI and oneCCL operations into this environment: `python -m matsci_hpc.install.horovod`.

The last Horovod is of 2023 and there is no wheel of it. Its source is older than the C++ that torch now needs, so a
few lines of it are changed. Intel MPI and oneCCL come from PyPI; one build serves both. The wheel is kept in the user's
cache, so that the next environment with the same torch takes seconds.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from matsci_hpc.errors import MachineError

VERSION = "0.28.1"
SOURCE_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
RECIPE = 1
"""Counted up with every change of what is built, so that older wheels in the cache are left alone."""
INTEL = "2021.13.1"
"""Last version of oneCCL whose CPU part needs no SYCL."""
LIBRARIES = (f"oneccl-devel=={INTEL}", f"impi-devel=={INTEL}", f"impi-rt=={INTEL}")
NEEDED_AT_RUN_TIME = ("cloudpickle", "cffi>=1.4", "packaging", "psutil", "pyyaml")
BUILD_TOOLS = ("cmake>=3.18,<4", "setuptools<81", "wheel")
NEEDED_BYTES = 2 * 1024**3
OWN_LIBRARIES = """\
set(CMAKE_BUILD_RPATH "$ORIGIN/../../../../ccl/cpu/lib;$ORIGIN/../../../..")
add_link_options(-Wl,--disable-new-dtags)"""
"""MPI and oneCCL are those of the environment, wherever it is, before any that LD_LIBRARY_PATH names."""
EDITS = {
    "CMakeLists.txt": (
        ("set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 17)"),
        (
            "set(CMAKE_CXX_STANDARD_REQUIRED ON)",
            f"set(CMAKE_CXX_STANDARD_REQUIRED ON)\n{OWN_LIBRARIES}",
        ),
    ),
    "horovod/torch/CMakeLists.txt": (("set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 17)"),),
}
"""By file of the source: what is replaced by what. Torch needs C++17."""


def wheel_key(torch_version: str) -> str:
    """Name of the folder in the cache: all that a wheel depends on."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{VERSION}-recipe{RECIPE}-torch{torch_version}-{python}-{platform.machine()}-impi{INTEL}"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where wheels are kept: in $XDG_CACHE_HOME or ~/.cache."""
    base = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "matsci-hpc" / "horovod"


def edit_source(source: Path) -> None:
    """Make the source fit today's torch.

    Raises:
        MachineError: it is not the source that the edits were made for.
    """
    for name, replacements in EDITS.items():
        text = (source / name).read_text(encoding="utf-8")
        for old, new in replacements:
            if text.count(old) != 1:
                raise MachineError(f"{source / name} does not hold {old!r} once: this is not Horovod {VERSION}")
            text = text.replace(old, new)
        (source / name).write_text(text, encoding="utf-8")


def build_environment(environ: Mapping[str, str], prefix: Path, tools: Path) -> dict[str, str]:
    """The environment variables that Horovod's build reads.

    Args:
        environ: of this process.
        prefix: of the environment that holds Intel MPI and oneCCL.
        tools: folder that holds CMake and setuptools.
    """
    before = {name: f":{environ[name]}" if environ.get(name) else "" for name in ("PATH", "CPATH", "PYTHONPATH")}
    return dict(environ) | {
        "PATH": f"{tools / 'bin'}:{prefix / 'bin'}{before['PATH']}",
        "PYTHONPATH": f"{tools}{before['PYTHONPATH']}",
        "CPATH": f"{prefix / 'include'}{before['CPATH']}",
        "I_MPI_ROOT": str(prefix),
        "CCL_ROOT": str(prefix),
        "CCL_CONFIGURATION": "ccl/cpu/lib",
        "HOROVOD_CPU_OPERATIONS": "MPI",  # what it does if nothing is said at run time
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITHOUT_GLOO": "1",
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "MAKEFLAGS": environ.get("MAKEFLAGS") or f"-j{len(os.sched_getaffinity(0))}",
    }


def check_machine(prefix: Path, work: Path) -> None:
    """Look for what the build cannot do without, before minutes are spent on it.

    Raises:
        MachineError: something is missing.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise MachineError(
            f"Intel MPI and oneCCL are for Linux on x86_64, not {platform.system()} {platform.machine()}"
        )
    if sys.prefix == sys.base_prefix:
        raise MachineError(f"{sys.executable} is no environment of its own; make one (python3 -m venv) and use that")
    for folder in (prefix, work):
        free = shutil.disk_usage(folder).free
        if free < NEEDED_BYTES:
            raise MachineError(
                f"{folder} has {free / 1024**3:.1f} GiB free, and the build takes {NEEDED_BYTES / 1024**3:.0f}; "
                "make room, or name another disk in TMPDIR"
            )


def check_compiler(environ: Mapping[str, str]) -> None:
    """Look for what compiles.

    Raises:
        MachineError: something is missing.
    """
    for name, package in ((environ.get("CXX", "c++"), "g++"), ("make", "make")):
        if shutil.which(name, path=environ.get("PATH")) is None:
            raise MachineError(f"{name} is not on PATH: load a compiler module, or `apt-get install {package}`")


def install(environ: Mapping[str, str]) -> None:
    """Put Horovod, Intel MPI and oneCCL into this environment.

    Raises:
        MachineError: something is missing, or a step fails.
    """
    prefix = Path(sys.prefix)
    kept = cache_folder(environ) / wheel_key(version("torch"))
    with tempfile.TemporaryDirectory(prefix="matsci-hpc-horovod-") as name:
        work = Path(name)
        check_machine(prefix, work)
        wheel = next(kept.glob("*.whl"), None)
        if wheel is None:
            check_compiler(environ)
        print(f"Intel MPI and oneCCL {INTEL}", flush=True)
        _pip("install", *LIBRARIES, *NEEDED_AT_RUN_TIME)
        if wheel is None:
            print(f"building Horovod {VERSION} for torch {version('torch')}: some minutes", flush=True)
            wheel = _keep(_build(environ, prefix, work), kept)
        else:
            print(f"Horovod from {wheel}", flush=True)
        _pip("install", "--no-deps", "--force-reinstall", str(wheel))
    _try_it()


def _build(environ: Mapping[str, str], prefix: Path, work: Path) -> Path:
    """A new wheel in the work folder."""
    tools = work / "tools"
    _pip("install", "--target", str(tools), *BUILD_TOOLS)
    variables = build_environment(environ, prefix, tools)
    words = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", str(work))
    _pip("download", *words, f"horovod=={VERSION}", environ=variables)
    archive = next(work.glob("horovod-*.tar.gz"))
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SOURCE_SHA256:
        raise MachineError(f"the package index gave another {archive.name} than the one this recipe is for")
    with tarfile.open(archive) as content:
        content.extractall(work, filter="data")
    source = work / archive.name.removesuffix(".tar.gz")
    edit_source(source)
    _pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(work), str(source), environ=variables)
    return next(work.glob("horovod-*.whl"))


def _keep(wheel: Path, folder: Path) -> Path:
    """Move a wheel into the cache, whole or not at all: another build may be under way."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{wheel.name}.{os.getpid()}"
    shutil.copyfile(wheel, partial)
    return partial.rename(folder / wheel.name)


def _try_it() -> None:
    """Load what was installed.

    Raises:
        MachineError: it does not load.
    """
    code = "import horovod.torch as hvd; print('Horovod', 'MPI' * hvd.mpi_built(), 'oneCCL' * hvd.ccl_built())"
    _run([sys.executable, "-c", code], os.environ, "Horovod is installed and does not load", show=True)


def _pip(*words: str, environ: Mapping[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", words[0], "--quiet", "--disable-pip-version-check", *words[1:]]
    _run(command, environ or os.environ, f"`pip {words[0]}` failed")


def _run(command: Sequence[str], environ: Mapping[str, str], failure: str, *, show: bool = False) -> None:
    """Run to the end.

    Raises:
        MachineError: it fails; its last lines are in the message.
    """
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603 - own words
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        log = Path(tempfile.gettempdir()) / f"matsci-hpc-horovod-{os.getpid()}.log"
        log.write_text(said, encoding="utf-8")
        raise MachineError(f"{failure}; all it said is in {log}, the end of it:\n{advice(said)}")
    if show:
        print(done.stdout.strip(), flush=True)


def advice(said: str) -> str:
    """The last lines of a failed step, and what to do about the common causes."""
    last = "\n".join(said.splitlines()[-8:])
    for sign, hint in (
        ("No space left on device", "the disk is full: make room, or name another one in TMPDIR"),
        ("NewConnectionError", "no network: on a cluster, run this on a login node, or set https_proxy"),
        ("No matching distribution", "the package index does not have it: see whether pip uses another index"),
        ("Killed signal", "the compiler ran out of memory: set MAKEFLAGS=-j1"),
    ):
        if sign in said:
            return f"{last}\n{hint}"
    return last


def main() -> int:
    """Install; 3 if that fails for want of something."""
    try:
        install(os.environ)
    except (MachineError, OSError) as error:
        print(f"matsci-hpc: error: {error}", file=sys.stderr)
        return MachineError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
