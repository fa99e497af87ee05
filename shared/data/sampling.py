"""Balanced samples: as many dear products as cheap ones, with weights that lead back.

Most products are cheap, so a model scored on a plain sample is mostly scored on cheap ones. Many
courses therefore fill one slot a dollar, and let crowded categories give way. That changes the
question: the error on a balanced sample is not the error a shop will see. Each sampled item
keeps its sampling weight, so that both can be computed from the same estimates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

WEIGHT = "sampling_weight"


def balanced_sample(
    items: pa.Table,
    *,
    per_dollar: int = 20,
    category_weights: Mapping[str, float] | None = None,
    seed: int = 42,
) -> pa.Table:
    """Return a sample with at most ``per_dollar`` items in each slot of one dollar.

    Within a full slot an item's chance is proportional to the weight of its category (1 where
    none is given). The result has a column more, ``sampling_weight``: one over the chance of
    being sampled, so that a weighted mean over the sample estimates the plain mean over all items
    (Horvitz and Thompson, 1952). Which items are sampled depends on seed and ids, not on the order
    of the items. Raises ValueError for weights that are not above zero.
    """
    weights = dict(category_weights or {})
    if bad := [name for name, w in weights.items() if not (np.isfinite(w) and w > 0)]:
        raise ValueError(f"category weights must be above zero: {', '.join(sorted(bad))}")
    if per_dollar < 1:
        raise ValueError(f"per_dollar is {per_dollar}: at least 1")
    slots = np.floor(items["price"].to_numpy()).astype(int)
    chances = np.array([weights.get(c, 1.0) for c in items["category"].to_pylist()], dtype=float)
    draws = np.array([_draw(i, seed) for i in items["id"].to_pylist()])
    taken, weight = [], np.zeros(len(slots))
    for slot in np.unique(slots):
        rows = np.flatnonzero(slots == slot)
        chance = inclusion(chances[rows], per_dollar)
        taken.append(rows[_pareto(chance, draws[rows])])
        weight[rows] = 1 / chance
    rows = np.sort(np.concatenate([*taken, np.empty(0, int)]))
    return items.take(rows).append_column(WEIGHT, pa.array(weight[rows]))


def inclusion(weights: np.ndarray, size: int) -> np.ndarray:
    """Return each element's chance to be in a sample of ``size``, proportional to its weight.

    Nobody's chance exceeds one: what is above is shared among the others.
    """
    if len(weights) <= size:
        return np.ones(len(weights))
    chance = np.zeros(len(weights))
    certain = np.zeros(len(weights), dtype=bool)
    while True:
        left = size - certain.sum()
        chance = np.where(certain, 1.0, left * weights / weights[~certain].sum())
        if not (over := (chance >= 1) & ~certain).any():
            return chance
        certain |= over


def _pareto(chance: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Pareto sampling (Rosén, 1997): a fixed size, and these chances all but exactly."""
    size = round(chance.sum())
    with np.errstate(divide="ignore"):
        rank = (draws / (1 - draws)) / (chance / (1 - chance))
    return np.argsort(rank, kind="stable")[:size]


def _draw(item_id: str, seed: int) -> float:
    # A prefix of its own: the same hash decides splits and folds, and must not decide this, too.
    digest = hashlib.sha256(f"sample:{seed}:{item_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 2)
