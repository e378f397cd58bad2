"""Configs of small runs, and `matsci-hpc` as a user on the login node of the test cluster types it."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from cluster import Cluster
from site_file import write_site

PROGRAM = (sys.executable, "-m", "matsci_hpc")
MODEL = {
    "layers": 2,
    "width": 16,
    "message_width": 16,
    "position_width": 8,
    "embedding_width": 16,
    "radial_basis": {"count": 8},
    "readout": "mean",
}


class LoginNode:
    """Where jobs of one test are submitted from: a folder, a site file and a journal of its own.

    Args:
        cluster: The running cluster.
        folder: Everything of the test goes here.
        site: Keys of the site file, over those of `write_site`.
    """

    def __init__(self, cluster: Cluster, folder: Path, **site: object) -> None:
        self.cluster = cluster
        self.folder = folder
        self.site = write_site(folder / "site.yaml", **site)

    def start(self, *words: object, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """`matsci-hpc WORDS`, to its end."""
        return subprocess.run(
            [*PROGRAM, *map(str, words)],
            env=self.cluster.environment | {"XDG_STATE_HOME": str(self.folder / "state")},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def run(self, *words: object) -> str:
        """The same where it must succeed: what it printed."""
        done = self.start(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *words: object) -> list[str]:
        """`matsci-hpc submit WORDS --site ...`, and the numbers of the jobs."""
        return re.findall(r"^job (\d+):", self.run("submit", *words, "--site", self.site), flags=re.MULTILINE)

    def standings(self) -> dict[str, dict[str, object]]:
        """What `matsci-hpc jobs` says of each job, by its number."""
        for kept in (self.folder / "state/matsci-hpc").glob("queue-*"):
            kept.unlink()  # the answer of the last 30 s would do for a person
        lines = self.run("jobs", "--all", "--json").splitlines()
        return {row["job"]: row for row in map(json.loads, lines)}

    def prep_config(self, name: str = "clouds", **changes: object) -> Path:
        """Two hundred clouds in shards of 16."""
        source = {"kind": "symmetry", "samples": 240, "seed": 5}
        config = {"source": source, "out": f"datasets/{name}", "shard_size": 16, "neighbors": {"cutoff": 2.0}}
        return write_config(self.folder / f"{name}.yaml", config | changes)

    def train_config(self, data: Path | str, name: str = "run", **changes: object) -> Path:
        """A run of a few seconds, with a learning rate that does not depend on the number of steps."""
        config = {
            "run_dir": f"runs/{name}",
            "seed": 7,
            "data": {"train": [str(data)]},
            "steps": 12,
            "batch": {"graphs": 12},
            "model": MODEL,
            "schedule": {"decay": "constant"},
            "checkpoint": {"every_steps": 1000},
            "evaluate": {"every_steps": 100_000},
            "log_every": 1,
        }
        return write_config(self.folder / f"{name}.yaml", config | changes)


def write_config(path: Path, config: dict[str, object]) -> Path:
    """JSON, which is YAML, too."""
    path.write_text(json.dumps(config))
    return path


def steps_logged(run: Path) -> list[dict[str, object]]:
    """Whole lines of metrics.jsonl."""
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_until(holds, what: str, timeout_s: float = 240) -> None:
    """Look ten times a second until it holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"waited {timeout_s} s until {what}"
        time.sleep(0.1)


def wait_for_steps(cluster: Cluster, job: str, run: Path, count: int, timeout_s: float = 240) -> None:
    """Wait until a job has taken so many more steps than there are now; it is an error if it ends before."""
    goal = len(steps_logged(run)) + count
    _wait_alive(cluster, job, lambda: len(steps_logged(run)) >= goal, f"{run} has {goal} steps", timeout_s)


def wait_for_restarts(cluster: Cluster, job: str, count: int, timeout_s: float = 240) -> None:
    """Wait until a job has been started anew so often; it is an error if it ends before."""
    what = f"job {job} has started anew {count} times"
    _wait_alive(cluster, job, lambda: int(cluster.job(job)["Restarts"]) >= count, what, timeout_s)


def _wait_alive(cluster: Cluster, job: str, holds, what: str, timeout_s: float) -> None:
    def reached() -> bool:
        cluster.wait_for(job, ("PENDING", "RUNNING", "COMPLETING"))  # raises with the logs when it is over
        return holds()

    wait_until(reached, what, timeout_s)
