"""From lines of JSON to a table of records, every malformed line counted and named."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from shared.data.schema import RECORD

MAX_LINE_BYTES = 16 * 2**20
MAX_MALFORMED_SHARE = 0.10
MAX_MALFORMED_FEW = 5
"""A source with more malformed lines than this share, and more than this few, is refused."""


class SourceError(ValueError):
    """A source cannot be read; the message names the file, the line and the remedy."""


class SourceInterrupted(SourceError):
    """A source that was readable so far no longer is; a second run may go on from there."""


@dataclass
class Block:
    """Consecutive lines of one file, blank ones too, in one piece: to split them is the work of
    whoever parses. ``first`` is the number of the first line, from 1."""

    file: str
    first: int
    text: bytes

    @property
    def lines(self) -> list[bytes]:
        """The lines, split anew at each call."""
        return self.text.split(b"\n")

    def __len__(self) -> int:
        """Return how many lines there are."""
        return self.text.count(b"\n") + 1


@dataclass
class Malformed:
    """What could not be read: how many lines, and the first few by file, line and reason."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, file: str, line: int, reason: str) -> None:
        """Count one line and keep it as an example while there are few."""
        self.count += 1
        if len(self.examples) < 10:
            self.examples.append(f"{file}, line {line}: {reason}")

    def __iadd__(self, other: Malformed) -> Malformed:
        """Add what another block found."""
        self.count += other.count
        self.examples = (self.examples + other.examples)[:10]
        return self

    def check(self, lines: int) -> None:
        """Raise SourceError if too many of the ``lines`` read so far are malformed."""
        allowed = max(MAX_MALFORMED_FEW, MAX_MALFORMED_SHARE * lines)
        if self.count > allowed or self.count == lines:
            raise SourceError(
                f"{self.count} of {lines} lines are malformed (at most {MAX_MALFORMED_SHARE:.0%} "
                f"may be); the first: {'; '.join(self.examples[:3])}. Each line must be one JSON "
                "object in UTF-8: check that this is the file you meant"
            )


def parse_block(block: Block) -> tuple[pa.Table, Malformed]:
    """Parse a block of JSON lines into a table in the RECORD schema.

    Lines that are not a JSON object are counted, and the rest is kept. Fields of another type
    than declared are brought to it (a number to its text, a text to a list of one), because
    shops do list them so.
    """
    records, malformed = parse_lines(block)
    return records_table(records), malformed


def parse_lines(block: Block) -> tuple[list[dict], Malformed]:
    """Parse a block of JSON lines into records as they come, and what was malformed.

    A line is one or the other, or blank.
    """
    records, malformed = [], Malformed()
    for number, line in enumerate(block.lines, start=block.first):
        if len(line) > MAX_LINE_BYTES:
            malformed.add(block.file, number, f"longer than {MAX_LINE_BYTES // 2**20} MB")
            continue
        try:
            record = orjson.loads(line)
            if type(record) is dict:
                records.append(record)
            else:
                malformed.add(block.file, number, f"a JSON {type(record).__name__}, no object")
        except orjson.JSONDecodeError as error:
            if line.strip():
                malformed.add(block.file, number, _why(line, error))
    return records, malformed


def records_table(records: list[dict]) -> pa.Table:
    """Bring raw records (dicts of whatever JSON held) to a table in the RECORD schema."""
    return pa.table([_column(records, column) for column in RECORD], schema=RECORD)


def _column(records: list[dict], column: pa.Field) -> pa.Array:
    """Take a column as it is where all is of the declared type, else value by value."""
    nested = pa.types.is_list(column.type)
    raw = [record.get(column.name) for record in records]
    if {type(value) for value in raw} <= {list if nested else str, type(None)}:
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowTypeError):  # what lists hold varies too
            found = pa.array([value or [] for value in raw] if nested else raw, column.type)
            if not (nested and found.values.null_count):
                return found
    bring = _to_list if nested else _to_json if column.name == "details" else _to_text
    return pa.array([bring(value) for value in raw], column.type)


def _why(line: bytes, error: Exception) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return f"not UTF-8 (byte {line[wrong.start]:#04x} at {wrong.start})"
    return f"not JSON ({str(error).split(':')[0]})"


def _to_text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    if type(value) is list:
        return " ".join(_to_text(v) or "" for v in value).strip() or None
    if type(value) is dict:
        return orjson.dumps(value).decode()
    return str(value)


def _to_list(value: Any) -> list[str]:
    if value is None:
        return []
    if type(value) is list:
        return [v if type(v) is str else _to_text(v) or "" for v in value]
    return [_to_text(value) or ""]


def _to_json(value: Any) -> str | None:
    return value if value is None or type(value) is str else orjson.dumps(value).decode()
