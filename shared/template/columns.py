"""The baseline that a table deserves: boosted trees on its columns, without a word of the prose.

A language model that does not beat it has learnt nothing that the columns did not say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import orjson

from shared.data import Product
from shared.pricers.fitted import FittedPricer

MOST_VALUES = 254
"""Values of a column that are told apart; the rarer ones are one more."""


class Columns(FittedPricer):
    """LightGBM with absolute error on the details and the category, numbers as numbers."""

    name = "columns"

    def __init__(self, seed: int = 42, trees: int = 300) -> None:
        super().__init__(seed)
        self.settings |= {"trees": trees}

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        import lightgbm

        rows = [_cells(product) for product in products]
        names = list(dict.fromkeys(name for row in rows for name in row))
        self.codes = {name: _codes([row.get(name, "") for row in rows]) for name in names}
        told = [at for at, codes in enumerate(self.codes.values()) if codes is not None]
        parameters = {
            "objective": "mae", "learning_rate": 0.05, "num_leaves": 31, "min_child_samples": 10,
            "seed": self.seed, "deterministic": True, "force_row_wise": True, "num_threads": 1,
            "verbose": -1, "min_data_per_group": 10,
        }  # fmt: skip
        data = lightgbm.Dataset(self._table(rows), np.log(prices), categorical_feature=told)
        self.model = lightgbm.train(parameters, data, self.settings["trees"])

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        table = self._table([_cells(product) for product in products])
        return np.exp(self.model.predict(table, num_threads=1))

    def _table(self, rows: Sequence[dict[str, str]]) -> np.ndarray:
        """Return numbers, and the places of values in their column; NaN where nothing is known."""
        columns = [
            [_number(row.get(name, "")) if codes is None else codes.get(row.get(name, ""), np.nan)
             for row in rows]
            for name, codes in self.codes.items()
        ]  # fmt: skip
        return np.array(columns, dtype=float).T.reshape(len(rows), len(columns))


def _cells(product: Product) -> dict[str, str]:
    details = orjson.loads(product.details or "{}")
    return {"category": product.category} | {name: str(value) for name, value in details.items()}


def _codes(values: Sequence[str]) -> dict[str, int] | None:
    """Return a number for each of a column's values, or None for a column of numbers."""
    told = [value for value in values if value]
    if np.isfinite([_number(value) for value in told]).mean() > 0.9 if told else False:
        return None
    counts = Counter(told) if len(set(told)) < 2000 else {}
    frequent = sorted(counts, key=lambda value: (-counts[value], value))[:MOST_VALUES]
    return {value: at for at, value in enumerate(frequent)}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
