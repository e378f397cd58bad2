"""What every part of the config tree shares: unknown keys are errors, docstrings are the documentation."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _named(path: Path) -> Path:
    if path == Path():
        raise ValueError("name a folder")
    return path


Folder = Annotated[Path, AfterValidator(_named)]
"""A folder to write into: not the one that the command happens to run in."""


class Section(BaseModel):
    """A mapping in a config file. Unknown keys are refused; the docstring under a field documents it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
