"""Reading the records of a training run back, as they survive crashes and requeues."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matsci_hpc.errors import UserInputError

Record = dict[str, Any]
"""One line of a .jsonl file."""


@dataclass(frozen=True)
class Run:
    """What a run directory says about its run."""

    folder: Path
    config: Record
    config_text: str
    """config.yaml as it stands on disk."""
    provenance: Record
    data: list[Record]
    """The data sets, where data.json describes them."""
    steps: list[Record]
    """The valid metrics lines, by rising step."""
    evaluations: list[Record]
    """By rising step; the splits of one step in the order they were written."""
    ranks: list[Record]
    """The valid lines of ranks.jsonl, by rising step."""
    dynamics: list[Record]
    """The valid lines of dynamics.jsonl, by rising step."""
    spikes: list[Record]
    """Its lines about spikes, in the order in which they were met: also those that the run went back from, but each
    once, however often a requeue met it."""
    rollbacks: list[Record]
    """Its lines about rollbacks, each once."""
    unreadable: int
    """Damaged lines that are not the torn end of a file."""
    complete: bool

    @property
    def name(self) -> str:
        """The run directory's own name."""
        return self.folder.resolve().name

    @property
    def planned_steps(self) -> int | None:
        """Steps that the config asks for."""
        planned = self.config.get("steps")
        return planned if isinstance(planned, int) else None

    @property
    def last_step(self) -> int:
        """The last step on record."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    @property
    def restarts(self) -> list[int]:
        """The last step before each restart, and before each rollback."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return [before["step"] for before, after in pairs if life_of(before) != life_of(after)]

    @property
    def new_lives(self) -> list[int]:
        """The last step before each restart alone."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return [before["step"] for before, after in pairs if life_of(before)[0] != life_of(after)[0]]

    def series(self, key: str) -> list[float | None]:
        """One quantity over the valid steps; None where it is missing or was not finite."""
        return [as_number(line.get(key)) for line in self.steps]


def read_run(run_dir: Path) -> Run:
    """Read everything the report needs.

    Args:
        run_dir: A directory that `matsci-hpc train` wrote.

    Raises:
        UserInputError: The directory is not a run, or its config cannot be read.
    """
    if not run_dir.is_dir():
        raise UserInputError(f"{run_dir} is not a directory. Name the run_dir of a training run.")
    for needed in ("config.yaml", "metrics.jsonl"):
        if not (run_dir / needed).is_file():
            raise UserInputError(
                f"{run_dir} is not a training run: it has no {needed}. "
                "Name the run_dir of a run that `matsci-hpc train` has started."
            )
    config_text = (run_dir / "config.yaml").read_text(encoding="utf-8", errors="replace")
    metrics, damaged_metrics = read_lines(run_dir / "metrics.jsonl")
    evaluations, damaged_evaluations = read_lines(run_dir / "evaluations.jsonl")
    ranks, damaged_ranks = read_lines(run_dir / "ranks.jsonl")
    dynamics, damaged_dynamics = read_lines(run_dir / "dynamics.jsonl")
    dynamics = _of_one_life(dynamics)
    provenance = _read_json(run_dir / "provenance.json")
    data = _read_json(run_dir / "data.json")
    return Run(
        folder=run_dir,
        config=_parse_config(config_text, run_dir / "config.yaml"),
        config_text=config_text,
        provenance=provenance if isinstance(provenance, dict) else {},
        data=[entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else [],
        steps=valid_steps(metrics),
        evaluations=valid_evaluations(evaluations, metrics),
        ranks=[line for line in valid_steps(ranks) if is_of_ranks(line)],
        dynamics=valid_steps(dynamics),
        spikes=[line for line in dynamics if isinstance(line.get("spike"), dict)],
        rollbacks=[line for line in dynamics if "rollback" in line],
        unreadable=damaged_metrics + damaged_evaluations + damaged_ranks + damaged_dynamics,
        complete=(run_dir / "DONE").exists(),
    )


def read_lines(path: Path) -> tuple[list[Record], int]:
    """Read the records of a .jsonl file that carry a step, and count the damaged lines.

    A crash in the middle of a write leaves a torn last line. That is expected and not counted. When the next
    life appends to it, the torn piece and its first line become one damaged line within the file.
    """
    if not path.is_file():
        return [], 0
    records: list[Record] = []
    damaged = 0
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
        elif index < len(lines) - 1:
            damaged += 1
    return records, damaged


def valid_steps(lines: Iterable[Record]) -> list[Record]:
    """Keep the lines that belong to the run's history, by rising step.

    The last line of a step counts. A new life starts from a checkpoint, so its first line also takes back
    what earlier lives logged beyond it: those steps are not in the model, and may never be reached again. A line
    that is about several steps, as those of ranks.jsonl, says by `first_step` where it begins. A line about a rollback,
    as in dynamics.jsonl, takes back what is beyond the step that it leads to, and is not kept.
    """
    kept: dict[int, Record] = {}
    life: tuple[Any, Any] | None = None
    for line in lines:
        if "rollback" in line:
            kept = {step: earlier for step, earlier in kept.items() if step <= line["step"]}
            continue
        if life_of(line) != life:
            first = line.get("first_step")
            begin = first if type(first) is int else line["step"]
            kept = {step: earlier for step, earlier in kept.items() if step < begin}
            life = life_of(line)
        kept[line["step"]] = line
    return [kept[step] for step in sorted(kept)]


def valid_evaluations(lines: Iterable[Record], metrics: Iterable[Record] = ()) -> list[Record]:
    """Keep the last evaluation of each step and split that a later life did not take back, by rising step.

    Args:
        lines: of evaluations.jsonl.
        metrics: of metrics.jsonl; the first line of a life tells from where it took the steps anew.
    """
    begins: dict[tuple[Any, Any], int] = {}
    for line in metrics:
        begins.setdefault(life_of(line), line["step"])
    kept: dict[tuple[int, str], Record] = {}
    for line in lines:
        if "life" in line and any(
            _is_later(life, life_of(line)) and line["step"] >= step for life, step in begins.items()
        ):
            continue
        key = (line["step"], str(line.get("split", "")))
        kept.pop(key, None)
        kept[key] = line
    return sorted(kept.values(), key=lambda line: int(line["step"]))


RANK_SERIES = ("data_time_s", "forward_time_s", "backward_time_s", "comm_time_s", "optimizer_time_s", "step_time_s")
"""Seconds per step of each rank, in a line of ranks.jsonl."""


def is_of_ranks(line: Record) -> bool:
    """Whether a line of ranks.jsonl holds the times of as many ranks in every one of its series."""
    series = [line.get(key) for key in RANK_SERIES]
    lists = [each for each in series if isinstance(each, list)]
    numbers = all(as_number(value) is not None for each in lists for value in each)
    return len(lists) == len(series) and len({len(each) for each in lists}) == 1 and numbers


def as_number(value: Any) -> float | None:
    """Convert a JSON value to a finite float, or to None if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:  # JSON integers have no upper limit
        return None
    return converted if math.isfinite(converted) else None


