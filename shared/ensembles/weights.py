"""Weights of 0 or more that sum to 1, on the logarithm of members' estimates; some may be missing.

A mix of logarithms is a weighted geometric mean: that one member is far too high costs less than
in a sum of dollars, and the weights of those that are there can simply be made to sum to 1 again.
"""

from __future__ import annotations

import numpy as np

from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.pricers.stack import absolute_error_weights

ROUNDS = 10
"""How often missing estimates are filled in anew, at most; it settles within three or four."""

_SETTLED = 1e-4
_SUM_COUNTS = 10.0
"""How much the sum of the weights counts, against all products together. Off by d, it can gain at
most d times the largest log price (6.9), so above that the programme never gives it up."""


def to_logs(estimates: np.ndarray) -> np.ndarray:
    """Return log estimates of the same shape, within the window of prices; NaN stays NaN."""
    return np.log(np.clip(estimates, MIN_PRICE, MAX_PRICE))


def log_mix(logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mix of those members that have an estimate, shape (n,); NaN where none has.

    ``logs`` has the shape (n, members). Members that are there keep their proportions, and their
    weights sum to 1; where all of them have the weight 0, they count equally.
    """
    there = np.isfinite(logs)
    share = there * weights
    idle = there.any(axis=1) & (share.sum(axis=1) <= 0)
    share[idle] = there[idle]
    with np.errstate(invalid="ignore"):
        return (share * np.where(there, logs, 0)).sum(axis=1) / share.sum(axis=1)


def fit_weights(
    logs: np.ndarray, target: np.ndarray, importance: np.ndarray, least: float = 0.0
) -> np.ndarray:
    """Return the weights, shape (members,), whose ``log_mix`` is off the least from ``target``.

    ``logs`` (n, members) may have NaN, ``target`` (n,) are log prices, ``importance`` (n,) says how
    much each product counts in the mean absolute error. No weight is below ``least``. A missing
    estimate is taken to be what the others' mix says, which is how it is treated when pricing;
    since that mix depends on the weights, it is filled in and fitted again until nothing changes.
    """
    members = logs.shape[1]
    if not 0 <= least < 1 / members:
        raise ValueError(f"least weight {least}: from 0 to below 1/{members}, one over the members")
    some = np.isfinite(logs).any(axis=1)
    logs, target, importance = logs[some], target[some], importance[some]
    if empty := np.flatnonzero(~np.isfinite(logs).any(axis=0)).tolist():
        raise ValueError(f"members {empty} have no estimate at all: nothing to weigh them by")
    weights, tried = np.full(members, 1 / members), []
    for _ in range(ROUNDS):
        filled = np.where(np.isfinite(logs), logs, log_mix(logs, weights)[:, None])
        before, weights = weights, _complete(filled, target, importance, least)
        error = np.abs(target - log_mix(logs, weights)) @ importance
        tried.append((error, weights))
        if np.abs(weights - before).max() < _SETTLED or np.isfinite(logs).all():
            break
    return min(tried, key=lambda pair: pair[0])[1]


def fit_scale(mixed: np.ndarray, target: np.ndarray, importance: np.ndarray) -> float:
    """Return the factor on the mix with the smallest absolute log error: a weighted median."""
    off = target - mixed
    order = np.argsort(off)
    reached = np.cumsum(importance[order])
    return float(np.exp(off[order][np.searchsorted(reached, reached[-1] / 2)]))


def _complete(
    logs: np.ndarray, target: np.ndarray, importance: np.ndarray, least: float
) -> np.ndarray:
    """Fit weights where nothing is missing: the stack's programme, and a row for their sum."""
    members = logs.shape[1]
    left = 1 - members * least  # what is shared out beyond the least each one has
    rows = np.vstack([logs, np.ones(members)])
    sums = np.append(target - least * logs.sum(axis=1), left)
    counts = np.append(importance, _SUM_COUNTS * importance.sum())
    found = absolute_error_weights(rows, sums, counts)
    return least + left * found / found.sum()
