"""What is to be run, where and on how much of it, before any scheduler is involved."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matsci_hpc.config.loading import load_config, read_yaml
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites import Site

Verb = Literal["prep", "train"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job. All paths are absolute, so that a script means the same wherever it is submitted from."""

    name: str
    verb: Verb
    config: Path
    overrides: tuple[str, ...] = ()
    work_dir: Path
    """Where the command runs: relative paths in the config count from here."""
    run_dir: Path
    """Where script and log go: the run directory of a training run, the folder above a data set."""
    nodes: int
    ranks_per_node: int
    cpus_per_rank: int = 1
    gpus_per_rank: int = 0
    time_limit: str | None = None
    """HH:MM:SS or D-HH:MM:SS; None leaves it to the queue."""
    memory: str | None = None
    """Per node; None leaves it to the queue."""
    python: Path
    """Interpreter of the environment that matsci-hpc is installed in."""

    @property
    def ranks(self) -> int:
        """Ranks of the whole job."""
        return self.nodes * self.ranks_per_node

    @property
    def script(self) -> Path:
        """Where the batch script is kept. Several data sets may share the folder above them."""
        return self.run_dir / ("job.sbatch" if self.verb == "train" else f"{self.name}.sbatch")

    @property
    def command(self) -> tuple[str, ...]:
        """What each rank runs."""
        return (str(self.python), "-m", "matsci_hpc", self.verb, str(self.config), *self.overrides)


def describe_job(
    config: Path,
    overrides: list[str],
    site: Site,
    *,
    nodes: int | None,
    ranks: int | None,
) -> Job:
    """Decide everything about a job that does not depend on the scheduler.

    Args:
        config: The YAML file of a data preparation or a training run.
        overrides: Dotted `key=value` pairs.
        site: The machine.
        nodes: Number of nodes; None takes as many as the ranks need.
        ranks: Ranks of the whole job; None fills the nodes as the site says.

    Raises:
        UserInputError: The config is wrong or of no known verb, or the numbers do not fit together.
    """
    verb, checked = _read(config, overrides)
    given = checked.run_dir if isinstance(checked, TrainConfig) else checked.out
    # abspath, not resolve: a link such as /scratch/me may lead elsewhere on a compute node.
    folder = Path(os.path.abspath(given))  # noqa: PTH100 - Path.absolute keeps `..`
    nodes, ranks_per_node = _divide(nodes, ranks, site)
    return Job(
        name=folder.name or verb,
        verb=verb,
        config=Path(os.path.abspath(config)),  # noqa: PTH100
        overrides=tuple(overrides),
        work_dir=Path.cwd(),
        run_dir=folder if verb == "train" else folder.parent,
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        cpus_per_rank=site.cpus_per_rank,
        gpus_per_rank=site.gpus_per_rank,
        time_limit=site.time_limit,
        memory=site.memory,
        python=Path(sys.executable),
    )


def _read(config: Path, overrides: list[str]) -> tuple[Verb, TrainConfig | PrepConfig]:
    """The verb that a config is for, and the config, checked now and not after hours in a queue."""
    keys = read_yaml(config)
    train, prep = "run_dir" in keys, "out" in keys and "source" in keys
    if train == prep:
        raise UserInputError(
            f"{config}: cannot tell what to run; train has the key `run_dir`, prep has `source` and `out`"
        )
    if train:
        return "train", load_config(TrainConfig, config, overrides)
    return "prep", load_config(PrepConfig, config, overrides)


def _divide(nodes: int | None, ranks: int | None, site: Site) -> tuple[int, int]:
    """Nodes, and ranks on each of them."""
    for number, what in ((nodes, "nodes"), (ranks, "ranks")):
        if number is not None and number < 1:
            raise UserInputError(f"the number of {what} must be at least 1, not {number}")
    if site.scheduler == "local" and nodes not in {None, 1}:
        raise UserInputError(f"this machine is one node, not {nodes}; give the number of ranks, or another site")
    if ranks is None:
        return nodes or 1, site.ranks_per_node
    if nodes is None:
        nodes = 1 if site.scheduler == "local" else -(-ranks // site.ranks_per_node)
    if ranks % nodes:
        raise UserInputError(f"{ranks} ranks cannot be divided evenly over {nodes} nodes")
    return nodes, ranks // nodes
