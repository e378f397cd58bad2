"""The YAML files and templates that ship with the package."""

from pathlib import Path, PurePosixPath

from matsci_hpc.errors import MachineError, MatsciError

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


def find_config(config: Path) -> Path:
    """The config itself, or the one of this relative path that ships with the program."""
    if config.exists() or config.is_absolute():
        return config
    if config.parts[:1] not in [(folder,) for folder in FOLDERS] or ".." in config.parts:
        return config
    try:
        path = shipped(str(config))
    except MatsciError:  # a misspelt name is far more likely than a broken installation
        return config
    return path if path.is_file() else config
