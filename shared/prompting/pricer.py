"""A technique and a connection as a Pricer: what ``evaluate`` and the leaderboard take."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from shared.data import Product
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.evaluation import Estimates
from shared.frontier.connection import Connection
from shared.prompting.answers import guessed, to_estimates
from shared.prompting.techniques import Technique

_SAY = "(?:answer|respond|reply|output|say)"
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,30}\b(?:above|previous|prior|instructions?|"
    r"rules?|prompt)\b|\b(?:system|developer) (?:prompt|message)\b"
    rf"|\byou (?:must|are to|should now) {_SAY}\b|\b(?:please|always|now) {_SAY}\b"
    r"|\b(?:answer|respond|reply) (?:only )?(?:with )?[${]?\d|\b(?:say|output) [${]\d"
    rf"|\b{_SAY} only with\b|\byour (?:answer|reply) is\b",
    re.IGNORECASE | re.DOTALL,
)


def gives_orders(text: str) -> bool:
    """Tell whether a product's text speaks to the model that reads it (prompt injection)."""
    # Full-width letters and spaces without width read as plain ones to a model, so here, too.
    plain = re.sub("[\u00ad\u200b-\u200f\u2060\ufeff]", "", unicodedata.normalize("NFKC", text))
    return bool(_ORDERS.search(plain))


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
        """Say what pricing these products will cost, before the first call."""
        model, calls = self.connection.card.name, self.technique.calls
        return self.connection.estimate(
            (self.technique.first(model, product) for product in products), calls=calls
        )

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
