"""JSON documents of pymatgen and the Materials Project."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from matsci_hpc.config.record_sources import MpJsonSource as Config
from matsci_hpc.sources.indexed_records import IndexedRecords
from matsci_hpc.sources.pymatgen_structures import from_document, is_structure_document
from matsci_hpc.sources.record_index import DamagedFileError, RecordFile
from matsci_hpc.sources.records import Atoms, RecordError, entry
from matsci_hpc.structure import Rejected

_BLOCK_BYTES = 1 << 20
_BETWEEN = b" \t\r\n,[]"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_DOCUMENT_BYTES = 1 << 30
_DECODER = json.JSONDecoder(strict=False, parse_int=float)
"""Finds where objects end: control characters in texts and numbers of any length do not keep it from that."""


class JsonDocuments(IndexedRecords):
    """The documents of some files, each of which holds one, a list of them, or one in every line."""

    suffixes = (".json", ".jsonl")

    def __init__(self, files: list[RecordFile], config: Config, most: int | None = None) -> None:
        self.structure_key = config.structure_key
        self.by_lines: list[bool] = []
        super().__init__(files, config, most)

    def read(self, start: int, stop: int) -> "Iterator[Document | Rejected]":
        """The documents `start` to `stop - 1`, counted through all files."""
        for chunk in self.index.chunks(start, stop):
            name = chunk.source.file.name
            texts = _lines(chunk.data) if self.by_lines[chunk.number] else _objects(chunk.data)
            wanted = chunk.wanted
            for number, text in enumerate(texts[wanted], chunk.first + wanted.start):
                title = f"{name} document {number}"
                try:
                    content = json.loads(text, strict=False)
                except (ValueError, RecursionError) as error:
                    yield Rejected(title, f"not JSON: {error}")
                    continue
                if not isinstance(content, dict):
                    yield Rejected(title, "not a JSON object")
                    continue
                yield Document(title, f"{name}#{number}", chunk.source.split, content, self.structure_key)

    def scan(self, stream: BinaryIO, file: RecordFile) -> Iterator[int]:
        """Where documents begin."""
        begin = stream.read(_BLOCK_BYTES)
        before = len(_BYTE_ORDER_MARK) if begin.startswith(_BYTE_ORDER_MARK) else 0
        begin = begin[before:]
        called_json = file.file.name.lower().endswith(".json")
        by_lines = _first_line_is_a_document(begin) if called_json else not _is_a_list(begin)
        self.by_lines.append(by_lines)
        yield from (_scan_lines if by_lines else _scan_objects)(begin, before, stream)


@dataclass(frozen=True, slots=True)
class Document:
    """One document."""

    name: str
    default_id: str
    split: str | None
    content: dict[str, Any]
    structure_key: str

    def look_up(self, key: str) -> object:
        """What stands under a dotted key."""
        return entry(self.content, key)

    def keys(self) -> list[str]:
        """Entries of the document."""
        return list(self.content)

    def atoms(self) -> Atoms:
        """The structure that the document is, or has under `structure_key`."""
        if is_structure_document(self.content):
            return from_document(self.content)
        found = entry(self.content, self.structure_key)
        if found is None:
            raise RecordError(f"no structure under {self.structure_key!r}; there are {', '.join(self.content)[:200]}")
        if not isinstance(found, dict):
            raise RecordError(f"{self.structure_key} is no structure")
        return from_document(found)


def _first_line_is_a_document(begin: bytes) -> bool:
    """Whether a .json file really is one document in every line."""
    line, end, rest = begin.lstrip().partition(b"\n")
    if not end or not rest.strip() or not line.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line, strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _is_a_list(begin: bytes) -> bool:
    """Whether a .jsonl file really is a list of documents."""
    return begin.lstrip().startswith(b"[") and begin.lstrip()[1:].lstrip().startswith(b"{")


def _scan_lines(begin: bytes, position: int, stream: BinaryIO) -> Iterator[int]:
    """Where lines begin that are not blank, in what was read from a position on and what follows."""
    start, blank, block = position, True, begin  # of the line that is being read
    while block:
        *ended, last = block.split(b"\n")
        for part in ended:
            if not blank or part.strip():
                yield start
            position += len(part) + 1
            start, blank = position, True
        blank = blank and not last.strip()
        position += len(last)
        if position - start > _MAX_DOCUMENT_BYTES:
            raise _too_large(start)
        block = stream.read(_BLOCK_BYTES)
    if not blank:
        yield start


def _too_large(where: int) -> DamagedFileError:
    return DamagedFileError(f"what begins at byte {where} goes on for over 1 GiB, which is no document")


def _lines(data: bytes) -> list[bytes]:
    return [line for line in data.split(b"\n") if line.strip()]


def _scan_objects(begin: bytes, position: int, stream: BinaryIO) -> Iterator[int]:
    """Where the objects of a list begin. What is read is kept until the object in it is whole."""
    data, size = begin, _BLOCK_BYTES
    while True:
        offset = 0
        for start, end in _whole_objects(data):
            yield position + start
            offset = end
        position, data = position + offset, data[offset:]
        if len(data) > _MAX_DOCUMENT_BYTES:
            raise _too_large(position + len(data) - len(data.lstrip(_BETWEEN)))
        size = max(_BLOCK_BYTES, len(data))  # twice as much each time, or a large object would take for ever
        block = stream.read(size)
        if not block:
            break
        data += block
    if left := data.strip(_BETWEEN):
        where = position + len(data) - len(data.lstrip(_BETWEEN))
        shown = left[:40].decode(errors="replace")
        raise DamagedFileError(f"not JSON, or broken off, at byte {where}: {shown!r}")


def _objects(data: bytes) -> list[bytes]:
    return [data[start:end] for start, end in _whole_objects(data)]


def _whole_objects(data: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of the objects that stand one after the other, as far as they are whole."""
    # The syntax of JSON is ASCII, and in Latin-1 every byte is a character: places in the text are places in the file.
    text, place = data.decode("latin-1"), 0
    while True:
        while place < len(text) and text[place] in " \t\r\n,[]":
            place += 1
        if place == len(text) or text[place] != "{":
            return
        try:
            _, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            return
        yield place, end
        place = end
