"""Numbers of objects in a pickle, looked at before it is loaded.

Python makes a table as long as the largest number that a pickle gives an object (`_Unpickler_MemoPut` in its
Modules/_pickle.c): one turned bit can ask for 64 GB of it. `pickletools.genops` finds these numbers too, but decodes
all that stands around them, which takes several times as long as loading.
"""

import pickletools
import re
from collections.abc import Iterator

HARMLESS = 1 << 20
"""A number for whose table there is always room: 16 MB."""

_SIZES = {ord(each.code): 0 if each.arg is None else each.arg.n for each in pickletools.opcodes}
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_LENGTHS = {code: _LENGTH_BYTES[size] for code, size in _SIZES.items() if size in _LENGTH_BYTES}
"""Bytes that hold the length of the argument, by opcode."""
_PUT, _LONG_BINPUT, _STOP = b"p"[0], b"r"[0], b"."[0]
_PAIRS = b"ci"  # GLOBAL and INST have two lines


def _run() -> re.Pattern[bytes]:
    """Opcodes with arguments that say nothing of their length and give no large number, as many as there are."""
    by_form: dict[bytes, list[int]] = {}
    for code, size in _SIZES.items():
        if code in {_PUT, _LONG_BINPUT, _STOP} or code in _LENGTHS:
            continue
        lines = rb"[^\n]*+\n" * (2 if code in _PAIRS else 1)
        by_form.setdefault(lines if size == pickletools.UP_TO_NEWLINE else b"." * size, []).append(code)
    forms = (b"[%s]%s" % (re.escape(bytes(codes)), form) for form, codes in by_form.items())
    return re.compile(b"(?:%s)*+" % b"|".join(forms), re.DOTALL)


_RUN = _run()


def object_numbers(data: bytes) -> Iterator[tuple[int, int]]:
    """The numbers that a pickle gives objects, where they may be large, and the bytes at which it does.

    It ends where the pickle does, or where loading will fail.

    Raises:
        ValueError: a number is none.
    """
    place, size, run = 0, len(data), _RUN.match
    while place < size and (found := run(data, place)) and (place := found.end()) < size:  # no opcodes are a match too
        code, begin = data[place], place + 1
        if length := _LENGTHS.get(code):
            end = begin + length
            place = end + (data[begin] if length == 1 and end < size else int.from_bytes(data[begin:end], "little"))
        elif code == _LONG_BINPUT:
            yield int.from_bytes(data[begin : begin + 4], "little"), place
            place = begin + 4
        elif code == _PUT:
            end = data.find(b"\n", begin) % (size + 1)  # of a line that breaks off, the end of all
            yield int(data[begin:end]), place
            place = end + 1
        else:
            return


def refuse_large_numbers(data: bytes) -> None:
    """Raise ValueError where a damaged pickle numbers an object beyond what it can hold."""
    most = max(len(data), HARMLESS)
    for number, place in object_numbers(data):
        if number > most:
            raise ValueError(f"object number {number} at byte {place} of {len(data)}")
