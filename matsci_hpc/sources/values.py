"""From what files say to values of targets: texts of a table, entries of a document, arrays of a frame."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError
from matsci_hpc.targets import MAX_CLASSES, TargetKind, TargetSpec

ABSENT = frozenset({"", "na", "n/a", "nan", "none", "null"})
"""What people write where there is no value, in lower case."""
TRUTH = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0, "0.0": 0.0, "1.0": 1.0}

_VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
"""Places of xx, yy, zz, yz, xz, xy in a symmetric tensor."""

Value = float | int | NDArray[Any]


class WrongValueError(ValueError):
    """What is wrong with a value, to follow its name: `is 'wide', not a number`."""


def text_of(value: object) -> str:
    """A label as text: what a class, a split or an id is known by; empty where there is none.

    Raises:
        WrongValueError: nothing that a file can hold as text.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    try:
        text = str(value).strip()
        text.encode()
    except UnicodeEncodeError:  # half of a pair, which JSON can write and UTF-8 cannot
        raise WrongValueError(f"is {text[:60]!r}, which is no text in Unicode") from None
    except ValueError:
        raise WrongValueError("is a number of too many digits") from None
    if "\0" in text:
        raise WrongValueError(f"is {text[:60]!r}, with a zero byte in it")
    return text


def typed(value: object, kind: TargetKind, classes: tuple[str, ...] = ()) -> float | int | None:
    """The number that stands for a single value, or None where it is absent.

    Args:
        value: text, number, flag or nothing.
        kind: regression, binary or class.
        classes: names of the classes in the order of their numbers.

    Raises:
        WrongValueError: it is nothing of that kind.
    """
    text = text_of(value)
    if kind == "class":
        try:
            return classes.index(text) if text else None
        except ValueError:
            raise WrongValueError(f"is {text[:60]!r}, none of the classes {', '.join(classes[:20])}") from None
    if text.lower() in ABSENT:
        return None
    if kind == "binary":
        if text.lower() not in TRUTH:
            raise WrongValueError(f"is {text!r}; a binary target is 0, 1, false or true")
        return TRUTH[text.lower()]
    try:
        return float(text.replace("_", "?"))  # Python takes 1_0 for 10, and no table means that
    except ValueError:
        raise WrongValueError(f"is {text[:60]!r}, not a number") from None


def typed_array(value: object, spec: TargetSpec, atoms: int) -> NDArray[np.float64] | None:
    """A vector, a tensor or the values of all atoms, or None where they are absent.

    Numbers that are written in one row are arranged as the shape says; a symmetric tensor of shape (3, 3) may stand
    as xx, yy, zz, yz, xz, xy, and the other way round.

    Args:
        value: an array, or lists of numbers.
        spec: of the target.
        atoms: of the structure.

    Raises:
        WrongValueError: no numbers, or not as many as the shape asks for.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ABSENT):
        return None
    numbers = _numbers(value)
    if np.isnan(numbers).all():
        return None
    shape = spec.value_shape(atoms)
    # An array of the same size and another shape is a transposed one, or that of something else.
    dense = tuple(length for length in numbers.shape if length != 1)
    in_one_row = len(dense) <= 1
    if numbers.size == math.prod(shape) and (in_one_row or dense == tuple(length for length in shape if length != 1)):
        return numbers.reshape(shape)
    if shape == (3, 3) and dense == (6,):
        return np.take(numbers, _VOIGT)
    is_tensor = dense in ((9,), (3, 3))
    if shape == (6,) and is_tensor and np.allclose(tensor := numbers.reshape(3, 3), tensor.T):
        return np.array([tensor[0, 0], tensor[1, 1], tensor[2, 2], tensor[1, 2], tensor[0, 2], tensor[0, 1]])
    raise WrongValueError(f"has shape {list(numbers.shape)} instead of {list(shape)}")


def _numbers(value: object) -> NDArray[np.float64]:
    """A copy of an array, a list or the numbers of a text as float64."""
    try:
        found = np.array(value.split() if isinstance(value, str) else value)
        if found.dtype.kind in "biufOUS":  # nothing of complex numbers is dropped, no date taken for a number
            return found.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        shown = str(value)[:60]
    except ValueError:  # a number of thousands of digits
        shown = type(value).__name__
    raise WrongValueError(f"is {shown!r}, not an array of numbers")


def typed_values(specs: Mapping[str, TargetSpec], look_up: Callable[[str], object], atoms: int) -> dict[str, Value]:
    """Every target that a structure carries.

    Args:
        specs: the targets.
        look_up: gives what the input says about a target.
        atoms: of the structure.

    Raises:
        WrongValueError: a value of the wrong kind, with the name of the target.
    """
    values: dict[str, Value] = {}
    for name, spec in specs.items():
        found = look_up(name)
        try:
            value: Value | None
            value = typed(found, spec.kind, spec.classes or ()) if spec.is_number else typed_array(found, spec, atoms)
        except WrongValueError as fault:
            raise WrongValueError(f"target {name} {fault}") from None
        if value is not None:
            values[name] = value
    return values


def checked_classes(found: set[str], where: str) -> tuple[str, ...]:
    """Names of classes in the order of their numbers, which is the sorted one.

    Args:
        found: every text that was met.
        where: file and column or key, for messages.

    Raises:
        UserInputError: more than a data set can hold.
    """
    names = tuple(sorted(found - {""}))
    if len(names) > MAX_CLASSES:
        raise UserInputError(
            f"{where} has {len(names):,} classes, more than {MAX_CLASSES:,}; a number is `kind: regression`"
        )
    return names
