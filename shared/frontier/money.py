"""Money: what calls will cost at most, what they may cost, and what they did cost."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from shared.frontier.messages import Request, Usage
from shared.frontier.models import ModelCard, dollars

CHARS_PER_TOKEN = 4.0
"""English prose; used to guess, never to bound."""

_WRITING = {"messages": 0.25, "responses": 0.25}
"""Protocol -> what putting tokens into the vendor's cache costs more, as a share of their price."""

_OVERHEAD = 500
"""Tokens that a vendor may add to a request for its own framing of tools and schemas."""


class BudgetError(RuntimeError):
    """A call would exceed the cap, or its price is not known; it was not made."""


def cost(card: ModelCard, usage: Usage, batch: bool = False) -> float:
    """Return what an answer cost, in dollars. ValueError if the model's price is not known."""
    surcharge = _WRITING.get(card.protocol, 0.0) * usage.written
    paid = Usage(usage.input + math.ceil(surcharge), usage.cached, usage.output)
    return dollars(card, paid, batch=batch)


def at_most(card: ModelCard, request: Request) -> float:
    """Return what a request costs at most, in dollars: a token a byte in, all tokens out."""
    tokens = request.size() + _OVERHEAD
    return cost(card, Usage(input=tokens, output=request.max_tokens, written=tokens))


def about(card: ModelCard, request: Request, output: int = 40) -> float:
    """Return what a request probably costs, in dollars, if the answer has ``output`` tokens."""
    tokens = round(request.characters() / CHARS_PER_TOKEN)
    return cost(card, Usage(input=tokens, output=min(output, request.max_tokens)))


@dataclass
class Budget:
    """A cap that holds with many calls under way: each reserves the most it can cost beforehand.

    ``cap``, ``spent`` and ``lost`` are dollars; no cap: inf. ``lost`` is what answers may have cost
    that were sent for and did not arrive whole: vendors bill an answer that they made, read or not.
    An attempt that an SDK repeats after an error of the server is billed by nobody.
    """

    cap: float
    spent: float = 0.0
    lost: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a cap that could never hold."""
        if not self.cap >= 0:
            raise ValueError(f"a cap of {self.cap} dollars: give 0 or more, or inf for none")
        self._reserved, self._under_way = 0.0, 0
        self._lock = threading.Condition()

    @property
    def left(self) -> float:
        """Dollars that are neither spent nor reserved."""
        return self.cap - self.spent - self.lost - self._reserved

    @contextlib.contextmanager
    def reserve(self, most: float) -> Iterator[Bill]:
        """Hold ``most`` dollars back during a call.

        Waits while calls under way hold what is missing, since they will cost less than they
        reserved. Raises BudgetError if the dollars are not there.
        """
        with self._lock:
            self._lock.wait_for(lambda: most <= self.left or not self._under_way)
            if most > self.left:
                lost = f", for lost answers perhaps ${self.lost:.4f}" if self.lost else ""
                raise BudgetError(
                    f"the call may cost ${most:.4f}, and of the cap of ${self.cap:.2f} only "
                    f"${max(self.left, 0):.4f} is left (spent: ${self.spent:.4f}{lost})"
                )
            self._reserved += most
            self._under_way += 1
        bill = Bill()
        try:
            yield bill
        finally:
            with self._lock:
                self._under_way -= 1
                self._reserved = self._reserved - most if self._under_way else 0.0
                self.spent += bill.dollars
                self.lost += bill.lost
                self._lock.notify_all()


@dataclass
class Bill:
    """What a call did cost, to be filled in by whoever makes it; ``lost`` as in Budget."""

    dollars: float = 0.0
    lost: float = 0.0
