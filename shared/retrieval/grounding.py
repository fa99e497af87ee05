"""Does an estimate follow from what was looked up? One outside its neighbours' prices does not.

It may still be right: the check says where a number came from, not whether it is good. Made with
the same neighbours for a pricer that saw them and for one that did not, it shows what they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.retrieval.found import Neighbour

_Z = 1.959964  # 95 %


@dataclass(frozen=True)
class Outside:
    """How many of ``n`` estimates lie ``below`` or ``above`` all prices of their neighbours.

    ``skipped`` had no estimate, or no neighbour.
    """

    n: int
    below: int
    above: int
    skipped: int

    @property
    def share(self) -> float:
        """The share of the n that lies outside; NaN of none."""
        return (self.below + self.above) / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share (Wilson, 1927); NaN of none."""
        if not self.n:
            return float("nan"), float("nan")
        share, n = self.share, self.n
        middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n)) / (1 + _Z**2 / n)
        return max(float(middle - half), 0.0), min(float(middle + half), 1.0)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.share:.1%} [{low:.1%} to {high:.1%}] of {self.n:,} estimates lie outside their "
            f"neighbours' prices ({self.below:,} below, {self.above:,} above)"
        )


def sides(
    estimates: Any, neighbours: Sequence[Sequence[Neighbour]], margin: float = 0.0
) -> np.ndarray:
    """Return for each of n estimates -1 below all its neighbours' prices, 1 above, else 0.

    ``estimates`` are Estimates or an array of dollars, NaN where one failed: then NaN, and where
    there is no neighbour, too. ``margin`` widens the range: 0.1 by a tenth at both ends.
    """
    prices = np.asarray(getattr(estimates, "price", estimates), dtype=float)
    if len(prices) != len(neighbours):
        raise ValueError(f"{len(prices)} estimates, but neighbours of {len(neighbours)}")
    if margin < 0:
        raise ValueError(f"margin={margin}: 0 or more")
    ends = np.array(
        [(min(n.price for n in near), max(n.price for n in near)) if near else (np.nan,) * 2
         for near in neighbours], dtype=float,
    ).reshape(-1, 2)  # fmt: skip
    low, high = ends[:, 0] * (1 - margin), ends[:, 1] * (1 + margin)
    side = np.where(prices < low, -1.0, np.where(prices > high, 1.0, 0.0))
    return np.where(np.isfinite(prices) & np.isfinite(low), side, np.nan)


def outside_range(
    estimates: Any, neighbours: Sequence[Sequence[Neighbour]], margin: float = 0.0
) -> Outside:
    """Count the estimates outside the range of their neighbours' prices; see ``sides``."""
    found = sides(estimates, neighbours, margin)
    known = found[np.isfinite(found)]
    below, above = int((known < 0).sum()), int((known > 0).sum())
    return Outside(len(known), below, above, len(found) - len(known))
