"""A technique: the question with a few neighbours and their prices, and an answer that cites them.

An answer is grounded if it names the neighbours that it follows from, and they were given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from shared.data import Product
from shared.frontier.messages import Request, Turn
from shared.prompting.answers import PRICE_SCHEMA, Dialogue, Guess
from shared.prompting.techniques import MOST_CHARS, ZeroShot
from shared.prompts import answer, question, quoted
from shared.retrieval.found import Neighbour
from shared.retrieval.looking_up import LookUp

NEIGHBOUR_CHARS = 600
"""Characters of a neighbour's text that are sent: what it is, and what drives its price."""

INTRODUCTION = "These products are sold, and that is what they cost:"
TASK = (
    "Price the next one. Let those above guide you that are like it, and name them by their "
    "numbers; name none that did not."
)
SCHEMA = PRICE_SCHEMA | {
    "title": "grounded_estimate",
    "properties": {
        "neighbours": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "Numbers of the products above that the price follows from",
        }
    }
    | PRICE_SCHEMA["properties"],
    "required": ["neighbours", *PRICE_SCHEMA["required"]],
}


@dataclass(frozen=True)
class Record:
    """What one answer stood on: the neighbours shown, those cited (from 1), and its dollars.

    ``fault`` says why it is not grounded, and is empty where it is.
    """

    item_id: str
    shown: tuple[str, ...]
    prices: tuple[float, ...]
    cited: tuple[int, ...]
    price: float
    fault: str

    @property
    def grounded(self) -> bool:
        """Whether it cites neighbours, and only such as were given."""
        return not self.fault


@dataclass
class WithNeighbours:
    """The question after a product's neighbours and their prices, looked up in an index.

    ``records`` holds what each answer stood on, by the product's id.
    """

    calls: ClassVar[int] = 1
    look_up: LookUp
    name: str = field(init=False)
    records: dict[str, Record] = field(init=False, default_factory=dict)
    _found: dict[Product, list[Neighbour]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Take a name from the number of neighbours."""
        self.name = f"{self.look_up.k} neighbours"

    @property
    def settings(self) -> dict[str, Any]:
        """What the answers depend on."""
        return {"characters": NEIGHBOUR_CHARS, "task": TASK} | self.look_up.settings

    def prepare(self, products: Sequence[Product]) -> None:
        """Look up the neighbours of many products at once, in place of those of others."""
        found = self.look_up.neighbours(products)
        self._found = dict(zip(products, found, strict=True))

    def first(self, model: str, product: Product) -> Request:
        """Return the neighbours with their prices, and the question."""
        request = ZeroShot().first(model, product)
        near = self._neighbours(product)
        if not near:
            return request
        return replace(request, turns=(Turn("user", prompt(product, near)),), schema=SCHEMA)

    def price(self, model: str, product: Product, dialogue: Dialogue) -> Guess:
        """Ask once, and note what the answer cites."""
        guess = dialogue.price(self.first(model, product))
        near = self._neighbours(product)
        cited, fault = citations(dialogue.replies[-1].text, len(near))
        shown, prices = tuple(n.id for n in near), tuple(n.price for n in near)
        self.records[product.id] = Record(product.id, shown, prices, cited, guess.price, fault)
        return guess

    def _neighbours(self, product: Product) -> list[Neighbour]:
        if product not in self._found:
            self._found[product] = self.look_up.neighbours([product])[0]
        return self._found[product]


def prompt(product: Product, neighbours: Sequence[Neighbour]) -> str:
    """Return the neighbours, numbered from 1, with their prices, and then the question."""
    shown = [
        f"{number}.\n{quoted(near.text[:NEIGHBOUR_CHARS])}\n<price>{answer(near.price)}</price>"
        for number, near in enumerate(neighbours, start=1)
    ]
    return "\n\n".join([INTRODUCTION, *shown, TASK, question(product.text[:MOST_CHARS])])


def citations(text: str, given: int) -> tuple[tuple[int, ...], str]:
    """Return the numbers that an answer cites, and why it is not grounded ("" if it is).

    ``given`` is how many neighbours it was shown, numbered from 1.
    """
    try:
        value, _ = json.JSONDecoder().raw_decode(text[max(text.find("{"), 0) :])
        cited = value["neighbours"]
        if not isinstance(cited, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        return (), "cites none"
    numbers = tuple(n for n in cited if isinstance(n, int) and not isinstance(n, bool))
    if len(numbers) < len(cited):
        return numbers, "cites what is no number"
    wrong = [n for n in numbers if not 1 <= n <= given]
    if wrong:
        return numbers, f"cites {wrong[0]}, which was not given"
    return numbers, "" if numbers else "cites none"
