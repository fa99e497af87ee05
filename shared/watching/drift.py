"""Has what is asked, or answered, changed? PSI and KS, with thresholds made for the window's size.

The population stability index of a window depends on how many products are in it: with 10 bins, a
window of 100 often passes the 0.1 that folklore calls a shift, although nothing has changed. So
here a threshold is what unchanged products exceed as rarely as was stated, by drawing them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import kolmogi, kolmogorov
from scipy.stats import fisher_exact

BINS = 10
DRAWS = 20_000
"""Unchanged windows that are drawn for a threshold: one that one in 1,000 exceeds is known to be
exceeded by 0.6 to 1.4 in 1,000."""

FOLKLORE = 0.1
"""The PSI above which credit scorers see a shift, however small the window (Siddiqi, 2006)."""


@dataclass(frozen=True)
class Test:
    """The outcome of a test: its statistic, p-value, and which value has which p-value."""

    value: float
    p: float
    at: Any

    def threshold(self, level: float) -> float:
        """Return the value that unchanged products exceed with a probability ``level``."""
        return float(self.at(level)) if np.isfinite(self.p) else float("nan")


NOTHING = Test(float("nan"), float("nan"), lambda level: float("nan"))
"""The outcome where there is nothing to test: no value in the window, or in the reference."""


def psi(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the population stability index of counts in bins, shape (…, bins).

    Half a product is added to every bin, or an empty one would make it infinite.
    """
    p, q = ((counts + 0.5) for counts in (np.asarray(expected, float), np.asarray(found, float)))
    p, q = (counts / counts.sum(axis=-1, keepdims=True) for counts in (p, q))
    return np.sum((q - p) * np.log(q / p), axis=-1)


def edges_of(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return what separates bins that hold equally many values; fewer bins where values are tied.

    A value on an edge belongs to the bin below it.
    """
    inner = np.arange(1, bins) / bins
    return np.unique(np.quantile(values, inner, method="inverted_cdf"))


def counted(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return how many values are in each bin, from the lowest."""
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)


class Psi:
    """The PSI of windows against a reference's counts, and how large it is by chance.

    By chance: reference and window are both drawn anew from the reference's shares. A share that
    is 0 there counts as half a product, so that one product of a new category is no alarm.
    """

    def __init__(self, expected: np.ndarray, seed: int = 42, like: Psi | None = None) -> None:
        self.expected, self.seed = np.asarray(expected), seed
        self._nulls: dict[int, np.ndarray] = {} if like is None else like._nulls

    def test(self, found: np.ndarray) -> Test:
        """Test the counts of a window."""
        size = int(found.sum())
        if not size or not self.expected.sum():
            return NOTHING
        value, null = float(psi(self.expected, found)), self.null(size)
        above = len(null) - np.searchsorted(null, value, side="left")
        p = (above + 1) / (len(null) + 1)
        return Test(value, float(p), lambda level: np.quantile(null, 1 - level))

    def null(self, size: int) -> np.ndarray:
        """Return the PSI of unchanged windows of so many products, sorted."""
        if size not in self._nulls:
            shares = (self.expected + 0.5) / (self.expected + 0.5).sum()
            rng = np.random.default_rng(self.seed)
            drawn = [rng.multinomial(n, shares, DRAWS) for n in (int(self.expected.sum()), size)]
            self._nulls[size] = np.sort(psi(*drawn))
        return self._nulls[size]


def ks(reference: np.ndarray, values: np.ndarray) -> Test:
    """Test with the two-sample statistic of Kolmogorov and Smirnov; ``reference`` is sorted.

    Where values are tied it alarms too seldom, never too often.
    """
    n, m = len(reference), len(values)
    if not n or not m:
        return NOTHING
    values = np.sort(values)
    # Between two of the values, the distance grows or shrinks: it is largest at one, or before it.
    sides = [
        np.searchsorted(reference, values, side) / n - np.searchsorted(values, values, side) / m
        for side in ("left", "right")
    ]
    value = float(np.abs(sides).max())
    root = np.sqrt(n * m / (n + m))
    return Test(value, float(kolmogorov(root * value)), lambda level: kolmogi(level) / root)


def more_failures(before: tuple[int, int], now: tuple[int, int]) -> Test:
    """Test whether more estimates fail (Fisher, exact); each is (failed, all). In shares."""
    if not before[1] or not now[1]:
        return NOTHING

    def p_of(failed: int) -> float:
        if not failed:
            return 1.0
        rows = [[failed, now[1] - failed], [before[0], before[1] - before[0]]]
        return float(fisher_exact(rows, alternative="greater").pvalue)

    def at(level: float) -> float:
        low, high = 0, now[1]  # the fewest failures that are too many
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if p_of(middle) < level else (middle + 1, high)
        return (low - 0.5) / now[1]

    return Test(now[0] / now[1], p_of(now[0]), at)


def category_counts(names: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Return how many products are of each category, and, last, how many of none of them.

    ``names``: the known ones, sorted, at least one.
    """
    places = np.minimum(np.searchsorted(names, categories), len(names) - 1)
    places[names[places] != categories] = len(names)
    return np.bincount(places, minlength=len(names) + 1)


def psi_thresholds(
    sizes: Sequence[int], n: int = 2_000, bins: int = BINS, level: float = 0.01
) -> list[Mapping[str, float]]:
    """Return what PSI means at some window sizes: a row each.

    ``threshold`` is exceeded by a share ``level`` of unchanged windows; ``folklore`` is the share
    of them that exceeds 0.1. The reference has ``n`` products, equally many in each bin.
    """
    test = Psi(np.full(bins, n / bins))
    return [
        {
            "window": size,
            "threshold": float(np.quantile(test.null(size), 1 - level)),
            "folklore": float(np.mean(test.null(size) > FOLKLORE)),
        }
        for size in sizes
    ]
