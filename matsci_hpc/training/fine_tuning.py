"""Fine-tuning: what a run takes from another one, whether it fits, and what is said of it."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from matsci_hpc.config.fine_tune import FineTune
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.model import Model as ModelSection
from matsci_hpc.config.train import Target, TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.model_file import read_model
from matsci_hpc.loading.collection import Collection
from matsci_hpc.models.registry import Model
from matsci_hpc.parallel.together import on_every, on_first
from matsci_hpc.telemetry.dynamics.groups import group_name
from matsci_hpc.training.derived import derived_otherwise
from matsci_hpc.training.encoder_parts import ENCODER
from matsci_hpc.training.freezing import Freezing
from matsci_hpc.training.initial_encoder import (
    Origin,
    choose_origin,
    load_encoder,
    refuse_other_parameters,
    saved_shapes,
    saved_tensors,
    taken_parameters,
)
from matsci_hpc.training.learned_from import LearnedFrom, describe, learned_elements, read_learned_from
from matsci_hpc.training.misfits import element_misfit, neighbor_misfits
from matsci_hpc.training.run_folder import note_in_provenance
from matsci_hpc.training.tasks import Task

if TYPE_CHECKING:
    from matsci_hpc.training.setup import Run

OPTIMIZER = "optimizer.safetensors"
ELEMENTS = "encoder.elements.weight"
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(slots=True)
class Beginning:
    """What a run begins with.

    Attributes:
        origin: the checkpoint.
        loaded: what is taken from it, in words.
        not_loaded: what is not, each with `what` and `why`.
        differences: from what the encoder learned before, that the config accepts.
        warnings: what may be a mistake.
        heads: targets whose heads are taken.
        elements: atomic numbers that the encoder has learned; None where that is not known.
    """

    origin: Origin
    loaded: list[str] = field(default_factory=list)
    not_loaded: list[dict[str, str]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    elements: list[int] | None = None

    def in_words(self) -> Iterator[str]:
        """Lines that say what is loaded, what is not, and what differs."""
        yield f"loaded: {'; '.join(self.loaded)}"
        for each in self.not_loaded:
            yield f"not loaded: {each['what']}: {each['why']}"
        for text in self.differences:
            yield f"differs: {text}"

    def to_json(self) -> dict[str, Any]:
        """As the run's provenance keeps it under `fine_tune`."""
        keys = ("loaded", "not_loaded", "differences", "warnings")
        return {key: value for key, value in asdict(self).items() if key in keys}


@dataclass(frozen=True, slots=True)
class _Before:
    """What the one that a run begins with learned.

    Attributes:
        model: its section.
        targets: of its config; of an exported file those that are derived.
        known: from what kind of data.
    """

    model: ModelSection
    targets: Mapping[str, Target]
    known: LearnedFrom


def survey(
    config: TrainConfig,
    model: Model,
    tasks: list[Task],
    collection: Collection,
    progress: Callable[[], None] = lambda: None,
) -> Beginning:
    """Find out what a run takes from the one that `init_from` names, and whether it fits; on one rank.

    Args:
        config: of the run that starts; names another one.
        model: of it.
        tasks: its targets.
        collection: its data.
        progress: called now and then.

    Raises:
        UserInputError: there is no usable checkpoint, or it does not fit and the config does not accept that.
        MachineError: the checkpoint or the data can no longer be read.
    """
    if config.init_from is None:
        raise ValueError("the run begins with parameters of its own")
    section = config.fine_tune
    found = Beginning(choose_origin(config.init_from, config.model))
    path = Path(found.origin.path)
    shapes, moments = saved_shapes(path), saved_shapes(path, OPTIMIZER)
    refuse_other_parameters(path, model, shapes)
    before = _before(path)
    known = before.known
    parameters = taken_parameters(model, section.reinitialize)
    numbers = sum(each.numel() for each in parameters.values())
    averaged = ", averaged" if found.origin.weights == "average" else ""
    found.loaded.append(f"encoder ({numbers:,} parameters{averaged})")
    if section.reinitialize:
        others = sum(each.numel() for each in model.encoder.parameters()) - numbers
        found.not_loaded.append(
            {
                "what": f"{', '.join(section.reinitialize)} of the encoder ({others:,} parameters)",
                "why": "fine_tune.reinitialize",
            }
        )
    _judge_moments(found, section.optimizer, list(parameters), moments)
    why_not = "fine_tune.heads is new" if section.heads == "new" else None
    names = before.targets.keys() | config.targets.keys()
    derived = {name: derived_otherwise(before.targets.get(name), config.targets.get(name)) for name in names}
    _judge_heads(found, why_not, derived, model, tasks, known.targets, shapes)
    found.differences += [*neighbor_misfits(path, known, learned_here(collection, tasks), section.neighbors)]
    found.differences += _other_readout(before.model, config)
    if ELEMENTS in parameters or ELEMENTS not in dict(model.named_parameters()):
        found.elements = learned_elements(path, known)
        found.warnings += [*element_misfit(path, found.elements, collection, section.elements, progress)]
    return found


