"""`matsci-hpc check`: everything that can be known of a chain of jobs before it waits in a queue."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.sources import SymmetrySource
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.launch.chain import Link
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.preflight.data import read_manifests, shard_findings
from matsci_hpc.preflight.disk import data_set_need, rooms, run_need, space_findings
from matsci_hpc.preflight.duration import duration_findings, preparation_findings
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.folder import is_complete, newest_step
from matsci_hpc.preflight.guard import guarded
from matsci_hpc.preflight.limits import account_findings
from matsci_hpc.preflight.locking import flock_findings, hdf5_findings
from matsci_hpc.preflight.margin import NOTICE_S, Margin, margin_findings, write_time_s
from matsci_hpc.preflight.measured import Trial, measure
from matsci_hpc.preflight.memory import memory_findings
from matsci_hpc.preflight.mounts import mounts_here
from matsci_hpc.preflight.paths import reach_findings
from matsci_hpc.preflight.prep_sample import sample_preparation
from matsci_hpc.preflight.quick import look
from matsci_hpc.preflight.scheduler import scheduler_findings
from matsci_hpc.preflight.size import block_findings
from matsci_hpc.preflight.speed import Speed, Wanted, completed_speed, like_speed, recorded_speed, trial_speed
from matsci_hpc.preflight.subject import Subject, subjects_of


@dataclass(frozen=True, slots=True)
class Checked:
    """A job, or one run of an array, with what was found."""

    name: str
    job: Job
    findings: list[Finding] = field(default_factory=list)


def check_chain(chain: Sequence[Link], site: Site, like: Path | None = None) -> Iterator[Checked]:
    """Check every run of a chain, one after the other.

    Args:
        chain: the jobs.
        site: the machine.
        like: run directory of a run whose speed is taken.
    """
    for number, subject in enumerate(subjects_of(chain, site)):
        findings = guarded("account", lambda: account_findings(site)) if number == 0 else []
        yield Checked(subject.output.name, subject.job, findings + check(subject, like))


def check(subject: Subject, like: Path | None) -> list[Finding]:
    """All findings of one run."""
    job, site, config = subject.job, subject.site, subject.config
    findings = look(subject)
    findings += guarded("paths", lambda: reach_findings(subject, mounts_here()))
    if config is not None:
        findings += guarded("locking", lambda: flock_findings(subject.output))
        findings += guarded("locking", lambda: hdf5_findings(site, os.environ))
    if isinstance(config, TrainConfig):
        findings += _training(config, subject, like, findings)
    elif isinstance(config, PrepConfig):
        findings += guarded("input", lambda: _preparation(config, subject))
    findings += guarded("scheduler", lambda: scheduler_findings(job, site))
    return findings


def _training(config: TrainConfig, subject: Subject, like: Path | None, before: list[Finding]) -> list[Finding]:
    """What needs the data, the model and a few steps."""
    manifests, missing = read_manifests(config, subject)
    findings = []
    for folder, manifest in manifests.items():
        findings += guarded("data", partial(shard_findings, folder, manifest))
    broken = [
        each for each in before + findings if each.level == "error" and each.topic in {"data", "targets", "init_from"}
    ]
    if missing or broken:
        need = "what the run begins with" if broken and broken[0].topic == "init_from" else "the data sets"
        text = f"memory, wall time, margin and disk need {need}, so they were not looked at"
        return [*findings, Finding("note", "measured", text)]
    return findings + guarded("measured", lambda: _measured(config, subject, like))


def _measured(config: TrainConfig, subject: Subject, like: Path | None) -> Iterator[Finding]:
    job, site = subject.job, subject.site
    # As the run will have them, if this machine has as many.
    cores = len(os.sched_getaffinity(0))
    threads = max(1, cores // job.ranks) if site.scheduler == "local" else job.components[0].cpus_per_rank
    trial = measure(subject, job.ranks, min(threads, cores))
    yield from (Finding("ok", "init_from", text) for text in trial.beginning)
    yield from (Finding("warning", "init_from", text) for text in trial.beginning_warnings)
    yield from (Finding("warning", "balance", text) for text in trial.warnings)
    if not trial.warnings:
        yield Finding(
            "ok", "balance", f"the ranks are busy {trial.efficiency:.0%} of the time, {trial.epochs:.3g} epochs"
        )
    yield from guarded("memory", lambda: memory_findings(trial, job, site, _staged_bytes(config, subject)))
    speed = _speed(config, subject, trial, like)
    done = newest_step(config.run_dir)
    complete = is_complete(config)
    yield from guarded("wall time", lambda: duration_findings(config, job, site, speed, done, complete=complete))
    yield from guarded("margin", lambda: _margin(config, subject, trial, speed))
    yield from guarded("disk", lambda: space_findings(run_need(config, trial.checkpoint_bytes), rooms(config.run_dir)))


def _speed(config: TrainConfig, subject: Subject, trial: Trial, like: Path | None) -> Speed:
    """Of earlier lives of this run, else of the run that the user names, else of the trial."""
    ranks = subject.job.ranks
    found = recorded_speed(config.run_dir, Wanted(ranks, efficiency=trial.efficiency))
    if found is None and like is not None:
        wanted = Wanted(ranks, trial.mean_cost * ranks * trial.efficiency, trial.efficiency)
        found = like_speed(like, config, wanted)
    if found is None:
        return trial_speed(trial)
    return completed_speed(found, trial)


def _margin(config: TrainConfig, subject: Subject, trial: Trial, speed: Speed) -> Iterator[Finding]:
    write_s = write_time_s(config.run_dir, trial.checkpoint_bytes)
    evaluation_s = max(speed.evaluation_s, speed.final_s)
    margin = Margin(NOTICE_S, speed.longest_s, min(trial.look_s, evaluation_s or trial.look_s), write_s)
    yield from margin_findings(margin, trial.checkpoint_bytes, subject.site, speed)


def _staged_bytes(config: TrainConfig, subject: Subject) -> int:
    """Shards that every node keeps in its memory."""
    if config.data.staging.where != "shared":
        return 0
    manifests, _ = read_manifests(config, subject)
    return sum(record.bytes for each in manifests.values() for record in each.shards)


def _preparation(config: PrepConfig, subject: Subject) -> Iterator[Finding]:
    """What needs a few inputs."""
    job = subject.job
    sample = sample_preparation(config, job.ranks)
    if not isinstance(config.source, SymmetrySource):  # whose number of blocks is looked at without a sample
        yield from block_findings(config, sample.inputs, job.ranks, exact=sample.exact)
    if sample.rejected:
        text = f"{sample.rejected} of {sample.sampled} inputs that were tried are unusable"
        yield Finding("warning", "input", text, "quarantine.jsonl of the data set will say why")
    if sample.unseen:
        text = f"nothing of {', '.join(sample.unseen)} in the part of the input that was looked at"
        yield Finding("warning", "input", text, "see whether their keys are spelled as in the input")
    yield from preparation_findings(sample, job, subject.site)
    shards = -(-sample.inputs // config.shard_size)
    need = data_set_need(shards, sample.bytes_per_input, sample.inputs, sample.unpacked_bytes)
    yield from guarded("disk", lambda: space_findings(need, rooms(config.out)))
