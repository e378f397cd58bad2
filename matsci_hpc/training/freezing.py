"""Which parameters are trained in a step: a pure function of the step, so that nothing has to be saved for it."""

import math
from collections.abc import Collection, Iterable

from torch import nn

from matsci_hpc.config.fine_tune import FineTune
from matsci_hpc.telemetry.dynamics.groups import group_name
from matsci_hpc.training.encoder_parts import ENCODER, full_name, is_in


class Freezing:
    """Freezes and thaws the parts of an encoder, in its place.

    Frozen parameters ask for no gradient, so backward ends above them, and have none, so the optimiser leaves them as
    they are. Frozen modules are in evaluation mode, so that their statistics and random numbers rest, too.

    Args:
        model: with an `encoder`.
        section: what is frozen, and for how long.

    Attributes:
        named: parameters that are trained in some step, by name, in the order of the model.
        frozen: names of those that are frozen now.

    Raises:
        UserInputError: the encoder has no part of a name in the section.
    """

    def __init__(self, model: nn.Module, section: FineTune) -> None:
        every = dict(model.named_parameters())
        rules = _rules(section, every)
        self.named = {name: each for name, each in every.items() if each.requires_grad}
        self._steps = {name: steps for name in self.named if (steps := _frozen_for(name, rules))}
        modules = [(each, _frozen_for(name, rules)) for name, each in model.named_modules() if name]
        self._modules = [(each, steps) for each, steps in modules if steps]
        self._still: list[nn.Module] = []
        self.frozen: frozenset[str] = frozenset()

    @property
    def phases(self) -> list[int]:
        """Steps, from 0, with which another set of parameters begins to be trained."""
        return sorted({0, *(int(steps) for steps in self._steps.values() if math.isfinite(steps))})

    def frozen_at(self, step: int) -> frozenset[str]:
        """Names of the parameters that are frozen in a step, from 0."""
        return frozenset(name for name, steps in self._steps.items() if step < steps)

    def begin(self, step: int) -> bool:
        """Freeze and thaw what a step, from 0, wants so.

        Returns:
            Whether other parameters are trained than before: their gradients must be laid out anew.
        """
        frozen = self.frozen_at(step)
        if frozen == self.frozen:
            return False
        self.thaw()
        self.frozen = frozen
        for name in frozen:
            self.named[name].requires_grad_(False)
            self.named[name].grad = None
        self._still = [module for module, steps in self._modules if step < steps]
        self.keep_still()
        return True

    def thaw(self) -> None:
        """Let everything be trained."""
        self.frozen = frozenset()
        for each in self.named.values():
            each.requires_grad_()
        for module in self._still:
            module.training = True
        self._still = []

    def keep_still(self) -> None:
        """Put frozen modules into evaluation mode, which `model.train()` has taken them out of."""
        for module in self._still:
            module.training = False

    def in_words(self, steps: int) -> list[str]:
        """What is frozen for how many of so many steps."""
        total = sum(each.numel() for each in self.named.values())
        lines = []
        for until in sorted(set(self._steps.values())):
            names = [name for name, each in self._steps.items() if each == until]
            numbers = sum(self.named[name].numel() for name in names)
            how_long = "for the whole run" if until >= steps else f"for the first {int(until):,} steps"
            lines.append(f"{_parts(names, self.named)}: frozen {how_long}, {numbers:,} of {total:,} parameters")
        return lines


def _rules(section: FineTune, names: Collection[str]) -> dict[str, float]:
    """Steps by full names, such as encoder.layers.0."""
    more = f", or {ENCODER} for all of it"
    return {full_name(name, names, "fine_tune.freeze", more): steps for name, steps in section.frozen_for.items()}


def _frozen_for(name: str, rules: dict[str, float]) -> float:
    """Steps by the longest name that a parameter, or a module, has or lies in; 0 if there is none."""
    fitting = [rule for rule in rules if is_in(name, rule)]
    return rules[max(fitting, key=len)] if fitting else 0


def _parts(names: list[str], every: Iterable[str]) -> str:
    """Parameters in few words: by layer groups, or the encoder if they are all of it."""
    if set(names) == {name for name in every if is_in(name, ENCODER)}:
        return ENCODER
    return ", ".join(dict.fromkeys(map(group_name, names)))
