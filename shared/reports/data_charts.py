"""Charts of the data: what products cost, how long their texts are, what categories there are.

Each returns a ``Chart``, a picture whose alt text says the finding in numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from shared.reports.figures import (
    DOLLARS,
    LOWEST,
    THOUSANDS,
    Chart,
    Theme,
    canvas,
    dollars,
    log_dollars,
    plain_text,
)


def price_histogram(prices: Iterable[float], title: str = "", log: bool = True) -> Chart:
    """How many products cost how much (dollars), with the median marked."""
    values = _finite(prices)
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    found = f"half cost less than {dollars(middle)}, one in ten more than {dollars(high)}"
    alt = (
        f"Histogram of {len(values):,} prices: {found}; the cheapest tenth costs up to "
        f"{dollars(low)}, the mean is {dollars(values.mean())}."
    )
    return _histogram(
        values, title or f"{len(values):,} prices: {found}", alt, "price, dollars", log, "$"
    )


def length_histogram(lengths: Iterable[float], title: str = "", unit: str = "characters") -> Chart:
    """How long the texts are, in ``unit``, with the median marked."""
    values = _finite(lengths)
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    found = f"half are shorter than {middle:,.0f} {unit}"
    spread = f"90 % have {low:,.0f} to {high:,.0f}"
    alt = f"Histogram of the length of {len(values):,} texts: {found}; {spread}."
    name = f"length, {unit}"
    return _histogram(values, title or f"{len(values):,} texts: {found}", alt, name, False, "")


def category_bars(categories: Iterable[str] | Mapping[str, int], title: str = "") -> Chart:
    """How many products each category has, most first; from one category a product or counts."""
    counts = Counter(categories).most_common()
    if not counts:
        raise ValueError("there is nothing to draw: no category")
    total, largest = sum(c for _, c in counts), counts[0]
    found = f"{largest[0]} is the largest of {len(counts)} categories with {largest[1] / total:.0%}"
    alt = f"Products by category, {total:,} in all: " + "; ".join(f"{k} {c:,}" for k, c in counts)

    def draw(theme: Theme) -> Figure:
        height = 1.3 + 0.34 * max(len(counts), 2)
        figure, axes = canvas(theme, title or found, "products", "", height)
        bars = axes.barh(range(len(counts)), [c for _, c in counts], color=theme.good, height=0.62)
        axes.bar_label(bars, [f"{c:,}" for _, c in counts], padding=4, color=theme.text, fontsize=9)
        names = [plain_text(str(k)[:34]) for k, _ in counts]
        axes.set_yticks(range(len(counts)), names, color=theme.text)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.xaxis.set_major_formatter(THOUSANDS)
        axes.margins(x=0.12)
        return figure

    return Chart(draw, alt + ".")


def length_vs_price(
    lengths: Iterable[float], prices: Iterable[float], title: str = "", unit: str = "characters"
) -> Chart:
    """Price (dollars, log axis) against length of the text, with Spearman's rank correlation."""
    x, y = (np.asarray(list(values), dtype=float) for values in (lengths, prices))
    known = np.isfinite(x) & np.isfinite(y) & (y > 0)
    x, y = x[known], y[known]
    rho = _rank_correlation(x, y)
    strength = (
        "says little" if abs(rho) < 0.2 else "says something" if abs(rho) < 0.5 else "says much"
    )
    found = f"Length {strength} about price (rank correlation {rho:.2f})"
    alt = f"Price against length of the text for {len(x):,} products. {found}."

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title or found, f"length, {unit}", "price, dollars")
        axes.scatter(x, y, s=9, c=theme.good, alpha=0.35, linewidths=0, rasterized=len(x) > 3000)
        axes.xaxis.set_major_formatter(THOUSANDS)
        log_dollars(axes, "y")
        return figure

    return Chart(draw, alt)


_CLUSTER_SIZES = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 10**9))


def cluster_sizes(clusters: Iterable[str]) -> Chart:
    """How many items have how many near-duplicates, from one cluster key an item."""
    sizes = np.array(sorted(Counter(clusters).values()))
    if not len(sizes):
        raise ValueError("there is nothing to draw: no cluster")
    most = int(sizes.max())
    bounds = [(low, min(high, most)) for low, high in _CLUSTER_SIZES if low <= most]
    counts = [int(sizes[(sizes >= low) & (sizes <= high)].sum()) for low, high in bounds]
    names = ["alone" if low == 1 else str(low) if low == high else f"{low}-{high}"
             for low, high in bounds]  # fmt: skip
    share = 1 - counts[0] / sizes.sum()
    title = f"{share:.0%} of items have a near-duplicate; the largest cluster has {sizes.max():,}"
    parts = [f"{name} {count:,}" for name, count in zip(names, counts, strict=True)]
    alt = f"Items by size of their near-duplicate cluster, {sizes.sum():,} in all: "

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "items in the cluster", "items")
        bars = axes.bar(range(len(counts)), counts, color=theme.good, width=0.62)
        axes.bar_label(bars, [f"{c:,}" for c in counts], padding=3, color=theme.text, fontsize=9)
        axes.set_xticks(range(len(counts)), names)
        axes.grid(False, axis="x")
        axes.yaxis.set_major_formatter(THOUSANDS)
        return figure

    return Chart(draw, f"{alt}{'; '.join(parts)}. {title}.")


def _histogram(values: np.ndarray, title: str, alt: str, name: str, log: bool, unit: str) -> Chart:
    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, name, "products")
        ends = (max(values.min(), LOWEST) if log else 0, max(values.max(), LOWEST * 2))
        edges = np.geomspace(*ends, 41) if log else np.linspace(*ends, 41)
        axes.hist(
            np.clip(values, *ends), edges, color=theme.good, edgecolor=theme.surface, linewidth=0.6
        )
        middle = np.median(values)
        axes.axvline(middle, color=theme.bad, linewidth=2, linestyle="--")
        label = plain_text(f" median {unit}{middle:,.4g}")
        axes.text(middle, 0.99, label, transform=axes.get_xaxis_transform(), va="top",
                  color=theme.text, fontsize=9.5)  # fmt: skip
        axes.grid(False, axis="x")
        axes.yaxis.set_major_formatter(THOUSANDS)
        axes.xaxis.set_major_formatter(DOLLARS if unit else THOUSANDS)
        if log:
            log_dollars(axes, "x")
        return figure

    return Chart(draw, alt)


def _finite(values: Iterable[float]) -> np.ndarray:
    found = np.asarray(list(values), dtype=float)
    if not np.isfinite(found).any():
        raise ValueError("there is nothing to draw: no value is a number")
    return found[np.isfinite(found)]


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2 or not np.ptp(x) or not np.ptp(y):
        return 0.0
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
