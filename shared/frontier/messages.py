"""What is asked of a language model and what comes back, whoever the vendor is.

Plain data that turns into JSON and back: the cache, batches and traces all store these.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Call:
    """A tool that the model wants called. ``arguments`` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Result:
    """What the call with this ``id`` gave, as text (usually JSON)."""

    id: str
    text: str


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: ``user``, or ``assistant``.

    An assistant's turn may hold calls of tools, and the user's turn after it their results.
    """

    role: str
    text: str = ""
    calls: tuple[Call, ...] = ()
    results: tuple[Result, ...] = ()


@dataclass(frozen=True)
class Tool:
    """A tool the model may call. ``parameters`` is a JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict


@dataclass(frozen=True)
class Request:
    """One question to a model.

    ``schema`` is the JSON schema that the answer must fit (None: free text). ``shared`` counts
    the first turns that many requests have in common, which vendors sell cheaper when repeated.
    With ``may_call`` false the tools are known, but not to be used any more.
    ``sample`` tells repetitions of one question apart; everything else being equal, requests of
    equal ``sample`` are the same request and are bought once.
    """

    model: str
    turns: tuple[Turn, ...]
    system: str = ""
    schema: dict | None = None
    max_tokens: int = 200
    effort: str | None = None
    tools: tuple[Tool, ...] = ()
    may_call: bool = True
    shared: int = 0
    sample: int = 0

    def then(self, *turns: Turn) -> Request:
        """Return the request that goes on with more turns."""
        return replace(self, turns=self.turns + turns)

    def key(self, address: str) -> str:
        """Return a hash of all that the answer depends on; ``address`` is who is asked."""
        canonical = json.dumps([address, asdict(self)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(_bytes(canonical)).hexdigest()

    def characters(self) -> int:
        """Return about how long the request is, in characters."""
        return len(json.dumps(asdict(self), ensure_ascii=False))

    def size(self) -> int:
        """Return how many bytes a tokenizer may see; no model makes more tokens than bytes."""
        return len(_bytes(json.dumps(asdict(self), ensure_ascii=False)))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # half a character in a shop's text is no error


@dataclass(frozen=True)
class Usage:
    """Tokens of an answer. ``cached`` (read from the vendor's cache, cheap) and ``written`` (put
    there, dear at some) are part of ``input``, ``reasoning`` is part of ``output``."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    written: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Add up the tokens of two answers."""
        mine, theirs = asdict(self), asdict(other)
        return Usage(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True)
class Reply:
    """A model's answer, paid for. ``stop`` is ``end``, ``tool``, ``length`` or ``refusal``."""

    text: str
    stop: str = "end"
    calls: tuple[Call, ...] = ()
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    seconds: float = 0.0
    cost_usd: float | None = None

    def turn(self) -> Turn:
        """Return the answer as a turn, for a request that goes on."""
        return Turn("assistant", self.text, self.calls)

    def to_json(self) -> str:
        """Return the reply as JSON text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Reply:
        """Return the reply that ``to_json`` was called on."""
        value: dict[str, Any] = json.loads(text)
        value["calls"] = tuple(Call(**call) for call in value["calls"])
        return cls(**value | {"usage": Usage(**value["usage"])})
