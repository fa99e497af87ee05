"""Bootstrap intervals, bias-corrected and accelerated (BCa), fast enough for every table cell.

Efron (1987), "Better bootstrap confidence intervals", as in ``scipy.stats.bootstrap``, which the
tests compare with. Ours computes all metrics from the same resamples, and its jackknife is linear
in n: nearly every metric here is a function of column means, and leaving one row out of a mean
costs one subtraction. For 10,000 products and nine metrics that is about five times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import ndtr, ndtri

RESAMPLES = 2_000
CHUNK = 1_000_000  # resampled rows held in memory at once


def resamples(n: int, seed: int, count: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Yield arrays (b, n) of row numbers drawn with replacement, ``count`` rows in all."""
    rng = np.random.default_rng(seed)
    size = max(1, CHUNK // max(n, 1))
    for start in range(0, count, size):
        yield rng.integers(n, size=(min(size, count - start), n))


def mean_intervals(
    columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, seed: int = 42
) -> tuple[np.ndarray, np.ndarray]:
    """Return statistics of column means (k values) and their 95 % BCa intervals (k pairs).

    ``columns`` is (n, c); ``statistic`` maps means (…, c) to values (…, k).
    """
    n = len(columns)
    if not n:
        estimate = statistic(np.full(columns.shape[1], np.nan))
        return estimate, np.full((len(estimate), 2), np.nan)
    estimate = statistic(columns.mean(axis=0))
    if n == 1:
        return estimate, np.full((len(estimate), 2), np.nan)
    means = [_counts(rows, n) @ columns / n for rows in resamples(n, seed)]
    without_one = (columns.sum(axis=0) - columns) / (n - 1)
    replicates, jackknife = statistic(np.concatenate(means)), statistic(without_one)
    pairs = zip(estimate, replicates.T, jackknife.T, strict=True)
    return estimate, np.array([bca(*pair) for pair in pairs])


def median_interval(values: np.ndarray, *, seed: int = 42) -> tuple[float, np.ndarray]:
    """Return the median of ``values`` (n,) and its 95 % BCa interval."""
    n = len(values)
    if n < 2:
        return (float(values[0]) if n else np.nan), np.full(2, np.nan)
    replicates = np.concatenate([np.median(values[rows], axis=1) for rows in resamples(n, seed)])
    estimate = float(np.median(values))
    return estimate, bca(estimate, replicates, _medians_without_one(values))


def bca(estimate: float, replicates: np.ndarray, jackknife: np.ndarray) -> np.ndarray:
    """Return the 95 % BCa interval (2,) of an estimate.

    ``replicates`` are its values on bootstrap resamples, ``jackknife`` on the data without each
    row. Undefined replicates (NaN) are left out; a constant gives a point, nothing gives NaN.
    """
    replicates = replicates[np.isfinite(replicates)]
    if not np.isfinite(estimate) or not len(replicates):
        return np.full(2, np.nan)
    if np.ptp(replicates) <= 1e-12 * max(1.0, abs(estimate)):
        return np.full(2, estimate)
    below = ((replicates < estimate).mean() + (replicates <= estimate).mean()) / 2
    if not 0 < below < 1:  # no bias correction exists: the percentile interval
        return np.quantile(replicates, [0.025, 0.975])
    bias, tails = ndtri(below), ndtri([0.025, 0.975])
    shifted = bias + tails
    return np.quantile(replicates, ndtr(bias + shifted / (1 - _acceleration(jackknife) * shifted)))


def _acceleration(jackknife: np.ndarray) -> float:
    jackknife = jackknife[np.isfinite(jackknife)]
    deviation = jackknife.mean() - jackknife if len(jackknife) else np.zeros(1)
    spread = (deviation**2).sum() ** 1.5
    return (deviation**3).sum() / (6 * spread) if spread > 0 else 0.0


def _counts(rows: np.ndarray, n: int) -> np.ndarray:
    """Turn drawn row numbers (b, n) into how often each row was drawn, (b, n)."""
    flat = rows + n * np.arange(len(rows))[:, None]
    return np.bincount(flat.ravel(), minlength=len(rows) * n).reshape(len(rows), n).astype(float)


def _medians_without_one(values: np.ndarray) -> np.ndarray:
    """Return the n medians of ``values`` without each one; only three values can occur."""
    n, ordered, rank = len(values), np.sort(values), np.arange(len(values))
    if n % 2 == 0:
        return np.where(rank < n // 2, ordered[n // 2], ordered[n // 2 - 1])
    middle = n // 2
    low, mid, high = ordered[middle - 1], ordered[middle], ordered[middle + 1]
    below, at = (mid + high) / 2, (low + high) / 2
    return np.select([rank < middle, rank == middle], [below, at], (low + mid) / 2)
