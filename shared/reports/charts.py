"""Charts of errors. Each returns a ``Chart``, a picture whose alt text says the finding in numbers.

They take predictions as ``score`` does: a table, a Parquet path or an ``Evaluation``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared.evaluation import metrics
from shared.evaluation.metrics import HIT_DOLLARS, HIT_SHARE, is_hit, number
from shared.evaluation.predictions import scored
from shared.reports.figures import (
    DOLLARS,
    LOWEST,
    THOUSANDS,
    Chart,
    Theme,
    canvas,
    dollars,
    legend,
    log_dollars,
    plain_text,
)


def scatter(predictions: Any) -> Chart:
    """Estimate against true price, hits (circles) and misses (crosses) apart; log axes."""
    rows = scored(predictions)
    ok = np.isfinite(rows.estimate)
    true, estimate = rows.true[ok], rows.estimate[ok]
    hit = is_hit(true, estimate)
    share, n = hit.sum() / max(len(rows.true), 1), len(rows.true)
    title = f"{rows.title}: {share:.0%} of {n:,} estimates hit"
    alt = (
        f"Scatter of estimate against true price, {rows.title}, {n:,} products: {hit.sum():,} hits "
        f"({share:.1%}; off by less than $40 or 20 %), {(~hit).sum():,} misses of which "
        f"{(estimate > true)[~hit].sum():,} are too high, {(~ok).sum():,} failed. "
        f"Mean absolute error {_mean_dollars(rows.error)}."
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "true price, dollars", "estimate, dollars", 5.4)
        _hit_zone(axes, theme, _limits(true, estimate))
        style = {"alpha": 0.65, "linewidths": 0, "rasterized": len(true) > 3000}
        x, y = np.maximum(true, LOWEST), np.maximum(estimate, LOWEST)
        axes.scatter(x[~hit], y[~hit], s=20, c=theme.bad, marker="x", **style | {"linewidths": 1.1},
                     label=f"miss: {(~hit).sum():,}")  # fmt: skip
        axes.scatter(x[hit], y[hit], s=16, c=theme.good, label=f"hit: {hit.sum():,}", **style)
        legend(axes, theme, loc="upper left")
        return figure

    return Chart(draw, alt)


def error_by_price(predictions: Any) -> Chart:
    """Mean absolute error in each price band, with its 95 % interval."""
    rows = scored(predictions)
    table = [r for r in metrics.by_price_band(predictions).to_pylist() if r["mae"] is not None]
    parts = [f"{r['price_band']}: {number(r['mae'])} (n = {r['n']:,})" for r in table]
    worst = max(table, key=lambda r: r["mae"], default=None)
    where = f"largest for prices of ${worst['price_band']}" if worst else "no estimate at all"
    title = f"{rows.title}: the error is {where}"
    alt = f"Mean absolute error by price band, {rows.title}; {where}. " + "; ".join(parts) + "."

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "true price, dollars", "mean absolute error, dollars")
        heights = [r["mae"] for r in table]
        axes.bar(range(len(table)), heights, color=theme.good, width=0.62)
        _whiskers(axes, theme, range(len(table)), table, vertical=True)
        labels = [f"{r['price_band']}\nn = {r['n']:,}" for r in table]
        axes.set_xticks(range(len(table)), labels)
        axes.grid(False, axis="x")
        axes.yaxis.set_major_formatter(DOLLARS)
        return figure

    return Chart(draw, alt)


def running_mean(predictions: Any) -> Chart:
    """Mean absolute error after 1, 2, … n products, with its 95 % band (mean ± 1.96 s/√n)."""
    rows = scored(predictions)
    error = rows.error[np.isfinite(rows.error)]
    count = np.arange(1, len(error) + 1)
    mean = np.cumsum(error) / count
    spread = np.sqrt(np.maximum(np.cumsum(error**2) / count - mean**2, 0))
    half = 1.96 * spread / np.sqrt(np.maximum(count - 1, 1))
    end = (dollars(mean[-1]), dollars(half[-1])) if len(error) else ("—", "—")
    title = f"{rows.title}: {end[0]} ± {end[1]} after {len(error):,} products"
    alt = f"Running mean of the absolute error in dollars, {title}" + (
        f"; after the first {min(50, len(error))} it was {number(mean[min(50, len(error)) - 1])}."
        if len(error) else "."
    )  # fmt: skip

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "products seen", "mean absolute error so far, dollars")
        shown = slice(min(9, max(len(error) - 1, 0)), None)  # the first few jump off the chart
        band = ((mean - half)[shown], (mean + half)[shown])
        axes.fill_between(count[shown], *band, color=theme.good, alpha=0.22, linewidth=0,
                          label="95 % band")  # fmt: skip
        axes.plot(count[shown], mean[shown], color=theme.good, linewidth=2, label="mean so far")
        axes.yaxis.set_major_formatter(DOLLARS)
        axes.xaxis.set_major_formatter(THOUSANDS)
        legend(axes, theme, loc="upper right")
        return figure

    return Chart(draw, alt)


def leaderboard_bars(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Mean absolute error of each pricer, best on top, from dicts as ``score`` returns them.

    A stand-in has an open, hatched bar and says so in its name; one that never answered is named
    in the alt text only.
    """
    known = sorted((r for r in rows if r["mae"] is not None), key=lambda r: r["mae"])
    silent = [_name(r) for r in rows if r["mae"] is None]
    parts = [f"{_name(r)} {number(r['mae'])}{_interval(r)}" for r in known]
    best = f"{_name(known[0])} is off by {dollars(known[0]['mae'])}" if known else "no estimates"
    title = f"Best of {len(known)}: {best} on average" if len(known) > 1 else best
    alt = f"Mean absolute error of each pricer, smallest first: {'; '.join(parts)}."
    alt += f" Without any estimate: {', '.join(silent)}." if silent else ""

    def draw(theme: Theme) -> Figure:
        height = 1.3 + 0.36 * max(len(known), 2)
        figure, axes = canvas(
            theme, title, "mean absolute error in dollars, with 95 % interval", "", height
        )
        places = range(len(known))
        bars = axes.barh(places, [r["mae"] for r in known], color=theme.good, height=0.6)
        for bar, row in zip(bars, known, strict=True):
            if row.get("label"):
                bar.set(facecolor=theme.surface, edgecolor=theme.plain, hatch="////")
        _whiskers(axes, theme, places, known, vertical=False)
        axes.set_yticks(places, [plain_text(_name(r, 28)) for r in known], color=theme.text)
        _label_ends(axes, theme, known)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.xaxis.set_major_formatter(DOLLARS)
        return figure

    return Chart(draw, alt)


