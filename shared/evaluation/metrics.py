"""How far off the estimates are: metrics with 95 % intervals, overall and by group.

A product counts if its true price is known. ``n`` is how many do, ``failed`` how many of these
got no estimate. A failed estimate has no error, so it is left out of the errors; it is no hit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from shared.data.schema import PRICE_BANDS as BANDS
from shared.evaluation.bootstrap import mean_intervals, median_interval
from shared.evaluation.predictions import Scored, scored

HIT_DOLLARS, HIT_SHARE = 40.0, 0.20

METRICS = ("mae", "median_error", "rmsle", "r2", "hits", "bias", "failed_share", "coverage",
           "width", "mae_natural")  # fmt: skip
"""All metrics of ``score``; each comes with ``_low`` and ``_high``."""


def is_hit(true: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Return where an estimate is off by less than $40 or less than 20 % of the true price."""
    error = np.abs(estimate - true)  # NaN where it failed: no hit
    return (error < HIT_DOLLARS) | (error < HIT_SHARE * true)


def band_of(prices: np.ndarray) -> np.ndarray:
    """Return the position in ``BANDS`` of each price in dollars."""
    return np.searchsorted([low for low, _ in BANDS.values()], prices, side="right") - 1


def check_mix(mix: dict[str, float] | None) -> None:
    """Raise ValueError unless ``mix`` gives shares of 0 or more for known bands, not all 0."""
    if mix is None:
        return
    if unknown := set(mix) - set(BANDS):
        raise ValueError(f"natural_mix has unknown bands {sorted(unknown)}: use {list(BANDS)}")
    shares = np.array(list(mix.values()), dtype=float)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
        raise ValueError(f"natural_mix needs shares of 0 or more that are not all 0, not {mix}")


def score(
    predictions: Any, *, natural_mix: dict[str, float] | None = None, seed: int = 42
) -> dict[str, Any]:
    """Return all metrics of one pricer, ready for JSON: what cannot be computed is None.

    ``predictions`` is a table, a Parquet path or an ``Evaluation``. Dollars: ``mae`` (mean
    absolute error), ``median_error``, ``bias`` (mean of estimate minus price), ``width`` of the
    intervals, ``mae_natural`` (error as if prices had the shares of ``natural_mix``; None if a
    band of it has no estimate). Without unit: ``rmsle`` (root mean squared error of
    log(1 + price)), ``r2``. Shares from 0 to 1: ``hits`` and ``failed_share`` of all n,
    ``coverage`` of the estimates that have an interval. ``seconds`` is the mean a product,
    ``cost_usd`` the total. Intervals are 95 % BCa bootstrap, ``<metric>_low`` and ``_high``.
    """
    check_mix(natural_mix)
    rows = scored(predictions)
    head = {"pricer": rows.pricer, "label": rows.label}
    return head | _summary(rows, natural_mix, seed, METRICS) | _effort(rows)


def by_price_band(predictions: Any, *, seed: int = 42) -> pa.Table:
    """Return a row of scores for each price band that has products, cheapest first."""
    rows = scored(predictions)
    band = band_of(rows.true)
    groups = {name: rows.where(band == i) for i, name in enumerate(BANDS)}
    return _group_table("price_band", groups, seed)


def by_category(predictions: Any, *, seed: int = 42) -> pa.Table:
    """Return a row of scores for each category, most products first."""
    rows = scored(predictions)
    category = np.array([c or "unknown" for c in rows.category], dtype=object)
    names, counts = np.unique(category.astype(str), return_counts=True)
    order = np.lexsort((names, -counts))
    return _group_table("category", {n: rows.where(category == n) for n in names[order]}, seed)


def weighted_error(predictions: Any, weights: np.ndarray, *, seed: int = 42) -> dict[str, float]:
    """Return the weighted mean absolute error, with its 95 % interval: mae, mae_low, mae_high.

    ``weights`` has one number of 0 or more for each row of ``predictions``, such as the sampling
    weights of a balanced sample: the error is then that of the natural mix. A failed estimate has
    no error, and its weight is left out.
    """
    rows = scored(predictions)
    if len(weights) != len(rows.true):
        raise ValueError(f"{len(weights)} weights for {len(rows.true)} products with a known price")
    ok = np.isfinite(rows.error)
    columns = np.column_stack([weights * np.where(ok, rows.error, 0), weights * ok])
    with np.errstate(invalid="ignore"):  # a resample of failed estimates alone has no error
        values, ends = mean_intervals(columns, lambda m: m[..., :1] / m[..., 1:], seed=seed)
    return {"mae": float(values[0]), "mae_low": float(ends[0][0]), "mae_high": float(ends[0][1])}


def describe(scores: dict[str, Any]) -> str:
    """Return the scores as a few lines of text, with intervals; an unknown one is a dash."""
    name = scores["pricer"] + (f" ({scores['label']})" if scores.get("label") else "")
    lines = [f"{name}: {scores['n']:,} products, {scores['failed']:,} failed"]
    for metric, (title, form) in _TITLES.items():
        if scores.get(metric) is not None:
            low, high = (number(scores[f"{metric}_{end}"], form) for end in ("low", "high"))
            lines.append(f"  {title:<27}{number(scores[metric], form):>9}   [{low} to {high}]")
    return "\n".join(lines)


