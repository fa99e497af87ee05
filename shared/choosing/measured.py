"""What stored evaluation runs say about each pricer: error, time, dollars, tokens, technique."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shared.choosing.facts import Technique, technique_of, techniques
from shared.evaluation.predictions import with_label
from shared.evaluation.store import load
from shared.reports.columns import MOST_FAILED, groups
from shared.reports.leaderboard import collect


@dataclass(frozen=True)
class Row:
    """One pricer's stored result on one set of items.

    ``mae`` in dollars with its 95 % interval; ``p_against_best``: paired test against the best of
    the same items, after Holm (None for the best). ``seconds`` a product: the mean, and ``p95``,
    that 95 % of the products stay under. ``usd_per_thousand``: dollars per thousand products, None
    where the pricer reports no cost, as one that runs on a machine of yours. Tokens are means a
    product. ``technique`` is an id of facts.toml, or None; ``device``: where the pricer says that
    it ran ("cpu", "cuda:0"), or "".
    """

    pricer: str
    technique: str | None
    n: int
    failed: int
    mae: float | None
    mae_low: float | None = None
    mae_high: float | None = None
    is_best: bool = False
    p_against_best: float | None = None
    seconds: float | None = None
    p95: float | None = None
    usd_per_thousand: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    label: str = ""
    items: str = ""
    device: str = ""
    predictions: pa.Table | None = field(default=None, repr=False, compare=False)

    @property
    def title(self) -> str:
        """The pricer's name, with its label where it has one."""
        return f"{self.pricer} ({self.label})" if self.label else self.pricer

    @property
    def ranked(self) -> bool:
        """Whether it answered enough products for its error to mean something."""
        return self.mae is not None and self.failed <= MOST_FAILED * self.n

    @property
    def may_be_best(self) -> bool:
        """Whether it is the best, or its distance from the best may be luck."""
        p = self.p_against_best
        return self.ranked and (self.is_best or (p is not None and p >= 0.05))

    def usd_per_month(self, per_day: float) -> float | None:
        """Return what 30 days with so many products a day cost in calls, in dollars."""
        return (
            None if self.usd_per_thousand is None else self.usd_per_thousand * per_day * 30 / 1000
        )


def measured(
    results_dir: str | Path,
    *,
    split: str = "test",
    items: str = "",
    known: Sequence[Technique] | None = None,
) -> list[Row]:
    """Return a row for each finished result of one set of items, best first.

    Of several sets it is the largest of this split, or the one whose fingerprint begins with
    ``items``. Errors of other sets are not comparable, so they are left out.

    Raises FileNotFoundError if there is no such folder, ValueError if it has no result of the
    split, with the splits there are.
    """
    known, board = known or techniques(), collect(results_dir)
    sets = list(groups(board).values())
    wanted = [
        rows for rows in sets if rows[0]["splits"] == [split] and rows[0]["items"].startswith(items)
    ]
    if not wanted:
        there = "; ".join(rows[0]["items_title"] for rows in sets) or "no finished result at all"
        raise ValueError(f"{results_dir}: no result of the {split} split. There is: {there}")
    rows, runs = wanted[0], _runs(Path(results_dir))
    return [_row(row, *runs[row["items"], row["pricer"]], known) for row in rows]


def best_of_each(rows: Sequence[Row]) -> dict[str, Row]:
    """Return technique -> its ranked row with the lowest error."""
    found: dict[str, Row] = {}
    for row in sorted((r for r in rows if r.ranked), key=lambda r: r.mae):
        if row.technique is not None:
            found.setdefault(row.technique, row)
    return found


def _row(row: dict[str, Any], table: pa.Table, manifest: dict, known: Sequence[Technique]) -> Row:
    technique = technique_of(row["pricer"], known)
    cost = _mean(table, "cost_usd")
    seconds = _known(table, "seconds")
    kept = {k: row[k] for k in Row.__dataclass_fields__ if k in row}
    return Row(
        **kept,
        technique=technique.id if technique else None,
        p95=float(np.percentile(seconds, 95)) if len(seconds) else None,
        usd_per_thousand=None if cost is None else 1000 * cost,
        input_tokens=_mean(table, "input_tokens"),
        output_tokens=_mean(table, "output_tokens"),
        device=_device(manifest.get("settings")),
        predictions=table,
    )


def _device(settings: Any) -> str:
    """Return the device in a pricer's settings, or in those of the base that it is made of."""
    if not isinstance(settings, dict):
        return ""
    return str(settings.get("device") or _device(settings.get("base")))


def _mean(table: pa.Table, name: str) -> float | None:
    values = _known(table, name)
    return float(values.mean()) if len(values) else None


def _known(table: pa.Table, name: str) -> np.ndarray:
    return table[name].drop_null().to_numpy().astype(float)


def _runs(folder: Path) -> dict[tuple[str, str], tuple[pa.Table, dict]]:
    """Return (items, pricer) -> labelled predictions and manifest, of all finished results."""
    found = {}
    for path in sorted(folder.rglob("*.parquet")):
        if ".partial" not in path.relative_to(folder).parts and (run := load(path)):
            table, manifest = run
            key = manifest["items"]["fingerprint"], manifest["pricer"]
            found[key] = with_label(table, manifest.get("label", "")), manifest
    return found
