"""One call through the vendor's own SDK: its retries, its time limits, our plain reply."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from shared.frontier import anthropic_wire, openai_wire
from shared.frontier.messages import Reply, Request
from shared.frontier.secrets import Secret, redact, without_keys

RETRIES = 6
"""How often an SDK tries again after 408, 409, 429, 5xx and lost connections; it waits as long as
the server's ``retry-after`` says, else twice as long each time."""

TIMEOUT = 60.0
"""Seconds until an attempt counts as lost."""


_UNPAID = re.compile(r"\b(?:insufficient_quota|current quota|credit balance|billing)\b")


class CallError(RuntimeError):
    """A call that gave no answer. ``final``: no other call can succeed either (key, quota)."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(redact(reason)[:300])
        self.final = final


class Client(Protocol):
    """Whoever answers requests. ``sdk`` is the vendor's own client, for what is not here."""

    sdk: Any

    def ask(self, request: Request) -> Reply:
        """Return the answer, or raise CallError with the reason why there is none."""
        ...


class OpenAIClient:
    """The Responses protocol, or with ``chat`` Chat Completions, which other servers speak too."""

    def __init__(
        self, key: Secret, base_url: str | None = None, *, chat: bool = False,
        retries: int = RETRIES, timeout: float = TIMEOUT,
    ) -> None:  # fmt: skip
        from openai import OpenAI

        self.sdk = OpenAI(
            api_key=key.reveal(), base_url=base_url, max_retries=retries, timeout=timeout
        )
        self.chat = chat
        self._body, self._read = openai_wire.responses_body, openai_wire.responses_reply
        self._create = self.sdk.responses.create
        if chat:
            self._body, self._read = openai_wire.chat_body, openai_wire.chat_reply
            self._create = self.sdk.chat.completions.create

    def ask(self, request: Request) -> Reply:
        """Return the answer, or raise CallError."""
        return _asked(self._create, self._body(request), self._read)


class AnthropicClient:
    """The Messages protocol."""

    def __init__(
        self, key: Secret, base_url: str | None = None, *, retries: int = RETRIES,
        timeout: float = TIMEOUT,
    ) -> None:  # fmt: skip
        from anthropic import Anthropic

        self.sdk = Anthropic(
            api_key=key.reveal(), base_url=base_url, max_retries=retries, timeout=timeout
        )

    def ask(self, request: Request) -> Reply:
        """Return the answer, or raise CallError."""
        body = anthropic_wire.messages_body(request)
        return _asked(self.sdk.messages.create, body, anthropic_wire.messages_reply)


def _asked(create: Callable[..., Any], body: dict, read: Callable[[dict], Reply]) -> Reply:
    start = time.perf_counter()
    try:
        answer = create(**body)
    except Exception as error:  # two SDKs, each with a family of its own
        raise explained(error) from None  # the original may hold the request, headers and all
    try:
        reply = read(answer.to_dict())
    except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
        raise CallError(f"the server's answer has not the shape agreed on ({error!r})") from None
    return replace(reply, text=without_keys(reply.text), seconds=time.perf_counter() - start)


def explained(error: Exception) -> CallError:
    """Return why a call failed, in a line, from what an SDK raised."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else {}
    inner = inner if isinstance(inner, dict) else {}
    message = inner.get("message") or str(error) or type(error).__name__
    if status is None:
        return CallError(f"no answer ({type(error).__name__}: {message})")
    code = inner.get("code") or inner.get("type") or ""
    final = status in (401, 403, 404) or bool(_UNPAID.search(f"{code} {message}"))
    return CallError(f"HTTP {status} {code}: {message}", final)
