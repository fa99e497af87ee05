"""Knowledge that goes stale: prices change in the store, and who notices?

A pricer that looks prices up follows at once, and nothing is embedded or trained again. One that
was fitted before goes on saying what things used to cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.data import products
from shared.evaluation import Pricer
from shared.retrieval.found import Changes
from shared.retrieval.index import ProductIndex


@dataclass(frozen=True)
class Followed:
    """What a pricer made of new prices, on ``n`` products, in dollars.

    ``error_before``: its mean absolute error with the old prices; ``error_after`` with the new
    ones, and ``error_stale`` what that would be if it had not moved. ``ratio`` is the median of
    its new estimates over its old ones, ``factor`` that of the prices.
    """

    pricer: str
    n: int
    factor: float
    ratio: float
    error_before: float
    error_after: float
    error_stale: float

    @property
    def followed(self) -> float:
        """The share of the change that it followed: 0 none of it, 1 all (of the logarithm)."""
        return math.log(self.ratio) / math.log(self.factor)


def reprice(
    index: ProductIndex, factor: float, category: str | None = None, *, progress: bool = False
) -> Changes:
    """Multiply the prices in the store, all or those of one category, and return what changed.

    Texts stay, so nothing is embedded. ``index.restore(version)`` takes it back. Raises
    ValueError for a factor that is not above 0, and for a category of which there is no product.
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"factor={factor}: prices are multiplied by a number above 0")
    chosen = _of_category(index.items(), category)
    if not len(chosen):
        raise ValueError(f"the index holds no product of the category {category!r}")
    price = pc.round(pc.multiply(chosen["price"], factor), 2)
    price = pc.max_element_wise(price, 0.01)  # a cent that becomes less is still a price
    place = chosen.schema.get_field_index("price")
    return index.upsert(chosen.set_column(place, "price", price), progress=progress)


def stale_knowledge(
    index: ProductIndex, pricers: Sequence[Pricer], items: pa.Table, factor: float = 1.3,
    category: str | None = None,
) -> list[Followed]:  # fmt: skip
    """Change the prices in the store, and return how each pricer followed, in their order.

    ``items`` (ITEM schema) are the products to price; those of another category are left out. The
    pricers must read this very ``index`` if they are to notice; afterwards it knows the old
    prices again. Estimates stay within the window of curation's prices, so those near its end
    cannot follow. Raises ValueError if no item is left.
    """
    if factor == 1:
        raise ValueError("factor=1: then no price changes, and there is nothing to follow")
    chosen = _of_category(items, category)
    if not len(chosen):
        raise ValueError(f"there is no item of the category {category!r} to price")
    asked, old, version = products(chosen), chosen["price"].to_numpy(), index.version
    before = [pricer.price(asked).price for pricer in pricers]
    reprice(index, factor, category)
    try:
        after = [pricer.price(asked).price for pricer in pricers]
    finally:
        index.restore(version)
    return [
        _followed(pricer.name, factor, old, was, now)
        for pricer, was, now in zip(pricers, before, after, strict=True)
    ]


def _followed(
    name: str, factor: float, old: np.ndarray, was: np.ndarray, now: np.ndarray
) -> Followed:
    known = np.isfinite(was) & np.isfinite(now)
    if not known.any():
        raise ValueError(f"{name}: no product has an estimate both before and after")
    old, was, now = old[known], was[known], now[known]
    errors = [float(np.abs(a - b).mean()) for a, b in ((was, old), (now, old * factor))]
    stale = float(np.abs(was - old * factor).mean())
    return Followed(name, len(old), factor, float(np.median(now / was)), *errors, stale)


def _of_category(items: pa.Table, category: str | None) -> pa.Table:
    return items if category is None else items.filter(pc.equal(items["category"], category))
