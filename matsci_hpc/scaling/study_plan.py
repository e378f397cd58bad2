"""Which runs a study is made of, and in which order they are made."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matsci_hpc.config.job import JobRequest
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.sources import SymmetrySource
from matsci_hpc.config.study import PER_RANK, SHORT_NAMES, SIZES, StudyConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.describe import absolute, describe_job, read_any_config
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.resources import find_config

MOST_RUNS = 10_000
"""More are a slip of the pen."""
LAYOUT = "layout"
"""Label of runs whose ranks are divided over several numbers of nodes; `nodes` itself is what they are measured on."""
MOST_NAME = 24
"""Letters of a value in the name of a run."""


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One run of a study.

    Attributes:
        name: of its folder; says where on the axes it stands, and which repeat it is.
        point: value of each axis.
        repeat: from 1.
        threads: of a rank, where the study or this machine decides it, not the site.
        job: what is started; its `output` is the folder of the run.
        config: its config, checked.
    """

    name: str
    point: Mapping[str, Any]
    repeat: int
    threads: int | None
    job: Job
    config: TrainConfig | PrepConfig

    @property
    def labels(self) -> dict[str, str]:
        """Axes other than the size, which make a series; and of a size in ranks and nodes, on how many nodes it is."""
        found = {name: in_text(value) for name, value in self.point.items() if name not in {"ranks", "nodes"}}
        if {"ranks", "nodes"} <= self.point.keys():
            found[LAYOUT] = f"{self.job.nodes} {'node' if self.job.nodes == 1 else 'nodes'}"
        return found

    @property
    def work(self) -> str:
        """The global batch, or the inputs of a preparation, in words."""
        if isinstance(self.config, TrainConfig):
            batch = self.config.batch
            return f"{batch.graphs:,} graphs" if batch.graphs is not None else f"cost {batch.cost:,.0f}"
        if isinstance(self.config.source, SymmetrySource):
            return f"{_clouds(self.config.source):,} clouds"
        return "all inputs"


def load_study(path: Path, overrides: tuple[str, ...] = ()) -> StudyConfig:
    """Read a study, here or as shipped.

    Raises:
        UserInputError: as of `load_config`.
    """
    return load_config(StudyConfig, find_config(path), overrides)


def plan_runs(study: StudyConfig, site: Site) -> list[StudyRun]:
    """All runs in the order in which they are made.

    Each repeat of all combinations comes before the next repeat begins, in an order of its own: a randomised complete
    block design, in which a drift of the machine hits all combinations alike, and a study that is broken off has whole
    repeats. The order comes from a hash of the seed, so it is the same everywhere.

    Raises:
        UserInputError: a combination is no valid run, or there are too many.
    """
    points = list(_points(study))
    if len(points) * study.repeats > MOST_RUNS:
        raise UserInputError(f"the study has {len(points) * study.repeats:,} runs, more than {MOST_RUNS:,}")
    first = {name_of(point): _describe(study, site, point) for point in points}
    if len(first) < len(points):
        raise UserInputError("axes: two combinations would share a folder; write their values otherwise")
    if site.scheduler == "local" and "threads" not in study.axes:
        threads = _threads_here(first.values(), os.environ | site.environment)
        first = {name: replace(run, threads=threads) for name, run in first.items()}
    return [
        _repeated(study, name, first[name], repeat)
        for repeat in range(1, study.repeats + 1)
        for name in sorted(first, key=lambda name: _place(study.seed, repeat, name))
    ]


def in_text(value: Any) -> str:
    """A value of an axis as people write it."""
    return value if isinstance(value, str) else in_yaml(value)


def site_of(run: StudyRun, site: Site) -> Site:
    """The site with the threads that the run wants; on a cluster the cores of a rank say it already."""
    if run.threads is None or site.scheduler != "local":
        return site
    return site.model_copy(update={"environment": site.environment | {"OMP_NUM_THREADS": str(run.threads)}})


def _threads_here(runs: Iterable[StudyRun], chosen: Mapping[str, str]) -> int | None:
    """The same threads for every rank of the study on this machine, as many as its largest run leaves for each.

    Otherwise a run of fewer ranks would get more threads, and ranks would be compared with threads.
    """
    if "OMP_NUM_THREADS" in chosen:
        return None
    return max(1, len(os.sched_getaffinity(0)) // max(run.job.ranks for run in runs))


def _points(study: StudyConfig) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*study.axes.values()):
        yield dict(zip(study.axes, values, strict=True))


