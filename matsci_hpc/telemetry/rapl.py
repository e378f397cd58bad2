"""Energy of the processors of this node, from the counters that the kernel shows under /sys/class/powercap (RAPL).

    intel-rapl:0/name                  package-0
    intel-rapl:0/energy_uj             microjoules, growing until max_energy_range_uj, then from 0 again
    intel-rapl:0/max_energy_range_uj
    intel-rapl:0:0/name                dram, which no package includes; core and uncore are parts of it

AMD's processors stand there under the same names. `psys` and `intel-rapl-mmio` count what the packages count once more.
Source: Documentation/power/powercap/powercap.rst of the kernel. Since 2020 (CVE-2020-8694) only root may read
energy_uj, unless the site changed that.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
READ_EVERY_S = 30.0
"""A counter of 65 kJ, as small as they come, begins anew every two minutes at 500 W."""


@dataclass(slots=True)
class _Zone:
    """A counter: its name, its file, its range and its last value, in microjoules."""

    name: str
    file: Path
    range_uj: int
    last_uj: int = field(default=0)


class Rapl:
    """Adds up the energy of this node. Every process sees the same counters: one process of a node is to read them.

    Args:
        folder: as /sys/class/powercap.

    Attributes:
        names: of the counters.

    Raises:
        OSError: there is none, or it cannot be read; it says why in words.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._zones = _zones(folder)
        self.names = [zone.name for zone in self._zones]
        self._joules = 0.0
        self._read_s = time.monotonic()

    def tick(self) -> None:
        """To be called often: read when it is time, before a counter can come round twice."""
        if time.monotonic() - self._read_s >= READ_EVERY_S:
            self.read()

    def read(self) -> None:
        """Add what the counters grew by.

        Raises:
            OSError: one cannot be read any more.
        """
        self._read_s = time.monotonic()
        for zone in self._zones:
            now_uj = _number(zone.file)
            grown_uj = now_uj - zone.last_uj
            self._joules += 1e-6 * (grown_uj if grown_uj >= 0 else grown_uj + zone.range_uj)
            zone.last_uj = now_uj

    def take(self) -> float:
        """Joules since the last call.

        Raises:
            OSError: a counter cannot be read any more.
        """
        self.read()
        taken, self._joules = self._joules, 0.0
        return taken


def _zones(folder: Path) -> list[_Zone]:
    found = []
    for path in sorted(folder.glob("intel-rapl:*")):
        try:
            name = (path / "name").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if not (name.startswith("package") or name == "dram"):
            continue
        try:
            start_uj = _number(path / "energy_uj")
            range_uj = _number(path / "max_energy_range_uj")
        except PermissionError:
            raise OSError(f"{path / 'energy_uj'} may be read by root only; ask the site to let users read it") from None
        found.append(_Zone(name, path / "energy_uj", range_uj, start_uj))
    if not found:
        raise OSError(f"the kernel shows no energy counter in {folder}")
    return found


def _number(path: Path) -> int:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if not text.isdigit():
        raise OSError(f"{path} holds no number")
    return int(text)
