"""`matsci-hpc site pack`: the Python environment as one file, which sbcast brings to every node.

Thousands of ranks that import torch from a shared file system ask it for a hundred thousand files each; from a disk of
their own they do not wait.
"""

import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from matsci_hpc.errors import UserInputError
from matsci_hpc.resources import FOLDERS, shipped
from matsci_hpc.whole_files import output_error, sync

Member = tuple[str, Path]
"""Name in the archive, and the file."""


def pack(archive: Path) -> None:
    """Pack the environment that this program runs in, and say what to write into the site file.

    Args:
        archive: the new file; an old one is replaced.

    Raises:
        UserInputError: Not a virtual environment, or the archive cannot be there.
        MachineError: Writing failed.
    """
    prefix = Path(sys.prefix)
    if not (prefix / "pyvenv.cfg").is_file():
        raise UserInputError(
            f"{prefix} is not a virtual environment (venv), whose Python finds its packages wherever it lies; "
            "make one by `python -m venv`, or pack it by conda-pack and name that archive in environment_archive"
        )
    archive = Path(os.path.abspath(archive))  # noqa: PTH100 - links stay as the user wrote them
    if archive.resolve().is_relative_to(prefix.resolve()):
        raise UserInputError(f"{archive} is inside the environment that it shall hold; name another place")
    members = list(environment_members(prefix))
    _write(archive, members)
    size_mb = archive.stat().st_size / 1e6
    print(f"{archive}: {len(members):,} files, {size_mb:,.0f} MB")
    print(f"  of the interpreter it holds the link alone: {Path(sys.executable).resolve()} must be on the nodes")
    for path in sorted(_outside(prefix, [path for _, path in members])):
        print(f"  what lies in {path} is found there and not in the archive")
    print("  in the site file, with a node_local folder that has room for twice this size:")
    print(f"environment_archive: {archive}")


def environment_members(prefix: Path) -> Iterator[Member]:
    """All files of an environment, sorted; matsci-hpc among them even if it is installed from its source tree.

    Compiled files stay in: they carry the time of their source, which the archive keeps, and without them every rank
    would compile all that it imports.
    """
    import matsci_hpc

    package = Path(matsci_hpc.__file__).resolve().parent
    packages = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
    elsewhere = not package.is_relative_to(prefix.resolve())
    found = dict(_below(prefix))
    if elsewhere:
        for name in [name for name in found if name.endswith(".pth") and _leads_to(found[name], package.parent)]:
            del found[name]
        found |= {f"{packages / package.name / name}": path for name, path in _below(package)}
        for folder in FOLDERS:
            target = packages / package.name / "shipped" / folder
            found |= {f"{target / name}": path for name, path in _below(shipped(folder))}
    yield from sorted(found.items())


def _below(folder: Path) -> Iterator[Member]:
    """Files and links below a folder; sockets, pipes and empty folders are left out."""
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if Path(root, name).is_symlink()]
        for name in [*files, *links]:
            path = Path(root, name)
            if path.is_symlink() or path.is_file():
                yield str(path.relative_to(folder)), path


def _leads_to(pth: Path, tree: Path) -> bool:
    """Whether a .pth file adds the source tree to the path."""
    return tree in _folders_of(pth)


def _folders_of(pth: Path) -> set[Path]:
    """Absolute folders that a .pth file adds to the path."""
    lines = pth.read_text(encoding="utf-8", errors="replace").splitlines()
    return {Path(line.strip()).resolve() for line in lines if line.startswith("/")}


def _outside(prefix: Path, files: list[Path]) -> set[Path]:
    """Folders outside the environment that its .pth files add to the path."""
    added = set[Path]().union(*(_folders_of(path) for path in files if path.suffix == ".pth"))
    return {path for path in added if not path.is_relative_to(prefix.resolve())}


def _write(archive: Path, members: list[Member]) -> None:
    temporary = archive.with_name(f".{archive.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            # Not compressed: sbcast does that on the way if the cluster wants it, and unpacking is what nodes wait for.
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as opened:
                for name, path in members:
                    info = opened.gettarinfo(path, arcname=name)
                    info.uid = info.gid = 0
                    info.uname = info.gname = ""
                    if info.isreg():
                        with path.open("rb") as content:
                            opened.addfile(info, content)
                    else:
                        opened.addfile(info)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(archive)
        sync(archive.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise output_error(archive, error) from None
