"""A first look at a table: what each column seems to be, why, and what a person has to check.

Nothing is decided in silence: each guess comes with its reason, and what cannot be guessed stays
a TODO that nothing runs with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.template.door import amount
from shared.template.project import TODO, ProjectError
from shared.template.tables import Row, read_rows, sniffed

HINTS = {
    "number": "price rent cost costs salary wage fee revenue amount value premium miete preis",
    "id": "id no nr number key sku ref reference uuid code asin",
    "title": "title name headline heading subject label",
    "text": "text description body details comment summary advert content notes",
    "category": "category type kind class genre sort",
    "group": "building house seller owner agency customer landlord company employer project group",
}
"""Role -> words in the names of columns that often have it."""

UNITS = {"eur": "EUR", "€": "EUR", "usd": "dollars", "$": "dollars", "gbp": "GBP", "£": "GBP",
         "chf": "CHF", "dollars": "dollars", "euro": "EUR", "euros": "EUR"}  # fmt: skip
LEAK = 0.95
"""Rank correlation from which a column is suspected to say the number itself."""


@dataclass(frozen=True)
class Column:
    """What is seen of a column: shares from 0 to 1, and lengths in characters.

    ``numbers`` is the share of its cells that are numbers, ``unique`` that of different ones.
    """

    name: str
    missing: float
    unique: float
    different: int
    numbers: float
    length: float
    example: str

    def hints(self, role: str) -> bool:
        """Say whether the name has a word that often names this role."""
        words = re.findall(
            r"[^\W_\d]+|[€$£]", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name).lower()
        )
        return bool(set(words) & set(HINTS[role].split()))


@dataclass
class Proposal:
    """What ``project.toml`` is to say: setting -> value, why, and what to check."""

    values: dict[str, object] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    check: list[str] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)

    def say(self, setting: str, value: object, why: str) -> None:
        """Note a value and its reason."""
        self.values[setting], self.why[setting] = value, why

    @property
    def todo(self) -> list[str]:
        """The settings that could not be guessed."""
        return [name for name, value in self.values.items() if value == TODO]


def look(path: Path) -> Proposal:
    """Look at a file of rows and propose a mapping. Raises ProjectError if it cannot be read."""
    found = Proposal()
    encoding, delimiter = _written(path, found)
    rows, malformed = read_rows(path, encoding, delimiter)
    if malformed.count:
        found.check.append(f"{malformed.count} lines are no rows: {malformed.examples[0]}")
    decimal = _decimal(rows, found)
    found.columns = [_seen(name, rows, decimal) for name in rows[0]]
    left = _number(found, rows, decimal)
    left = _names(found, left, rows)
    _facts(found, left, rows, decimal)
    return found


def _written(path: Path, found: Proposal) -> tuple[str, str]:
    """Return encoding and delimiter of a CSV file; of others the usual ones, which do not count."""
    if not Path(path).is_file():
        raise ProjectError(f"{path}: there is no such file")
    if Path(path).name.lower().endswith((".parquet", ".jsonl", ".jsonl.gz")):
        return "utf-8", ","
    content = Path(path).read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        encoding = "cp1252" if not re.search(rb"[\x81\x8d\x8f\x90\x9d]", content) else "latin-1"
        found.check.append(
            f"the file is not UTF-8, and was read as {encoding}: are ä, é and € right?"
        )
    lines = content.decode(encoding, errors="replace").lstrip("\ufeff").splitlines()
    delimiter = sniffed(lines[0] if lines else "")
    found.say("encoding", encoding, "the bytes can be read so")
    found.say("delimiter", delimiter, "it stands most often in the first line")
    return encoding, delimiter


def _decimal(rows: Sequence[Row], found: Proposal) -> str:
    """Return "," if numbers are written as 1.250,50 or 72,5, else "."."""
    cells = [cell for row in rows[:2000] for cell in row.values()]
    commas = sum(
        bool(re.fullmatch(r"\D{0,4}\d{1,3}(?:\.?\d{3})*,\d{1,2}\D{0,4}", c)) for c in cells
    )
    points = sum(
        bool(re.fullmatch(r"\D{0,4}\d{1,3}(?:,?\d{3})*\.\d{1,2}\D{0,4}", c)) for c in cells
    )
    decimal = "," if commas > points else "."
    found.say("decimal", decimal, f"{commas:,} cells are like 72,5 and {points:,} like 72.5")
    return decimal


def _seen(name: str, rows: Sequence[Row], decimal: str) -> Column:
    cells = [row[name] for row in rows if row[name]]
    different = set(cells)
    n = max(len(cells), 1)
    return Column(
        name, 1 - len(cells) / len(rows), len(different) / n, len(different),
        sum(amount(cell, decimal) is not None for cell in cells) / n if cells else 0.0,
        sum(map(len, cells)) / n, cells[0] if cells else "",
    )  # fmt: skip


def _number(found: Proposal, rows: Sequence[Row], decimal: str) -> list[Column]:
    """Propose the column to estimate, its unit and range; return the other columns."""
    able = [c for c in found.columns if c.numbers > 0.8 and c.different > 10 and c.length < 30]
    hinted = [c for c in able if c.hints("number")]
    names = [c.name for c in hinted]
    if len(hinted) != 1:
        said = f"several could be it: {', '.join(names)}" if hinted else "no name says which it is"
        found.say(
            "column", TODO, f"{said}; numbers are {', '.join(c.name for c in able) or 'none'}"
        )
        for name in ("low", "high"):
            found.say(name, 0.0, "the plausible range, in the unit")
        found.say("scale", 1.0, "so that high / scale is at most 999.49")
        found.say("unit", "dollars", "the default")
        return [c for c in found.columns if c not in hinted]
    column = hinted[0]
    found.say("column", column.name, f"its name, and {column.numbers:.0%} of its cells are numbers")
    values = _values(rows, column.name, decimal)
    low, high = _range(values)
    scale = scale_for(high)
    low = max(low, MIN_PRICE * scale)
    found.say("low", low, "a quarter of what 19 in 20 are above, or half of the scale")
    found.say("high", high, "four times what 19 in 20 are below")
    outside = int(((values < low) | (values > high)).sum())
    found.check.append(f"{outside:,} numbers are outside of {low:g} to {high:g}, and are left out")
    found.say("scale", scale, f"it brings {high:g} below {MAX_PRICE}")
    unit = _unit(column)
    found.say("unit", unit or "dollars", "the name or a cell says so" if unit else "the default")
    found.check.append(f'unit = "{unit or "dollars"}": is it a month, a year, each, net?')
    return [c for c in found.columns if c is not column]


def _values(rows: Sequence[Row], name: str, decimal: str) -> np.ndarray:
    """Return the numbers above zero of a column, NaN where there is none, one a row."""
    said = (amount(row[name], decimal) for row in rows)
    return np.array([np.nan if value is None or value <= 0 else value for value in said])


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return what is plausible; a few absurd values in a hundred do not stretch it."""
    low, high = np.nanquantile(values, [0.05, 0.95])
    return float(f"{low / 4:.1g}"), float(f"{high * 4:.1g}")


