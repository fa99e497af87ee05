"""Ways to ask for a price. Each is a recipe of one or more calls for one product.

A technique knows nothing of vendors, money or threads: it gets a ``Dialogue`` to ask through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from shared.data import Product
from shared.data.storage import fingerprint
from shared.frontier.messages import Request, Turn
from shared.pricers.neighbours import Neighbours
from shared.prompting.answers import PRICE_SCHEMA, Dialogue, Guess
from shared.prompts import SYSTEM, NotAPrice, answer, question, quoted

MOST_CHARS = 2_000
"""Characters of a product's text that are sent; what is cut is the tail of the seller's prose."""


class Technique(Protocol):
    """A way to ask. ``settings`` is all that changes the answers, as JSON-able values.

    ``calls``: how many calls it takes at most for a product, repairs aside. Where one is all, it
    can be bought in a batch.
    """

    name: str
    settings: dict[str, Any]
    calls: int

    def first(self, model: str, product: Product) -> Request:
        """Return the first request about a product: what can be estimated, and batched."""
        ...

    def price(self, model: str, product: Product, dialogue: Dialogue) -> Guess:
        """Price one product with as many calls as it takes. May raise NotAPrice."""
        ...


@dataclass
class ZeroShot:
    """The question, and nothing else."""

    calls: ClassVar[int] = 1
    name: str = "zero-shot"
    effort: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the answers depend on."""
        return {"effort": self.effort}

    def first(self, model: str, product: Product) -> Request:
        """Return the question."""
        turn = Turn("user", question(product.text[:MOST_CHARS]))
        return Request(
            model, (turn,), SYSTEM, PRICE_SCHEMA, effort=self.effort,
            max_tokens=2_000 if self.effort else 200,
        )  # fmt: skip

    def price(self, model: str, product: Product, dialogue: Dialogue) -> Guess:
        """Ask once."""
        return dialogue.price(self.first(model, product))


@dataclass
class MultiShot:
    """Examples first: training products with their prices, as turns of the conversation.

    With ``similar`` each product gets the training items most like it; else all get the same few,
    drawn evenly over the price range, which a vendor's prompt cache makes cheap. ``similar`` may
    be the fitted nearest neighbours to look with, so that they are fitted once.
    """

    calls: ClassVar[int] = 1
    train: pa.Table
    shots: int = 8
    similar: bool | Neighbours = False
    seed: int = 42
    name: str = field(init=False)

    def __post_init__(self) -> None:
        """Choose the examples, or get ready to look for similar ones."""
        if self.shots < 1:
            raise ValueError(f"{self.shots} examples: at least 1; ZeroShot() asks without any")
        if self.shots > len(self.train):
            raise ValueError(f"{self.shots} examples from {len(self.train)} training items")
        self.name = f"{self.shots}-shot {'similar' if self.similar else 'random'}"
        self.settings = {
            "shots": self.shots, "similar": bool(self.similar), "seed": self.seed,
            "train": fingerprint(self.train),
        }  # fmt: skip
        if self.similar:
            self._index = searcher(self.train, self.similar, self.shots)
        else:
            self._fixed = self._turns(self._spread())

    def first(self, model: str, product: Product) -> Request:
        """Return the examples and the question."""
        if self.similar:
            turns = self._turns(
                [row for row, _ in self._index.nearest(product)[: self.shots]][::-1]
            )
        else:
            turns = self._fixed
        request = ZeroShot().first(model, product)
        return replace(
            request, turns=turns + request.turns, shared=0 if self.similar else len(turns)
        )

    def price(self, model: str, product: Product, dialogue: Dialogue) -> Guess:
        """Ask once, after the examples."""
        return dialogue.price(self.first(model, product))

    def _spread(self) -> list[int]:
        """Draw rows at even steps of the prices, so that eight examples show dear ones, too."""
        order = np.argsort(self.train["price"].to_numpy(), kind="stable")
        edges = np.linspace(0, len(order), self.shots + 1).astype(int)
        draw = np.random.default_rng(self.seed)
        rows = [int(draw.choice(order[a:b])) for a, b in pairwise(edges)]
        return [int(row) for row in draw.permutation(rows)]

    def _turns(self, rows: Sequence[int]) -> tuple[Turn, ...]:
        turns: list[Turn] = []
        for item in self.train.take(list(rows)).to_pylist():
            turns.append(Turn("user", question(item["text"][:MOST_CHARS])))
            turns.append(Turn("assistant", answer(item["price"])))
        return tuple(turns)


