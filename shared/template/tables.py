"""Rows from a file of yours: CSV, JSON lines (gzip or not) or Parquet, every cell as a text.

A line that is no row is counted and named, and the rest is read. A file that is of another kind
than it was said to be is refused, with what it looks like.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from shared.data.parsing import MAX_MALFORMED_FEW, MAX_MALFORMED_SHARE, Malformed, parse_lines
from shared.data.sources import source_blocks
from shared.template.project import ProjectError

DELIMITERS = ",;\t|"
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".jsonl.gz", ".parquet")

Row = dict[str, str]


def read_rows(
    path: Path, encoding: str = "utf-8", delimiter: str = ","
) -> tuple[list[Row], Malformed]:
    """Return the rows of a file, column -> text ("" for a missing cell), and what was malformed.

    ``encoding`` and ``delimiter`` are those of a CSV file. Raises ProjectError for a file that is
    missing, empty, of another kind or mostly malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise ProjectError(f"{path}: there is no such file")
    if not path.name.lower().endswith(SUFFIXES):
        raise ProjectError(f"{path}: its name must end in one of {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        rows, malformed = _parquet(path), Malformed()
    elif path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        rows, malformed = _json_lines(path)
    else:
        rows, malformed = _csv(path, encoding, delimiter)
    if malformed.count > max(MAX_MALFORMED_FEW, MAX_MALFORMED_SHARE * len(rows)):
        raise ProjectError(
            f"{path}: {malformed.count:,} of {len(rows) + malformed.count:,} lines are malformed "
            f"({'; '.join(malformed.examples[:3])}): is it this file, delimiter and encoding?"
        )
    if not rows:
        raise ProjectError(f"{path}: there is no row in it")
    return rows, malformed


def text_of(value: Any) -> str:
    """Return a cell as a person would write it; nothing for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, list | tuple):
        return "; ".join(filter(None, map(text_of, value)))
    if isinstance(value, dict):
        return "; ".join(f"{k}: {said}" for k, v in value.items() if (said := text_of(v)))
    return str(value).strip()


def _csv(path: Path, encoding: str, delimiter: str) -> tuple[list[Row], Malformed]:
    rows, malformed = [], Malformed()
    lines = csv.reader(io.StringIO(_decoded(path, encoding), newline=""), delimiter=delimiter)
    header = [name.strip() for name in next(lines, [])]
    _check_header(path, header, delimiter)
    for cells in _numbered(path, lines):
        if len(cells) == len(header):
            rows.append(dict(zip(header, map(str.strip, cells), strict=True)))
        elif any(map(str.strip, cells)):
            said = f"{len(cells)} cells for {len(header)} columns"
            malformed.add(path.name, lines.line_num, said)
    return rows, malformed


def _numbered(path: Path, lines: Any) -> Iterator[list[str]]:
    csv.field_size_limit(2**24)
    try:
        yield from lines
    except csv.Error as error:
        raise ProjectError(f"{path}, line {lines.line_num}: no CSV ({error})") from error


def _decoded(path: Path, encoding: str) -> str:
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") and not encoding.lower().startswith("utf-16"):
        raise ProjectError(f'{path}: is UTF-16 text; set encoding = "utf-16" in [data]')
    try:
        return content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except LookupError:
        raise ProjectError(f"there is no encoding {encoding!r}; try utf-8 or latin-1") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ProjectError(
            f"{path}, line {line}: not {encoding} (byte {content[error.start]:#04x}); text from "
            'an older Windows or a spreadsheet often is: set encoding = "cp1252" in [data]'
        ) from error


def _check_header(path: Path, header: list[str], delimiter: str) -> None:
    if not any(header):
        raise ProjectError(f"{path}: its first line is empty, and must name the columns")
    if len(header) == 1 and (near := sniffed(header[0], "")):
        raise ProjectError(
            f"{path}: has one column, {header[0][:60]!r}: set delimiter = {near!r} in [data]"
        )
    twice = [name for name, count in Counter(header).items() if count > 1 or not name]
    if twice:
        raise ProjectError(f"{path}: the column {twice[0]!r} is there twice or without a name")


def sniffed(header: str, otherwise: str = ",") -> str:
    """Return the delimiter that stands most often in the first line of a CSV file."""
    best = max(DELIMITERS, key=header.count)
    return best if header.count(best) else otherwise


def _json_lines(path: Path) -> tuple[list[Row], Malformed]:
    found, malformed = [], Malformed()
    for block in source_blocks(str(path)):
        records, bad = parse_lines(block)
        found += records
        malformed += bad
    return _even(found), malformed


def _parquet(path: Path) -> list[Row]:
    try:
        return _even(pq.read_table(path).to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ProjectError(f"{path}: no Parquet file that can be read ({error})") from error


def _even(records: list[dict[str, Any]]) -> list[Row]:
    """Give every row all columns, in the order of their first appearance."""
    names = list(dict.fromkeys(name for record in records for name in record))
    return [{name: text_of(record.get(name)) for name in names} for record in records]


def write_records(records: list[dict[str, Any]], path: Path) -> None:
    """Write records as JSON lines; a file that says the same already is left as it is.

    What was computed from it is known by its time.
    """
    from shared.data.storage import replacing

    content = b"".join(orjson.dumps(record) + b"\n" for record in records)
    if path.is_file() and path.read_bytes() == content:
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)
