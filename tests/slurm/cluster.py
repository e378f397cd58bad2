"""A Slurm of two nodes on this machine: munged, slurmctld and two slurmd, booted in about a second."""

import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ranks import environment
from slurm_conf import NODES, write_files

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "unshare", "setpriv")
"""What must be on PATH."""
PORTS = range(17100, 17200)
"""Three of these are taken, whichever are free: below those that the kernel and job scripts hand out."""
OVER = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
"""States that a job does not leave by itself."""

# In namespaces of its own: host name, processes, shared memory, /etc/hosts and BASE/nodelocal belong to this node
# alone. The shell is the node's first process; with it ends all that runs there.
_NODE = """
set -eu; name=$1 base=$2
mount --make-rprivate /
mount --bind "$base/etc/hosts" /etc/hosts
mount --bind "$base/nodelocal.$name" "$base/nodelocal"
mount -t tmpfs tmpfs /dev/shm
hostname "$name"
slurmd -D -N "$name" -f "$base/slurm.conf" &
wait
"""


class ClusterError(AssertionError):
    """The cluster, or a job on it, does not do what a test waits for. The message holds the logs."""


class Cluster:
    """A running cluster. Needs root: the nodes have host names and mounts of their own.

    Args:
        base: An empty folder for everything of the cluster; short, for a socket's path ends at 107 characters.
        ports: Where three free ports are looked for.

    Attributes:
        base: The folder.
        node_local: A folder that is another one on each node.
        environment: For whoever calls Slurm's programs.
    """

    def __init__(self, base: Path, ports: range = PORTS) -> None:
        self.base = base
        self.node_local = base / "nodelocal"
        self.environment = environment(SLURM_CONF=str(base / "slurm.conf"))
        self._ports = ports
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def boot(self, timeout_s: float = 60) -> None:
        """Start all daemons and wait until both nodes are idle.

        Raises:
            ClusterError: They are not in time, or a daemon has ended.
        """
        self.base.chmod(0o755)  # munged wants its socket in reach of everybody
        controller, *nodes = free_ports(1 + len(NODES), self._ports)
        write_files(self.base, controller, dict(zip(NODES, nodes, strict=True)))
        munge = self.base / "munge"
        files = (f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed"))
        self._start("munged", "munged", "--foreground", f"--socket={munge / 'socket'}", *files)
        self._wait_until((munge / "socket").exists, timeout_s, "munged opens its socket")
        self._start_controller()
        for name in NODES:
            self.power_on(name)
        self._wait_until(lambda: self._node_states() == ["idle"] * len(NODES), timeout_s, "both nodes are idle")

    def shut_down(self) -> None:
        """End every process of the cluster, jobs included."""
        for name in NODES:
            self._kill(name)
        self._stop_controller(timeout_s=10)
        self._kill("munged")

    def clear(self, timeout_s: float = 60) -> None:
        """Cancel every job, and wait until the nodes are free."""
        self.run("scancel", "--user=root")
        self._wait_until(lambda: self._node_states() == ["idle"] * len(NODES), timeout_s, "all jobs are gone")

    def run(self, *words: object, check: bool = True, timeout_s: float = 120, text: str | None = None) -> str:
        """Run one of Slurm's programs, as on a login node, and return what it printed.

        Args:
            words: The program and its arguments.
            check: Whether an exit code other than 0 is an error; what it wrote to stderr is returned otherwise.
            timeout_s: It is ended after this long.
            text: Its standard input.

        Raises:
            ClusterError: It failed.
        """
        done = self.start(*words, text=text, timeout_s=timeout_s)
        if check and done.returncode != 0:
            raise ClusterError(f"{words} ended with {done.returncode}: {done.stderr}{done.stdout}\n{self.logs()}")
        return done.stdout.strip() if check else (done.stdout + done.stderr).strip()

    def start(
        self, *words: object, timeout_s: float = 120, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The same, with the exit code; a failure is left to the caller."""
        return subprocess.run(
            [str(word) for word in words],
            env=self.environment,
            input=text or "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def sbatch(self, script: str, *options: object) -> str:
        """Submit the lines of a batch script, without the first, and return the number of the job.

        Its output is kept with the cluster unless an option says otherwise, and added to in every life.
        """
        output = (f"--output={self.base}/jobs/%j.out", "--open-mode=append")
        return self.run("sbatch", "--parsable", *output, *options, text=f"#!/bin/bash\n{script}\n")

    def jobs(self, job_id: str) -> list[dict[str, str]]:
        """What `scontrol show job` knows: one record, or one for each part of a heterogeneous job or an array."""
        lines = self.run("scontrol", "-o", "show", "job", job_id).splitlines()
        return [dict(re.findall(r"(\S+?)=(.*?)(?= \S+?=|$)", line.strip())) for line in lines]

    def job(self, job_id: str) -> dict[str, str]:
        """The first of these records."""
        return self.jobs(job_id)[0]

    def log(self, job_id: str) -> str:
        """What the job has written so far."""
        path = Path(self.job(job_id)["StdOut"])
        return path.read_text(errors="replace") if path.is_file() else ""

    def wait_for(self, job_id: str, states: str | tuple[str, ...], timeout_s: float = 120) -> dict[str, str]:
        """Wait until a job is in one of these states and return its record.

        Raises:
            ClusterError: It is not in time, or it has ended otherwise.
        """
        wanted = (states,) if isinstance(states, str) else states
        end = time.monotonic() + timeout_s
        while (record := self.job(job_id))["JobState"] not in wanted:
            if record["JobState"] in OVER or time.monotonic() > end:
                told = "\n".join(f"  {name}={value}" for name, value in record.items())
                raise ClusterError(
                    f"job {job_id} is {record['JobState']} ({record['Reason']}), not {' or '.join(wanted)}\n{told}\n"
                    f"--- its log\n{self.log(job_id)}\n{self.logs()}"
                )
            time.sleep(0.1)
        return record

    def wait_for_line(self, job_id: str, line: str, timeout_s: float = 120) -> str:
        """Wait until a job's log holds this text and return the log."""
        self._wait_until(lambda: line in self.log(job_id), timeout_s, f"job {job_id} writes {line!r}", job_id)
        return self.log(job_id)

    def node_down(self, name: str) -> None:
        """Let the controller give a node up, as when it stops answering: its jobs end by NODE_FAIL."""
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")

    def node_resume(self, name: str, timeout_s: float = 60) -> None:
        """Take a node back, and wait until it can have jobs."""
        # An error if the node has come back by itself meanwhile, which ReturnToService lets it.
        self.run("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)
        states = ("idle", "mixed", "allocated")
        self._wait_until(lambda: self._node_states(name)[0] in states, timeout_s, f"{name} is back")

    def power_off(self, name: str) -> None:
        """Kill all that runs on a node at once. Unless told by `node_down`, the controller notices in half a minute."""
        self._kill(name)

    def power_on(self, name: str) -> None:
        """Start a node's slurmd."""
        namespaces = ("--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")
        self._start(name, "unshare", *namespaces, "bash", "-c", _NODE, "node", name, self.base)

    def restart_controller(self, timeout_s: float = 60) -> None:
        """End slurmctld, which saves its state first, and start it again; jobs run on meanwhile."""
        self._stop_controller(timeout_s)
        self._start_controller()
        self._wait_until(
            lambda: self.start("scontrol", "ping").returncode == 0 and "down" not in " ".join(self._node_states()),
            timeout_s,
            "the controller is back",
        )

    def logs(self, lines: int = 15) -> str:
        """The end of every daemon's log."""
        paths = sorted((self.base / "log").iterdir())
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) for path in paths
        )

    def _start_controller(self) -> None:
        self._start("slurmctld", "slurmctld", "-D", "-f", self.base / "slurm.conf")

    def _stop_controller(self, timeout_s: float) -> None:
        # Gently, for it has a child to end.
        process = self._processes.get("slurmctld")
        if process is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout_s)
            self._kill("slurmctld")

    def _start(self, name: str, *words: object) -> None:
        # The kernel kills the daemon when the thread that starts it ends, should nobody be left to call shut_down.
        with (self.base / f"log/{name}").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *map(str, words)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _kill(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def _node_states(self, *names: str) -> list[str]:
        """State of these nodes, or of all; none while the controller does not answer."""
        listing = self.start("sinfo", "-h", "-N", "-p", "debug", "-n", ",".join(names or NODES), "-o", "%T")
        return listing.stdout.split() or ["unknown"]

    def _wait_until(self, holds: Callable[[], bool], timeout_s: float, what: str, job_id: str | None = None) -> None:
        end = time.monotonic() + timeout_s
        while not holds():
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            over = job_id is not None and self.job(job_id)["JobState"] in OVER and not holds()
            if ended or over or time.monotonic() > end:
                why = f"{', '.join(ended)} ended" if ended else "the job is over" if over else f"not in {timeout_s} s"
                log = f"--- log of job {job_id}\n{self.log(job_id)}\n" if job_id else ""
                raise ClusterError(f"waited until {what}: {why}\n{log}{self.logs()}")
            time.sleep(0.05)


def missing_programs() -> list[str]:
    """What has to be installed first."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def free_ports(count: int, candidates: range) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at. Tried in random order, so that two clusters rarely meet."""
    free: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise ClusterError(f"fewer than {count} free ports in {candidates}")
