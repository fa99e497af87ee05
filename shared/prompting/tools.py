"""A technique with tools: the model may look things up in the training items before it answers.

The loop is a dozen lines, and everything in it is bounded: rounds, calls a round, what a tool
returns. A tool never raises into the loop; what went wrong is its answer, which the model reads.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from shared.data import Product
from shared.data.storage import fingerprint
from shared.frontier.messages import Call, Request, Result, Tool, Turn
from shared.pricers.neighbours import Neighbours
from shared.prompting.answers import Dialogue, Guess
from shared.prompting.techniques import ZeroShot, searcher

SEARCH = Tool(
    "search_similar_products",
    "Search products with known prices. Returns the most similar ones: title and price in dollars.",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to look for, in words"}},
        "required": ["query"],
        "additionalProperties": False,
    },
)
UNIT_PRICE = Tool(
    "unit_price",
    "Divide the price of a pack by the number of its units; returns dollars per unit.",
    {
        "type": "object",
        "properties": {
            "total": {"type": "number", "description": "Price of the pack in dollars"},
            "units": {"type": "number", "description": "How many units are in it"},
        },
        "required": ["total", "units"],
        "additionalProperties": False,
    },
)


@dataclass
class ToolUse:
    """The question, and two tools: search among training items, and divide by a pack's size.

    ``neighbours`` may be fitted ones to search with, so that they are fitted once.
    After ``rounds`` rounds of calls the model may call nothing more, and has to answer.
    """

    train: pa.Table
    rounds: int = 3
    results: int = 5
    neighbours: Neighbours | None = None
    name: str = field(init=False, default="tools")
    calls: int = field(init=False)

    def __post_init__(self) -> None:
        """Get ready to search."""
        self.calls = self.rounds + 1
        self.settings = {
            "rounds": self.rounds, "results": self.results, "train": fingerprint(self.train),
            "tools": [vars(SEARCH), vars(UNIT_PRICE)],
        }  # fmt: skip
        self._index = searcher(self.train, self.neighbours or False, self.results)
        self._titles, self._prices = (self.train[name].to_pylist() for name in ("title", "price"))

    def first(self, model: str, product: Product) -> Request:
        """Return the question with the tools."""
        request = ZeroShot().first(model, product)
        return replace(request, tools=(SEARCH, UNIT_PRICE))

    def price(self, model: str, product: Product, dialogue: Dialogue) -> Guess:
        """Let the model call tools for some rounds, then read its price."""
        request = self.first(model, product)
        for _ in range(self.rounds):
            reply = dialogue.ask(request)
            if not reply.calls:
                return dialogue.read(request, reply)
            calls = reply.calls[:4]
            answers = Turn("user", results=tuple(self.run(call) for call in calls))
            request = request.then(replace(reply.turn(), calls=calls), answers)
        return dialogue.price(replace(request, may_call=False))

    def run(self, call: Call) -> Result:
        """Run a call, and return what it gave as JSON; a tool that fails answers with its error."""
        try:
            arguments = json.loads(call.arguments or "{}")
            value = self._do(call.name, arguments)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError,
                ArithmeticError) as error:  # fmt: skip
            value = {"error": f"{type(error).__name__}: {error}"}
        return Result(call.id, json.dumps(value, ensure_ascii=False)[:4_000])

    def _do(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == SEARCH.name:
            return self.search(str(arguments["query"])[:500])
        if name == UNIT_PRICE.name:
            return {"dollars_per_unit": unit_price(arguments["total"], arguments["units"])}
        raise ValueError(f"there is no tool {name!r}")

    def search(self, query: str) -> list[dict]:
        """Return the training items most like the words of ``query``, the most similar first."""
        found = self._index.nearest(Product("query", query, query, "", "{}"))
        return [
            {"title": self._titles[row], "price": round(self._prices[row], 2)}
            for row, similarity in found[: self.results]
            if similarity > 0
        ]


def unit_price(total: float, units: float) -> float:
    """Return dollars per unit; ValueError unless both are numbers above zero."""
    total, units = float(total), float(units)
    if not (0 < total < math.inf and 0 < units < math.inf):
        raise ValueError(f"{total} dollars for {units} units: both must be above 0")
    return round(total / units, 4)
