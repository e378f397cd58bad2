"""The folder of a study: what its runs have come to, and what was started when.

```
OUT/
  study.yaml          the study, resolved
  runs/NAME/          a run each; NAME says where on the axes it stands
  logs/NAME.log       what a run on this machine printed
  failed/NAME.1/      runs that were broken off, moved here before they are started anew
  jobs/               scripts and logs of a scheduler
  starts.jsonl        one line per start
  results.csv, results.jsonl, loss.csv, dynamics.csv, incomplete.txt    written by `study collect`
```
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matsci_hpc.config.loading import dump_config, flat, load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.run_set import RunSetConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import MatsciError, UserInputError
from matsci_hpc.folder_lock import FolderLock
from matsci_hpc.launch.describe import absolute, describe_job, read_any_config
from matsci_hpc.launch.job import Job, status_file
from matsci_hpc.launch.sites.find import site_names
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.preflight.folder import lock_findings
from matsci_hpc.resources import find_config
from matsci_hpc.scaling.study_plan import StudyRun
from matsci_hpc.whole_files import output_error, write_atomic

Standing = Literal["complete", "absent", "broken off", "busy", "of another study"]


@dataclass(frozen=True, slots=True)
class RunState:
    """What a run has come to.

    Attributes:
        standing: in a word.
        reason: why it is not complete, for people.
    """

    standing: Standing
    reason: str = ""


class StudyFolder:
    """Paths of a study.

    Args:
        study: whose folder.
    """

    def __init__(self, study: RunSetConfig) -> None:
        self._kind = study.kind
        self.path = absolute(study.out)
        self.logs = self.path / "logs"
        self.jobs = self.path / "jobs"
        self.failed = self.path / "failed"
        self.starts = self.path / "starts.jsonl"
        self.results = self.path / "results.csv"
        self.results_jsonl = self.path / "results.jsonl"
        self.loss = self.path / "loss.csv"
        self.dynamics = self.path / "dynamics.csv"
        self.incomplete = self.path / "incomplete.txt"

    def log(self, name: str) -> Path:
        """What a run on this machine printed."""
        return self.logs / f"{name}.log"

    def lock(self) -> FolderLock:
        """Two commands that run one study would disturb each other's times.

        Raises:
            UserInputError, MachineError: the folder cannot be made.
        """
        try:
            for folder in (self.path, self.logs, self.path / "runs"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self.path, error) from None
        return FolderLock(self.path, f"{self.path}: {{holder}} is at work on this {self._kind}; wait for it")

    def note_start(self, run: StudyRun, site: str, **facts: Any) -> None:
        """Note where a run was started, or how a start on this machine ended."""
        if site not in site_names():  # a path, and the next command may be given in another folder
            site = str(absolute(Path(site)))
        size = {"nodes": run.job.nodes, "ranks": run.job.ranks, "threads": run.threads}
        from matsci_hpc.telemetry.recorder import JsonLines

        lines = JsonLines(self.starts)
        lines.append({"run": run.name, "site": site, **size, **facts})
        lines.close()

    def started(self) -> dict[str, dict[str, Any]]:
        """By name, what was noted of the newest start of each run."""
        found: dict[str, dict[str, Any]] = {}
        for line in _lines(self.starts):
            if "nodes" in line:
                found[str(line.get("run"))] = line
        return found

    def newest_site(self) -> str | None:
        """The site that runs were last started on."""
        sites = [line["site"] for line in _lines(self.starts) if isinstance(line.get("site"), str)]
        return sites[-1] if sites else None

    def keep_study(self, study: RunSetConfig) -> None:
        """Write the resolved config of the whole set beside its runs.

        Raises:
            UserInputError, MachineError: it cannot be written.
        """
        write_atomic(self.path / f"{study.kind}.yaml", dump_config(study).encode())

    def set_aside(self, run: StudyRun) -> None:
        """Move what a run that was broken off has left, so that it begins anew: times of a torn run are no use.

        Raises:
            UserInputError, MachineError: the folder cannot be moved.
        """
        number = 1
        while (aside := self.failed / f"{run.name}.{number}").exists():
            number += 1
        try:
            self.failed.mkdir(exist_ok=True)
            run.job.output.rename(aside)
            if self.log(run.name).exists():
                self.log(run.name).rename(aside.with_name(f"{aside.name}.log"))
        except OSError as error:
            raise output_error(run.job.output, error) from None


def data_to_make(study: RunSetConfig, site: Site) -> list[Job]:
    """The jobs that make the data which the runs read; what is whole already needs none.

    Raises:
        UserInputError: a config is none of a preparation, or other data are there.
    """
    jobs = []
    for path in study.prepare:
        found = find_config(path)
        config = read_any_config(found, ())
        if not isinstance(config, PrepConfig):
            raise UserInputError(f"prepare: {path} is no config of a data preparation")
        job = describe_job(found, (), site)
        if not job.marker.exists():
            jobs.append(job)
        elif differing := _differences(config, job.output):
            raise UserInputError(f"{job.output}: was made with {differing}; remove it, or give {path} another out")
    return jobs


def state_of(run: StudyRun, log: Path | None = None) -> RunState:
    """How a run stands, by what lies on disk.

    Args:
        run: of the study.
        log: what it printed on this machine, to say why it failed.
    """
    output = run.job.output
    if not output.exists():
        said = last_line(log) if log is not None else None
        return RunState("absent", f"not run yet{f'; the last try said: {said}' if said else ''}")
    if differing := _differences(run.config, output):
        return RunState(
            "of another study", f"was made with {differing}; remove {output}, or give the study another out"
        )
    if run.job.marker.exists():
        return RunState("complete")
    if busy := next(iter(lock_findings(output)), None):
        return RunState("busy", busy.text)
    return RunState("broken off", _why(run, log))


def last_line(path: Path) -> str | None:
    """The last line of a log that says something; of an error of ours, the error."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    errors = [line for line in lines if line.startswith("matsci-hpc: error: ")]
    said = [line.strip() for line in errors or lines if line.strip()]
    return said[-1].removeprefix("matsci-hpc: error: ") if said else None


def _why(run: StudyRun, log: Path | None) -> str:
    """Why a run is not complete, as far as it is known."""
    said = last_line(run.job.output / "STOPPED")
    if said is None and (status := last_line(status_file(run.job.verb, run.job.output))) is not None:
        said = status.split(" ", 2)[-1]  # behind the number of the job and its life
    if said is None and log is not None:
        said = last_line(log)
    return f"broken off: {said}" if said else "broken off without a word"


def _differences(config: TrainConfig | PrepConfig, output: Path) -> str:
    """What is in a folder was made with, where the config says otherwise; empty if it is the same."""
    if isinstance(config, TrainConfig):
        path = output / "config.yaml"
        if not path.is_file():
            return ""
        try:
            before: dict[str, Any] = load_config(TrainConfig, path).model_dump(mode="json")
        except MatsciError as error:
            return f"a config that cannot be read now ({error})"
    else:
        try:
            before = json.loads((output / "provenance.json").read_text(encoding="utf-8"))["config"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
    old, new = _compared(before), _compared(config.model_dump(mode="json"))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return ", ".join(f"{key}: {old.get(key)} (now {new.get(key)})" for key in keys[:3])


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    """Values that make a difference: not where it is written, and not the size that the command line gave."""
    return {key: value for key, value in flat(config).items() if key not in {"run_dir", "out"} and key[:4] != "job."}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record
