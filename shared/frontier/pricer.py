"""A technique and a connection as a Pricer: what ``evaluate`` and the leaderboard take."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from shared.data import Product
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.evaluation import Estimates
from shared.frontier.answers import guessed, to_estimates
from shared.frontier.connection import Connection
from shared.frontier.techniques import Technique

_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:above|previous|prior|all|instructions?|"
    r"rules?|prompt)\b|\b(?:system|developer) (?:prompt|message)\b"
    r"|\byou (?:must|are to|should now) (?:answer|respond|reply|output|say)\b"
    r"|\banswer (?:with )?\$?\d",
    re.IGNORECASE | re.DOTALL,
)


def gives_orders(text: str) -> bool:
    """Tell whether a product's text speaks to the model that reads it (prompt injection)."""
    return bool(_ORDERS.search(text))


class FrontierPricer:
    """Prices products by asking a language model, many at a time.

    Estimates are kept within the window of curation's prices, as every pricer's here, so that no
    text in a product can make it free or priceless. ``flagged`` names the products whose text
    gives orders. What failed has its reason and is asked again in a second run; what was answered
    is stored and is not.
    """

    retries_failures = True

    def __init__(
        self, connection: Connection, technique: Technique, *, name: str = "", progress: bool = True
    ) -> None:
        self.connection, self.technique, self.progress = connection, technique, progress
        self.name = name or f"{connection.card.name}, {technique.name}"
        self.label = connection.label
        self.flagged: list[str] = []

    @property
    def settings(self) -> dict:
        """What decides the estimates: the model, who serves it, and how it is asked."""
        model, address = self.connection.card.name, self.connection.address
        return {"model": model, "address": address, "technique": self.technique.settings}

    def estimate(self, products: Sequence[Product]) -> str:
        """Say what pricing these products will cost, counting the first call for each."""
        model = self.connection.card.name
        return self.connection.estimate(self.technique.first(model, p) for p in products)

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product, in dollars."""
        self.flagged += [p.id for p in products if gives_orders(p.text)]
        model, ask = self.connection.card.name, self.connection.ask

        def one(product: Product):
            return guessed(lambda dialogue: self.technique.price(model, product, dialogue), ask)

        guesses = self.connection.map(one, products, desc=self.name, progress=self.progress)
        for guess in guesses:
            guess.price, guess.low, guess.high = np.clip(
                (guess.price, guess.low, guess.high), MIN_PRICE, MAX_PRICE
            )
        return to_estimates(guesses)
