"""One Slurm for all tests of this folder, and the mark `slurm` on each of them."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from cluster import Cluster, missing_programs

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster():
    """A running cluster. Where it cannot be had the tests are skipped; under CI they fail."""
    reason = _why_not()
    if reason is not None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"no Slurm here: {reason}")
    # Not pytest's own folder: munged wants every folder above its socket open to all, and a socket's path is short.
    base = Path(tempfile.mkdtemp(prefix="slurm-"))
    running = Cluster(base)
    # The journal of whoever runs the tests is no place for their jobs.
    running.environment["XDG_STATE_HOME"] = str(base / "journal")
    try:
        running.boot()
        yield running
    finally:
        running.shut_down()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(autouse=True)
def _tidy(cluster):
    """Nothing of a test is left for the next one."""
    yield
    cluster.clear()


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "the nodes need root, for host names and mounts of their own"
    installed = subprocess.run(["bash", HERE / "install.sh"], capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        return installed.stderr.strip()
    if missing := missing_programs():
        return f"{', '.join(missing)} not on PATH"
    words = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "true"]
    spaces = subprocess.run(words, capture_output=True, text=True, check=False)
    if spaces.returncode != 0:
        return f"{spaces.stderr.strip()} (in a container, start it with --privileged)"
    return None
