"""What records and remedies remember of the steps so far, kept in checkpoints so that a resumed run is the same."""

from typing import Protocol

from torch import Tensor


class Remembering(Protocol):
    """Something that goes on from what it knew."""

    def state(self) -> dict[str, Tensor]:
        """What it knows."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        ...


class Course:
    """The memory of a run on one rank, in parts by name."""

    def __init__(self) -> None:
        self._parts: dict[str, Remembering] = {}
        self._loaded: dict[str, Tensor] = {}

    def attach(self, name: str, part: Remembering) -> None:
        """Keep a part, and let it go on from what was loaded of that name, if anything was."""
        self._parts[name] = part
        self._tell(name)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Let all parts, also those that are attached later, go on from the tensors of a checkpoint."""
        self._loaded = tensors
        for name in self._parts:
            self._tell(name)

    def tensors(self) -> dict[str, Tensor]:
        """What all parts know, by `NAME|KEY`."""
        return {f"{name}|{key}": each for name, part in self._parts.items() for key, each in part.state().items()}

    def _tell(self, name: str) -> None:
        prefix = f"{name}|"
        state = {key.removeprefix(prefix): each for key, each in self._loaded.items() if key.startswith(prefix)}
        if state:
            self._parts[name].load(state)
