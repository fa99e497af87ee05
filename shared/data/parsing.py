"""From lines of JSON to a table of records, every malformed line counted and named."""

from __future__ import annotations

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


@dataclass
class Block:
    """Consecutive lines of one file. ``first`` is the number of the first line, from 1."""

    file: str
    first: int
    lines: list[bytes]


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
            malformed.add(block.file, number, _why(line, error))
    return records_table(records), malformed


def records_table(records: list[dict]) -> pa.Table:
    """Bring raw records (dicts of whatever JSON held) to a table in the RECORD schema."""
    columns = {}
    for column in RECORD:
        bring = _to_list if pa.types.is_list(column.type) else _to_text
        if column.name == "details":
            bring = _to_json
        values = [bring(r.get(column.name)) for r in records]
        columns[column.name] = pa.array(values, column.type)
    return pa.table(columns, schema=RECORD)


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
