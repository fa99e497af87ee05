"""The leaderboard as one self-contained HTML page, light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from shared.evaluation.metrics import number
from shared.reports import columns as c
from shared.reports.charts import leaderboard_bars
from shared.reports.figures import DARK, LIGHT, Theme


def to_html(rows: Iterable[dict[str, Any]], title: str = "Leaderboard") -> str:
    """Return the page: a chart and a table an item set, then the reported figures.

    ``rows`` is a ``Leaderboard`` or a list of what ``score`` returns. Styles and charts are
    inside, nothing is fetched, and all names are escaped.
    """
    groups = c.groups(rows)
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        light=_variables(LIGHT),
        dark=_variables(DARK),
        lede=_lede(next(iter(groups.values()), [])),
        groups="".join(_group(group) for group in groups.values()),
        unfinished=_unfinished(getattr(rows, "unfinished", ())),
        how_to_read=escape(c.HOW_TO_READ),
        not_comparable=escape(c.NOT_COMPARABLE),
        reported="".join(_reported(s) for s in c.reported()),
    )


def _variables(theme: Theme) -> str:
    return " ".join(f"--{role}: {colour};" for role, colour in vars(theme).items())


def _lede(group: list[c.Row]) -> str:
    if not group or c.order(group[0])[0]:
        return "No finished results yet." if not group else "No pricer answered often enough."
    best = group[0]
    return (
        f"<strong>{_name(best)}</strong> estimates best: off by "
        f"<strong>{number(best['mae'])}</strong> on average over {best['n']:,} products "
        f"whose price it never saw."
    )


def _group(group: list[c.Row]) -> str:
    wanted = c.columns(group)
    head = "".join(_head(column.title) for column in wanted)
    body = "".join(_row(row, wanted) for row in group)
    heading = escape(c.heading(group))
    drawable = any(row["mae"] is not None for row in group)
    chart = (
        f'<figure class="card" tabindex="0">{leaderboard_bars(group).svg(None)}</figure>'
        if drawable
        else ""
    )
    return (
        f"<section><h2>{heading}</h2>{chart}"
        f'<div class="card scroll" role="region" tabindex="0" aria-label="Results: {heading}">'
        f"<table><caption>Results on these products, smallest error first</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _head(title: str) -> str:
    name = " class=name" if title == "pricer" else ""
    return f'<th scope="col"{name}>{escape(title)}</th>'


def _row(row: c.Row, wanted: list[c.Column]) -> str:
    cells = "".join(_cell(row, column) for column in wanted)
    return f"<tr{' class=best' if row.get('is_best') else ''}>{cells}</tr>"


def _cell(row: c.Row, column: c.Column) -> str:
    if column.title == "pricer":
        return f'<th scope="row">{_name(row)}</th>'
    first, _, rest = column.text(row).partition(" [" if "dollars" in column.title else ", ")
    small = f"<small>{'[' if rest.endswith(']') else ''}{escape(rest)}</small>" if rest else ""
    return f"<td>{escape(first)}{small}</td>"


def _name(row: c.Row) -> str:
    chip = f' <span class="chip">{escape(row["label"])}</span>' if row.get("label") else ""
    return escape(row["pricer"]) + chip


def _reported(one: dict[str, Any]) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(row["pricer"])}</th>'
        f"<td>{escape(c.reported_error(row))}</td></tr>"
        for row in one["results"]
    )
    return (
        f'<div class="card"><table><caption><b>{escape(one["title"])}</b>'
        f' <span class="chip">reported</span>'
        f"<br>Source: {escape(one['source'])}</caption>"
        f"<thead><tr>{_head('pricer')}{_head('reported error, dollars')}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _unfinished(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        f"<section><h2>Left out because unfinished</h2><ul>{items}</ul></section>" if items else ""
    )
