"""GPUs as the PCI bus shows them, and whether the torch that is installed can use them."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matsci_hpc.doctor.child import ChildError, run_python
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.words import counted

VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
BUILDS = {"NVIDIA": "cuda", "AMD": "hip", "Intel": "xpu"}
_DISPLAY, _ACCELERATOR = "0x03", "0x12"
# One line of JSON: the kinds of GPU that torch was built for, and how many it sees.
_TORCH = """
import json, torch
built = {"cuda": torch.version.cuda, "hip": torch.version.hip, "xpu": getattr(torch.version, "xpu", None)}
seen = torch.cuda.device_count() + (torch.xpu.device_count() if hasattr(torch, "xpu") else 0)
names = [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())]
print(json.dumps({"built": {k: v for k, v in built.items() if v}, "seen": seen, "names": names}))
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device on the bus: its vendor, the kernel's driver (None without), its memory domain (None if unknown)."""

    vendor: str
    driver: str | None
    domain: int | None


def gpus_on_bus(folder: Path = Path("/sys/bus/pci/devices")) -> list[Gpu]:
    """GPUs and accelerators of the three vendors, in the order of the bus.

    Args:
        folder: of the kernel's description of the bus.
    """
    found = []
    for device in sorted(folder.glob("*")):
        kind, vendor = _line(device / "class"), VENDORS.get(_line(device / "vendor"))
        if vendor and kind.startswith((_DISPLAY, _ACCELERATOR)):
            driver = device / "driver"
            domain = _line(device / "numa_node") or "-1"
            found.append(
                Gpu(
                    vendor=vendor,
                    driver=driver.resolve().name if driver.exists() else None,
                    domain=int(domain) if int(domain) >= 0 else None,
                )
            )
    return found


def gpu_findings() -> Iterator[Finding]:
    """Look at this machine."""
    gpus = gpus_on_bus()
    if not gpus:
        yield Finding("ok", "GPU", "none: training takes the CPU")
        return
    for (vendor, driver), count in Counter((each.vendor, each.driver) for each in gpus).items():
        domains = sorted({each.domain for each in gpus if each.vendor == vendor and each.domain is not None})
        where = f", at memory domains {', '.join(map(str, domains))}" if len(domains) > 1 else ""
        text = f"{counted(count, f'{vendor} device')}, driver {driver or 'missing'}{where}"
        advice = None if driver else "ask the site for its driver; a container needs an option such as `--nv`"
        yield Finding("ok" if driver else "warning", "GPU", text, advice)
    try:
        torch = json.loads(run_python(_TORCH).splitlines()[-1])
    except (ChildError, ValueError, IndexError) as error:
        yield Finding("warning", "GPU", f"torch does not tell what it sees: {error}")
        return
    built = ", ".join(f"{name} {version}" for name, version in torch["built"].items()) or "the CPU alone"
    text = f"torch is built for {built} and sees {counted(torch['seen'], 'GPU')}: {', '.join(torch['names'])}"
    wanted = {BUILDS[each.vendor] for each in gpus if each.driver}
    if torch["seen"] or not wanted:
        yield Finding("ok", "GPU", text.removesuffix(": "))
    else:
        advice = f"install a torch for {' or '.join(sorted(wanted))} (pytorch.org), or take the site's module"
        yield Finding("warning", "GPU", text.removesuffix(": "), advice)


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
