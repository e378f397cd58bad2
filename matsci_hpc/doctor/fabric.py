"""Networks: fast ones as the kernel lists them, libraries that drive them, and the interface that gloo would take."""

import fcntl
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from matsci_hpc.doctor.child import ChildError, run_child
from matsci_hpc.preflight.finding import Finding

SYS = Path("/sys/class")
_SIOCGIFADDR = 0x8915
FAST_NAMES = ("hsn", "ib", "ipogif", "opa")
"""Interfaces of Slingshot, InfiniBand, Aries and Omni-Path begin so."""


def fast_devices(folder: Path = SYS) -> list[str]:
    """Each port of a fast network in words: `mlx5_0: InfiniBand, 200 Gb/sec (4X HDR), ACTIVE`.

    Args:
        folder: of the kernel's classes of devices.
    """
    found = []
    for port in sorted(folder.glob("infiniband/*/ports/*")):
        name = port.parent.parent.name
        kind = "Omni-Path" if name.startswith("hfi1") else _line(port / "link_layer") or "InfiniBand"
        state = _line(port / "state").partition(": ")[2] or "unknown state"
        found.append(f"{name}: {kind}, {_line(port / 'rate') or 'unknown rate'}, {state}")
    found += [f"{device.name}: Slingshot" for device in sorted(folder.glob("cxi/cxi[0-9]*"))]
    return found


def interfaces(folder: Path = SYS) -> dict[str, int | None]:
    """Network interfaces that are up, with their speed in Mb/s where the kernel knows it.

    Args:
        folder: of the kernel's classes of devices.
    """
    found: dict[str, int | None] = {}
    for each in sorted(folder.glob("net/*")):
        if _line(each / "operstate") in {"up", "unknown"}:
            speed = _line(each / "speed")
            found[each.name] = int(speed) if speed.isdigit() else None
    return found


def gloo_interface() -> tuple[str | None, str]:
    """The interface that torch's gloo would take, and why."""
    if chosen := os.environ.get("GLOO_SOCKET_IFNAME"):
        return chosen, "by GLOO_SOCKET_IFNAME"
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return None, f"the name {socket.gethostname()} leads nowhere"
    for _, name in socket.if_nameindex():
        if _address(name) == address:
            return name, f"{address}, which the host's name leads to"
    if address.startswith("127."):  # the whole network of lo, as Debian's 127.0.1.1
        return "lo", f"{address}, which the host's name leads to"
    return None, f"the host's name leads to {address}, which no interface has"


def fabric_findings() -> Iterator[Finding]:
    """Look at this machine."""
    devices = fast_devices()
    for each in devices:
        working = "ACTIVE" in each or "Slingshot" in each
        yield Finding("ok" if working else "warning", "fabric", each)
    if not devices:
        yield Finding("ok", "fabric", "no InfiniBand, Omni-Path or Slingshot: TCP, and shared memory within a node")
    for program, options, what in (("fi_info", ["-l"], "libfabric"), ("ucx_info", ["-v"], "UCX")):
        if path := shutil.which(program):
            yield _providers(path, options, what)
    up = interfaces()
    name, why = gloo_interface()
    fast = [each for each in up if each.startswith(FAST_NAMES)]
    if name is None:
        yield Finding("warning", "gloo", f"finds no interface: {why}", "set GLOO_SOCKET_IFNAME to one of `ip link`")
    elif fast and name not in fast:
        text = f"would take {name} ({why}), and there is {', '.join(fast)}"
        yield Finding("warning", "gloo", text, f"set GLOO_SOCKET_IFNAME={fast[0]} in the site's environment")
    elif name == "lo":
        yield Finding("note", "gloo", f"takes lo ({why}): ranks of this machine only")
    else:
        megabits = up.get(name)
        speed = f", {megabits / 1000:g} Gb/s" if megabits else ""
        yield Finding("ok", "gloo", f"takes {name} ({why}{speed})")


def _providers(path: str, options: list[str], what: str) -> Finding:
    try:
        said = run_child([path, *options], 30)
    except ChildError as error:
        return Finding("warning", what, f"{path}: {error}")
    if what == "UCX":
        return Finding("ok", what, said.splitlines()[0].lstrip("# ") if said else path)
    names = [line.rstrip(":") for line in said.splitlines() if line.endswith(":") and not line.startswith(" ")]
    return Finding("ok", what, f"providers {', '.join(dict.fromkeys(names))}" if names else path)


def _address(interface: str) -> str | None:
    """IPv4 address of an interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            answer = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