def refuse_useless_parts(config: TrainConfig, model: Model, freezing: Freezing) -> None:
    """See to it that parts of an encoder which are to begin at random exist and are trained.

    Raises:
        UserInputError: the encoder has no such part, nothing else is left of it, or it is frozen for the whole run.
    """
    section = config.fine_tune
    taken = taken_parameters(model, section.reinitialize)
    if config.init_from is None:
        return
    frozen = [name for name in freezing.frozen_at(config.steps - 1) if name not in taken and name.startswith(ENCODER)]
    if frozen:
        raise UserInputError(
            f"fine_tune: {', '.join(sorted(set(map(group_name, frozen))))}: random by reinitialize and frozen for the "
            "whole run, so that nothing would ever train it; leave it out of one of them"
        )


def learned_here(collection: Collection, tasks: list[Task], earlier_elements: list[int] | None = None) -> LearnedFrom:
    """What a run learns and from what kind of data, as its checkpoints say it.

    Args:
        collection: its data.
        tasks: its targets.
        earlier_elements: atomic numbers that the encoder had learned before.
    """
    manifests = [each.manifest for each in collection.datasets]
    return describe(manifests, {task.name: task.spec for task in tasks}, earlier_elements)


def begin(run: "Run") -> None:
    """Let a new run begin with what it takes from another one, say and note it; collective.

    Raises:
        UserInputError: it does not fit.
        MachineError: it can no longer be read.
    """
    config = run.config
    if config.init_from is None:
        on_first(run.comm, lambda: _say(run, None))
        return
    path, run.taken_heads, run.earlier_elements = on_first(run.comm, lambda: _begin_on_first(run))
    section = config.fine_tune
    on_every(run.comm, lambda: load(Path(path), run.model, run.optimizer, run.taken_heads, section))


def load(path: Path, model: Model, optimizer: torch.optim.Optimizer, heads: list[str], section: FineTune) -> None:
    """Put what is taken from a verified checkpoint into a model and its optimiser.

    Args:
        path: of the checkpoint.
        model: its encoder, and some of its heads, are of the same sizes.
        optimizer: of the model.
        heads: targets whose heads are taken.
        section: which parts of the encoder are taken, and whether Adam's moments of them are.

    Raises:
        UserInputError: parameters are missing or of another shape.
        MachineError: the checkpoint can no longer be read.
    """
    load_encoder(path, model, section.reinitialize)
    if heads:
        saved = saved_tensors(path)
        with torch.no_grad():
            for name in heads:
                prefix = _prefix(model, name)
                for key, value in model.head(name).state_dict(keep_vars=True).items():
                    value.copy_(saved[prefix + key])
    if section.optimizer == "reset":
        return
    parameters = taken_parameters(model, section.reinitialize)
    for key, value in saved_tensors(path, OPTIMIZER).items():
        name, _, entry = key.partition("|")
        if name in parameters:
            parameter = parameters[name]
            kind = parameter.dtype if value.shape == parameter.shape and value.ndim else value.dtype
            optimizer.state[parameter][entry] = value.to(device=parameter.device, dtype=kind)


def _judge_moments(found: Beginning, wanted: str, names: list[str], moments: Shapes) -> None:
    there = sum(f"{name}|exp_avg" in moments for name in names)
    if wanted == "kept" and there:
        found.loaded.append(f"Adam's moments of {there:,} of the encoder's {len(names):,} tensors")
    if wanted == "reset":
        found.not_loaded.append({"what": "Adam's moments", "why": "fine_tune.optimizer is reset"})
    elif there < len(names):
        why = f"{len(names) - there:,} tensors were not trained there"
        found.not_loaded.append({"what": "other moments of the encoder", "why": why})


