"""What a model says of structures, in words and units that mean something to people.

| kind of target `T` | keys of a prediction |
|---|---|
| regression | `T`: a float in its unit, or an array where the target is a vector, a tensor or one for every atom |
| binary | `T`: True or False; `T.probability`: that it is True |
| class | `T`: name of the likeliest class; `T.probability`: of it; `T.probabilities`: of every class |
| multilabel | `T`: names of the labels likelier than not; `T.probabilities`: of every label |

Names of targets have no dots, so no key stands for two things. There is no measure of uncertainty: probabilities are
what the network gives, and nothing has calibrated them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.registry import Model
from matsci_hpc.targets import TargetSpec

PROBABILITY, PROBABILITIES = "probability", "probabilities"
ID = "id"


def predictions_of(
    module: Model, specs: Mapping[str, TargetSpec], outputs: dict[str, Tensor], batch: Batch, ids: Sequence[str]
) -> list[dict[str, Any]]:
    """A dict for each graph of a batch, its keys as above after `id`.

    Args:
        module: what made the outputs.
        specs: targets to tell of.
        outputs: by target, as `Model.forward` gives them.
        batch: that they are of.
        ids: of the graphs.
    """
    physical = module.physical({name: outputs[name] for name in specs}, batch)
    found: list[dict[str, Any]] = [{ID: each} for each in ids]
    atoms = batch.atom_pointer.tolist()
    for name, spec in specs.items():
        values = physical[name].detach().cpu().numpy()
        for graph, row in enumerate(found):
            value = values[atoms[graph] : atoms[graph + 1]] if spec.per_atom else values[graph]
            row.update(_told(name, spec, value))
    return found


def key_of(name: str, part: str = "") -> str:
    """The key of a target, or of what belongs to it; one that is called `id` gives way to the id."""
    name = f"{name}." if name == ID else name
    return f"{name}.{part}" if part else name


def columns_of(specs: Mapping[str, TargetSpec]) -> list[str]:
    """Keys of a prediction that have a column in a table."""
    columns = [ID]
    for name, spec in specs.items():
        columns.append(key_of(name))
        if spec.kind in {"binary", "class"}:
            columns.append(key_of(name, PROBABILITY))
    return columns


def _told(name: str, spec: TargetSpec, value: Any) -> dict[str, Any]:
    if spec.kind == "regression":
        return {key_of(name): float(value) if spec.is_number else value}
    if spec.kind == "binary":
        return {key_of(name): bool(value > 0.5), key_of(name, PROBABILITY): float(value)}
    by_class = dict(zip(spec.classes or (), map(float, value), strict=True))
    if spec.kind == "class":
        likeliest = max(by_class, key=lambda each: by_class[each])
        return {
            key_of(name): likeliest,
            key_of(name, PROBABILITY): by_class[likeliest],
            key_of(name, PROBABILITIES): by_class,
        }
    labels = [each for each, probability in by_class.items() if probability > 0.5]
    return {key_of(name): labels, key_of(name, PROBABILITIES): by_class}
