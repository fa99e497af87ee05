"""The leaderboard, built from stored predictions and manifests alone: nothing is retyped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shared.evaluation.compare import compare, holm
from shared.evaluation.metrics import number, score
from shared.evaluation.predictions import with_label
from shared.evaluation.store import load
from shared.reports import columns as c
from shared.reports.page import to_html
from shared.reports.tables import aligned, escaped, pipes

__all__ = ["Leaderboard", "collect", "to_console", "to_html", "to_markdown"]

WORDS = ("pricer", "against best")
"""Titles of the columns that are words; all others are numbers."""


class Leaderboard(list[dict[str, Any]]):
    """Rows ready for JSON, best first within each set of items; ``unfinished`` says what is not
    in them and why."""

    unfinished: tuple[str, ...] = ()


def collect(results_dir: str | Path) -> Leaderboard:
    """Score every finished result under a folder (and its subfolders) of stored results.

    A row is what ``score`` returns, with ``rank``, ``items`` (fingerprint of the item set, so
    that rows of different ones are never ranked together), ``items_title``, ``splits``,
    ``is_best`` and ``p_against_best`` (paired permutation test, Holm-corrected within the set).
    Raises FileNotFoundError if there is no such folder.
    """
    folder = Path(results_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of results at {folder}")
    finished: dict[str, list[tuple[pa.Table, dict]]] = {}
    unfinished = _partial_runs(folder)
    for path in sorted(folder.rglob("*.parquet")):
        if ".partial" in path.relative_to(folder).parts:
            continue
        found = load(path)
        if found is None:
            unfinished.append(f"{path.stem}: no manifest that fits its predictions")
        else:
            finished.setdefault(found[1]["items"]["fingerprint"], []).append(found)
    rows = [row for runs in finished.values() for row in _ranked(runs)]
    board = Leaderboard(row for group in c.groups(rows).values() for row in group)
    board.unfinished = tuple(unfinished)
    return board


def to_console(rows: Iterable[dict[str, Any]]) -> str:
    """Return the leaderboard, or rows of ``score``, as plain text: one table an item set."""
    blocks = [
        f"{c.heading(group)}\n\n{aligned(*_cells(group))}" for group in c.groups(rows).values()
    ]
    blocks = blocks or ["No finished results yet."]
    blocks += _unfinished_notes(rows)
    if isinstance(rows, Leaderboard):
        blocks += _reported_blocks("", aligned)
    return "\n\n".join(blocks)


def to_markdown(rows: Iterable[dict[str, Any]]) -> str:
    """Return the leaderboard as Markdown: one table an item set, then the reported figures."""
    blocks = []
    for group in c.groups(rows).values():
        blocks += [f"### {escaped(c.heading(group))}", pipes(*_cells(group))]
    blocks = blocks or ["No finished results yet."]
    blocks += [escaped(note) for note in _unfinished_notes(rows)]
    blocks += [escaped(c.HOW_TO_READ), *_reported_blocks("### ", pipes)]
    return "\n\n".join(blocks) + "\n"


def _ranked(runs: list[tuple[pa.Table, dict]]) -> list[dict[str, Any]]:
    scored = [
        (table, _row(table, manifest))
        for table, manifest in ((with_label(t, m.get("label", "")), m) for t, m in runs)
    ]
    scored.sort(key=lambda pair: c.order(pair[1]))
    best = scored[0][0]
    p_values = [None, *holm([compare(table, best).p for table, _ in scored[1:]])]
    for rank, ((_, row), p) in enumerate(zip(scored, p_values, strict=True), start=1):
        ranked = not c.order(row)[0]
        row |= {
            "rank": rank if ranked else None,
            "is_best": rank == 1 and ranked,
            "p_against_best": None if p is None or np.isnan(p) else p,
        }
    return [row for _, row in scored]


def _row(table: pa.Table, manifest: dict) -> dict[str, Any]:
    scores = score(table, natural_mix=manifest.get("natural_mix"), seed=manifest.get("seed", 42))
    items = manifest["items"]
    return scores | {
        "items": items["fingerprint"],
        "items_title": _title(table, items),
        "splits": items.get("splits", []),
    }


def _title(table: pa.Table, items: dict) -> str:
    """Say what a set of items is: its split, size, spread and price level."""
    splits = " and ".join(items.get("splits") or ["unnamed"])
    categories = len(set(table["category"].to_pylist()) - {None, ""})
    prices = table["price_true"].drop_null().to_numpy()
    parts = [f"{splits.capitalize()} split", f"{len(prices):,} products"]
    parts += [f"{categories} categories"] if categories > 1 else []
    parts += [f"median price {number(float(np.median(prices)))}"] if len(prices) else []
    return f"{', '.join(parts)} (items {items['fingerprint'][:8]})"


def _partial_runs(folder: Path) -> list[str]:
    runs = sorted(p for p in folder.rglob(".partial/*") if p.is_dir())
    return [f"{p.name.rsplit('-', 1)[0]}: stopped half-way, evaluate it again" for p in runs]


def _unfinished_notes(rows: Iterable[dict]) -> list[str]:
    unfinished = getattr(rows, "unfinished", ())
    return [f"Left out because unfinished: {'; '.join(unfinished)}."] if unfinished else []


def _cells(group: list[c.Row]) -> tuple[list[str], list[list[str]], tuple[str, ...]]:
    wanted = c.columns(group)
    return [w.title for w in wanted], [[w.text(row) for w in wanted] for row in group], WORDS


def _reported_blocks(level: str, table: Callable[..., str]) -> list[str]:
    blocks = [f"{level}Reported", c.NOT_COMPARABLE]
    for one in c.reported():
        cells = [[f"{row['pricer']} (reported)", c.reported_error(row)] for row in one["results"]]
        blocks += [f"{one['title']}. Source: {one['source']}."]
        blocks += [table(["pricer", "error, dollars"], cells, WORDS)]
    return blocks
