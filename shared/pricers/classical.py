"""Classical models over words: ridge, support vectors, a random forest.

All of them learn the logarithm of the price: ten dollars matter on a cable and not on a piano.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.data import Product
from shared.pricers.attributes import attributes
from shared.pricers.fitted import FittedPricer
from shared.pricers.words import TextSpace, vectoriser_for

WORDS = 30_000
"""Words and pairs of words that an LSA is made of here; rarer ones hardly move it."""


class TfidfRidge(FittedPricer):
    """Ridge regression of the log price on TF-IDF weights of words and pairs of words."""

    name = "tfidf-ridge"
    learnt = ("vectoriser", "model")

    def __init__(self, seed: int = 42, alpha: float = 0.5, log: bool = True) -> None:
        super().__init__(seed)
        self.settings |= {"alpha": alpha, "log": log}

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        from sklearn.linear_model import Ridge

        self.vectoriser = vectoriser_for(products)
        words = self.vectoriser.fit_transform(p.text for p in products)
        ridge = Ridge(self.settings["alpha"], solver="sparse_cg", tol=1e-3, random_state=self.seed)
        self.model = ridge.fit(words, np.log(prices) if self.settings["log"] else prices)

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        estimates = self.model.predict(self.vectoriser.transform(p.text for p in products))
        return np.exp(estimates.clip(-5, 10)) if self.settings["log"] else estimates

    def word_weights(self) -> list[tuple[str, float]]:
        """Return (words, factor on the price), from the cheapest words to the dearest.

        The factor is that of a text in which these words carried all the weight.
        """
        self._catch_up()
        if not self.settings["log"]:
            raise ValueError("weights are factors only if the log price was learnt (log=True)")
        names, weights = self.vectoriser.get_feature_names_out(), self.model.coef_
        return [(str(names[i]), float(np.exp(weights[i]))) for i in np.argsort(weights)]


class LsaSvr(FittedPricer):
    """Support vector regression of the log price on 300 LSA columns.

    Its loss grows with the absolute error, so it estimates the median and not the mean.
    """

    name = "lsa-svr"
    learnt = ("space", "model")

    def __init__(self, seed: int = 42, columns: int = 300, C: float = 10.0) -> None:
        super().__init__(seed)
        self.settings |= {"columns": columns, "C": C}

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        from sklearn.svm import LinearSVR

        self.space = TextSpace(self.settings["columns"], self.seed, WORDS)
        columns = self.space.compress(self.space.fit(products))
        svr = LinearSVR(C=self.settings["C"], max_iter=5000, tol=1e-3, random_state=self.seed)
        self.model = svr.fit(columns, np.log(prices))

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        return np.exp(self.model.predict(self.space.transform(products)).clip(-5, 10))


class RandomForest(FittedPricer):
    """A random forest (Breiman, 2001) on LSA columns: the reference of many a course.

    By default it learns dollars from the text alone, as it does there. Two settings make it
    better, and lesson 4 shows by how much: ``read_out="median"`` learns the log price, whose mean
    over trees is near the median price, and ``with_attributes`` adds weight, size and the rest.
    """

    name = "random-forest"
    learnt = ("space", "model")

    def __init__(
        self, seed: int = 42, trees: int = 100, read_out: str = "mean",
        with_attributes: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(seed)
        if read_out not in ("mean", "median"):
            raise ValueError(f"read_out {read_out!r} is not mean or median")
        self.settings |= {"trees": trees, "columns": 100, "read_out": read_out}
        self.settings |= {"with_attributes": with_attributes}

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        from sklearn.ensemble import RandomForestRegressor

        self.space = TextSpace(self.settings["columns"], self.seed, WORDS)
        columns = self._columns(self.space.compress(self.space.fit(products)), products)
        self.model = RandomForestRegressor(
            self.settings["trees"], max_features=0.33, n_jobs=-1, random_state=self.seed
        ).fit(columns, np.log(prices) if self.settings["read_out"] == "median" else prices)
        self.model.n_jobs = 1  # threads add up the trees in any order, and the last digits differ

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        columns = self._columns(self.space.transform(products), products)
        estimates = self.model.predict(columns)
        return np.exp(estimates) if self.settings["read_out"] == "median" else estimates

    def _columns(self, texts: np.ndarray, products: Sequence[Product]) -> np.ndarray:
        if not self.settings["with_attributes"]:
            return texts
        return np.hstack([texts, attributes(products)]).astype(np.float32)
