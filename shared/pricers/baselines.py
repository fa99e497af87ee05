"""The first rungs of the ladder: what any model with training has to beat.

Every pricer here is fitted on training items only, and prices products in dollars.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from shared.data import Product
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.pricers.attributes import features
from shared.pricers.fitted import FittedPricer


class RandomPricer(FittedPricer):
    """A price drawn evenly from the window. Silly, and the floor: nothing should be worse.

    The draw depends on the seed and the product's id alone, so a run that was interrupted and
    resumed gives the same prices as one that was not.
    """

    name = "random"

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        pass

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        return np.array([MIN_PRICE + (MAX_PRICE - MIN_PRICE) * self._draw(p.id) for p in products])

    def _draw(self, product_id: str) -> float:
        # Its own prefix: the split is a hash of seed and id too, and the very same hash would put
        # all draws for test products into the tenth of the range that makes them test products.
        digest = hashlib.sha256(f"{self.name}:{self.seed}:{product_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


class ConstantMean(FittedPricer):
    """Always the mean price: the constant with the smallest squared error."""

    name = "constant-mean"
    learnt = ("constant",)
    statistic = staticmethod(np.mean)

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        self.constant = float(self.statistic(prices))

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        return np.full(len(products), self.constant)


class ConstantMedian(ConstantMean):
    """Always the median price: the constant with the smallest absolute error."""

    name = "constant-median"
    statistic = staticmethod(np.median)


KEYWORD_PRICES = (
    (r"\b(?:replacement|part|filter|gasket|bulb|cable|adapter|screws?|sticker|decal)\b", 20.0),
    (r"\b(?:case|cover|protector|strap|holder|mount|bracket|picks?|pens?|labels?)\b", 18.0),
    (r"\b(?:laptop|computer|notebook|macbook|tablet|smartphone|iphone|phone unlocked)\b", 400.0),
    (r"\b(?:refrigerator|freezer|washer|dryer|dishwasher|range|oven|stove)\b", 350.0),
    (r"\b(?:guitar|piano|drum|violin|saxophone|trumpet|amplifier|synthesizer)\b", 300.0),
    (r"\b(?:tv|television|projector|monitor|camera|drone|receiver|printer|scanner)\b", 250.0),
    (r"\b(?:chair|desk|cabinet|workbench|safe|shelving)\b", 180.0),
    (r"\b(?:drill|saw|grinder|compressor|generator|welder|faucet|wheel|bumper)\b", 150.0),
)
"""Pattern in the title -> dollars, first match wins: what somebody who shops a lot would write."""


class Keywords(FittedPricer):
    """A few if-statements, written in ten minutes: what many shops run before any model."""

    name = "keywords"
    learnt = ("otherwise",)

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        self.otherwise = float(np.median(prices))

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        return np.array([self._look_up(p.title.lower()) for p in products])

    def _look_up(self, title: str) -> float:
        if re.search(r"\b(?:refurbished|renewed)\b", title):
            return 0.7 * self._look_up(re.sub(r"\b(?:refurbished|renewed)\b", "", title))
        for pattern, dollars in KEYWORD_PRICES:
            if re.search(pattern, title):
                return dollars
        return self.otherwise


class LinearFeatures(FittedPricer):
    """Linear regression on a handful of features somebody thought of, and the category."""

    name = "linear"
    learnt = ("categories", "model")

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        from sklearn.linear_model import LinearRegression
        from sklearn.preprocessing import OneHotEncoder

        self.categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        self.categories.fit([[p.category] for p in products])
        self.model = LinearRegression().fit(self._columns(products), prices)

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        return self.model.predict(self._columns(products))

    def _columns(self, products: Sequence[Product]) -> np.ndarray:
        shelves = self.categories.transform([[p.category] for p in products])
        return np.hstack([features(products), shelves])


class BagOfWords(FittedPricer):
    """Ridge regression on which of the 4,000 most frequent words a text has, order ignored."""

    name = "bag-of-words"
    learnt = ("model",)

    def __init__(self, seed: int = 42, max_features: int = 4000, alpha: float = 100.0) -> None:
        super().__init__(seed)
        self.settings |= {"max_features": max_features, "alpha": alpha}

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline

        words = CountVectorizer(
            max_features=self.settings["max_features"], binary=True, stop_words="english"
        )
        ridge = Ridge(alpha=self.settings["alpha"], solver="sparse_cg", random_state=self.seed)
        self.model = make_pipeline(words, ridge).fit([p.text for p in products], prices)

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        return self.model.predict([p.text for p in products])

    def word_weights(self) -> list[tuple[str, float]]:
        """Return (word, dollars it adds), from the cheapest word to the dearest."""
        words = self.model[0].get_feature_names_out()
        weights = self.model[1].coef_
        return [(str(words[i]), float(weights[i])) for i in np.argsort(weights)]
