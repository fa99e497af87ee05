"""Curation: from a table of dirty records to a table of items, every dropped record counted.

``curate`` is a pure function from Arrow to Arrow. The same function runs in a notebook, in
``datasets.map``, in a process pool and on a cluster, and gives the same rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

import orjson
import polars as pl
import pyarrow as pa

from shared.data import text as rules
from shared.data.schema import ITEM, RECORD
from shared.data.sources import AMAZON_CATEGORIES

MIN_PRICE, MAX_PRICE = 0.5, 999.49
"""Dollars. Below are shipping tricks and errors; above, too few products to learn from."""

MIN_CHARS, MAX_CHARS = 60, 3000
"""Characters of a cleaned text. Shorter ones are dropped, longer ones cut: titles and
specifications come first, so what is cut is the tail of the seller's prose."""

REASONS = (
    "malformed",
    "no_price",
    "unreadable_price",
    "price_out_of_range",
    "too_short",
    "not_english",
    "duplicate",
)
"""Why a record is dropped, in the order in which it is asked; the first reason counts."""

NOISY_DETAILS = frozenset(
    (
        "asin|upc|ean|gtin|isbn-10|isbn-13|best sellers rank|customer reviews|"
        "date first available|date first listed on amazon|release date|model number|"
        "is discontinued by manufacturer|item model number|part number|department|"
        "manufacturer part number|oem part number|domestic shipping|international shipping|"
        "batteries required?|batteries included?|country of origin|pricing|"
        "global trade identification number|unspsc code|import designation|"
        "product care instructions|model info|package dimensions"
    ).split("|")
)
"""Details that say nothing about what a product costs, or name one part number. Those whose name
speaks of a price go too: they would leak it."""

_MAX_DETAIL_CHARS = 120
_CANONICAL = {
    "".join(c for c in name.lower().replace("and", "") if c.isalnum()): name.replace("_", " ")
    for name in AMAZON_CATEGORIES
} | {
    "allelectronics": "Electronics",
    "computers": "Electronics",
    "homeaudiotheater": "Electronics",
    "cameraphoto": "Electronics",
    "kitchendining": "Home and Kitchen",
    "amazonhome": "Home and Kitchen",
    "carelectronics": "Automotive",
    "toolshomeimprovement": "Tools and Home Improvement",
    "handmade": "Handmade Products",
}
UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Rules:
    """What else but a readable price a record needs, where another shop's data wants other rules.

    ``shortest``: characters of a cleaned text. ``english``: drop other languages. ``same_title``:
    records with the same title, of five words or more, are near-duplicates.
    """

    shortest: int = MIN_CHARS
    english: bool = True
    same_title: bool = True


COURSE = Rules()
"""The rules of the course: products of a shop, described in English."""


@dataclass
class Report:
    """What happened to the records: ``rows_in == kept + sum(dropped.values())``, always.

    ``notes`` counts what was repaired on the way, in records that may have been kept.
    """

    rows_in: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Report) -> Report:
        """Join the reports of two tables into the report of both."""
        return Report(
            self.rows_in + other.rows_in,
            self.kept + other.kept,
            self.dropped + other.dropped,
            self.notes + other.notes,
        )

    def drop(self, reason: str, count: int) -> None:
        """Move ``count`` records from kept to dropped."""
        self.kept -= count
        self.dropped[reason] += count

    @classmethod
    def from_dict(cls, value: dict) -> Report:
        """Return the report that ``to_dict`` was called on."""
        counts = (Counter(value[name]) for name in ("dropped", "notes"))
        return cls(value["rows_in"], value["kept"], *counts)

    def to_dict(self) -> dict:
        """Return the report as JSON-able values, reasons in the order they are asked."""
        return {
            "rows_in": self.rows_in,
            "kept": self.kept,
            "dropped": {r: self.dropped[r] for r in REASONS if self.dropped[r]},
            "notes": dict(sorted(self.notes.items())),
        }


def curate(records: pa.Table, needs: Rules = COURSE) -> tuple[pa.Table, Report]:
    """Turn raw records into items and report what was dropped.

    ``records`` is any table castable to the RECORD schema (n rows). Returns the kept items in
    the ITEM schema, in the order given, with ``cluster`` and ``split`` still null, and the
    report. Pure: no state, no file, no look at other rows.
    """
    records = conform(records)
    report = Report(rows_in=records.num_rows, kept=records.num_rows)
    priced = pl.from_arrow(records).with_columns(parsed=rules.parse_price(pl.col("price")))
    priced = _keep(
        priced, report, "no_price", pl.col("price").str.strip_chars().fill_null("") != ""
    )
    priced = _keep(priced, report, "unreadable_price", pl.col("parsed").is_not_null())
    in_range = pl.col("parsed").is_between(MIN_PRICE, MAX_PRICE)
    priced = _keep(priced, report, "price_out_of_range", in_range)
    items = _assemble(priced, report)
    items = _keep(items, report, "too_short", pl.col("text").str.len_chars() >= needs.shortest)
    if needs.english:
        items = _keep(items, report, "not_english", rules.is_english(pl.col("text")))
    return _to_items(items), report


