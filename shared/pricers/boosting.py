"""Gradient boosting (LightGBM) over everything that can be made a column.

Attributes, LSA columns, what brand and category usually cost, what the nearest neighbours cost,
and the ridge's estimate. The last three are learnt from prices, so for the training items they
are computed out of fold: otherwise each item would find its own price among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from shared.data import Product, products
from shared.pricers.attributes import ATTRIBUTES, attributes, brand
from shared.pricers.fitted import FittedPricer, grouped_folds
from shared.pricers.neighbours import NEIGHBOURS, STATISTICS, neighbour_statistics
from shared.pricers.words import TextSpace

FOLDS = 5
_PRIOR = 5.0  # a brand seen five times counts half as itself, half as the average product


class UsualPrice:
    """What a brand and a category usually cost: mean log price, shrunk towards the overall mean."""

    def fit(self, products: Sequence[Product], log_prices: np.ndarray) -> UsualPrice:
        """Learn the means."""
        self.overall = float(log_prices.mean())
        self.tables: list[dict[str, list[float]]] = []
        for keys in _keys(products):
            table: dict[str, list[float]] = {}
            for key, value in zip(keys, log_prices, strict=True):
                entry = table.setdefault(key, [0.0, 0.0])
                entry[0] += float(value)
                entry[1] += 1.0
            self.tables.append(table)
        return self

    def transform(self, products: Sequence[Product]) -> np.ndarray:
        """Return mean and log count of brand, then of category, shape (n, 4)."""
        columns = []
        for table, keys in zip(self.tables, _keys(products), strict=True):
            found = np.array([table.get(key, (0.0, 0.0)) for key in keys])
            columns.append((found[:, 0] + _PRIOR * self.overall) / (found[:, 1] + _PRIOR))
            columns.append(np.log1p(found[:, 1]))
        return np.column_stack(columns)


def _keys(products: Sequence[Product]) -> tuple[list[str], list[str]]:
    return [brand(p) for p in products], [p.category for p in products]


class Boosting(FittedPricer):
    """LightGBM (Ke et al., 2017) with absolute error as its loss: it estimates the median.

    ``objective="regression"`` learns the mean instead, and ``log=False`` learns dollars.
    """

    name = "lightgbm"
    learnt = ("space", "usual", "ridge", "log_prices", "vectors", "model")

    def __init__(
        self, seed: int = 42, trees: int = 600, objective: str = "mae", log: bool = True
    ) -> None:
        super().__init__(seed)
        self.settings |= {"trees": trees, "objective": objective, "log": log, "folds": FOLDS}

    def _fit(self, items: pa.Table) -> None:
        listed, prices = products(items), items["price"].to_numpy()
        self.log_prices = np.log(prices)
        self.space = TextSpace(100, self.seed)
        self.vectors = self.space.fit(listed)
        texts = self.space.compress(self.vectors)
        learnt = self._out_of_fold(items, listed)
        self.usual, self.ridge = self._learn_prices(np.arange(len(listed)), listed)
        columns = np.hstack([attributes(listed), texts, learnt])
        self.model = self._boost(columns, self.log_prices if self.settings["log"] else prices)

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        estimates = self.model.predict(self.columns(products), num_threads=1)
        return np.exp(estimates.clip(-5, 10)) if self.settings["log"] else estimates

    def columns(self, products: Sequence[Product]) -> np.ndarray:
        """Return what the trees see of n products, shape (n, len(column_names()))."""
        self._catch_up()
        vectors = self.space.sparse(products)
        texts = self.space.compress(vectors)
        everyone = np.arange(len(self.log_prices))
        learnt = self._apply(everyone, products, vectors, self.usual, self.ridge)
        return np.hstack([attributes(products), texts, learnt])

    def column_names(self) -> list[str]:
        """Return the names of the columns."""
        self._catch_up()
        lsa = [f"LSA {i + 1}" for i in range(self.space.svd.n_components)]
        usual = ["brand: price", "brand: count", "category: price", "category: count"]
        neighbours = [f"neighbours: {name}" for name in STATISTICS]
        return [*ATTRIBUTES, *lsa, *usual, *neighbours, "ridge"]

    def importances(self) -> list[tuple[str, float]]:
        """Return (column, share of what all splits gained), most important first."""
        self._catch_up()
        gains = self.model.feature_importance("gain")
        shares = gains / max(gains.sum(), 1e-12)
        names = self.column_names()
        return [(names[i], float(shares[i])) for i in np.argsort(-shares, kind="stable")]

    def _out_of_fold(self, items: pa.Table, listed: list[Product]) -> np.ndarray:
        learnt = np.full((len(listed), 4 + len(STATISTICS) + 1), np.nan)
        for rows, held_out in grouped_folds(items, FOLDS, self.seed):
            if len(rows) and len(held_out):
                usual, ridge = self._learn_prices(rows, listed)
                some = [listed[i] for i in held_out]
                learnt[held_out] = self._apply(rows, some, self.vectors[held_out], usual, ridge)
        return learnt

    def _learn_prices(self, rows: np.ndarray, listed: list[Product]):
        from sklearn.linear_model import Ridge

        usual = UsualPrice().fit([listed[i] for i in rows], self.log_prices[rows])
        ridge = Ridge(0.5, solver="sparse_cg", tol=1e-3, random_state=self.seed)
        return usual, ridge.fit(self.vectors[rows], self.log_prices[rows])

    def _apply(self, rows, products, vectors, usual, ridge) -> np.ndarray:
        near = neighbour_statistics(self.vectors[rows], self.log_prices[rows], vectors, NEIGHBOURS)
        return np.column_stack([usual.transform(products), near, ridge.predict(vectors)])

    def _boost(self, columns: np.ndarray, target: np.ndarray):
        import lightgbm

        parameters = {
            "objective": self.settings["objective"],
            "learning_rate": 24 / max(self.settings["trees"], 240),
            "num_leaves": 31,
            "min_child_samples": 20,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "feature_fraction": 0.3,
            "lambda_l2": 5.0,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,  # small data: threads wait more than they work
            "verbose": -1,
        }
        return lightgbm.train(parameters, lightgbm.Dataset(columns, target), self.settings["trees"])
