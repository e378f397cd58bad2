#!/usr/bin/env python3
"""Download structures and properties from the Materials Project, as JSON Lines for `source: {kind: mp_json}`.

    MP_API_KEY=... python download_mp.py downloads/mp.jsonl --fields band_gap formation_energy_per_atom is_metal

To be run on a login node, which reaches the internet; compute nodes rarely do. Needs `pip install matsci-hpc[mp]` and a
key from https://next-gen.materialsproject.org/api in the environment variable MP_API_KEY: it is written nowhere. An
interrupted download goes on where it stopped when the same command is given again. The file has its name only when it
is whole; until then it is called FILE.part.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

FIELDS = ("band_gap", "formation_energy_per_atom", "energy_above_hull", "is_metal")


class UnusablePartError(Exception):
    """What an interrupted download left cannot be gone on with; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Download what the command line asks for; returns the exit code."""
    asked = parse(arguments)
    if asked.out.exists():
        print(f"{asked.out} is there already, nothing was done")
        return 0
    key = os.environ.get("MP_API_KEY")
    if not key:
        return fail("MP_API_KEY is not set; a key is given at https://next-gen.materialsproject.org/api", 2)
    try:
        from mp_api.client import MPRester
    except ImportError:
        return fail("the package mp-api is not installed: pip install matsci-hpc[mp]", 3)
    try:
        with MPRester(key) as client:
            count = download(client, asked.out, asked.fields, asked.per_request, asked.limit)
    except UnusablePartError as error:
        return fail(str(error), 2)
    except Exception as error:  # noqa: BLE001 - the client raises anything when the network or the server fails
        said = " ".join(str(error).split()).replace(key, "MP_API_KEY")
        return fail(f"{type(error).__name__}: {said[:300]}; run the same command again", 3)
    print(f"{asked.out}: {count:,} materials")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="file to write, such as downloads/mp.jsonl")
    parser.add_argument("--fields", nargs="+", default=list(FIELDS), help="what to fetch beside the structure")
    parser.add_argument("--per-request", type=positive, default=500, help="materials of one request")
    parser.add_argument("--limit", type=positive, default=None, help="materials at most, for a trial")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """A number of the command line that is at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def download(client: Any, out: Path, fields: Sequence[str], per_request: int, limit: int | None = None) -> int:
    """Write a line for every material, in the order of their ids, and give the file its name.

    Args:
        client: an `MPRester`.
        out: the file.
        fields: of the summary of each material, beside id and structure.
        per_request: materials of one request.
        limit: materials at most.

    Returns:
        Number of materials in the file.

    Raises:
        UnusablePartError: there is the beginning of a download of other fields, or a damaged one.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    wanted = ["material_id", "structure", *fields]
    # Without any condition the client would copy the whole collection, with all its fields, into the home folder.
    listed = summaries(client, fields=["material_id"], deprecated=False)
    identifiers = sorted({each["material_id"] for each in listed})[:limit]
    with part.open("a+", encoding="utf-8") as file:
        done = written(file, part, wanted)
        left = [each for each in identifiers if each not in done]
        missing: list[str] = []
        for start in range(0, len(left), per_request):
            some = left[start : start + per_request]
            found = {each["material_id"]: each for each in summaries(client, material_ids=some, fields=wanted)}
            for identifier in some:
                if identifier in found:
                    file.write(line_of(found[identifier], wanted))
                else:
                    missing.append(identifier)
            file.flush()
            os.fsync(file.fileno())
            print(f"{len(done) + start + len(some):,} of {len(identifiers):,}", file=sys.stderr)
        file.seek(0)
        count = sum(1 for _ in file)
    if missing:
        shown = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
        print(f"download_mp: {len(missing):,} materials were asked for and not sent: {shown}", file=sys.stderr)
    part.rename(out)
    return count


def summaries(client: Any, fields: Sequence[str], **query: Any) -> Iterator[dict[str, Any]]:
    """The fields of summary documents, whether the client gives models or dictionaries; the id as text."""
    for document in client.materials.summary.search(fields=list(fields), **query):
        if isinstance(document, dict):
            found = {name: document.get(name) for name in fields}
        else:
            found = {name: getattr(document, name, None) for name in fields}
        yield found | {"material_id": str(found["material_id"])}


def line_of(document: dict[str, Any], wanted: Sequence[str]) -> str:
    """One document as a line of JSON."""
    plain = {name: as_json(document.get(name)) for name in wanted}
    return f"{json.dumps(plain, allow_nan=True, default=str)}\n"


def as_json(value: Any) -> Any:
    """A value as JSON can hold it: structures by their `as_dict`, ids and the like as text."""
    if hasattr(value, "as_dict"):
        return value.as_dict()
    return value


def written(file: TextIO, path: Path, wanted: Sequence[str]) -> set[str]:
    """Ids of the lines that are there; a line that was cut off by an interruption is removed.

    Args:
        file: the lines.
        path: of the file, for messages.
        wanted: what every line should hold.

    Raises:
        UnusablePartError: a line holds something else, or is damaged.
    """
    file.seek(0)
    done: set[str] = set()
    end = 0
    number = 0
    while line := file.readline():
        number += 1
        if not line.endswith("\n"):
            break
        try:
            document = json.loads(line)
            identifier, fields = document["material_id"], set(document)
        except (ValueError, TypeError, KeyError):
            raise UnusablePartError(f"{path}: line {number} is damaged; remove the file, or that line") from None
        if fields != set(wanted):
            raise UnusablePartError(
                f"{path}: line {number} has the fields {', '.join(sorted(fields))}, and now {', '.join(sorted(wanted))}"
                " are asked for; ask for the same, or remove the file"
            )
        done.add(identifier)
        end = file.tell()
    file.seek(end)
    file.truncate()
    return done


def fail(message: str, code: int) -> int:
    """Say what is wrong."""
    print(f"download_mp: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
