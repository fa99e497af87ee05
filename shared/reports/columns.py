"""What a leaderboard says: its groups, its columns and the figures others reported."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.evaluation.compare import p_text
from shared.evaluation.metrics import number

Row = Mapping[str, Any]

MOST_FAILED = 0.10
"""Share of failed estimates above which a pricer is listed last and gets no rank: it might have
left out the hard products."""

NOT_COMPARABLE = (
    "Reported by others on other products: read them for their order, and do not compare them "
    "line by line with the results above."
)
HOW_TO_READ = (
    "Error: mean absolute error in dollars on the products a pricer answered, with its 95 % "
    "bootstrap interval. Hits: estimates off by less than $40 or less than 20 %. A failed estimate "
    "is no hit, and a pricer that fails on more than one product in ten gets no rank. "
    "Against best: paired permutation test, corrected for the number of comparisons (Holm); a tie "
    "is a difference that may be luck. A stand-in only plays the part of a real model: its numbers "
    "say nothing about that model."
)


@dataclass(frozen=True)
class Column:
    """A column: its title, and the text of a row in it ('—' where there is no value)."""

    title: str
    text: Callable[[Row], str]
    optional: tuple[str, ...] = ()


def groups(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return rows by the items they were scored on, best first; a table holds one group.

    The test set comes first, then the larger of the others.
    """
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: (r.get("splits") != ["test"], -r["n"], *order(r))):
        found.setdefault(row.get("items", ""), []).append(row)
    return found


def order(row: Row) -> tuple:
    """Return what rows are sorted by; the first entry is whether the row gets no rank."""
    unranked = row["mae"] is None or row["failed"] > MOST_FAILED * row["n"]
    return unranked, row["mae"] is None, row["mae"] or 0.0, row["pricer"]


def heading(rows: list[Row]) -> str:
    """Return what the items of a group are."""
    return rows[0].get("items_title") or f"{rows[0]['n']:,} products with a known price"


def columns(rows: list[Row]) -> list[Column]:
    """Return the columns of a group: all that are always there, and those that say something."""
    return [
        column
        for column in _COLUMNS
        if not column.optional or any(r.get(k) is not None for r in rows for k in column.optional)
    ]


def name(row: Row) -> str:
    """Return the pricer's name, followed by its label where it has one."""
    return f"{row['pricer']} ({row['label']})" if row.get("label") else row["pricer"]


def interval(row: Row) -> str:
    """Return the error's interval in brackets, or nothing."""
    ends = (row.get("mae_low"), row.get("mae_high"))
    return "" if None in ends else f"[{ends[0]:,.2f}, {ends[1]:,.2f}]"


def reported_error(row: Row) -> str:
    """Return a reported error, with the interval's digits as they were reported."""
    return f"{row['mae']:.2f}" + (f" [{row['low']}, {row['high']}]" if "low" in row else "")


def reported() -> list[dict[str, Any]]:
    """Return the sets of ``reported.toml``: title, source, products, results (best first)."""
    path = Path(__file__).with_name("reported.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))["set"]


def _value(key: str, form: str) -> Callable[[Row], str]:
    return lambda row: number(row.get(key), form)


def _against_best(row: Row) -> str:
    p = row.get("p_against_best")
    if row.get("is_best"):
        return "best"
    return "—" if p is None else f"{'worse' if p < 0.05 else 'tie'}, {p_text(p)}"


def _error(row: Row) -> str:
    return f"{number(row['mae'], '{:,.2f}')} {interval(row)}".strip()


def _time(row: Row) -> str:
    seconds = row.get("seconds")
    if seconds is None:
        return "—"
    if seconds < 1e-5:
        return "< 0.01 ms"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2g} ms"


_COLUMNS = [
    Column("rank", _value("rank", "{}"), ("rank",)),
    Column("pricer", name),
    Column("error, dollars", _error),
    Column("against best", _against_best, ("p_against_best",)),
    Column("n", _value("n", "{:,}")),
    Column("failed", _value("failed", "{:,}")),
    Column("at natural mix", _value("mae_natural", "{:,.2f}"), ("mae_natural",)),
    Column("median", _value("median_error", "{:,.2f}")),
    Column("RMSLE", _value("rmsle", "{:.3f}")),
    Column("R²", _value("r2", "{:.2f}")),
    Column("hits", _value("hits", "{:.1%}")),
    Column("coverage", _value("coverage", "{:.1%}"), ("coverage",)),
    Column("width", _value("width", "{:,.2f}"), ("width",)),
    Column("time each", _time, ("seconds",)),
    Column("cost, dollars", _value("cost_usd", "{:,.4f}"), ("cost_usd",)),
]