def _place(seed: int, repeat: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{repeat}/{name}".encode()).digest()


def name_of(point: Mapping[str, Any]) -> str:
    """Name of the folder of a run that stands there on the axes."""
    return "_".join(f"{axis}={_short(in_text(value))}" for axis, value in point.items())


def _short(text: str) -> str:
    """A value as a part of a file name that every scheduler takes in a path, told from others by a hash if need be."""
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "-", text)
    if plain == text and len(plain) <= MOST_NAME:
        return plain
    return f"{plain[:MOST_NAME].strip('-')}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"


def _describe(study: StudyConfig, site: Site, point: Mapping[str, Any]) -> StudyRun:
    """The run of a combination, its repeat and folder not decided yet."""
    base = find_config(study.base)
    request = JobRequest(ranks=point.get("ranks"), nodes=point.get("nodes"), cpus_per_rank=point.get("threads"))
    fixed = dict(study.overrides)
    fixed |= {
        SHORT_NAMES.get(axis, axis): value
        for axis, value in point.items()
        if axis not in SIZES and axis not in PER_RANK
    }
    for one, other in (("batch.graphs", "batch.cost"), ("batch.cost", "batch.graphs")):
        if one in fixed:
            fixed.setdefault(other, None)
    try:
        training = isinstance(read_any_config(base, as_overrides(study.overrides)), TrainConfig)
        _refuse_unfit(study, training=training)
        if training:
            fixed |= {"steps": study.planned_steps, "log_every": study.log_every}
            # What takes no part in a step is left out unless the study wants it.
            fixed.setdefault("data.held_out", None)
            fixed.setdefault("max_time_s", None)
            fixed.setdefault("checkpoint.every_steps", study.planned_steps)
        words = as_overrides(fixed)
        job = describe_job(base, words, site, request)
        speeds = job.overrides[len(words) :]  # of unequal nodes
        if study.scaling == "weak":
            fixed |= _grown(point, job, read_any_config(base, words))
        overrides = (*as_overrides(fixed), *speeds)
        config = read_any_config(base, overrides)
    except UserInputError as error:
        raise UserInputError(f"{name_of(point)}: {error}") from None
    return StudyRun(name_of(point), point, 0, point.get("threads"), replace(job, overrides=overrides), config)


def _refuse_unfit(study: StudyConfig, *, training: bool) -> None:
    per_rank = [name for name in PER_RANK if name in study.axes]
    if training and study.scaling == "weak" and not per_rank:
        raise UserInputError("weak scaling of training needs the axis graphs_per_rank or cost_per_rank")
    if not training and per_rank:
        raise UserInputError(f"{per_rank[0]} is for training; a preparation grows by the clouds of its source")


def _grown(point: Mapping[str, Any], job: Job, config: TrainConfig | PrepConfig) -> dict[str, Any]:
    """Keys that grow with the ranks."""
    if isinstance(config, PrepConfig):
        if not isinstance(config.source, SymmetrySource):
            raise UserInputError("weak scaling of a preparation needs source.kind: symmetry, whose clouds can grow")
        samples = config.source.samples
        if isinstance(samples, int):
            return {"source.samples": samples * job.ranks}
        return {"source.samples": {split: count * job.ranks for split, count in samples.items()}}
    (axis,) = (name for name in PER_RANK if name in point)
    key = PER_RANK[axis]
    other = "batch.cost" if key == "batch.graphs" else "batch.graphs"
    # To the optimiser a virtual rank is a rank, with a share of its own.
    return {key: point[axis] * job.ranks * config.parallel.virtual_ranks, other: None}


def _repeated(study: StudyConfig, name: str, run: StudyRun, repeat: int) -> StudyRun:
    """The run as one of its repeats, in a folder of its own."""
    full = f"{name}_repeat={repeat}"
    output = absolute(study.out) / "runs" / full
    key = "run_dir" if isinstance(run.config, TrainConfig) else "out"
    overrides = (*run.job.overrides, f"{key}={in_yaml(str(output))}")
    config = run.config.model_copy(update={key: output})
    return replace(
        run,
        name=full,
        repeat=repeat,
        job=replace(run.job, name=full, overrides=overrides, output=output),
        config=config,
    )


def as_overrides(keys: Mapping[str, Any]) -> tuple[str, ...]:
    """`key=value` words."""
    return tuple(f"{key}={in_yaml(value)}" for key, value in keys.items())


def in_yaml(value: Any) -> str:
    """JSON is YAML, too; letters beyond ASCII stay, since paths may hold bytes that are none."""
    return json.dumps(value, ensure_ascii=False)


def _clouds(source: SymmetrySource) -> int:
    return source.samples if isinstance(source.samples, int) else sum(source.samples.values())