def searcher(train: pa.Table, given: bool | Neighbours, results: int) -> Neighbours:
    """Return nearest neighbours over ``train``: the given ones if they fit, or new ones."""
    if not isinstance(given, Neighbours):
        return Neighbours(neighbours=results).fit(train)
    if given.settings["neighbours"] < results or given.settings["fitted_on"] != fingerprint(train):
        raise ValueError(f"the neighbours given know fewer than {results}, or other items")
    return given


@dataclass
class Chain:
    """Three calls: say what it is, say what such things cost, then name the price."""

    calls: ClassVar[int] = 3
    name: str = "chain"

    @property
    def settings(self) -> dict[str, Any]:
        """What the answers depend on."""
        return {"steps": [_DESCRIBE, _COMPARE, _DECIDE]}

    def first(self, model: str, product: Product) -> Request:
        """Return the request for a description."""
        return self._step(model, product, _DESCRIBE, "")

    def price(self, model: str, product: Product, dialogue: Dialogue) -> Guess:
        """Ask three times, each with the notes of the steps before."""
        notes = dialogue.ask(self.first(model, product)).text
        notes += "\n" + dialogue.ask(self._step(model, product, _COMPARE, notes)).text
        last = self._step(model, product, _DECIDE, notes)
        return dialogue.price(replace(last, schema=PRICE_SCHEMA))

    @staticmethod
    def _step(model: str, product: Product, task: str, notes: str) -> Request:
        text = f"{task}\n\n{quoted(product.text[:MOST_CHARS])}"
        if notes:
            text += f"\n\n<notes>\n{notes}\n</notes>"
        return Request(model, (Turn("user", text),), SYSTEM, max_tokens=300)


_DESCRIBE = (
    "Describe this product in three short lines: what kind of thing it is, the brand if there is "
    "one, and what drives its price. Name no price."
)
_COMPARE = (
    "Using the notes, name two or three products like this one, cheaper and dearer, and where "
    "this one stands among them."
)
_DECIDE = "Using the notes: how much does this cost, in US dollars?"


@dataclass
class SelfConsistency:
    """The median of ``k`` answers to the same question; their spread is the interval.

    Only for models that answer differently when asked again. ``low`` and ``high`` are the least
    and the greatest answer, which is a spread, not a promise: calibrate it before you trust it.
    """

    technique: Technique
    k: int = 5
    name: str = field(init=False)
    calls: int = field(init=False)

    def __post_init__(self) -> None:
        """Take the name and the settings of what is repeated."""
        if self.k < 2:
            raise ValueError(f"the median of {self.k} answers: at least 2")
        self.name = f"{self.technique.name} x{self.k}"
        self.settings = {"k": self.k, "of": self.technique.settings}
        self.calls = self.k * self.technique.calls

    def first(self, model: str, product: Product) -> Request:
        """Return the first of the k requests."""
        return self.technique.first(model, product)

    def price(self, model: str, product: Product, dialogue: Dialogue) -> Guess:
        """Ask k times and take the median of the prices that were read, half of k or more."""
        prices, unread = [], []
        for sample in range(self.k):
            request = replace(self.first(model, product), sample=sample)
            try:
                prices.append(dialogue.price(request).price)
            except NotAPrice as error:
                unread.append(str(error))
        if len(prices) < self.k / 2:
            raise NotAPrice(f"{len(unread)} of {self.k} answers held no price: {unread[0]}")
        return Guess(float(np.median(prices)), min(prices), max(prices))
