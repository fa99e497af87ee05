"""The door between your table and the course: rows in, records out, estimates back in your unit.

Inside, everything is as in the course: texts, and numbers from 0.5 to 999.49. Your numbers are
divided by ``scale`` on the way in, and estimates are multiplied by it on the way out.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from shared.data.curation import NOISY_DETAILS
from shared.template.project import Project, ProjectError
from shared.template.tables import Row, read_rows

MOST_UNREADABLE = 0.2
"""Share of the numbers that may be no numbers before the column is refused."""

_AMOUNT = re.compile(r"[-+]?\d[\d., '’\u00a0\u202f]*")
_GROUPED = {
    ".": re.compile(r"[-+]?(?:\d{1,3}(?:[, '’\u00a0\u202f]\d{3})+|\d+)(?:\.\d+)?"),
    ",": re.compile(r"[-+]?(?:\d{1,3}(?:[. '’\u00a0\u202f]\d{3})+|\d+)(?:,\d+)?"),
}
_AROUND = re.compile(r"[^\W\d_]{0,3}[^\w\d.,+-]{0,3}")
"""What may stand before or after a number: a currency's code or sign. "Flat 12" is no number."""


@dataclass
class Entry:
    """What the door did: ``rows`` were in the file, ``dropped`` says why some are no records.

    ``groups``: id -> group. ``examples``: what could not be read, and where.
    """

    rows: int
    records: list[dict[str, Any]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    groups: dict[str, str] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)


def amount(text: str, decimal: str = ".") -> float | None:
    """Read one number from a cell such as "1,250.00", "EUR 850" or, with a decimal comma, "1.250".

    None where no single number stands there.
    """
    found = _AMOUNT.search(text)
    if not found:
        return None
    digits = found[0].rstrip(" .,'’\u00a0\u202f")
    rest = text[: found.start()], text[found.start() + len(digits) :]
    if not all(
        re.fullmatch(rf"\s*(?:{_AROUND.pattern})\s*[.,]?-{{0,2}}\s*", part) for part in rest
    ):
        return None
    if not _GROUPED[decimal].fullmatch(digits):
        return None
    return float(re.sub(r"[^\d.+-]", "", digits.replace("." if decimal == "," else ",", "")
                        .replace(",", ".")))  # fmt: skip


def enter(project: Project) -> Entry:
    """Read the project's file and turn its rows into records (RECORD schema), each drop counted.

    A row without a number stays, with the price null: curation counts it, and a teacher may price
    it. Raises ProjectError for columns that are not there, ids of two rows, and a column of
    numbers that are none.
    """
    data = project.data
    rows, malformed = read_rows(project.source, data.encoding, data.delimiter)
    _check_columns(project, list(rows[0]))
    names = _ids(project, rows)
    entry = Entry(len(rows) + malformed.count, examples=list(malformed.examples))
    if malformed.count:
        entry.dropped["malformed"] = malformed.count
    for at, (row, name) in enumerate(zip(rows, names, strict=True), start=1):
        reason, inner = _inner(project, row[project.number.column])
        if not any(row[column] for column in (data.title, *data.text) if column):
            reason = "no_text"
        if reason:
            entry.dropped[reason] += 1
            if len(entry.examples) < 10:
                entry.examples.append(f"row {at}: {reason}, {row[project.number.column][:40]!r}")
            continue
        entry.records.append(record_of(project, row, name) | {"price": inner})
        if data.group and row[data.group]:
            entry.groups[name] = row[data.group]
    _check_numbers(project, rows, entry)
    return entry


def record_of(project: Project, row: Row, name: str) -> dict[str, Any]:
    """Return a row as the shop of the course would list it; its number is not in it."""
    data, decimal = project.data, project.number.decimal
    details = {_kept(c): _plain(row[c], decimal) for c in data.details if row.get(c)}
    return {
        "parent_asin": name,
        "title": row.get(data.title, "") or _beginning(row, data.text),
        "description": [row[column] for column in data.text if row.get(column)],
        "details": orjson.dumps(details).decode(),
        "main_category": row.get(data.category, ""),
    }


def _beginning(row: Row, columns: Sequence[str]) -> str:
    """Return the first words of the prose: where no column is a title, the service wants one."""
    text = next((row[column] for column in columns if row.get(column)), "")
    return textwrap.shorten(text, 80, placeholder=" …")


def _kept(name: str) -> str:
    """Return a column's name as one that curation keeps, which leaves out some of a shop's.

    A department says little about a product, and a list price all: yours you have chosen.
    """
    name = re.sub("price|msrp", "amount", name.replace("_", " "), flags=re.IGNORECASE).strip()
    return f"own {name}" if name.lower() in NOISY_DETAILS else name


def _plain(cell: str, decimal: str) -> str:
    """Write a number with a decimal point: 72,5 is one number to all that reads it later."""
    if decimal == "," and "," in cell and _GROUPED[","].fullmatch(cell):
        return f"{amount(cell, ','):g}"
    return cell


def _inner(project: Project, cell: str) -> tuple[str, str | None]:
    """Return why a number is not taken ("" if it is), and the number as the models have it."""
    number = project.number
    if not cell:
        return "", None
    value = amount(cell, number.decimal)
    if value is None:
        return "unreadable_number", None
    if not number.low <= value <= number.high:
        return "out_of_range", None
    return "", f"{value / number.scale:.6f}"


def _ids(project: Project, rows: Sequence[Row]) -> list[str]:
    """Return a name for each row; the same twice only for rows that say the same."""
    if not project.data.id:
        return [f"row-{at}" for at in range(1, len(rows) + 1)]
    seen: dict[str, tuple[int, str]] = {}
    names = []
    for at, row in enumerate(rows, start=1):
        name = row[project.data.id] or f"row-{at}"
        digest = hashlib.sha256(orjson.dumps(row)).hexdigest()
        first, said = seen.setdefault(name, (at, digest))
        if said != digest:
            raise ProjectError(
                f"{project.source}: rows {first} and {at} have the same {project.data.id!r} "
                f"({name[:40]!r}) and say different things. In project.toml, [data]: name another "
                'id, or set id = "" and name this column as group'
            )
        names.append(name)
    return names


def _check_columns(project: Project, there: list[str]) -> None:
    for column in [*project.data.columns, project.number.column]:
        if column not in there:
            raise ProjectError(
                f"{project.source}: there is no column {column!r}, which project.toml names; "
                f"there are: {', '.join(there)[:300]}"
            )


def _check_numbers(project: Project, rows: Sequence[Row], entry: Entry) -> None:
    """Refuse a column of texts, and a range that hardly any number is in."""
    column, lacking = project.number.column, sum(not row[project.number.column] for row in rows)
    told, bad = len(rows) - lacking, entry.dropped["unreadable_number"]
    shown = "; ".join(e for e in entry.examples if "unreadable" in e or "range" in e)
    if not told:
        raise ProjectError(f"{project.source}: the column {column!r} is empty")
    if bad > MOST_UNREADABLE * told:
        raise ProjectError(
            f"{project.source}: {bad:,} of {told:,} cells of {column!r} are no numbers: is it the "
            f"right column, and decimal = {project.number.decimal!r}? {shown[:300]}"
        )
    if entry.dropped["out_of_range"] > 0.5 * told:
        raise ProjectError(
            f"{project.source}: most numbers of {column!r} are outside of low = "
            f"{project.number.low:g} and high = {project.number.high:g} in [number]. {shown[:300]}"
        )
