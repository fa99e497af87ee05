"""What both protocols are made of: fields that must be there, shapes of answers, ids, caches."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import uuid
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from shared.mind.conversation import CHARACTERS_A_TOKEN, uniform

CACHE_FROM = 1024
"""Tokens: a shorter prompt is not cached, at neither vendor."""


class BadRequest(Exception):
    """The request is refused: status, message, and the parameter or code that says why."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str = ""
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code or None


MISSHAPEN = (TypeError, AttributeError, LookupError, ValueError, RecursionError)
"""What a field of another type than documented raises where it is used, or an endless schema."""

_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")


def misshapen(error: Exception) -> BadRequest:
    """Return what a client is told then. Vendors check each field; here it shows in use."""
    if isinstance(error, RecursionError):
        return BadRequest("A schema is recursive, or something is nested too deeply.")
    return BadRequest(f"Invalid type somewhere in the request: {error!r}")


@cache
def _shapes() -> dict[str, str]:
    shapes = json.loads(Path(__file__).with_name("shapes.json").read_text(encoding="utf-8"))
    return {name: json.dumps(value) for name, value in shapes.items()}


def shape(name: str, **values: Any) -> Any:
    """Return an object of shapes.json, all its fields there, some of them with other values."""
    made = json.loads(_shapes()[name])
    return {**made, **values} if isinstance(made, dict) else made


def find_model(kind: str, name: str, refused: str) -> dict:
    """Return a model of ``models`` or ``claudes`` in shapes.json: they are listed, and answer.

    So do dated snapshots of them. Raises BadRequest (404) for any other name.
    """
    for row in shape(kind):
        if row["id"] in (name, _SNAPSHOT.sub("", name)):
            return {**row, "id": name}
    message = f"{refused} The stand-in's models are in shared/standin/shapes.json."
    raise BadRequest(message, status=404, param="model", code="model_not_found")


def new_id(prefix: str) -> str:
    """Return an id nobody had before."""
    return f"{prefix}_{uuid.uuid4().hex}"


def shuffled(values: Iterable, *parts: Any) -> list:
    """Return the values in an order that depends on nothing but ``parts`` and their number."""
    numbered = sorted(enumerate(values), key=lambda pair: uniform(*parts, pair[0]))
    return [value for _, value in numbered]


def need(body: dict, name: str, kind: type | tuple[type, ...]) -> Any:
    """Return a field that must be there; raise BadRequest naming it otherwise."""
    if name not in body:
        raise BadRequest(f"Missing required parameter: '{name}'.", param=name)
    value = body[name]
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 1)):
        raise BadRequest(f"Invalid value for '{name}': {str(value)[:60]!r}.", param=name)
    return value


def plain_text(content: Any) -> str:
    """Return the text of a content field: a string, or blocks of which some have text."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    if content is None:
        return ""
    if not isinstance(content, list) or not all(isinstance(b, dict) for b in content):
        raise BadRequest("Invalid value for 'content': a string or a list of blocks is expected.")
    return "\n".join(str(b["text"]) for b in content if b.get("text"))


class PromptCache:
    """Remembers the beginnings of prompts, by model, as hashes. Safe from many threads."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._lock = threading.Lock()

    def longest(self, model: str, prompt: str, ends: Iterable[int]) -> tuple[int, int]:
        """Return (tokens read from the cache, tokens now written to it).

        ``ends``: characters after which a beginning may be cut, ascending; those of fewer than
        ``CACHE_FROM`` tokens are left out.
        """
        digest, position, read, last = hashlib.sha256(model.encode()), 0, 0, 0
        with self._lock:
            for end in ends:
                digest.update(prompt[position:end].encode("utf-8", "replace"))
                position, tokens = end, end // CHARACTERS_A_TOKEN
                if tokens < CACHE_FROM:
                    continue
                key, last = digest.digest(), tokens
                if key in self._seen:
                    read = tokens
                self._seen.add(key)
        return read, last - read
