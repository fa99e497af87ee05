"""A stack: the weighted sum of several pricers' estimates, with an interval around it.

The weights are fitted on estimates for products that the members had not learnt from: a fifth of
the training items is held out once, for the weights and the interval; then the members learn from
all of them. Validation and test are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from shared.data import Product, products
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.evaluation.protocol import Estimates
from shared.pricers.boosting import Boosting
from shared.pricers.classical import LsaSvr, RandomForest, TfidfRidge
from shared.pricers.conformal import conformal_quantile
from shared.pricers.fitted import FittedPricer, grouped_folds
from shared.pricers.neighbours import Neighbours
from shared.pricers.neural import NeuralNetwork

MEMBERS: dict[str, Callable[[int], FittedPricer]] = {
    "tfidf-ridge": TfidfRidge,
    "lsa-svr": LsaSvr,
    "random-forest": lambda seed: RandomForest(seed, read_out="median", with_attributes=True),
    "knn": Neighbours,
    "lightgbm": Boosting,
    "neural-network": NeuralNetwork,
}
"""Member -> how it is made from a seed."""

COVERAGE = 0.9
_PARTS = 5  # one of them is held out


class Stack(FittedPricer):
    """Non-negative weights on members' estimates (Breiman, 1996), with 90 % intervals.

    ``balance`` says which products count how much: each held-out product weighs its price to
    this power. 0 is the mix of the training items. 1 would pay for the few dear products with all
    others. The default costs little on the natural mix and gains on sets with more dear products.
    """

    name = "stack"
    learnt = ("weights", "quantile")

    def __init__(
        self, seed: int = 42, members: Sequence[str] = tuple(MEMBERS), balance: float = 0.25
    ) -> None:
        super().__init__(seed)
        if unknown := sorted(set(members) - set(MEMBERS)):
            raise ValueError(f"no members of a stack: {unknown}; there are: {', '.join(MEMBERS)}")
        self.settings |= {"members": list(members), "balance": balance, "coverage": COVERAGE}

    def _fit(self, items: pa.Table) -> None:
        learn, held_out = next(islice(grouped_folds(items, _PARTS, self.seed), 1))
        if not len(learn) or not len(held_out):
            raise ValueError(f"{self.name}: {items.num_rows} items are too few to hold some out")
        self.members = self._members(self.settings["members"], items.take(learn))
        unseen = items.take(held_out)
        estimates, prices = self._members_estimate(products(unseen)), unseen["price"].to_numpy()
        weights = absolute_error_weights(estimates, prices, prices ** self.settings["balance"])
        used = weights > 0.005 * weights.sum()  # who adds nothing need not learn, nor be asked
        estimates, self.weights = estimates[:, used], weights[used]
        scores = np.abs(np.log(prices / mix(estimates, self.weights))) / doubt(estimates)
        self.quantile = conformal_quantile(scores, COVERAGE)
        names = [n for n, u in zip(self.settings["members"], used, strict=True) if u]
        self.members = self._members(names, items)

    def _members(self, names: Sequence[str], items: pa.Table) -> dict[str, FittedPricer]:
        return {name: MEMBERS[name](self.seed).fit(items) for name in names}

    def _members_estimate(self, products: Sequence[Product]) -> np.ndarray:
        return np.column_stack([m.price(products).price for m in self.members.values()])

    def member_weights(self) -> list[tuple[str, float]]:
        """Return (member, weight) of the members that count, heaviest first."""
        self._catch_up()
        pairs = zip(self.members, self.weights.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    def _price(self, products: Sequence[Product]) -> Estimates:
        estimates = self._members_estimate(products)
        price = np.clip(mix(estimates, self.weights), MIN_PRICE, MAX_PRICE)
        factor = np.exp(self.quantile * doubt(estimates))
        return Estimates(price, low=price / factor, high=price * factor)

    def parts(self) -> dict[str, Any]:
        """Return weights, quantile and the members themselves."""
        return super().parts() | {"members": self.members}

    def restore(self, parts: dict[str, Any]) -> None:
        """Take back what ``parts`` returned."""
        super().restore(parts)
        self.members = parts["members"]


def absolute_error_weights(
    estimates: np.ndarray, prices: np.ndarray, importance: np.ndarray
) -> np.ndarray:
    """Return the weights of 0 or more, shape (members,), with the smallest absolute error.

    ``estimates`` in dollars, shape (n, members); ``importance`` says how much each product
    counts. Absolute error, since that is what the mix is scored in: a linear programme, where
    each product's error is the sum of what is over and what is under.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, eye_array, hstack

    n, members = estimates.shape
    each = eye_array(n)
    error = hstack([csr_array(estimates), each, -each]).tocsc()
    share = importance / importance.mean()
    cost = np.concatenate([np.zeros(members), share, share])
    found = linprog(cost, A_eq=error, b_eq=prices, bounds=(0, None), method="highs")
    if not found.success:
        raise ValueError(f"no weights for the stack: {found.message}")
    return found.x[:members]


def mix(estimates: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted sum of the members' estimates, shape (n,), in dollars, above zero."""
    return np.maximum(estimates @ weights, MIN_PRICE)


def doubt(estimates: np.ndarray) -> np.ndarray:
    """Return how far the members disagree about each product, shape (n,), on the log scale.

    Where they disagree, the mix is more often wrong, so the interval there has to be wider. The
    constant keeps it from vanishing where they agree by accident.
    """
    return 0.3 + np.log(estimates).std(axis=1)