def _judge_heads(
    found: Beginning,
    why_not: str | None,
    derived: Mapping[str, str | None],
    model: Model,
    tasks: list[Task],
    there: Mapping[str, Any] | None,
    shapes: Shapes,
) -> None:
    """Which heads are taken, and why the others are not: those of this run first, then those that it has no use for."""
    reasons: dict[str, list[str]] = {}
    for task in tasks:
        why = why_not or _why_no_head(model, task, there, shapes) or derived.get(task.name)
        if why is None:
            found.heads.append(task.name)
        else:
            reasons.setdefault(why, []).append(task.name)
    if found.heads:
        found.loaded.append(f"{_heads(found.heads)}, with the scaling")
    unused = sorted((there or {}).keys() - {task.name for task in tasks})
    if unused:
        reasons["this run does not learn it"] = unused
    found.not_loaded += [{"what": _heads(names), "why": why} for why, names in reasons.items()]


def _why_no_head(model: Model, task: Task, there: Mapping[str, Any] | None, shapes: Shapes) -> str | None:
    """Why the head of a target cannot be taken; None if it can."""
    if there is None:
        return "the checkpoint, of an earlier release, does not say of what kind its targets are"
    if task.name not in there:
        return "it was not learned there"
    before, now = (spec.model_dump(mode="json") for spec in (there[task.name], task.spec))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            return f"{key} is {_short(before.get(key))} there and {_short(now.get(key))} here"
    prefix = _prefix(model, task.name)
    own = {f"{prefix}{key}": tuple(value.shape) for key, value in model.head(task.name).state_dict().items()}
    theirs = {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
    for name in sorted(own.keys() | theirs.keys()):
        if own.get(name) != theirs.get(name):
            sizes = [str(list(each)) if each is not None else "missing" for each in (theirs.get(name), own.get(name))]
            return f"its {name.removeprefix(prefix)} is {sizes[0]} there and {sizes[1]} here"
    return None


def _before(path: Path) -> _Before:
    if not path.is_file():
        config = load_config(TrainConfig, path / "config.yaml")
        return _Before(config.model, config.targets, read_learned_from(path))
    about, _ = read_model(path)
    derivations = {name: each.derivation for name, each in about.learned.targets.items()}
    targets = {
        name: Target(of=each.source, **{"below" if each.below else "above": each.threshold})
        for name, each in derivations.items()
        if each is not None
    }
    return _Before(about.model, targets, about.learned_from)


def _other_readout(before: ModelSection, config: TrainConfig) -> list[str]:
    there, here = before.readout, config.model.readout
    return [f"model.readout is {here} here and {there} there"] if there != here else []


def _begin_on_first(run: "Run") -> tuple[str, list[str], list[int] | None]:
    found = survey(run.config, run.model, run.tasks, run.collection, run.comm.activity.tick)
    _say(run, found)
    return found.origin.path, found.heads, found.elements


def _say(run: "Run", found: Beginning | None) -> None:
    """Tell, and note in the provenance, how a run begins; nothing of one without anything special."""
    training = [*run.freezing.in_words(run.config.steps), *_rates(run)]
    noted: dict[str, Any] = {"training": training} if training else {}
    if found is not None:
        noted = found.to_json() | noted
        note_in_provenance(run.folder, {"init_from": found.origin.to_json(), "fine_tune": noted})
        averaged = ", its averaged parameters" if found.origin.weights == "average" else ""
        print(f"{run.config.run_dir}: begins with the encoder of {found.origin.path}{averaged}")
        for text in found.in_words():
            print(f"  {text}")
        for text in found.warnings:
            print(f"matsci-hpc: warning: {text}", file=sys.stderr, flush=True)
    elif noted:
        note_in_provenance(run.folder, {"fine_tune": noted})
        print(f"{run.config.run_dir}: begins with the parameters of its seed")
    for text in training:
        print(f"  {text}")
    sys.stdout.flush()


def _rates(run: "Run") -> Iterator[str]:
    """Learning rates that are not those of the heads, by part of the encoder."""
    named = {id(each): name for name, each in run.model.named_parameters()}
    factors = {named[id(each)]: group["lr_factor"] for group in run.optimizer.param_groups for each in group["params"]}
    if set(factors.values()) == {1.0}:
        return
    parts = {group_name(name): factors[name] for name, _ in run.model.encoder.named_parameters(prefix="encoder")}
    if len(set(parts.values())) == 1:
        parts = {"encoder": next(iter(parts.values()))}
    rates = ", ".join(f"{name} {factor:.3g}" for name, factor in parts.items())
    yield f"learning rates, over that of the heads: {rates}"


def _prefix(model: Model, target: str) -> str:
    """What the names of a head's tensors begin with."""
    head = model.head(target)
    return next(f"{name}." for name, module in model.named_modules() if module is head)


def _heads(names: list[str]) -> str:
    return f"head{'s' if len(names) > 1 else ''} of {', '.join(names)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "none" if value is None else str(value)
