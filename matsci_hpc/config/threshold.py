"""Thresholds of derived targets: numbers that can be compared with those that data sets store."""

import struct
from typing import Annotated

from pydantic import AfterValidator


def unfit_threshold(value: float) -> str | None:
    """Why a finite number is no threshold of values that are stored as float32; None if it is one."""
    try:
        (stored,) = struct.unpack("<f", struct.pack("<f", value))  # without <, infinity would be no error
    except OverflowError:
        return f"{value:g} is beyond the float32 in which data sets store values, at most 3.4e38; give a smaller one"
    if stored == 0 and value != 0:
        return f"{value:g} is 0 in the float32 in which data sets store values; give a larger one, or 0 if you mean it"
    return None


def _fit(value: float) -> float:
    if (why := unfit_threshold(value)) is not None:
        raise ValueError(why)
    return value


Threshold = Annotated[float, AfterValidator(_fit)]
"""Of a derived target."""
