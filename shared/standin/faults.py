"""Faults on demand: what a provider does on a bad day, in each vendor's own words."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, replace

from shared.mind.conversation import Reply, uniform
from shared.standin.wire import BadRequest

ERRORS = {
    "rate_limit": (429, "Rate limit reached for requests. Please try again later."),
    "server_error": (500, "The server had an error while processing your request."),
    "overloaded": (503, "The server is overloaded. Please try again later."),
    "not_found": (404, "The model does not exist or you do not have access to it."),
    "quota": (429, "You exceeded your current quota, please check your plan and billing details."),
}
"""Kinds that answer with an error: status (Anthropic's may differ) and message."""

REPLIES = ("bad_answer", "text", "refusal", "truncated", "huge")
"""Kinds that are valid responses with something else in them than was asked for."""

KINDS = (*ERRORS, *REPLIES, "slow", "cut", "drop", "bad_json")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: ``kind`` is one of ``KINDS``.

    ``retry_after``: seconds, of rate_limit and overloaded (None: the header is missing).
    ``seconds``: of slow. ``text``: of text. ``size``: bytes of the text of huge.
    """

    kind: str
    retry_after: float | None = 0.05
    seconds: float = 1.0
    text: str = ""
    size: int = 10_000_000

    def __post_init__(self) -> None:
        """Refuse a kind that does not exist."""
        if self.kind not in KINDS:
            raise ValueError(f"fault {self.kind!r} is not one of {', '.join(KINDS)}")

    def check(self) -> None:
        """Raise BadRequest if this kind answers with an error."""
        if self.kind in ERRORS:
            status, message = ERRORS[self.kind]
            code = {"quota": "insufficient_quota", "not_found": "model_not_found"}
            raise BadRequest(message, status=status, code=code.get(self.kind, self.kind))

    def spoil(self, reply: Reply) -> Reply:
        """Return what this fault makes of a reply; most kinds leave it alone."""
        if self.kind == "bad_answer":
            return Reply("Sure! Here is what I think: it depends.", thinking=reply.thinking)
        if self.kind == "text":
            return Reply(self.text, thinking=reply.thinking)
        if self.kind == "refusal":
            return Reply(refusal="I'm sorry, but I can't help with that.")
        if self.kind == "truncated":
            text = "" if reply.call else reply.text
            return replace(reply, text=text[: len(text) // 2], call=None, truncated=True)
        if self.kind == "huge":
            return Reply("x" * self.size)
        return reply


class Faults:
    """Which fault the next request meets: those planned in order, then by rate."""

    def __init__(self, seed: int) -> None:
        self.faults: list[Fault | None] = []
        self.fault_rate: dict[str, float] = {}
        self._fault_seed, self._said, self._drawing = seed, Counter[bytes](), threading.Lock()

    def next_fault(self, body: bytes) -> Fault | None:
        """Use up a planned fault, or draw one."""
        with self._drawing:
            if self.faults:
                return self.faults.pop(0)
        return self.draw_fault(body)

    def draw_fault(self, body: bytes) -> Fault | None:
        """Draw a fault by what the request says, and how often it was said.

        Requests at once arrive in any order, and their faults must not depend on it.
        """
        key = hashlib.sha256(body).digest() if self.fault_rate else b""
        with self._drawing:
            self._said[key] += 1
            at = uniform("fault", self._fault_seed, key, self._said[key])
        for kind, rate in self.fault_rate.items():
            if at < rate:
                return Fault(kind)
            at -= rate
        return None
