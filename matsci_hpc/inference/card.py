"""The model card: one page of Markdown for people who meet an exported model. Nothing in it is fetched.

The head is the YAML of model cards on the Hugging Face Hub, so that the folder can be uploaded as it is. Text from runs
and data sets is escaped: no name can become markup.
"""

import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML

from matsci_hpc.inference.about import About
from matsci_hpc.inference.metrics_table import metric_rows

MARK = "library_name: matsci-hpc"
"""In the head of every card, by which one is known again."""
_MARKUP = re.compile(r"([\\`*_\[\]|~])")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a training took.

    Attributes:
        steps, samples: optimiser steps, and samples seen in them.
        time_s: of training, over all lives.
        rank_hours: time of each life times its ranks.
        machines: processors and GPUs of the lives.
    """

    steps: int
    samples: int
    time_s: float
    rank_hours: float | None
    machines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """What stands in a card.

    Attributes:
        about: of the model.
        file: name of the file of safetensors.
        parameters: numbers in the encoder and in the heads.
        heads: whether the file holds the heads.
        cost: of the training.
        evaluations: lines of evaluations, each with a title.
        licence: of the model, an identifier of SPDX; None if nobody gave one.
        data_licences: by name of the data set.
    """

    about: About
    file: str
    parameters: tuple[int, int]
    heads: bool
    cost: Cost
    evaluations: Sequence[tuple[str, Mapping[str, Any]]] = ()
    licence: str | None = None
    data_licences: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> str:
        """The page."""
        sections = [self._head(), self._title(), self._use(), self._targets(), self._data(), self._metrics()]
        return "\n\n".join(each for each in [*sections, self._training(), self._limits()] if each) + "\n"

    def _head(self) -> str:
        tags = ["materials-science", "chemistry", "graph-neural-network", self.about.model.name]
        head: dict[str, Any] = {"tags": tags}
        if self.licence is not None:
            head = {"license": self.licence} | head
        stream = io.StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.dump(head, stream)
        return f"---\n{MARK}\n{stream.getvalue()}---"

    def _title(self) -> str:
        about, origin = self.about, self.about.origin
        kind = "own module" if about.model.name == "module" else about.model.name
        encoder, heads = self.parameters
        with_heads = f" and heads of {heads:,} parameters for {len(about.specs)} targets" if self.heads else ""
        averaged = ", averaged over the last steps" if origin.weights == "average" else ""
        return (
            f"# {_text(origin.run)}\n\n"
            f"An encoder of crystal structures, molecules and point clouds ({_text(kind)}, {encoder:,} parameters)"
            f"{with_heads}, trained with matsci-hpc. It turns a structure into {about.model.embedding_width} numbers, "
            f"the same for a structure that is rotated, moved or listed in another order. The parameters are those of "
            f"step {origin.step:,}{averaged}."
        )

    def _use(self) -> str:
        module = ", trust_module=True" if self.about.model.name == "module" else ""
        predict = "\nmodel.predict(structures)  # a dict for each: id and targets" if self.heads else ""
        return (
            "## How to load\n\n```python\nfrom matsci_hpc import load_model\n\n"
            f"model = load_model({json.dumps(self.file)}{module})\n"
            f"model.embed(structures)  # ase.Atoms or structures of pymatgen{predict}\n```\n\n"
            f"The file holds numbers and JSON alone, no pickle. Edges join atoms up to "
            f"{self.about.learned.cutoff_angstrom:g} angstrom apart ({_text(self.about.learned.neighbor_rule)}); they "
            "are found when a structure is given."
        )

    def _targets(self) -> str:
        if not self.heads:
            return ""
        lines = [
            "## Targets",
            "",
            "| target | kind | unit | training samples | mean | deviation |",
            "|---|---|---|---|---|---|",
        ]
        for name, each in self.about.learned.targets.items():
            found, spec = each.statistics, each.spec
            numbers = [f"{value:.5g}" if value is not None else "" for value in (found.mean, found.std)]
            kind = f"{spec.kind}, {len(spec.classes)} classes" if spec.classes else spec.kind
            lines.append(
                f"| {_text(name)} | {kind} | {_text(spec.unit or '')} | {found.count:,} | {' | '.join(numbers)} |"
            )
        return "\n".join(lines)

    def _data(self) -> str:
        elements = self.about.elements
        lines = [
            "## Training data",
            "",
            "| data set | samples | splits | licence | fingerprint |",
            "|---|---|---|---|---|",
        ]
        for each in self.about.origin.data:
            splits = ", ".join(
                f"{name} {count:,}" if isinstance(count, int) else f"{name} {count}"
                for name, count in each.get("splits", {}).items()
            )
            samples = f"{each['samples']:,}" if isinstance(each.get("samples"), int) else "endless"
            name = str(each.get("name", ""))
            licence = self.data_licences.get(name, "not given")
            cells = [name, samples, splits, licence, str(each.get("fingerprint", ""))]
            lines.append(f"| {' | '.join(map(_text, cells))} |")
        if elements is not None:
            lines += ["", f"Elements with training samples: {len(elements)}, {_symbols(elements)}."]
        return "\n".join(lines)

    def _metrics(self) -> str:
        parts = []
        for title, line in self.evaluations:
            rows = [f"| {_text(a)} | {_text(b)} | {_text(c)} |" for a, b, c in metric_rows(line.get("metrics", {}))]
            parts.append("\n".join([f"{_text(title)}:", "", "| target | metric | value |", "|---|---|---|", *rows]))
        return "\n\n".join(["## Metrics", *parts]) if parts else "## Metrics\n\nThis run has never been evaluated."

    def _training(self) -> str:
        cost, origin = self.cost, self.about.origin
        took = _duration(cost.time_s) + (f", {cost.rank_hours:.3g} rank hours" if cost.rank_hours else "")
        machines = f" on {', '.join(map(_text, cost.machines))}" if cost.machines else ""
        commit = f", commit {_text(origin.git)}" if origin.git else ""
        return (
            f"## Training\n\n{cost.steps:,} steps, {cost.samples:,} samples seen, {took}{machines}, in "
            f"{self.about.precision}. Code: matsci-hpc {_text(origin.matsci_hpc)}{commit}. Checksum of the parameters "
            f"in the run (XXH3-128): {origin.checksum}."
        )

    def _limits(self) -> str:
        return (
            "## Limits\n\nPredictions carry no uncertainty. Structures unlike those of the training data, above all "
            "those with other elements, may get any number. The errors above are those of the splits that are named."
        )


def _duration(time_s: float) -> str:
    for unit, seconds in (("h", 3600.0), ("min", 60.0)):
        if time_s >= 2 * seconds:
            return f"{time_s / seconds:.3g} {unit}"
    return f"{time_s:.3g} s"


def _symbols(numbers: Sequence[int]) -> str:
    from ase.data import chemical_symbols

    return " ".join(chemical_symbols[number] for number in numbers)


def _text(text: str) -> str:
    """Text that Markdown and HTML take as text, in the middle of a line."""
    plain = _MARKUP.sub(r"\\\1", " ".join(str(text).split()))
    return html.escape(plain, quote=False)
