"""When an offer is a deal: the asked price against what the pricer says the product costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from shared.data import Product, assemble, products
from shared.evaluation import Estimates
from shared.feeds.scanner import Deal


@dataclass(frozen=True)
class Value:
    """What a product costs, in dollars; NaN where the pricer failed, and ``error`` says why."""

    price: float
    low: float = math.nan
    high: float = math.nan
    error: str = ""
    cost_usd: float = 0.0


@dataclass(frozen=True)
class Rule:
    """A deal is asked for at least ``margin`` (a share) below ``by``: the interval or the estimate.

    ``interval`` means its low end: the pricer may be wrong by as much as it usually is, and the
    offer is a deal still. ``estimate`` believes every estimate, and so collects the offers whose
    price was estimated too high. Below ``least`` (a share of the estimate) an offer is refused: it
    is a mistake, a part, or bait.
    """

    by: str = "interval"
    margin: float = 0.1
    least: float = 0.05

    def __post_init__(self) -> None:
        """Refuse a rule that alerts everything, or nothing."""
        if self.by not in ("interval", "estimate"):
            raise ValueError(f"a rule by {self.by!r}: choose interval or estimate")
        if not (0 <= self.margin < 1 and 0 <= self.least < 1):
            raise ValueError(f"margin {self.margin} and least {self.least} are shares, 0 to 1")

    def __str__(self) -> str:
        end = "low end" if self.by == "interval" else "estimate"
        return f"{self.margin:.0%} below {end}"

    def threshold(self, value: Value) -> float:
        """Return the dollars at which an offer becomes a deal; NaN if that is not known."""
        return (value.low if self.by == "interval" else value.price) * (1 - self.margin)

    def refusal(self, asked: float, value: Value) -> str:
        """Return why an offer is no deal, or "" if it is one."""
        if not math.isfinite(value.price):
            return f"not priced: {value.error or 'no reason given'}"
        limit = self.threshold(value)
        if not math.isfinite(limit):
            return "the pricer gives no interval, and the rule needs one"
        if not asked <= limit:
            return f"${asked:,.2f} asked, a deal from ${limit:,.2f} down"
        if asked < self.least * value.price:
            return f"${asked:,.2f} is too low to be true (estimate ${value.price:,.2f})"
        return ""


def as_products(deals: Sequence[Deal]) -> list[Product]:
    """Return offers as a pricer sees products: cleaned as in training, every price masked."""
    records = [
        {"parent_asin": deal.id, "title": deal.title, "description": deal.text.split("\n")}
        for deal in deals
    ]
    return products(assemble(pa.Table.from_pylist(records))) if records else []


def value_deals(deals: Sequence[Deal], pricer: Any) -> list[Value]:
    """Price offers; one whose pricing fails has its reason, and so have all if the pricer does."""
    try:
        found = pricer.price(as_products(deals))
        if len(found.price) != len(deals):
            raise ValueError(f"{len(found.price)} estimates for {len(deals)} products")
    except Exception as error:  # any pricer may be given, and its failure is not ours
        why = f"{type(error).__name__}: {error}"[:200]
        return [Value(math.nan, error=why) for _ in deals]
    return [_value(found, row) for row in range(len(deals))]


def _value(found: Estimates, row: int) -> Value:
    def at(column: np.ndarray | None, default: float = math.nan) -> float:
        return default if column is None else float(column[row])

    cost = at(found.cost_usd, 0.0)
    return Value(
        at(found.price), at(found.low), at(found.high), found.error[row] or "",
        cost if math.isfinite(cost) else 0.0,
    )  # fmt: skip


def as_json(value: Value) -> Mapping[str, Any]:
    """Return a value for JSON, cents rounded; what is not known is null."""
    known = {n: getattr(value, n) for n in ("price", "low", "high")}
    shown = {n: round(v, 2) if math.isfinite(v) else None for n, v in known.items()}
    return shown | ({"error": value.error} if value.error else {})
