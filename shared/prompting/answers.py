"""From a reply to a price: what is asked for, what is accepted, and one chance to repair it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from shared.evaluation import Estimates
from shared.frontier.clients import CallError
from shared.frontier.messages import Reply, Request, Turn, Usage
from shared.frontier.money import BudgetError
from shared.frontier.secrets import redact
from shared.prompts import NotAPrice, checked, parse_price

PRICE_SCHEMA = {
    "title": "estimate",
    "type": "object",
    "properties": {
        "price": {"type": "number", "description": "The most likely price in US dollars"},
        "low": {"type": "number", "description": "It costs less than this in 1 case of 20"},
        "high": {"type": "number", "description": "It costs more than this in 1 case of 20"},
    },
    "required": ["price", "low", "high"],
    "additionalProperties": False,
}


@dataclass
class Guess:
    """One product's estimate in dollars and what it took; ``price`` NaN with an ``error``.

    ``model`` is the name under which the vendor answered: more exact than the one asked for.
    """

    price: float = math.nan
    low: float = math.nan
    high: float = math.nan
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0
    seconds: float = 0.0
    model: str = ""


class Dialogue:
    """The calls made for one product: passes requests on, and adds up what they took."""

    def __init__(self, ask: Callable[[Request], Reply]) -> None:
        self._ask = ask
        self.replies: list[Reply] = []

    def ask(self, request: Request) -> Reply:
        """Return the answer; a refusal or a cut-off answer raises NotAPrice."""
        reply = self._ask(request)
        self.replies.append(reply)
        if reply.stop == "refusal":
            raise NotAPrice(f"the model refused: {reply.text[:120]!r}")
        if reply.stop == "length":
            raise NotAPrice(f"the answer was cut off after {reply.usage.output} tokens")
        return reply

    def price(self, request: Request) -> Guess:
        """Ask for a price and read it; an answer that is none may be repaired once."""
        return self.read(request, self.ask(request))

    def read(self, request: Request, reply: Reply) -> Guess:
        """Read a price from the answer to a request, repairing it once if it is none."""
        try:
            return read_guess(reply)
        except NotAPrice as error:
            complaint = f"That cannot be used: {error}. Answer again, with the JSON object alone."
            return read_guess(self.ask(request.then(_said(reply), Turn("user", complaint))))

    def close(self, guess: Guess) -> Guess:
        """Return the guess with the tokens, dollars and seconds of all calls in it."""
        guess.usage = sum((reply.usage for reply in self.replies), Usage())
        guess.cost_usd = sum(reply.cost_usd or 0.0 for reply in self.replies)
        guess.seconds = sum(reply.seconds for reply in self.replies)
        guess.model = self.replies[-1].model if self.replies else ""
        return guess


def guessed(work: Callable[[Dialogue], Guess], ask: Callable[[Request], Reply]) -> Guess:
    """Do the calls for one product; whatever keeps them from a price becomes the guess's error.

    Whatever: an answer that nobody thought of costs its own product, not the run.
    """
    dialogue = Dialogue(ask)
    try:
        guess = work(dialogue)
    except (NotAPrice, CallError, BudgetError) as error:
        guess = Guess(error=str(error))
    except Exception as error:
        guess = Guess(error=redact(f"{type(error).__name__}: {error}")[:300])
    return dialogue.close(guess)


def read_guess(reply: Reply) -> Guess:
    """Read a price, and its bounds if they make sense. Raises NotAPrice with the reason.

    A model that may not be held to a schema also says "$34.50", or wraps its JSON in prose.
    """
    value = _json_object(reply.text)
    if value is None:
        return Guess(parse_price(reply.text))
    price = _number(value.get("price"))
    low, high = (_number(value.get(name), math.nan) for name in ("low", "high"))
    if not 0 <= low <= price <= high:
        low = high = math.nan
    return Guess(price, low, high)


def to_estimates(guesses: Sequence[Guess]) -> Estimates:
    """Return the estimates of n guesses, with their costs and tokens."""
    columns = {
        name: np.array([getattr(guess, name) for guess in guesses], dtype=float)
        for name in ("price", "low", "high", "seconds", "cost_usd")
    }
    if np.isnan(columns["low"]).all():
        columns["low"] = columns["high"] = None
    return Estimates(
        error=[guess.error for guess in guesses],
        usage=[vars(guess.usage) | {"model": guess.model} for guess in guesses],
        **columns,
    )


def _said(reply: Reply) -> Turn:
    return Turn("assistant", reply.text or "(nothing)")


def _number(value: object, otherwise: float | None = None) -> float:
    try:
        if isinstance(value, str):
            return parse_price(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NotAPrice(f"the answer's price is {json.dumps(value)[:60]}")
        return checked(value)
    except NotAPrice:
        if otherwise is None:
            raise
        return otherwise


def _json_object(text: str) -> dict | None:
    """Return the first JSON object in a text, or None."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
