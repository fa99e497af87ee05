"""One call through the vendor's own SDK: its retries, its time limits, our plain reply."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from shared.frontier import anthropic_wire, openai_wire
from shared.frontier.messages import Call, Reply, Request, Usage
from shared.frontier.secrets import Secret, redact, without_keys
from shared.standin import is_local

RETRIES = 6
"""How often an SDK tries again after 408, 409, 429, 5xx and lost connections; it waits as long as
the server's ``retry-after`` says, else twice as long each time."""

TIMEOUT = 60.0
"""Seconds until an attempt counts as lost."""


LONGEST = 20_000
"""Characters of an answer that are kept; no answer of this course needs more."""

_UNPAID = re.compile(
    r"\b(?:insufficient_quota|billing_error|exceeded your current quota|"
    r"credit balance is too low)\b"
)
_FORBIDDEN = re.compile(r"(?i)permission|authentication|api key|organi[sz]ation|project")


class CallError(RuntimeError):
    """A call that gave no answer. ``final``: no other call can succeed either (key, quota).

    ``paid``: the vendor may have made an answer, and billed it, that did not arrive.
    """

    def __init__(self, reason: str, final: bool = False, paid: bool = False) -> None:
        super().__init__(redact(reason)[:300])
        self.final, self.paid = final, paid


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
        from openai import DefaultHttpxClient, OpenAI

        self.sdk = OpenAI(
            api_key=key.reveal(), base_url=base_url, max_retries=retries, timeout=timeout,
            http_client=_direct(base_url, DefaultHttpxClient),
        )  # fmt: skip
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
        from anthropic import Anthropic, DefaultHttpxClient

        self.sdk = Anthropic(
            api_key=key.reveal(), base_url=base_url, max_retries=retries, timeout=timeout,
            http_client=_direct(base_url, DefaultHttpxClient),
        )  # fmt: skip

    def ask(self, request: Request) -> Reply:
        """Return the answer, or raise CallError."""
        body = anthropic_wire.messages_body(request)
        return _asked(self.sdk.messages.create, body, anthropic_wire.messages_reply)


def _direct(base_url: str | None, client: Callable[..., Any]) -> Any:
    """Return a client that goes round a proxy of the environment, for a server on this machine."""
    if not is_local(base_url):
        return None
    # One SDK reads the environment itself, and heeds only what is said of this very host.
    return client(trust_env=False, mounts={f"all://{urlsplit(base_url or '').hostname}": None})


def _asked(create: Callable[..., Any], body: dict, read: Callable[[dict], Reply]) -> Reply:
    start = time.perf_counter()
    try:
        answer = create(**body)
    except Exception as error:  # two SDKs, each with a family of its own
        raise explained(error) from None  # the original may hold the request, headers and all
    try:
        value = answer.to_dict()
        if isinstance(value.get("error"), dict) and value["error"]:
            raise ValueError(value["error"].get("message") or "an error without a message")
        reply = cleaned(read(value))
    except (AttributeError, LookupError, TypeError, ArithmeticError, ValueError) as error:
        why = f"the server's answer cannot be used ({type(error).__name__}: {error})"
        raise CallError(why, paid=True) from None
    return replace(reply, seconds=time.perf_counter() - start)


def cleaned(reply: Reply) -> Reply:
    """Return a reply as it can be kept: no keys, no half characters, no end of text or arguments.

    Token counts that cannot be are put right: none below 0, no more cached than there are.
    """
    calls = tuple(Call(*map(_clean, (c.id, c.name, c.arguments))) for c in reply.calls)
    text, stop = _clean(reply.text), reply.stop
    if len(text) > LONGEST or any(len(call.arguments) > LONGEST for call in calls):
        text, stop, calls = text[:LONGEST], "length", ()
    counts = {name: max(int(count or 0), 0) for name, count in vars(reply.usage).items()}
    counts["cached"] = min(counts["cached"], counts["input"])
    model = _clean(reply.model or "")[:200]
    return replace(reply, text=text, stop=stop, calls=calls, usage=Usage(**counts), model=model)


def _clean(text: str) -> str:
    return without_keys(text.encode("utf-8", "replace").decode())


def explained(error: Exception) -> CallError:
    """Return why a call failed, in a line, from what an SDK raised."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else {}
    inner = inner if isinstance(inner, dict) else {}
    message = inner.get("message") or str(error) or type(error).__name__
    if status is None:
        url = str(getattr(getattr(error, "request", None), "url", ""))
        where = f" from {url}; is a server there?" if url else ""
        sent = "Connect" not in type(error.__cause__).__name__
        return CallError(f"no answer{where} ({type(error).__name__}: {message})", paid=sent)
    code = inner.get("code") or inner.get("type") or ""
    said = f"{code} {message}"
    final = status in (401, 402, 404) or bool(_UNPAID.search(said))
    final = final or (status == 403 and bool(_FORBIDDEN.search(said)))
    return CallError(f"HTTP {status} {code}: {message}", final, paid=status == 200)
