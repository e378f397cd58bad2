"""Whether the data sets of a training run are there, whole, and of one kind."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from matsci_hpc.config.generated import MAX_SAMPLES
from matsci_hpc.config.gradient_targets import unfit_gradients
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.opening import generated
from matsci_hpc.loading.same_samples import same_samples
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.subject import Subject
from matsci_hpc.preflight.words import counted
from matsci_hpc.shards.manifest import Manifest, read_manifest
from matsci_hpc.targets import NOT_LEARNED
from matsci_hpc.training.derived import derivation_of


def read_manifests(config: TrainConfig, subject: Subject) -> tuple[dict[Path, Manifest], list[Finding]]:
    """The manifests of the data sets that are there, and what is wrong with the others."""
    found: dict[Path, Manifest] = {}
    findings = []
    for folder in config.data.folders:
        try:
            found[folder] = read_manifest(folder)
        except UserInputError as error:
            if subject.is_awaited(folder):
                text = f"{folder}: an earlier job makes it"
                findings.append(Finding("note", "data", text, "check again when it is there"))
            elif subject.after:
                text = f"{error}; a job before this one may make it"
                findings.append(Finding("warning", "data", text))
            else:
                advice = "submit its preparation together with this run, or wait for it by --after"
                findings.append(Finding("error", "data", str(error), advice))
    for entry in config.data.entries:
        try:
            made = generated(entry)
        except UserInputError as error:
            findings.append(Finding("error", "data", str(error).removeprefix("data.train: ")))
        else:
            found |= {Path(made.name): made.manifest} if made is not None else {}
    return found, findings


def data_findings(config: TrainConfig, manifests: Mapping[Path, Manifest]) -> Iterator[Finding]:
    """Whether data sets fit each other and the config. Those that are not there yet are left out."""
    missing = len(manifests) < len(config.data.entries)
    faults = [*_same_data(manifests), *_targets(config, manifests, missing=missing)]
    faults += [*_splits(config, manifests, missing=missing), *_subset(config, manifests, missing=missing)]
    yield from faults
    if not any(each.level == "error" for each in faults):
        for folder, each in manifests.items():
            split = config.data.split
            there, of = each.splits.get(split, 0), counted(each.counts.samples, "sample")
            text = f"{folder}: {there:,} of {of} in {split!r}"
            if there == MAX_SAMPLES:
                text = f"{folder}: made while training, {split!r} is endless"
            yield Finding("ok", "data", f"{text}, cutoff {each.neighbors.cutoff_angstrom:g} angstrom")


def shard_findings(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """Whether every shard lies there in its full length. Checksums are for `shards verify`, which reads every byte."""
    wrong = []
    for record in manifest.shards:
        try:
            size = (folder / record.file).stat().st_size
        except OSError as error:
            wrong.append(f"{record.file} ({error.strerror})")
            continue
        if size != record.bytes:
            wrong.append(f"{record.file} ({size:,} bytes instead of {record.bytes:,})")
    if wrong:
        more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        advice = f"`matsci-hpc shards verify {folder}` tells more"
        yield Finding("error", "data", f"{folder}: damaged: {wrong[0]}{more}", advice)


def _same_data(manifests: Mapping[Path, Manifest]) -> Iterator[Finding]:
    for found in same_samples((str(folder), each) for folder, each in manifests.items()):
        yield Finding("error" if found.refused else "warning", "data", found.text, found.advice)
    cutoffs = {folder: each.neighbors.cutoff_angstrom for folder, each in manifests.items()}
    if len(set(cutoffs.values())) > 1:
        shown = ", ".join(f"{folder} {cutoff:g}" for folder, cutoff in cutoffs.items())
        advice = "prepare them with one neighbors.cutoff"
        yield Finding("error", "data", f"made with different cutoffs, in angstrom: {shown}", advice)


def _targets(config: TrainConfig, manifests: Mapping[Path, Manifest], *, missing: bool) -> Iterator[Finding]:
    known: dict[str, Path] = {}
    for folder, each in manifests.items():
        for name, spec in each.targets.items():
            first = known.setdefault(name, folder)
            if manifests[first].targets[name] != spec:
                text = f"target {name} has another kind, unit or classes in {folder} than in {first}"
                yield Finding("error", "targets", text, "prepare them alike, or under another name")
    if missing:  # the others may have it
        return
    specs = {name: manifests[folder].targets[name] for name, folder in known.items()}
    for name, section in config.targets.items():
        if section.of is not None:
            try:
                derivation_of(name, section, specs)
            except UserInputError as error:
                yield Finding("error", "targets", str(error))
        elif name not in known:
            there = ", ".join(sorted(known)) or "none"
            yield Finding("error", "targets", f"targets.{name}: no data set has it; they have: {there}")
        elif not specs[name].is_learnable:
            yield Finding("error", "targets", f"targets.{name}: {NOT_LEARNED}", "leave it out")
    for fault in unfit_gradients(config.gradients, specs):
        yield Finding("error", "targets", fault)
    whole = [name for name, spec in specs.items() if spec.is_number]
    split = config.data.split
    columns = {name: section.of or name for name, section in config.targets.items()}
    for name, column in (columns or dict(zip(whole, whole, strict=True))).items():
        labelled = [
            statistics.count
            for each in manifests.values()
            if (statistics := each.statistics.get(split, {}).get(column)) is not None
        ]
        if column in known and not sum(labelled) and any(each.splits.get(split) for each in manifests.values()):
            yield Finding("error", "targets", f"targets.{name}: no sample of split {split!r} carries it")
    if not config.targets and not whole:
        of_atoms = sorted(name for name, spec in specs.items() if spec.is_learnable)
        advice = "name some under source.targets when preparing the data"
        if of_atoms:
            advice = f"those of atoms are learned where `targets` names them; it can name {', '.join(of_atoms)}"
        yield Finding("error", "targets", "the data sets have no target to learn", advice)


def _subset(config: TrainConfig, manifests: Mapping[Path, Manifest], *, missing: bool) -> Iterator[Finding]:
    """Whether the split has as many samples as are to be drawn from it."""
    there = sum(each.splits.get(config.data.split, 0) for each in manifests.values())
    if config.data.subset is not None and not missing and there < config.data.subset.samples:
        text = f"data.subset: {config.data.subset.samples:,} samples, and split {config.data.split!r} has {there:,}"
        yield Finding("error", "data", text, "ask for no more, or leave it out to train on all")


def _splits(config: TrainConfig, manifests: Mapping[Path, Manifest], *, missing: bool) -> Iterator[Finding]:
    wanted = {
        "data.split": config.data.split,
        "data.held_out": config.data.held_out,
        "evaluate.final_split": config.evaluate.final_split,
    }
    if config.data.split == config.data.held_out:
        yield Finding("error", "data", f"data.held_out: {config.data.split!r} is trained on", "name another split")
    for key, split in wanted.items():
        if split is None or missing or any(each.splits.get(split) for each in manifests.values()):
            continue
        known = sorted({name for each in manifests.values() for name, count in each.splits.items() if count})
        null = {"data.held_out": ", or null to hold out nothing", "evaluate.final_split": ", or null for none"}
        advice = f"name one of {', '.join(known)}{null.get(key, '')}"
        yield Finding("error", "data", f"{key}: no sample is in split {split!r}", advice)
