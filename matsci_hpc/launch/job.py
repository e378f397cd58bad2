"""What is to be run, and on how much of a machine, before any scheduler is involved."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Verb = Literal["prep", "train", "report"]


@dataclass(frozen=True, kw_only=True)
class Component:
    """Nodes of one kind and what a rank on them gets. A job has one, or several if its nodes are unequal.

    Attributes:
        kind: name of the kind in the site file; None if there is only one.
        nodes: how many.
        ranks_per_node: on each of them.
        cpus_per_rank, gpus_per_rank: cores and GPUs of a rank.
        cpus_per_core: CPUs that the scheduler counts for a core.
        memory: of a node, such as 120G; None leaves it to the scheduler.
        partition: queue; None leaves it to the scheduler.
        options: further options of the scheduler.
        launcher_options: further options of the launcher for these ranks.
        speed: of a rank here against those of other components.
    """

    kind: str | None = None
    nodes: int
    ranks_per_node: int
    cpus_per_rank: int = 1
    cpus_per_core: int = 1
    gpus_per_rank: int = 0
    memory: str | None = None
    partition: str | None = None
    options: tuple[str, ...] = ()
    launcher_options: tuple[str, ...] = ()
    speed: float = 1.0

    @property
    def ranks(self) -> int:
        """Ranks on all of these nodes."""
        return self.nodes * self.ranks_per_node

    @property
    def counted_cpus_per_rank(self) -> int:
        """CPUs of a rank as the scheduler counts them, which may be hardware threads."""
        return self.cpus_per_rank * self.cpus_per_core


@dataclass(frozen=True, kw_only=True)
class Element:
    """One run of an array of runs that differ in a few keys.

    Attributes:
        overrides: `key=value` of this run, its run_dir among them.
        output: its run directory.
    """

    overrides: tuple[str, ...]
    output: Path


@dataclass(frozen=True, kw_only=True)
class Need:
    """What another job must have made before this one can begin.

    Attributes:
        marker: file that is there when it is made.
        status: where the job that makes it says how it stands.
    """

    marker: Path
    status: Path


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job. All paths are absolute, so that a script means the same wherever it is submitted from.

    Attributes:
        name: for people and the scheduler's lists.
        verb: what each rank runs.
        config: YAML file of the run; the run directory for a report.
        overrides: dotted `key=value` pairs.
        work_dir: where the command runs; relative paths in the config count from here.
        output: run directory of a training run or report, folder of a data set.
        reads: data sets and runs that it needs, which other jobs may make first.
        components: the nodes.
        time_limit: of one life, HH:MM:SS or D-HH:MM:SS; None leaves it to the queue.
        python: interpreter of the environment that matsci-hpc is installed in.
        elements: runs of an array; empty for a single run.
        needs: what jobs before this one make.
        has_dependents: other jobs wait for this one.
        steps: optimiser steps of a training run.
    """

    name: str
    verb: Verb
    config: Path
    overrides: tuple[str, ...] = ()
    work_dir: Path
    output: Path
    reads: tuple[Path, ...] = ()
    components: tuple[Component, ...]
    time_limit: str | None = None
    python: Path
    elements: tuple[Element, ...] = ()
    needs: tuple[Need, ...] = ()
    has_dependents: bool = False
    steps: int | None = None

    @property
    def nodes(self) -> int:
        """Nodes of all kinds."""
        return sum(each.nodes for each in self.components)

    @property
    def ranks(self) -> int:
        """Ranks of the whole job."""
        return sum(each.ranks for each in self.components)

    @property
    def folder(self) -> Path:
        """Where script and log go. Data sets have it above them, because a data set holds nothing but itself."""
        return self.output.parent if self.verb == "prep" else self.output

    @property
    def stem(self) -> Path:
        """What the names of the job's own files begin with."""
        return self.folder / {"prep": self.output.name, "train": "job", "report": "report"}[self.verb]

    @property
    def status(self) -> Path:
        """One line by the job script that says how the job stands."""
        return status_file(self.verb, self.output)

    @property
    def marker(self) -> Path:
        """File that is there when the job has done its work."""
        return self.output / {"prep": "dataset.json", "train": "DONE", "report": "report.html"}[self.verb]

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of `matsci-hpc` on each rank, without those of an array's element."""
        return (self.verb, str(self.config), *self.overrides)

    @property
    def command(self) -> tuple[str, ...]:
        """What each rank runs."""
        return (str(self.python), "-m", "matsci_hpc", *self.arguments)


def status_file(verb: str, output: Path) -> Path:
    """Where the job script of a run says how it stands."""
    if verb == "prep":
        return output.parent / f"{output.name}.status"
    return output / ("job.status" if verb == "train" else "report.status")


def fill(text: str, component: Component) -> str:
    """Put the numbers of a component in the place of {nodes}, {ranks} and the like."""
    names = ("nodes", "ranks", "ranks_per_node", "cpus_per_rank", "gpus_per_rank")
    return re.sub(rf"\{{({'|'.join(names)})\}}", lambda match: str(getattr(component, match[1])), text)
