"""What both protocols are translated into, and back from: turns that ask, and a reply."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True)
class Turn:
    """One piece of a conversation; role: system, user, assistant, call or result (of a tool)."""

    role: str
    text: str


@dataclass(frozen=True)
class Ask:
    """A request, whoever's protocol it came in.

    ``schema``: the JSON schema the answer has to fit, or None. ``tools``: name -> JSON schema of
    its arguments. ``choice``: auto, none, required, or the name of a tool. ``salt`` makes
    repeated answers differ. ``limit``: the most tokens of the answer, ``thinking``: tokens
    spent before it.
    """

    model: str
    turns: tuple[Turn, ...]
    schema: dict | None = None
    tools: dict[str, dict] | None = None
    choice: str = "auto"
    salt: str = ""
    limit: int | None = None
    thinking: int = 0


@dataclass(frozen=True)
class Reply:
    """An answer: its text, or the call of a tool (name, arguments), or why it is refused."""

    text: str = ""
    call: tuple[str, dict] | None = None
    refusal: str = ""
    truncated: bool = False
    thinking: int = 0

    @property
    def output(self) -> str:
        """The text, the refusal, or the arguments of the call as JSON: what is counted."""
        return json.dumps(self.call[1]) if self.call else self.text or self.refusal

    @property
    def tokens(self) -> int:
        """Output tokens, thinking included."""
        return count_tokens(self.output) + self.thinking


def count_tokens(text: str) -> int:
    """Return about how many tokens a text is: four characters each."""
    return math.ceil(len(text) / CHARACTERS_A_TOKEN)


def uniform(*parts: Any) -> float:
    """Return a number between 0 and 1 that depends on nothing but ``parts``."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "replace")).digest()
    return (int.from_bytes(digest[:7]) + 0.5) / 2**56


def finish(reply: Reply, limit: int | None) -> Reply:
    """Cut a reply that is longer than ``limit`` tokens, thinking included, allow."""
    if limit is None or reply.tokens <= limit:
        return reply
    room = max(limit - reply.thinking, 0) * CHARACTERS_A_TOKEN
    text = "" if reply.call else reply.text[:room]
    return Reply(text, truncated=True, thinking=min(reply.thinking, limit))
