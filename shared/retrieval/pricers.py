"""Two pricers that look things up: the neighbours' prices alone, and a model that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from shared.data import Product
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.evaluation import Estimates
from shared.frontier.connection import Connection
from shared.pricers.neighbours import NEIGHBOURS, SHARPNESS
from shared.prompting.pricer import FrontierPricer
from shared.retrieval.cited import Record, WithNeighbours
from shared.retrieval.found import Neighbour
from shared.retrieval.looking_up import LookUp, Searcher

SHOWN = 5
"""Neighbours that a model is shown."""


class NeighbourPricer:
    """What the most similar products cost: the median or the mean of their prices, weighted.

    ``statistic`` is ``median``, or ``log-mean`` for the mean of the logarithms. ``low`` and
    ``high`` are the prices below and above which a tenth of the weight lies: a spread, not a
    promise. Give it an index or a ``HybridSearch``; ``clusters`` as in ``LookUp``.
    """

    def __init__(
        self, index: Searcher, k: int = NEIGHBOURS, *, clusters: Mapping[str, str] | None = None,
        statistic: str = "median", sharpness: float = SHARPNESS, name: str = "neighbours",
    ) -> None:  # fmt: skip
        if statistic not in ("median", "log-mean"):
            raise ValueError(f"statistic={statistic!r} is neither 'median' nor 'log-mean'")
        self.look_up, self.name = LookUp(index, k, clusters), name
        self.statistic, self.sharpness = statistic, sharpness

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the estimates: what is known, and how it is averaged."""
        own = {"statistic": self.statistic, "sharpness": self.sharpness}
        return own | self.look_up.settings

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product, in dollars; one without neighbours fails."""
        found = self.look_up.neighbours(products)
        rows = np.array([self._summary(near) for near in found], dtype=float).reshape(-1, 3)
        errors = [None if near else "no neighbour is left to look at" for near in found]
        price, low, high = np.clip(rows, MIN_PRICE, MAX_PRICE).T
        return Estimates(price, errors, low=low, high=high)

    def _summary(self, near: Sequence[Neighbour]) -> tuple[float, float, float]:
        if not near:
            return (np.nan,) * 3
        prices = np.array([n.price for n in near])
        weights = np.maximum([n.similarity for n in near], 0.0) ** self.sharpness + 1e-9
        median, low, high = weighted_quantiles(prices, weights, (0.5, 0.1, 0.9))
        if self.statistic == "median":
            return median, low, high
        mean = float(np.exp(np.average(np.log(prices), weights=weights)))
        return mean, min(low, mean), max(high, mean)


def weighted_quantiles(
    values: np.ndarray, weights: np.ndarray, shares: Sequence[float]
) -> list[float]:
    """Return for each share the least of n values that this share of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    below = weights[order].cumsum() / weights.sum()
    places = np.searchsorted(below, np.array(shares) - 1e-12)
    return [float(v) for v in values[order][np.minimum(places, len(values) - 1)]]


class RetrievalPricer(FrontierPricer):
    """A language model that is shown the nearest products with their prices, and has to cite them.

    An answer that cites none, or one that was not given, is used, and counted in ``grounded``;
    ``records`` has what each answer stood on. Where a stored evaluation is found nothing is asked,
    and there are no records: price the products once more, and the cache answers.
    """

    def __init__(
        self, connection: Connection, index: Searcher, k: int = SHOWN, *,
        clusters: Mapping[str, str] | None = None, name: str = "", progress: bool = True,
    ) -> None:  # fmt: skip
        technique = WithNeighbours(LookUp(index, k, clusters))
        super().__init__(connection, technique, name=name, progress=progress)

    def estimate(self, products: Sequence[Product]) -> str:
        """Say what pricing these products will cost, before the first call."""
        self.technique.prepare(products)
        return super().estimate(products)

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product, in dollars."""
        self.technique.prepare(products)
        return super().price(products)

    def neighbours(self, products: Sequence[Product]) -> list[list[Neighbour]]:
        """Return what the model is shown of each product, the most similar first."""
        return self.technique.look_up.neighbours(products)

    @property
    def records(self) -> list[Record]:
        """What each answer stood on, by the products' ids."""
        return [record for _, record in sorted(self.technique.records.items())]

    @property
    def grounded(self) -> float:
        """The share of answers that cite neighbours, and only such as were given; NaN of none."""
        return float(np.mean([r.grounded for r in self.records])) if self.records else np.nan

    def records_table(self) -> pa.Table:
        """Return the records as a table, a row an answer, to be stored beside the predictions."""
        fields = {
            "item_id": pa.string(), "shown": pa.list_(pa.string()),
            "prices": pa.list_(pa.float64()), "cited": pa.list_(pa.int64()),
            "price": pa.float64(), "grounded": pa.bool_(), "fault": pa.string(),
        }  # fmt: skip
        rows = [vars(r) | {"grounded": r.grounded} for r in self.records]
        return pa.Table.from_pylist(rows, schema=pa.schema(fields.items()))