def assemble(records: pa.Table) -> pa.Table:
    """Give every record the text that curation would give it, and drop none.

    This is how new records reach a pricer. ``price`` is null where it is unknown, unreadable or
    impossible (not above zero, or over a million dollars).
    """
    frame = pl.from_arrow(conform(records))
    frame = frame.with_columns(parsed=rules.parse_price(pl.col("price")))
    possible = pl.col("parsed").is_between(0.0, 1e6, closed="right")
    frame = frame.with_columns(parsed=pl.when(possible).then(pl.col("parsed")))
    return _to_items(_assemble(frame, Report()))


def conform(records: pa.Table) -> pa.Table:
    """Cast a table to the RECORD schema; a missing column is filled with nulls.

    Needed because the same text may arrive as string, large_string or string_view, depending on
    who read it. Raises ValueError naming the column that cannot be cast.
    """
    columns = []
    for column in RECORD:
        if column.name not in records.column_names:
            columns.append(pa.nulls(records.num_rows, column.type))
            continue
        try:
            columns.append(records[column.name].cast(column.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(
                f"column {column.name!r} is {records[column.name].type}, and cannot be read as "
                f"{column.type}: {error}"
            ) from error
    return pa.table(columns, schema=RECORD)


def _keep(frame: pl.DataFrame, report: Report, reason: str, wanted: pl.Expr) -> pl.DataFrame:
    kept = frame.filter(wanted)
    report.drop(reason, frame.height - kept.height)
    return kept


def _assemble(frame: pl.DataFrame, report: Report) -> pl.DataFrame:
    """Add text, title, category and details; records are neither dropped nor reordered."""
    details = [_parse_details(value) for value in frame["details"].to_list()]
    report.notes["unreadable_details"] += sum(d is None for d in details)
    useful, facts = zip(*map(_useful, details), strict=True) if details else ((), ())
    first_category = frame["categories"].list.first()
    frame = frame.with_columns(
        facts=pl.Series(facts, dtype=pl.String),
        kind=pl.Series(
            map(_category, frame["main_category"].to_list(), first_category.to_list(), details),
            dtype=pl.String,
        ),
        details=pl.Series([orjson.dumps(d).decode() for d in useful], dtype=pl.String),
    )
    raw = frame.select(
        title=pl.col("title").fill_null(""),
        text=pl.concat_str(
            pl.col("title").fill_null(""),
            pl.col("facts"),
            pl.col("features").list.join("\n", ignore_nulls=True).fill_null(""),
            pl.col("description").list.join("\n", ignore_nulls=True).fill_null(""),
            separator="\n",
        ),
    )
    raw = raw.with_columns(rules.unescape(raw["title"]), rules.unescape(raw["text"]))
    clean = raw.select(
        title=rules.scrub(pl.col("title")).str.replace_all("\n", " ", literal=True),
        text=rules.scrub(pl.col("text")),
    )
    report.notes["masked_prices"] += int(clean["text"].str.contains(rules.MASK, literal=True).sum())
    report.notes["cut_texts"] += int((clean["text"].str.len_chars() > MAX_CHARS).sum())
    clean = clean.with_columns(text=rules.clip(pl.col("text"), MAX_CHARS))
    details_masked = frame["details"].str.replace_all(rules.PRICES, rules.MASK)
    return frame.with_columns(title=clean["title"], text=clean["text"], details=details_masked)


def _to_items(frame: pl.DataFrame) -> pa.Table:
    columns = {
        "id": "parent_asin",
        "title": "title",
        "text": "text",
        "category": "kind",
        "details": "details",
        "price": "parsed",
    }
    table = frame.select(**{new: pl.col(old) for new, old in columns.items()}).to_arrow()
    for name in ("cluster", "split"):
        table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    return table.cast(ITEM)


def _parse_details(value: str | None) -> dict | None:
    """Return the details, {} where there are none, None where they cannot be read."""
    if not value or not value.strip():
        return {}
    try:
        details = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return details if type(details) is dict else None


def _useful(details: dict | None) -> tuple[dict, str]:
    """Return the details that say something, and the same as lines of ``Name: value``."""
    useful, lines = {}, []
    for name, value in (details or {}).items():
        if _is_noisy(name):
            continue
        useful[name] = value
        if type(value) is not str:
            if value is None or type(value) is dict:
                continue
            value = ", ".join(map(str, value)) if type(value) is list else str(value)
        if name and value:
            lines.append(f"{name.strip()}: {value.strip()[:_MAX_DETAIL_CHARS]}")
    return useful, "\n".join(lines)


@lru_cache(maxsize=4096)
def _is_noisy(name: str) -> bool:
    name = name.strip().lower()
    return name in NOISY_DETAILS or "price" in name or "msrp" in name


def _category(main: str | None, shelf: str | None, details: dict | None) -> str:
    """Find the category: as the shop names it, else its first shelf, else from its sales rank."""
    ranks = (details or {}).get("Best Sellers Rank")
    candidates = [main, shelf, *(list(ranks)[:1] if type(ranks) is dict else [])]
    for candidate in candidates:
        if candidate and candidate.strip():
            return normalise_category(candidate)
    return UNKNOWN


@lru_cache(maxsize=4096)
def normalise_category(name: str) -> str:
    """Spell a category one way: "Toys_and_Games" and "Toys & Games" are "Toys and Games"."""
    key = "".join(c for c in name.lower().replace("and", "") if c.isalnum())
    return _CANONICAL.get(key) or " ".join(name.replace("_", " ").replace("&", "and").split())