def as_mapping(value: Any) -> Record:
    """Return a JSON object as it is, and an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def same_course(line: Record, other: Record) -> bool:
    """Whether there is neither a restart nor a rollback between two lines."""
    return life_of(line) == life_of(other)


def _is_later(life: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    numbers = all(isinstance(each, int) for each in (*life, *other))
    return numbers and life > other


def life_of(line: Record) -> tuple[Any, Any]:
    """What tells lines apart between which the run may have gone back: its life, and its rollbacks so far."""
    return line.get("life", 0), line.get("rollbacks", 0)


def _of_one_life(lines: list[Record]) -> list[Record]:
    """Lines of dynamics.jsonl as a single life would have written them, with all courses that it went back from.

    What a life repeats, it takes back from the lives before: not the lesser steps alone, but courses before rollbacks.
    """
    kept: list[Record] = []
    life: Any = None
    for line in lines:
        if line.get("life", 0) != life:
            life = line.get("life", 0)
            kept = [earlier for earlier in kept if _place(earlier) < _place(line)]
        kept.append(line)
    return kept


def _place(line: Record) -> tuple[int, int]:
    """Rollbacks before a line, and its step: both only grow. A rollback stands at its spike."""
    if "rollback" in line:
        number, step = line["rollback"], line.get("spike_step")
        return (number - 1 if type(number) is int else 0), (step if type(step) is int else line["step"])
    number = line.get("rollbacks", 0)
    return (number if type(number) is int else 0), line["step"]


def _read_json(path: Path) -> Any:
    """Content of an optional file. One that is damaged is treated as missing: the report is still of use."""
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return None


def read_config(path: Path) -> Record:
    """The resolved config of a run.

    Raises:
        UserInputError: it cannot be read, or is none.
    """
    try:
        return _parse_config(path.read_text(encoding="utf-8", errors="replace"), path)
    except OSError as error:
        raise UserInputError(f"{path} cannot be read: {error.strerror}") from None


def _parse_config(text: str, path: Path) -> Record:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        config = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise UserInputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise UserInputError(f"{path} is not a training config: it should hold a mapping of keys to values.")
    return config
