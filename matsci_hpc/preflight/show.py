"""Findings as lines for a person, or as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import click

from matsci_hpc.preflight.finding import Finding, Level
from matsci_hpc.preflight.thorough import Checked
from matsci_hpc.preflight.words import counted

COLORS: dict[Level, str] = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}
LEVEL_WIDTH = 8
TOPIC_WIDTH = 12


def show_runs(checked: Iterable[Checked]) -> list[Finding]:
    """Print what was found, each run as soon as it is checked, and a verdict; gives all findings."""
    everything: list[Finding] = []
    for each in checked:
        job = each.job
        size = f"{counted(job.nodes, 'node')}, {counted(job.ranks, 'rank')}"
        click.echo(f"{'' if not everything else chr(10)}{job.verb} {each.name}: {size}")
        everything += show(each.findings)
    click.echo(f"\n{verdict(everything)}")
    return everything


def show(findings: Iterable[Finding]) -> list[Finding]:
    """Print findings, each as soon as it is known: the iterable may still be looking. Gives all of them."""
    shown = []
    for each in findings:
        text = "\n".join(lines(each))
        # Click takes colours out where there is no terminal.
        level = click.style(text[:LEVEL_WIDTH], fg=COLORS[each.level], bold=each.level == "error")
        click.echo(level + text[LEVEL_WIDTH:])
        shown.append(each)
    return shown


def lines(finding: Finding) -> list[str]:
    """Level, topic and text in columns; what to do stands below."""
    margin = " " * (LEVEL_WIDTH + TOPIC_WIDTH + 2)
    first, *others = finding.text.splitlines() or [""]
    text = [
        f"{finding.level:<{LEVEL_WIDTH}} {finding.topic:<{TOPIC_WIDTH}} {first}",
        *(margin + each for each in others),
    ]
    return [*text, f"{margin}-> {finding.advice}"] if finding.advice else text


def verdict(findings: Sequence[Finding]) -> str:
    """In a sentence."""
    errors, warnings = (sum(each.level == level for each in findings) for level in ("error", "warning"))
    if errors:
        also = f" and {counted(warnings, 'warning')}" if warnings else ""
        return f"{counted(errors, 'error')}{also}: this would fail"
    if warnings:
        return f"{counted(warnings, 'warning')}: this may fail, or waste the machine"
    return "nothing speaks against it"


def as_json(checked: Sequence[Checked]) -> str:
    """One object: each run with its findings, and how many are errors and warnings."""
    runs = [
        {
            "name": each.name,
            "verb": each.job.verb,
            "nodes": each.job.nodes,
            "ranks": each.job.ranks,
            "findings": [asdict(finding) for finding in each.findings],
        }
        for each in checked
    ]
    found = [finding for each in checked for finding in each.findings]
    counts = {f"{level}s": sum(each.level == level for each in found) for level in ("error", "warning")}
    return json.dumps({"runs": runs} | counts, indent=1)