def scale_for(high: float) -> float:
    """Return the least of 1, 2, 5, 10, 20, … (or 0.1, …) that brings ``high`` below 999.49."""
    powers = (step * 10.0**power for power in range(-9, 16) for step in (1, 2, 5))
    return float(f"{next(scale for scale in powers if high / scale <= MAX_PRICE):g}")


def _unit(column: Column) -> str:
    words = re.findall(r"[^\W_\d]+|[€$£]", f"{column.name} {column.example}".lower())
    return next((UNITS[word] for word in words if word in UNITS), "")


def _names(found: Proposal, left: list[Column], rows: Sequence[Row]) -> list[Column]:
    """Propose title, text, id, group and category; return the columns that are none of them."""
    prose = [c for c in left if c.numbers < 0.5]
    titles = [c for c in prose if c.hints("title") and c.length < 250] or [
        c for c in prose if c.unique > 0.7 and 12 <= c.length < 60 and not c.hints("id")
    ]
    texts = [
        c for c in prose
        if c not in titles[:1] and (c.length >= 60 or (c.length >= 30 and c.hints("text")))
    ]  # fmt: skip
    title = titles[0].name if titles else "" if texts else TODO
    found.say("title", title, "its name, or short texts that differ" if titles else "none looks so")
    text = [c.name for c in texts]
    found.say("text", text, "the long ones" if texts else "no column holds longer texts")
    _language(found, rows, text or [c.name for c in titles[:1]])
    taken = {title, *text}
    for role, wanted in (("id", "unique > 0.9"), ("group", "repeats"), ("category", "few values")):
        able = [c for c in left if c.name not in taken and c.hints(role) and _fits(c, role)]
        found.say(
            role, able[0].name if able else "", f"its name, {wanted}" if able else "none found"
        )
        taken |= {able[0].name} if able else set()
    if not found.values["group"]:
        found.check.append(
            "group: is there a column (seller, building, customer) whose rows are alike? Without "
            "it, a model is praised for what it has seen"
        )
    return [c for c in left if c.name not in taken]


def _language(found: Proposal, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Propose whether rows in other languages are dropped: only if most are in English."""
    import polars as pl

    from shared.data.text import is_english

    said = pl.DataFrame({"text": [" ".join(row[c] for c in columns) for row in rows[:500]]})
    share = float(said.select(is_english(pl.col("text")).mean()).item())
    found.say("english", share > 0.5, f"{share:.0%} of the first {len(said)} rows are in English")


def _fits(column: Column, role: str) -> bool:
    if role == "id":
        return column.unique > 0.9 and column.missing < 0.1
    if role == "group":
        return column.different > 20 and column.unique < 0.9
    return 2 <= column.different <= 60


def _facts(found: Proposal, left: list[Column], rows: Sequence[Row], decimal: str) -> None:
    """Propose the facts: all other columns but empty, constant and suspicious ones."""
    facts = []
    column = found.values["column"]
    truth = None if column == TODO else _values(rows, str(column), decimal)
    for one in left:
        if one.different < 2 or one.missing > 0.99:
            found.check.append(f"{one.name} is left out: it says the same everywhere, or nothing")
        elif one.unique > 0.95 and one.numbers < 0.5 and one.different > 50:
            found.check.append(f"{one.name} is left out: nearly all its values differ")
        elif truth is not None and (said := _leaks(one, rows, truth, decimal)) >= LEAK:
            found.check.append(
                f"{one.name} is left out: it goes along with {column} (correlation {said:.2f}). "
                "Would you know it before you know the number?"
            )
        else:
            facts.append(one.name)
    found.say("details", facts, "all others; take out what nobody knows beforehand")


def _leaks(column: Column, rows: Sequence[Row], truth: np.ndarray, decimal: str) -> float:
    """Return the rank correlation of a column of numbers with the number, 0 where there is none."""
    if column.numbers < 0.8:
        return 0.0
    from scipy.stats import spearmanr

    values = _values(rows, column.name, decimal)
    both = np.isfinite(values) & np.isfinite(truth)
    if both.sum() < 30 or len(np.unique(values[both])) < 3:
        return 0.0
    return abs(float(spearmanr(values[both], truth[both]).statistic))
