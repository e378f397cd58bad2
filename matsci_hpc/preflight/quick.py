"""The part of preflight that `submit` itself runs: no measurement, no torch, well under a second.

It reads the configs, the site file, manifests, and what lies in the output folders. If all of that is well it has
Slurm try the job: some clusters queue what can never start, and there it would wait for ever.
"""

import sys
from collections.abc import Iterator, Sequence
from functools import partial

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.sources import SymmetrySource
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.chain import Link
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.preflight.beginning import beginning_findings
from matsci_hpc.preflight.data import data_findings, read_manifests
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.folder import data_set_findings, run_findings
from matsci_hpc.preflight.guard import guarded
from matsci_hpc.preflight.limits import account_findings, time_limit_findings
from matsci_hpc.preflight.paths import existence_findings
from matsci_hpc.preflight.scheduler import scheduler_findings
from matsci_hpc.preflight.size import batch_findings, block_findings, node_findings, speed_findings
from matsci_hpc.preflight.subject import Subject, subjects_of


def refuse_impossible(chain: Sequence[Link], site: Site, after: Sequence[str] = (), *, dry_run: bool = False) -> None:
    """Say what may go wrong, and refuse what must.

    Args:
        chain: the jobs.
        site: the machine.
        after: numbers of jobs that come before them.
        dry_run: nothing is going to be submitted, so nothing is refused.

    Raises:
        UserInputError: Something must fail; one line for each.
    """
    findings = quick_findings(chain, site, after)
    for each in findings:
        if each.level == "warning":
            print(f"matsci-hpc: warning: {line(each)}", file=sys.stderr)
    errors = [line(each) for each in findings if each.level == "error"]
    if not errors and not dry_run and site.scheduler == "slurm":
        tried = [each for link in chain for each in guarded("scheduler", partial(scheduler_findings, link.job, site))]
        errors = [line(each) for each in dict.fromkeys(tried) if each.level == "error"]
    if dry_run:
        for text in errors:
            print(f"matsci-hpc: submit would refuse this: {text}", file=sys.stderr)
    elif errors:
        raise UserInputError("\n".join(errors))


def line(finding: Finding) -> str:
    """A finding as one line."""
    return f"{finding.topic}: {finding.text}" + (f"; {finding.advice}" if finding.advice else "")


def quick_findings(chain: Sequence[Link], site: Site, after: Sequence[str] = ()) -> list[Finding]:
    """All that is wrong, as far as the configs, the site file and a look at the disk tell; each thing once."""
    findings = list(account_findings(site))
    for subject in subjects_of(chain, site, after=bool(after)):
        findings += look(subject)
    return list(dict.fromkeys(findings))


def look(subject: Subject) -> list[Finding]:
    """What a look at one run tells."""
    job, site, config = subject.job, subject.site, subject.config
    findings = guarded("time limit", lambda: time_limit_findings(job, site))
    if job.verb == "report":
        return findings
    findings += guarded("node", lambda: node_findings(job, site))
    findings += guarded("paths", lambda: existence_findings(subject))
    if isinstance(config, TrainConfig):
        findings += guarded("run_dir", lambda: run_findings(config))
        findings += guarded("data", lambda: _data(config, subject))
        findings += guarded("init_from", lambda: _beginning(config, subject))
        findings += guarded("batch", lambda: batch_findings(config, job.ranks))
        findings += guarded("batch", lambda: speed_findings(config, job.ranks))
    elif isinstance(config, PrepConfig):
        findings += guarded("out", lambda: data_set_findings(config.out))
        if isinstance(config.source, SymmetrySource):
            inputs = samples_of(config.source)
            findings += guarded("blocks", lambda: block_findings(config, inputs, job.ranks))
    return findings


def samples_of(source: SymmetrySource) -> int:
    """Clouds of all splits."""
    return source.samples if isinstance(source.samples, int) else sum(source.samples.values())


def _data(config: TrainConfig, subject: Subject) -> Iterator[Finding]:
    manifests, missing = read_manifests(config, subject)
    yield from missing
    yield from data_findings(config, manifests)


def _beginning(config: TrainConfig, subject: Subject) -> Iterator[Finding]:
    manifests, _ = read_manifests(config, subject)
    yield from beginning_findings(config, manifests, subject)
