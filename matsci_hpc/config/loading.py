"""YAML file plus `key.sub=value` overrides to a checked config, and back."""

import difflib
import inspect
import io
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from matsci_hpc.config.base import Section
from matsci_hpc.errors import UserInputError

ConfigT = TypeVar("ConfigT", bound=Section)
_PLAIN_WORDS = {
    "path_type": "input should be a path",
    "list_type": "input should be a list, such as [a, b]",
    "dict_type": "input should be a mapping, such as {key: value}",
    "model_type": "input should be a mapping, such as {key: value}",
}
"""Where pydantic speaks of Python types, what a writer of YAML would call them."""
Location = tuple[str | int, ...]


def load_config(model: type[ConfigT], path: Path, overrides: typing.Sequence[str] = ()) -> ConfigT:
    """Read `path`, apply the overrides, and check the result against `model`.

    Args:
        model: section class of the whole file.
        path: YAML file.
        overrides: `key.sub=value` strings; the value is read as YAML, and wins over the file.

    Raises:
        UserInputError: one line per fault, with the file and line (or the override) and the nearest known key.
    """
    tree = read_yaml(path)
    overridden = {_apply_override(tree, override) for override in overrides}
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = _describe(error, model, tree, path, overridden)
        raise UserInputError("\n".join(lines)) from None


def read_yaml(path: Path) -> CommentedMap:
    """The mapping in a YAML 1.2 file, its line numbers kept.

    Raises:
        UserInputError: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserInputError(f"{path}: cannot read the config: {reason}") from None
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserInputError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except (YAMLError, ValueError) as error:  # ValueError: a value that its tag or form promises, such as 2020-13-45
        raise UserInputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserInputError(f"{path}: not a config: nested too deeply") from None
    if not isinstance(tree, CommentedMap):
        raise UserInputError(f"{path}: a config is a mapping of keys to values")
    return tree


def dump_config(config: Section) -> str:
    """The config as YAML text, every default spelled out."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(config.model_dump(mode="json"), stream)
    return stream.getvalue()


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a tree by `key.sub`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _apply_override(tree: CommentedMap, override: str) -> Location:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise UserInputError(f"override {override!r}: expected key.sub=value")
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError):
        raise UserInputError(f"override {override!r}: the value is not valid YAML") from None
    location = tuple(part.strip() for part in key.split("."))
    node: Any = tree
    for part in location[:-1]:
        if not isinstance(node.get(part), dict):
            node[part] = CommentedMap()
        node = node[part]
    node[location[-1]] = value
    return location


def _describe(
    error: ValidationError, model: type[Section], tree: CommentedMap, path: Path, overridden: set[Location]
) -> list[str]:
    lines: dict[Location, str] = {}
    # An unknown key goes first: where it is a misspelt required key, "missing" would only repeat it.
    for fault in sorted(error.errors(include_url=False), key=lambda fault: fault["type"] == "missing"):
        location, line, written = _locate(fault["loc"], tree)
        about = (*location, fault["loc"][-1]) if fault["type"] == "missing" else location
        if about in lines or _is_misspelt(fault, lines.values()):
            continue
        dotted = ".".join(str(part) for part in location)
        by_hand = any(
            location[: len(key)] == key or (not written and key[: len(location)] == location) for key in overridden
        )
        where = "override" if by_hand else f"{path}:{line}"
        lines[about] = f"{where}: {_message(fault, dotted, model, location)}"
    # Of a value that may be one thing or another, the complaint that went deepest knows what was meant.
    return [line for about, line in lines.items() if not any(_is_below(other, about) for other in lines)]


def _is_below(location: Location, above: Location) -> bool:
    return len(location) > len(above) and location[: len(above)] == above


def _is_misspelt(fault: Any, lines: Iterable[str]) -> bool:
    return fault["type"] == "missing" and any(line.endswith(f"did you mean {fault['loc'][-1]}?") for line in lines)


def _message(fault: Any, dotted: str, model: type[Section], location: Location) -> str:
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, fault["loc"][:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"unknown key {dotted}; {hint}"
    if fault["type"] == "missing":
        return f"{'.'.join(str(p) for p in (*location, fault['loc'][-1]))} is missing"
    if fault["type"] == "union_tag_invalid":
        key, tag, known = (fault["ctx"][name] for name in ("discriminator", "tag", "expected_tags"))
        return f"{dotted}.{key.strip(chr(39)).removesuffix('()')}: {tag!r} is none of {known}"
    text = _PLAIN_WORDS.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
    given = fault.get("input")
    shown = "" if isinstance(given, dict | list) else f" (given: {given!r})"
    where = f"{dotted}: " if dotted else ""  # a fault of the whole config names its keys itself
    return f"{where}{text[0].lower() + text[1:]}{shown}"


def _locate(loc: Location, tree: CommentedMap) -> tuple[Location, int, bool]:
    """Path of a pydantic location in the YAML tree, names of union members left out; its line; whether it has one.

    What an override added has none, nor has what a merge key brought: theirs is the line of what holds them.
    """
    node: Any = tree
    found: list[str | int] = []
    line, written = 1, True
    for part in loc:
        if isinstance(node, dict) and part in node:
            positions = getattr(getattr(node, "lc", None), "data", None) or {}
            written = part in positions
            line = positions[part][0] + 1 if written else line
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):  # a plain list if overridden
            positions = getattr(getattr(node, "lc", None), "data", None) or {}
            line = positions[part][0] + 1 if part in positions else line
        else:
            continue
        node = node[part]
        found.append(part)
    return tuple(found), line, written


def _known_keys(model: type[Section], loc: Location) -> list[str]:
    """Keys that the section at a pydantic location knows."""
    section: Any = model
    for part in loc:
        if isinstance(section, type) and issubclass(section, Section):
            if part in section.model_fields:
                section = section.model_fields[str(part)].annotation
            continue
        members = _sections_in(section)
        tagged = [member for member in members if part in _tags(member)]
        section = (tagged or members or [section])[0]
    members = _sections_in(section)
    return list(members[0].model_fields) if members else []


def _tags(section: type[Section]) -> tuple[str, ...]:
    """Values of `kind` or `name` by which a section is told from others."""
    return tuple(
        value
        for key in ("kind", "name")
        if key in section.model_fields
        for value in typing.get_args(section.model_fields[key].annotation)
    )


def _sections_in(annotation: Any) -> list[type[Section]]:
    if inspect.isclass(annotation):
        return [annotation] if issubclass(annotation, Section) else []
    return [section for argument in typing.get_args(annotation) for section in _sections_in(argument)]
