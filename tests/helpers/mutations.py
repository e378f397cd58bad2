"""Damage to files, as disks, editors, transfers and scripts do it; decided by a seed."""

import random
import re

NUMBER = re.compile(rb"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
NUMBERS = [b"1e308", b"-1e308", b"1e-320", b"9" * 400, b"0", b"-1", b"nan", b"inf", b"1e5", b"0x10", b"1_0", b"1.2.3"]
PIECES = [b"\0", b"\xff\xfe", b"\xc3", b"\xef\xbb\xbf", "Ｎａ²".encode(), b'"', b"'", b";", b"\r", b"\n\n", b"\t", b","]
WORDS = [*PIECES, b"#", b"{", b"[", b"&a", b"*a", b"<<: ", b"!!python/name:os.system ", b"loop_\n", b"data_\n", b": "]


def mutated(data, seed):
    """A file with one to three faults."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(MUTATIONS)(data, rng)
    return data


def _flip(data, rng):
    changed = bytearray(data or b"x")
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(data, rng):
    return data[: rng.randint(0, len(data))]


def _without_lines(data, rng):
    lines = data.splitlines(keepends=True)
    start = rng.randint(0, len(lines))
    return b"".join(lines[:start] + lines[start + rng.randint(1, 3) :])


def _doubled_lines(data, rng):
    lines = data.splitlines(keepends=True)
    start = rng.randint(0, len(lines))
    again = lines[start : start + rng.randint(1, 3)] * rng.choice([1, 1, 1, 50])
    return b"".join(lines[:start] + again + lines[start:])


def _swapped_lines(data, rng):
    lines = data.splitlines(keepends=True)
    if len(lines) > 1:
        a, b = rng.sample(range(len(lines)), 2)
        lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def _swapped_numbers(data, rng):
    found = list(NUMBER.finditer(data))
    if len(found) < 2:
        return data
    a, b = sorted(rng.sample(found, 2), key=lambda each: each.start())
    return data[: a.start()] + b[0] + data[a.end() : b.start()] + a[0] + data[b.end() :]


def _strange_number(data, rng):
    found = list(NUMBER.finditer(data))
    if not found:
        return data
    chosen = rng.choice(found)
    return data[: chosen.start()] + rng.choice(NUMBERS) + data[chosen.end() :]


def _inserted(data, rng):
    place = rng.randint(0, len(data))
    return data[:place] + rng.choice(WORDS) * rng.choice([1, 1, 1, 100]) + data[place:]


def _moved_piece(data, rng):
    start = rng.randint(0, len(data))
    piece = data[start : start + rng.randint(1, 40)]
    place = rng.randint(0, len(data))
    return data[:place] + piece + data[place:]


MUTATIONS = [
    _flip,
    _truncate,
    _without_lines,
    _doubled_lines,
    _swapped_lines,
    _swapped_numbers,
    _strange_number,
    _inserted,
    _moved_piece,
]
