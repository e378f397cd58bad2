"""Columns of a table of measurements, and what others call them."""

import difflib
import re
from collections.abc import Collection

MEASURED = ("ranks", "throughput", "time_s", "samples", "nodes", "scaling", "throughput_unit", "repeat")
"""Columns with a meaning; the others are labels or details."""

_UNITS = {"ms": "milliseconds", "us": "microseconds", "min": "minutes", "h": "hours"}
_USUAL_NAMES = {
    **dict.fromkeys(("rank", "n_ranks", "nranks", "num_ranks", "ntasks", "np", "procs", "processes", "size"), "ranks"),
    **dict.fromkeys(("world_size", "gpus", "p", "n"), "ranks"),
    **dict.fromkeys(("rate", "speed", "samples_per_s", "samples_per_second", "graphs_per_s"), "throughput"),
    **dict.fromkeys(("throughput_samples_per_s", "samples/s", "throughput (samples/s)"), "throughput"),
    **dict.fromkeys(("time", "seconds", "runtime", "walltime", "wall_s", "elapsed", "time (s)", "time [s]"), "time_s"),
}
"""What others call the columns: named in errors, never guessed."""


def meant(wanted: tuple[str, ...], cells: Collection[str]) -> str:
    """Which column may be meant by one of the names, for an error."""
    for name in cells:
        plain = name.lower().strip()
        unit = _UNITS.get(re.split(r"[^a-z]+", plain.rstrip("])"))[-1])
        if "time_s" in wanted and unit and plain.startswith(("time", "runtime", "walltime", "elapsed")):
            return f"{name!r} seems to be in {unit}: convert it and call it 'time_s'"
        usual = plain if plain in wanted else _USUAL_NAMES.get(plain)
        if usual in wanted:
            return f"rename {name!r} to {usual!r}"
    others = [name for name in cells if name not in MEASURED]
    for each in wanted:
        if near := difflib.get_close_matches(each, others, n=1, cutoff=0.75):
            return f"rename {near[0]!r} to {each!r}"
    return f"its columns are {', '.join(cells)}"
