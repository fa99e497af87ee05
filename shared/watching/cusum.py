"""Have the errors changed? Sums of what is more than chance would give, for each true price.

CUSUM (Page, 1954) adds up by how much each error exceeds its usual mean plus a slack, and starts
again at 0 whenever the sum would be below. It notices a small lasting change much sooner than
looking at each window by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

CLIP = 4.0
"""Standard deviations beyond which an error counts no more: one slip is no drift."""

PATHS, HORIZON, LONGEST = 1_000, 0.25, 20_000
"""Unchanged sequences that are drawn for a threshold, and their length: as a share of the values
between two false alarms, and at most."""


@dataclass(frozen=True)
class Cusum:
    """A two-sided chart of one quantity, standardised with its ``mean`` and ``spread``.

    ``slack``, in standard deviations, is half of the change it is made for; ``threshold`` is
    exceeded once in ``per`` values, on average, while nothing changes.
    """

    name: str
    mean: float
    spread: float
    slack: float
    threshold: float
    per: int

    @classmethod
    def calibrated(
        cls, name: str, values: np.ndarray, shift: float, per: int, seed: int = 42
    ) -> Cusum:
        """Return the chart for values like these that notices a ``shift``, in their own unit.

        Its threshold is found on values drawn from these. That their own mean is known from a
        sample alone is drawn, too: with few values, the threshold is higher.
        """
        mean, spread = float(np.mean(values)), max(float(np.std(values, ddof=1)), 1e-9)
        usual = np.clip((values - mean) / spread, -CLIP, CLIP)
        slack = abs(shift) / spread / 2
        rng, most = np.random.default_rng(seed), []
        length = min(math.ceil(per * HORIZON), LONGEST)
        for _ in range(math.ceil(PATHS / 50)):
            drawn = rng.choice(usual, (50, length))
            drawn += rng.normal(0, 1 / math.sqrt(len(values)), (50, 1))
            most.append(highest(drawn, slack).max(axis=-1))
        # Rare alarms come as a Poisson process does: per values are free of one with 1 / e.
        threshold = float(np.quantile(np.concatenate(most), math.exp(-length / per)))
        return cls(name, mean, spread, slack, threshold, per)

    def like(self, values: np.ndarray) -> Cusum:
        """Return the same chart for other values: their mean and spread, the old threshold."""
        return replace(self, mean=float(np.mean(values)), spread=float(np.std(values, ddof=1)))

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Return values in standard deviations from the usual mean, clipped."""
        return np.clip((np.asarray(values, float) - self.mean) / self.spread, -CLIP, CLIP)

    def path(self, values: np.ndarray) -> np.ndarray:
        """Return the sums after each value, shape (2, n): of what is above, and of what is below.

        They end at twice the threshold, so that they come down soon after a repair.
        """
        sums, most = [], 2 * self.threshold
        standard = self.standardised(values)
        for steps in (standard - self.slack, -standard - self.slack):
            at, found = 0.0, []
            for step in steps.tolist():
                at = min(max(at + step, 0.0), most)
                found.append(at)
            sums.append(found)
        return np.array(sums).reshape(2, len(standard))

    def first_alarm(self, values: np.ndarray) -> np.ndarray:
        """Return after how many values each sequence first alarms, shape (…,); -1 for never."""
        above = highest(self.standardised(values), self.slack) > self.threshold
        return np.where(above.any(axis=-1), above.argmax(axis=-1) + 1, -1)


def highest(standard: np.ndarray, slack: float) -> np.ndarray:
    """Return the larger of both sums after each standardised value, shape (…, n).

    The sum that starts again at 0 is the running total less its lowest point so far.
    """
    sums = None
    for sign in (1, -1):
        total = np.cumsum(sign * standard - slack, axis=-1)
        total -= np.minimum(np.minimum.accumulate(total, axis=-1), 0)
        sums = total if sums is None else np.maximum(sums, total)
    return sums
