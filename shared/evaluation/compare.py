"""Is one pricer better than another, or was it luck? Paired, on the same products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from shared.evaluation.bootstrap import mean_intervals
from shared.evaluation.metrics import number
from shared.evaluation.predictions import Scored, scored

FLIPS = 9_999


@dataclass(frozen=True)
class Comparison:
    """The difference between two pricers' absolute errors on the products both priced.

    ``difference`` is the mean error of ``a`` minus that of ``b`` in dollars (below zero: ``a`` is
    better) with its 95 % interval ``low`` to ``high``; ``p`` is two-sided, ``p_holm`` corrected
    for the number of comparisons made together. ``n`` products count; ``failed`` were left out
    because one of the two has no estimate, ``unshared`` because only one of them saw it.
    """

    a: str
    b: str
    n: int
    failed: int
    unshared: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def distinguishable(self) -> bool:
        """Whether the difference is too large to be luck, at the 5 % level after Holm."""
        return self.p_holm < 0.05

    def __repr__(self) -> str:
        verdict = "better" if self.difference < 0 else "worse"
        if not self.distinguishable:
            verdict = "not distinguishable"
        left_out = [f"{self.failed:,} failed" if self.failed else ""]
        left_out += [f"{self.unshared:,} not shared" if self.unshared else ""]
        return (
            f"{self.a} against {self.b}: {number(self.difference)} "
            f"[{number(self.low)} to {number(self.high)}], {p_text(self.p_holm)}: {verdict} "
            f"({', '.join([f'{self.n:,} products', *filter(None, left_out)])})"
        )


def compare(a: Any, b: Any, *, on_common: bool = False, seed: int = 42) -> Comparison:
    """Compare two sets of predictions (tables, Parquet paths or Evaluations) on the same items.

    The test flips the sign of each product's difference at random: if the two were equally good
    either sign would be as likely (Fisher's paired randomisation test; 9,999 seeded flips with
    the +1 correction of Phipson and Smyth 2010, all flips where there are fewer). The interval
    is a BCa bootstrap of the mean difference.

    Raises ValueError if the items differ, unless ``on_common`` asks for those both have (the
    others are counted), and if the two disagree about a product's true price.
    """
    first, second = scored(a), scored(b)
    left, right, unshared = _paired(first, second, on_common)
    difference = left.error - right.error
    both = np.isfinite(difference)
    failed, difference = int((~both).sum()), difference[both]
    estimate, ends = mean_intervals(difference[:, None], lambda means: means, seed=seed)
    p = _sign_flip_p(difference, seed)
    names = (first.title, second.title)
    counts = (len(difference), failed, unshared)
    return Comparison(*names, *counts, *(float(x) for x in (*estimate, *ends[0])), p, p)


def compare_many(
    pricers: Sequence[Any], against: str | None = None, *, on_common: bool = False, seed: int = 42
) -> list[Comparison]:
    """Compare every pair, or each with the one named ``against``; ``p_holm`` covers them all."""
    named = {scored(p).pricer: p for p in pricers}
    if len(named) < len(pricers):
        raise ValueError(f"two of these have the same name: {[scored(p).pricer for p in pricers]}")
    if against is not None and against not in named:
        raise ValueError(f"{against!r} is not among {', '.join(named)}")
    pairs = (
        combinations(named, 2)
        if against is None
        else [(name, against) for name in named if name != against]
    )
    found = [compare(named[a], named[b], on_common=on_common, seed=seed) for a, b in pairs]
    corrected = holm([c.p for c in found])
    return [replace(c, p_holm=p) for c, p in zip(found, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being looked at together (Holm 1979), in the same order."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return corrected.tolist()


def p_text(p: float) -> str:
    """Return a p-value as people write it."""
    return "no p-value" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _paired(a: Scored, b: Scored, on_common: bool) -> tuple[Scored, Scored, int]:
    common, at_a, at_b = np.intersect1d(
        a.ids.astype(str), b.ids.astype(str), assume_unique=True, return_indices=True
    )
    unshared = len(a.ids) + len(b.ids) - 2 * len(common)
    if unshared and not on_common:
        raise ValueError(
            f"{a.pricer} and {b.pricer} priced different items: {len(common):,} in common, "
            f"{unshared:,} not. Evaluate both on the same items, or pass on_common=True"
        )
    if not len(common):
        raise ValueError(f"{a.pricer} and {b.pricer} have no item in common")
    left, right = a.where(at_a), b.where(at_b)
    if (different := np.flatnonzero(~np.isclose(left.true, right.true))).size:
        i = different[0]
        prices = f"{number(left.true[i])} and {number(right.true[i])}"
        raise ValueError(f"item {common[i]!r} costs {prices}: these are two versions of the items")
    return left, right, unshared


def _sign_flip_p(difference: np.ndarray, seed: int) -> float:
    if not len(difference):
        return float("nan")
    if len(difference) == 1 or not difference.any():  # every flip is as extreme as what was seen
        return 1.0
    from scipy.stats import permutation_test  # a service that compares nothing starts without it

    result = permutation_test(
        (difference,), lambda x, axis: x.mean(axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=FLIPS, batch=max(1, 1_000_000 // len(difference)),
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)
