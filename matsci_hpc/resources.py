"""The YAML files and templates that ship with the package."""

from pathlib import Path, PurePosixPath

from matsci_hpc.errors import MachineError

FOLDERS = ("data_prep", "job_templates", "scaling_studies")
"""Folders of the source tree that a wheel carries along (`force-include` in pyproject.toml)."""


def shipped(relative: str) -> Path:
    """Find a file or folder that ships with the package.

    Args:
        relative: Path as in the source tree, such as `job_templates/sites/local.yaml`.

    Returns:
        Its place inside the installed package, or in the source checkout for an editable install.

    Raises:
        MachineError: The installation lacks it.
    """
    parts = PurePosixPath(relative).parts
    if not parts or parts[0] not in FOLDERS or ".." in parts:
        raise ValueError(f"{relative!r} is not under one of {', '.join(FOLDERS)}")
    package = Path(__file__).resolve().parent
    # A wheel first: the folder above an installed package is site-packages, which belongs to everybody.
    for root in (package / "shipped", package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise MachineError(f"this installation of matsci-hpc lacks {relative}; install the package again")
