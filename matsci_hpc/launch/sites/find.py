"""Where a site file is found."""

from pathlib import Path

from matsci_hpc.config.loading import load_config
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.resources import shipped


def site_names() -> list[str]:
    """Names of the sites that ship with the package."""
    return sorted(path.stem for path in shipped("job_templates/sites").glob("*.yaml"))


def site_path(name_or_path: str) -> Path:
    """The file of a site, by the name of a shipped one or by its path.

    Args:
        name_or_path: `local`, or a path; what holds a slash or ends in .yaml or .yml is a path.

    Raises:
        UserInputError: No such site.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    if name_or_path in site_names():
        return shipped(f"job_templates/sites/{name_or_path}.yaml")
    raise UserInputError(
        f"unknown site {name_or_path!r}; choose one of {', '.join(site_names())}, or give the path of a site file"
    )


def load_site(name_or_path: str) -> Site:
    """Read a site by the name of a shipped file, or from any YAML file.

    Raises:
        UserInputError: No such site, or a file that is not a site.
    """
    return load_config(Site, site_path(name_or_path))
