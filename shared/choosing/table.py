"""The table of techniques: what was measured beside what is known, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from shared.choosing.facts import Technique, as_of, techniques
from shared.choosing.measured import Row
from shared.choosing.rules import duration
from shared.evaluation.compare import p_text
from shared.evaluation.metrics import number
from shared.reports.tables import aligned, escaped, pipes

HOW_TO_READ = (
    "Error: mean absolute error in dollars with its 95 % bootstrap interval. Against best: paired "
    "permutation test, corrected for the number of comparisons (Holm); a tie is a difference that "
    "may be luck. 95 % within: seconds that 95 of 100 products take at most. Dollars per thousand "
    "are those of calls; a dash is a pricer on a machine of one's own, which is not counted. A "
    "stand-in only plays the part of a real model: its numbers say nothing about that model."
)

_SHORT = {
    "setup": "first version in",
    "examples": "examples",
    "freshness": "new facts after",
    "privacy": "who reads",
    "drift": "who may change it",
    "gpu": "GPU",
    "sources": "names sources",
}


class _Column(NamedTuple):
    title: str
    text: Callable[[Row, str], str]
    left: bool = False


def to_console(rows: Sequence[Row], *, known: Sequence[Technique] | None = None) -> str:
    """Return the measured table and the table of facts as plain text."""
    known = known or techniques()
    measured, facts = _measured(rows, known), facts_table(known)
    return "\n\n".join([_heading(rows), aligned(*measured), _facts_heading(), aligned(*facts)])


def to_markdown(rows: Sequence[Row], *, known: Sequence[Technique] | None = None) -> str:
    """Return the same as Markdown, with the reason for every fact."""
    known = known or techniques()
    blocks = [f"### {escaped(_heading(rows))}", pipes(*_measured(rows, known)),
              escaped(HOW_TO_READ), f"### {escaped(_facts_heading())}", pipes(*facts_table(known)),
              *(_reasons(technique) for technique in known)]  # fmt: skip
    return "\n\n".join(blocks) + "\n"


def facts_table(
    known: Sequence[Technique] | None = None,
) -> tuple[list[str], list[list[str]], set[str]]:
    """Return the facts as titles, rows of texts and the titles of columns that are words."""
    titles = ["technique", *_SHORT.values()]
    cells = [
        [technique.title, *(_fact(name, technique) for name in _SHORT)]
        for technique in known or techniques()
    ]
    return titles, cells, set(titles) - {_SHORT["examples"]}


def _measured(
    rows: Sequence[Row], known: Sequence[Technique]
) -> tuple[list[str], list[list[str]], set[str]]:
    titles = {technique.id: technique.title for technique in known}
    wanted = [
        _Column("technique", lambda row, title: title, True),
        _Column("pricer", lambda row, _: row.title, True),
        _Column("error, dollars", lambda row, _: _error(row)),
        _Column("against best", lambda row, _: _against_best(row), True),
        _Column("failed", lambda row, _: f"{row.failed:,}"),
        _Column("seconds each", lambda row, _: _seconds(row.seconds)),
        _Column("95 % within", lambda row, _: _seconds(row.p95)),
        _Column("$ per 1,000", lambda row, _: number(row.usd_per_thousand, "{:,.4f}")),
        _Column("tokens in/out", lambda row, _: _tokens(row)),
    ]
    cells = [[c.text(row, titles.get(row.technique, "—")) for c in wanted] for row in rows]
    unmeasured = [t.title for t in known if t.id not in {row.technique for row in rows}]
    cells += [[title, "not measured", *["—"] * (len(wanted) - 2)] for title in unmeasured]
    return [c.title for c in wanted], cells, {c.title for c in wanted if c.left}


def _heading(rows: Sequence[Row]) -> str:
    if not rows:
        return "Nothing measured yet"
    return f"Measured on {rows[0].n:,} products (items {rows[0].items[:8]})"


def _facts_heading() -> str:
    return f"Known, whatever the error (as of {as_of()})"


def _reasons(technique: Technique) -> str:
    lines = [f"**{escaped(technique.title)}**", ""]
    for name, short in _SHORT.items():
        said = f"{short}: {_fact(name, technique)}, {getattr(technique, name).reason}"
        lines.append(f"- {escaped(said)}.")
    return "\n".join(lines)


def _fact(name: str, technique: Technique) -> str:
    value = getattr(technique, name).value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "freshness":
        return duration(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _error(row: Row) -> str:
    ends = "" if row.mae_low is None else f" [{row.mae_low:,.2f}, {row.mae_high:,.2f}]"
    return number(row.mae, "{:,.2f}") + ends


def _against_best(row: Row) -> str:
    if row.is_best:
        return "best"
    p = row.p_against_best
    return "—" if p is None else f"{'worse' if p < 0.05 else 'tie'}, {p_text(p)}"


def _seconds(seconds: float | None) -> str:
    return "—" if seconds is None else f"{seconds:,.4f}" if seconds < 10 else f"{seconds:,.1f}"


def _tokens(row: Row) -> str:
    if row.input_tokens is None and row.output_tokens is None:
        return "—"
    return f"{number(row.input_tokens, '{:,.0f}')}/{number(row.output_tokens, '{:,.0f}')}"