def number(value: float | None, form: str = "${:,.2f}") -> str:
    """Format a number; None and NaN become a dash, never a zero."""
    if value is None or not np.isfinite(value):
        return "—"
    text = form.format(value).replace("$-", "-$")
    return text if any(digit in text for digit in "123456789") else text.replace("-", "")


_TITLES = {
    "mae": ("mean absolute error", "${:,.2f}"),
    "mae_natural": ("  at the natural price mix", "${:,.2f}"),
    "median_error": ("median absolute error", "${:,.2f}"),
    "bias": ("mean of estimate - price", "${:,.2f}"),
    "rmsle": ("RMSLE", "{:.3f}"),
    "r2": ("R²", "{:.3f}"),
    "hits": ("hits (< $40 or < 20 %)", "{:.1%}"),
    "coverage": ("interval coverage", "{:.1%}"),
    "width": ("interval width", "${:,.2f}"),
}


def _summary(
    rows: Scored, mix: dict[str, float] | None, seed: int, wanted: tuple[str, ...]
) -> dict[str, Any]:
    shares = np.array([(mix or {}).get(name, 0.0) for name in BANDS])
    columns = _columns(rows)
    values, ends = mean_intervals(columns, lambda m: _from_means(m, shares), seed=seed)
    found = {name: (v, *e) for name, v, e in zip(_FROM_MEANS, values, ends, strict=True)}
    median, end = median_interval(rows.error[np.isfinite(rows.error)], seed=seed)
    found["median_error"] = (median, *end)
    summary = {"n": len(rows.true), "failed": int(np.isnan(rows.estimate).sum())}
    for name in wanted:
        triple = [_or_none(x) for x in found[name]]
        summary |= zip((name, f"{name}_low", f"{name}_high"), triple, strict=True)
    return summary


_FROM_MEANS = ("mae", "bias", "rmsle", "r2", "hits", "failed_share", "coverage", "width",
               "mae_natural")  # fmt: skip


def _columns(rows: Scored) -> np.ndarray:
    """Return what is averaged, a row a product: all metrics but the median follow from it."""
    ok, bounded = np.isfinite(rows.estimate), np.isfinite(rows.high - rows.low)
    true, estimate = rows.true, np.where(ok, rows.estimate, rows.true)
    shifted = np.where(ok, true - true.mean(), 0) if len(true) else true  # keeps digits in R²
    inside = bounded & (rows.low <= true) & (true <= rows.high)
    error = np.abs(estimate - true)
    columns = [ok, error, estimate - true, (np.log1p(estimate) - np.log1p(true)) ** 2,
               error**2, shifted, shifted**2, is_hit(true, rows.estimate), bounded, inside,
               np.where(bounded, rows.high - rows.low, 0)]  # fmt: skip
    in_band = (band_of(true)[:, None] == np.arange(len(BANDS))) & ok[:, None]
    return np.column_stack([*columns, in_band, in_band * error[:, None]]).astype(float)


def _from_means(means: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Map means (…, columns) to metrics (…, ``_FROM_MEANS``); 0/0 is NaN: not computable."""
    ok, error, signed, log2, error2, y, y2, hit, bounded, inside, width = np.moveaxis(
        means[..., :11], -1, 0
    )
    banded, banded_error = np.split(means[..., 11:], 2, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = y2 - y**2 / ok
        variance = np.where(variance > 1e-9 * (y2 / ok), variance, np.nan)
        used = np.where(shares > 0, shares / max(shares.sum(), 1e-300), 0)
        parts = np.where(shares > 0, used * banded_error / banded, 0)
        natural = parts.sum(axis=-1) if shares.any() else np.full_like(ok, np.nan)
        metrics = [error / ok, signed / ok, np.sqrt(log2 / ok), 1 - error2 / variance, hit,
                   1 - ok, inside / bounded, width / bounded, natural]  # fmt: skip
    return np.stack(metrics, axis=-1)


def _group_table(title: str, groups: dict[str, Scored], seed: int) -> pa.Table:
    wanted = ("mae", "median_error", "bias", "rmsle", "hits", "coverage")
    rows = [
        {title: name} | _summary(group, None, seed, wanted)
        for name, group in groups.items()
        if len(group.true)
    ]
    ends = [f"{name}{end}" for name in wanted for end in ("", "_low", "_high")]
    fields = [(title, pa.string()), ("n", pa.int64()), ("failed", pa.int64())]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields + [(e, pa.float64()) for e in ends]))


def _effort(rows: Scored) -> dict[str, float | None]:
    seconds = rows.seconds[np.isfinite(rows.seconds)]
    cost = rows.cost_usd[np.isfinite(rows.cost_usd)]
    mean = float(seconds.mean()) if len(seconds) else None
    return {"seconds": mean, "cost_usd": float(cost.sum()) if len(cost) else None}


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
