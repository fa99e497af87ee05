"""What evaluation asks of a pricer: products in, estimates in dollars out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from shared.data.schema import Product


@dataclass
class Estimates:
    """Prices for a sequence of products, in the same order.

    ``price`` is a float array in dollars, NaN where the pricer failed; ``error`` then says why.
    ``low`` and ``high`` bound an interval, ``seconds`` and ``cost_usd`` are per product, and so
    is ``usage``: the tokens by the names of TOKENS, and ``model``, by which name the model
    answered. Each is None where the pricer does not report it.
    """

    price: np.ndarray
    error: list[str | None] = field(default_factory=list)
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    seconds: np.ndarray | None = None
    cost_usd: np.ndarray | None = None
    usage: Sequence[Mapping[str, int | str]] | None = None

    def __post_init__(self) -> None:
        """Turn lists into arrays, give every failure a reason, and check the lengths."""
        self.price = np.array(self.price, dtype=np.float64)  # a copy: it is cleaned in place
        if self.price.ndim != 1:
            raise ValueError(f"prices have the shape {self.price.shape}, not one a product")
        n = len(self.price)
        self.error = list(self.error) or [None] * n
        for name in ("low", "high", "seconds", "cost_usd"):
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, np.array(values, dtype=np.float64))
                if len(values) != n:
                    raise ValueError(f"{name} has {len(values)} values for {n} prices")
        if self.usage is not None and len(self.usage) != n:
            raise ValueError(f"usage has {len(self.usage)} values for {n} prices")
        if len(self.error) != n:
            raise ValueError(f"error has {len(self.error)} values for {n} prices")
        self._refuse_impossible_prices()
        self._check_intervals()

    def _refuse_impossible_prices(self) -> None:
        for i in np.flatnonzero(~np.isfinite(self.price) | (self.price < 0)):
            self.error[i] = self.error[i] or (
                "no price" if np.isnan(self.price[i]) else f"impossible price {self.price[i]:g}"
            )
            self.price[i] = np.nan

    def _check_intervals(self) -> None:
        """Refuse bounds in the wrong order; a failed estimate has no interval."""
        if self.low is None or self.high is None:
            return
        if (wrong := np.flatnonzero(self.low > self.high)).size:
            i = wrong[0]
            raise ValueError(f"interval {i} runs from {self.low[i]:g} down to {self.high[i]:g}")
        self.low[np.isnan(self.price)] = self.high[np.isnan(self.price)] = np.nan


@runtime_checkable
class Pricer(Protocol):
    """Anything that prices products.

    ``name`` is how the leaderboard calls it. A pricer may also have ``settings``, a dict that
    goes into the manifest of its predictions and decides whether stored ones can be reused: put
    in it all that changes the estimates, such as the fingerprint of the items it was fitted on.
    Two more are looked for: ``label`` ('stand-in'), and ``retries_failures``, true where a second
    run should price what failed in a stored one once more (a server that was down, say).
    """

    name: str

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product, in dollars."""
        ...
