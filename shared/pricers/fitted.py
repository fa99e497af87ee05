"""What pricers that learn have in common: fit on items, price products, survive on disk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.data import Product, products
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.data.storage import fingerprint
from shared.evaluation.protocol import Estimates


class FittedPricer:
    """A pricer that learns from training items: a name, settings for the manifest, ``fit``.

    A subclass sets ``name``, names in ``learnt`` the attributes that fitting gives it (so that it
    can be saved), and writes ``_learn(products, prices)`` and ``_estimate(products)``; both see
    products, never items, so a price can only be learnt from and not looked up. A pricer with
    intervals writes ``_price(products)`` instead, and returns Estimates.
    """

    name: ClassVar[str]
    learnt: ClassVar[tuple[str, ...]] = ()

    def __init__(self, seed: int = 42) -> None:
        self.settings: dict = {"seed": seed}
        self.seed = seed
        self._waiting: pa.Table | None = None
        self.fit_seconds: float | None = None

    def fit(self, items: pa.Table, *, lazily: bool = False) -> FittedPricer:
        """Learn from training items (ITEM schema) and return self.

        ``lazily`` waits for the first product to price: where a stored result is found instead,
        nothing has to be learnt again. A method that needs what was learnt calls ``_catch_up``.
        """
        if items.num_rows == 0:
            raise ValueError(f"{self.name}: there are no items to learn from")
        _refuse_unpriced(items, self.name)
        self.settings |= {"fitted_on": fingerprint(items), "code": _code()}
        self._waiting = items
        if not lazily:
            self._catch_up()
        return self

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product in dollars, within the window curation keeps."""
        if "fitted_on" not in self.settings:
            raise ValueError(f"{self.name} has not been fitted: call .fit(train_items) first")
        self._catch_up()
        if not products:
            return Estimates(np.empty(0))
        began = time.perf_counter()
        found = self._price(products)
        if found.seconds is None:  # without those of a fit that waited for the first product
            found.seconds = np.full(len(products), (time.perf_counter() - began) / len(products))
        return found

    def _catch_up(self) -> None:
        if self._waiting is not None:
            began = time.perf_counter()
            self._fit(self._waiting)
            self._waiting, self.fit_seconds = None, time.perf_counter() - began

    def _price(self, products: Sequence[Product]) -> Estimates:
        return Estimates(np.clip(self._estimate(products), MIN_PRICE, MAX_PRICE))

    def _fit(self, items: pa.Table) -> None:
        self._learn(products(items), items["price"].to_numpy())

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        raise NotImplementedError

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        raise NotImplementedError

    def parts(self) -> dict[str, Any]:
        """Return what fitting gave this pricer, by attribute name: all that has to be saved."""
        self._catch_up()
        return {name: getattr(self, name) for name in self.learnt}

    def restore(self, parts: dict[str, Any]) -> None:
        """Take back what ``parts`` returned."""
        for name in self.learnt:
            setattr(self, name, parts[name])


def _refuse_unpriced(items: pa.Table, name: str) -> None:
    """Raise ValueError if an item has no price above zero: nothing can be learnt from it."""
    prices = items["price"].to_numpy()
    bad = int((~(prices > 0)).sum())
    if bad:
        raise ValueError(f"{name}: {bad} of {len(prices)} items to learn from have no price over 0")


def grouped_folds(
    items: pa.Table, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows to learn from, rows held out), ``folds`` times; each row is held out once.

    A near-duplicate cluster is held out as a whole. Otherwise the held-out estimates would look
    better than any estimate for a new product, and whoever learns from them would trust them too
    much. Which fold a cluster is in depends on its key alone, not on the order of the items.
    """
    keys = pc.coalesce(items["cluster"], items["id"]).to_pylist()
    fold = np.array([_fold_of(key, folds, seed) for key in keys])
    for held_out in range(folds):
        yield np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)


def _fold_of(key: str, folds: int, seed: int) -> int:
    # A prefix of its own, as for every hash that decides something (see RandomPricer._draw).
    digest = hashlib.sha256(f"fold:{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % folds


@cache
def _code() -> str:
    """Hash the code of this room: a stored result of other code is not this pricer's."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]
