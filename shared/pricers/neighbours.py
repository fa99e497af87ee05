"""k nearest neighbours: what do the most similar products cost?

The rival that every retrieval result has to beat (week 8): it reads the same neighbours that a
language model would be shown, without the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from shared.data import Product
from shared.pricers.fitted import FittedPricer
from shared.pricers.words import vectoriser_for

NEIGHBOURS = 20
SHARPNESS = 4.0
"""Similarity is raised to this power to give a neighbour's weight: the first few should decide."""

_CELLS = 20_000_000  # similarities held at once: 80 MB

STATISTICS = ("median", "mean", "20 %", "80 %", "best similarity", "5 best", "nearest")
"""Columns of ``Neighbours.statistics``; prices as logarithms."""


class Neighbours(FittedPricer):
    """The weighted median price of the 20 most similar texts (cosine of TF-IDF vectors)."""

    name = "knn"
    learnt = ("vectoriser", "vectors", "log_prices")

    def __init__(self, seed: int = 42, neighbours: int = NEIGHBOURS) -> None:
        super().__init__(seed)
        self.settings |= {"neighbours": neighbours, "sharpness": SHARPNESS}
        self._by_word: tuple | None = None  # the vectors turned, for one query at a time

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        self.vectoriser = vectoriser_for(products)
        self.vectors = self.vectoriser.fit_transform(p.text for p in products)
        self.log_prices = np.log(prices)

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        return np.exp(self.statistics(products)[:, 0])

    def statistics(self, products: Sequence[Product]) -> np.ndarray:
        """Return what the neighbours of n products say, shape (n, 7), as STATISTICS names it."""
        self._catch_up()
        queries = self.vectoriser.transform(p.text for p in products)
        return neighbour_statistics(
            self.vectors, self.log_prices, queries, self.settings["neighbours"]
        )

    def nearest(self, product: Product) -> list[tuple[int, float]]:
        """Return (row of the training items, similarity) of the neighbours, nearest first."""
        self._catch_up()
        queries = self.vectoriser.transform([product.text])
        if self._by_word is None or self._by_word[0] is not self.vectors:
            self._by_word = self.vectors, self.vectors.T.tocsr()
        rows, similar = next(_nearest(self._by_word[1], queries, self.settings["neighbours"]))
        order = np.argsort(-similar[0], kind="stable")
        return [(int(rows[0, i]), float(similar[0, i])) for i in order]


def neighbour_statistics(vectors, log_prices: np.ndarray, queries, k: int) -> np.ndarray:
    """Return the statistics of the k nearest of n vectors for each of m queries, shape (m, 7)."""
    blocks = [np.empty((0, len(STATISTICS)))]
    for rows, similar in _nearest(vectors.T.tocsr(), queries, k):
        blocks.append(_summarise(log_prices[rows], similar))
    return np.concatenate(blocks)


def _nearest(by_word, queries, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows and similarities of the k nearest, shape (block, k), unordered.

    ``by_word`` are the vectors turned, shape (words, n): only the words of a query are looked at.
    """
    n = by_word.shape[1]
    k, block = min(k, n), max(1, _CELLS // n)
    for start in range(0, queries.shape[0], block):
        similar = (queries[start : start + block] @ by_word).toarray()
        rows = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        yield rows, np.take_along_axis(similar, rows, axis=1)


def _summarise(prices: np.ndarray, similar: np.ndarray) -> np.ndarray:
    order = np.argsort(prices, axis=1, kind="stable")
    ranked = np.take_along_axis(prices, order, axis=1)
    weights = np.take_along_axis(similar, order, axis=1) ** SHARPNESS + 1e-9
    share = weights.cumsum(axis=1) / weights.sum(axis=1, keepdims=True)
    each = np.arange(len(prices))
    quantile = [ranked[each, (share < q).sum(axis=1)] for q in (0.5, 0.2, 0.8)]
    mean = (ranked * weights).sum(axis=1) / weights.sum(axis=1)
    best = -np.sort(-similar, axis=1)
    nearest = prices[each, similar.argmax(axis=1)]
    five = best[:, :5].mean(axis=1)
    return np.column_stack([quantile[0], mean, *quantile[1:], best[:, 0], five, nearest])
