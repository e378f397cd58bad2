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

from matsci_hpc.inference.about import About, Cost
from matsci_hpc.inference.metrics_table import metric_rows
from matsci_hpc.shards.describe import counted
from matsci_hpc.training.derived import Derivation

MARK = "library_name: matsci-hpc"
"""In the head of every card, by which one is known again."""
_MARKUP = re.compile(r"([\\`*_\[\]|~])")


@dataclass(frozen=True, slots=True)
class Card:
    """What stands in a card.

    Attributes:
        about: of the model, with what its training cost.
        file: name of the file of safetensors.
        parameters: numbers in the encoder and in the heads.
        heads: whether the file holds the heads.
        elements: atomic numbers that the run learned, and those of the runs before it; None where not known.
        evaluations: lines of evaluations, each with a title.
        licence: of the model, an identifier of SPDX; None if nobody gave one.
        data_licences: by name of the data set.
    """

    about: About
    file: str
    parameters: tuple[int, int]
    heads: bool
    evaluations: Sequence[tuple[str, Mapping[str, Any]]] = ()
    licence: str | None = None
    data_licences: Mapping[str, str] = field(default_factory=dict)
    elements: tuple[Sequence[int] | None, Sequence[int] | None] = (None, None)

    def render(self) -> str:
        """The page."""
        sections = [self._head(), self._title(), self._use(), self._targets(), self._data()]
        sections += [self._pretraining(), self._metrics()]
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
        with_heads = (
            f" and heads of {heads:,} parameters for {counted(len(about.specs), 'target')}" if self.heads else ""
        )
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
            if each.derivation is not None:  # the statistics are those of what it follows from
                numbers = ["", ""]
                kind = f"{kind}, yes where {self._condition(each.derivation)}"
            cells = [_text(name), _text(kind), _text(spec.unit or ""), f"{found.count:,}", *numbers]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def _condition(self, derivation: Derivation) -> str:
        source = self.about.learned.targets.get(derivation.source)
        unit = f" {source.spec.unit}" if source is not None and source.spec.unit else ""
        return f"{derivation.source} is {'below' if derivation.below else 'above'} {derivation.threshold:g}{unit}"

    def _data(self) -> str:
        lines = ["## Training data", "", *self._data_sets(self.about.origin.data)]
        own, before = self.elements
        if own is not None:
            lines += ["", f"Elements with training samples: {len(own)}, {_symbols(own)}."]
        elif self.about.origin.earlier:
            lines += ["", "Which elements had training samples in this run is not known."]
        if before is not None:
            lines += ["", f"Elements with training samples before this run: {len(before)}, {_symbols(before)}."]
        return "\n".join(lines)

    def _data_sets(self, data: Sequence[Mapping[str, Any]]) -> list[str]:
        lines = ["| data set | samples | splits | learned from | licence | fingerprint |", "|---|---|---|---|---|---|"]
        for each in data:
            splits = ", ".join(f"{name} {_count(count)}" for name, count in each.get("splits", {}).items())
            learned = each.get("learned_from", {})
            name = str(each.get("name", ""))
            cells = [name, _count(each.get("samples", "endless")), splits]
            cells.append(f"{_count(learned['samples'])} of {learned['split']}" if learned else "")
            cells += [self.data_licences.get(name, "not given"), str(each.get("fingerprint", ""))]
            lines.append(f"| {' | '.join(map(_text, cells))} |")
        return lines

    def _pretraining(self) -> str:
        parts = []
        for number, each in enumerate(self.about.origin.earlier):
            begun = "This run" if number == 0 else "That run"
            checksum = f" (XXH3-128 {_text(each.checksum)})" if each.checksum else ""
            text = f"{begun} began with the encoder of step {each.step:,} of {_text(each.run)}{checksum}."
            took = f" Until then it took {_took(each.cost)}." if each.cost else " Its records were not found."
            parts.append(text + took)
            if each.data:
                parts.append("\n".join(self._data_sets(each.data)))
        return "\n\n".join(["## Pretraining", *parts]) if parts else ""

    def _metrics(self) -> str:
        parts = []
        for title, line in self.evaluations:
            rows = [f"| {_text(a)} | {_text(b)} | {_text(c)} |" for a, b, c in metric_rows(line.get("metrics", {}))]
            parts.append("\n".join([f"{_text(title)}:", "", "| target | metric | value |", "|---|---|---|", *rows]))
        return "\n\n".join(["## Metrics", *parts]) if parts else "## Metrics\n\nThis run has never been evaluated."

    def _training(self) -> str:
        origin = self.about.origin
        took = f"{_took(origin.cost)}, in" if origin.cost is not None else "In"
        commit = f", commit {_text(origin.git)}" if origin.git else ""
        return (
            f"## Training\n\n{took} {self.about.precision}. Code: matsci-hpc "
            f"{_text(origin.matsci_hpc)}{commit}. Checksum of the parameters in the run (XXH3-128): {origin.checksum}."
        )

    def _limits(self) -> str:
        return (
            "## Limits\n\nPredictions carry no uncertainty. Structures unlike those of the training data, above all "
            "those with other elements, may get any number. The errors above are those of the splits that are named."
        )


def _took(cost: Cost) -> str:
    """What a training took, in words."""
    parts = [f"{cost.steps:,} steps"]
    parts += [f"{cost.samples:,} samples seen"] if cost.samples is not None else []
    parts += [_duration(cost.time_s)] if cost.time_s is not None else []
    parts += [f"{cost.rank_hours:.3g} rank hours"] if cost.rank_hours else []
    return ", ".join(parts) + (f" on {', '.join(map(_text, cost.machines))}" if cost.machines else "")


def _count(count: Any) -> str:
    return f"{count:,}" if isinstance(count, int) else str(count)


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
