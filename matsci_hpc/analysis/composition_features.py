"""What a composition alone tells: element fractions, and statistics of elemental properties over the atoms.

For a property p and fractions f_i of the elements i there are

| feature | is |
|---|---|
| mean | `sum_i f_i p_i` |
| deviation | `sum_i f_i abs(p_i - mean)` |
| min, max, range | over the elements that occur |

the statistics of Ward et al. (2016), doi 10.1038/npjcompumats.2016.28, on properties from pymatgen's table of elements.
"""

import warnings
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.loading.labels import ELEMENTS

PROPERTIES = {
    "atomic number": "Z",
    "atomic mass / u": "atomic_mass",
    "electronegativity (Pauling)": "X",
    "row": "row",
    "group": "group",
    "Mendeleev number": "mendeleev_no",
    "atomic radius / angstrom": "atomic_radius",
    "first ionisation energy / eV": "ionization_energy",
    "electron affinity / eV": "electron_affinity",
}
"""Name and attribute of pymatgen's `Element`. Where a value is not known, the mean of those that are stands for it."""
STATISTICS = ("mean", "deviation", "min", "max", "range")


def features(compositions: NDArray[np.int32]) -> NDArray[np.float32]:
    """Features of compositions.

    Args:
        compositions: int32 [n, ELEMENTS], atoms of each element, each row with at least one.

    Returns:
        float32 [n, ELEMENTS + 1 + properties x statistics]: fractions, the number of elements, statistics.
    """
    counts = compositions.astype(np.float64)
    fractions = counts / counts.sum(axis=1, keepdims=True)
    occurs = counts > 0
    columns = [fractions, occurs.sum(axis=1, keepdims=True)]
    for values in _properties().T:
        mean = fractions @ values
        deviation = (fractions * np.abs(values[None, :] - mean[:, None])).sum(axis=1)
        least = np.where(occurs, values, np.inf).min(axis=1)
        most = np.where(occurs, values, -np.inf).max(axis=1)
        columns.append(np.stack([mean, deviation, least, most, most - least], axis=1))
    return np.concatenate(columns, axis=1).astype(np.float32)


@cache
def _properties() -> NDArray[np.float64]:
    """float64 [ELEMENTS, properties]; of atomic number 0 the mean of all."""
    from pymatgen.core.periodic_table import Element

    table = np.full((ELEMENTS, len(PROPERTIES)), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a value is not known
        for number in range(1, ELEMENTS):
            element = Element.from_Z(number)
            for place, attribute in enumerate(PROPERTIES.values()):
                table[number, place] = _value(element, attribute)
    known = np.nanmean(table, axis=0)
    return np.where(np.isnan(table), known, table)


def _value(element: Any, attribute: str) -> float:
    """A property of an element; NaN where pymatgen has no value, which it says in three ways."""
    try:
        value = getattr(element, attribute)
    except (AttributeError, KeyError):
        return float("nan")
    return float("nan") if value is None else float(value)