def _hit_zone(axes: Axes, theme: Theme, limits: tuple[float, float]) -> None:
    x = np.geomspace(*limits, 200)
    margin = np.maximum(HIT_DOLLARS, HIT_SHARE * x)
    axes.fill_between(x, np.maximum(x - margin, LOWEST), x + margin, color=theme.good, alpha=0.1,
                      linewidth=0, label=plain_text("within $40 or 20 %"))  # fmt: skip
    axes.plot(x, x, color=theme.plain, linewidth=1.4, zorder=3, label="estimate = price")
    log_dollars(axes, "x")
    log_dollars(axes, "y")
    axes.set(xlim=limits, ylim=limits)


def _limits(*values: np.ndarray) -> tuple[float, float]:
    everything = np.concatenate([np.maximum(v, LOWEST) for v in values])
    if not len(everything):
        return LOWEST, 1000.0
    return everything.min() / 1.15, everything.max() * 1.15


def _whiskers(
    axes: Axes, theme: Theme, places: Iterable[int], rows: Sequence[Mapping], vertical: bool
) -> None:
    for place, row in zip(places, rows, strict=True):
        if row["mae_low"] is not None:
            line = axes.vlines if vertical else axes.hlines
            for colour, width in ((theme.surface, 3.2), (theme.text, 1.4)):
                line(place, row["mae_low"], row["mae_high"], color=colour, linewidth=width)


def _label_ends(axes: Axes, theme: Theme, rows: Sequence[Mapping]) -> None:
    for place, row in enumerate(rows):
        end = max(row["mae"], row["mae_high"] or 0)
        axes.annotate(plain_text(dollars(row["mae"])), (end, place), xytext=(6, 0), fontsize=9.5,
                      textcoords="offset points", va="center", color=theme.text)  # fmt: skip
    axes.margins(x=0.12)


def _name(row: Mapping[str, Any], longest: int = 1000) -> str:
    name = row["pricer"] if len(row["pricer"]) <= longest else row["pricer"][: longest - 1] + "…"
    return f"{name} ({row['label']})" if row.get("label") else name


def _interval(row: Mapping[str, Any]) -> str:
    ends = [row.get("mae_low"), row.get("mae_high")]
    return "" if None in ends else f" ({number(ends[0])} to {number(ends[1])})"


def _mean_dollars(errors: np.ndarray) -> str:
    return number(errors[np.isfinite(errors)].mean() if np.isfinite(errors).any() else None)
