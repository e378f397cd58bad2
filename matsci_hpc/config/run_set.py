"""What the configs of `matsci-hpc study` and `matsci-hpc compare` share: one base, run many times."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field, JsonValue

from matsci_hpc.config.base import Folder, Section


class RunSetConfig(Section):
    """A set of runs that are made, kept and collected together."""

    kind: ClassVar[str]
    """What messages call it, and its resolved config in the folder."""
    verb: ClassVar[str]
    """Command that makes it."""
    by_time: ClassVar[bool]
    """Whether runs are compared by their times: one that was broken off begins anew, and ranks have the same threads.
    Others go on from their checkpoints."""

    base: Path
    """Config of the run that is varied."""
    out: Folder
    """Folder of the runs and of what was collected from them."""
    overrides: dict[str, JsonValue] = Field(default_factory=dict)
    """Keys of the base, `key.sub`, that all runs have otherwise than the base."""
    prepare: list[Path] = Field(default_factory=list)
    """Configs of the data sets that the runs read, prepared first; what is there already stays."""
    site: str = "local"
    """Where runs are planned and submitted, unless the command line says otherwise."""
    allow: Sequence[str] = ()
    """What runs that are compared may differ in."""

    @property
    def sets_threads(self) -> bool:
        """Whether the config says how many threads a rank has."""
        return False
