"""The words of a `submit` command line, taken apart."""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from matsci_hpc.config.job import JobRequest
from matsci_hpc.errors import UserInputError

_OVERRIDE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*=", flags=re.ASCII)


def runs_of(words: Sequence[str]) -> list[tuple[Path, tuple[str, ...]]]:
    """Configs, each with the overrides that follow it.

    Raises:
        UserInputError: An override stands before every config.
    """
    runs: list[tuple[Path, list[str]]] = []
    for word in words:
        # A file may have = in its name; then it exists, or is written as ./a=b.yaml.
        if not _OVERRIDE.match(word) or Path(word).is_file():
            runs.append((Path(word), []))
        elif runs:
            runs[-1][1].append(word)
        else:
            raise UserInputError(f"{word}: an override stands behind the config that it changes, not before it")
    return [(config, tuple(overrides)) for config, overrides in runs]


def size_of(nodes: str | None, ranks: int | None, time_limit: str | None) -> JobRequest:
    """The size that the options ask for.

    Raises:
        UserInputError: `nodes` is neither a number nor `KIND=N,...`, or the time is none.
    """
    count: int | dict[str, int] | None = None
    if nodes is not None:
        count = _kinds(nodes) if "=" in nodes else _number(nodes)
    try:
        return JobRequest(nodes=count, ranks=ranks, time_limit=time_limit)
    except ValidationError as error:
        first = error.errors()[0]
        option = {"time_limit": "--time"}.get(str(first["loc"][0]), f"--{first['loc'][0]}")
        how = "write it as HH:MM:SS or D-HH:MM:SS" if option == "--time" else "it must be at least 1"
        given = {"--nodes": nodes, "--ranks": ranks, "--time": time_limit}[option]
        raise UserInputError(f"{option} {given}: {how}") from None


def key_and_values(array: str) -> tuple[str, list[str]]:
    """Key and values of `KEY=V1,V2`; commas inside brackets belong to the value.

    Raises:
        UserInputError: It is not of this form.
    """
    key, equals, text = array.partition("=")
    values = [value.strip() for value in re.split(r",(?![^\[]*\])", text)]
    if not equals or not key.strip() or not all(values):
        raise UserInputError(f"--array {array}: write it as KEY=VALUE,VALUE, such as seed=1,2,3")
    return key.strip(), values


def _kinds(nodes: str) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for part in nodes.split(","):
        kind, equals, number = part.partition("=")
        if not equals or kind.strip() in kinds:
            raise UserInputError(f"--nodes {nodes}: give each kind once, as in gpu=1,cpu=2")
        kinds[kind.strip()] = _number(number)
    return kinds


def _number(text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,7}\s*", text, flags=re.ASCII):
        raise UserInputError(f"--nodes: {text!r} is not a number of nodes")
    return int(text)
