"""Intervals that keep their promise: split conformal prediction.

Take products that the pricer has not learnt from, and see how far off it is there. If 90 % of
those errors are within a factor of two, then so will be 90 % of the errors on new products of the
same kind, whatever the pricer is (Vovk et al., 2005; Angelopoulos and Bates, 2021). The promise
holds on average over products, not in each category or price band: measure it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from shared.data import Product, products
from shared.data.storage import fingerprint
from shared.evaluation.protocol import Estimates


def conformal_quantile(scores: np.ndarray, coverage: float = 0.9) -> float:
    """Return the error that a share ``coverage`` of new products will not exceed.

    ``scores`` are the errors of n products that were not learnt from. The rank is that of n + 1,
    since the new product is one more of the same kind. Infinite if n is too small for the promise.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage {coverage} is not between 0 and 1")
    rank = int(np.ceil((len(scores) + 1) * coverage))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else float("inf")


class WithIntervals:
    """A pricer, and around each of its estimates an interval that covers a stated share.

    Calibrated on ``items`` that the pricer has not learnt from, such as the validation split. The
    error is a factor (a difference of log prices), so dear products get wider intervals.
    """

    def __init__(self, pricer: Any, items: pa.Table, coverage: float = 0.9) -> None:
        estimates = pricer.price(products(items)).price
        known = np.isfinite(estimates) & (estimates > 0)
        if known.sum() < 1 / (1 - coverage):
            raise ValueError(
                f"{known.sum()} estimates are too few to calibrate {coverage:.0%} intervals"
            )
        ratios = np.log(items["price"].to_numpy()[known] / estimates[known])
        self.pricer, self.name, self.label = pricer, pricer.name, getattr(pricer, "label", "")
        self.retries_failures = getattr(pricer, "retries_failures", False)
        self.factor = float(np.exp(conformal_quantile(np.abs(ratios), coverage)))
        self.settings = dict(getattr(pricer, "settings", {})) | {
            "intervals": "split conformal, log price",
            "coverage": coverage,
            "calibrated_on": fingerprint(items),
        }

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product in dollars, with its interval."""
        found = self.pricer.price(products)
        found.low, found.high = found.price / self.factor, found.price * self.factor
        return found
