"""The pricer of a canary release: the new version answers, and the old one prices the same.

So both versions have priced the same products, and can be compared in pairs; and where the new one
fails, or takes too long, the customer gets the old one's price.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shared.data.schema import Product
from shared.ensembles.asking import Answer, Asked, ask_all
from shared.evaluation.protocol import Estimates
from shared.watching import item_key

PARALLEL = 8
"""Calls that each version takes at a time; more wait for their turn, within the time limit."""


class VersionedEstimates(Estimates):
    """Estimates that say in ``versions`` which version priced each product."""

    versions: list[str]


class ShadowedPricer:
    """Prices with a new version, within ``seconds`` for a call, and with the old one beside it.

    ``told`` gets a dict for each call: of ``of`` attempts ``failed`` went wrong, and ``why`` and
    ``pairs``, (item, old price, new price) in dollars where both have one. No product text is in
    it. An attempt is a product that the old version could price; a call that is lost as a whole is
    one attempt, for its products fail together.
    """

    def __init__(
        self, old: Any, new: Any, seconds: float, told: Callable[[dict[str, Any]], None]
    ) -> None:
        self.name, self.version, self.label = new.name, new.version, new.label
        self.unit = getattr(new, "unit", "USD")
        self._versions, self._told = (old.version, new.version), told
        self._asked = [Asked(old, None, PARALLEL), Asked(new, seconds, PARALLEL)]

    def price(self, products: Sequence[Product]) -> VersionedEstimates:
        """Estimate the price of each product in dollars, with its interval."""
        if not len(products):
            return self._mixed([Answer("", Estimates(np.empty(0)), 0.0)] * 2)
        answers = ask_all(self._asked, products)
        self._told(_told(answers, products))
        return self._mixed(answers)

    def _mixed(self, answers: list[Answer]) -> VersionedEstimates:
        old, new = (answer.estimates for answer in answers)
        own = np.isfinite(new.price)
        values = {
            name: np.where(own, *(_or_nan(found, name) for found in (new, old)))
            for name in ("price", "low", "high")
        }
        errors = [
            None if math.isfinite(price) else f"{self._versions[1]}: {b}; {self._versions[0]}: {a}"
            for price, a, b in zip(values["price"], old.error, new.error, strict=True)
        ]
        seconds = np.full(len(own), max(a.seconds for a in answers) / max(len(own), 1))
        found = VersionedEstimates(error=errors, seconds=seconds, **values)
        found.versions = [self._versions[int(one)] for one in own]
        return found


def _told(answers: list[Answer], products: Sequence[Product]) -> dict[str, Any]:
    """Return what is kept of a call."""
    old, new = (answer.estimates.price for answer in answers)
    priced = np.isfinite(old)
    both = priced & np.isfinite(new)
    failed, of = int((priced & ~both).sum()), int(priced.sum())
    if failed == of:
        failed = of = int(of > 0)
    reasons = [answers[1].estimates.error[i] for i in np.flatnonzero(priced & ~both)[:1]]
    pairs = [
        [item_key(products[i].text or ""), round(float(old[i]), 4), round(float(new[i]), 4)]
        for i in np.flatnonzero(both)
    ]
    # The rest of a message may quote the product.
    why = str(reasons[0]).partition(":")[0][:80] if reasons else None
    return {"of": of, "failed": failed, "why": why, "pairs": pairs}


def _or_nan(found: Estimates, name: str) -> np.ndarray:
    values = getattr(found, name)
    return np.full(len(found.price), np.nan) if values is None else values
