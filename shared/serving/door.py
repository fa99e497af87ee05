"""The door: what happens to every request before and after the app sees it.

Names it, looks at its key and its rate, reads its body within limits, gives up after a while, and
writes its line to the log. Written for ASGI itself: nothing may happen before it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orjson

from shared.serving.limits import Buckets, Keys, Limits, Refusal
from shared.serving.logs import Call, Log, request_id
from shared.serving.metrics import Metrics

OPEN = ("/health", "/ready", "/docs", "/openapi.json")
"""Paths that need no key."""
PATHS = ("/v1/price", "/v1/chat/completions", "/v1/responses", "/v1/models", "/metrics", *OPEN)
"""Paths with a metric of their own."""
PROBED = ("/health", "/ready", "/metrics")
"""Paths that are asked every few seconds for ever: counted, but not logged."""
LINGER = 2.0
"""Seconds for which the rest of a refused body is read and dropped: who hangs up over unread bytes
takes the answer along."""
GONE = 499
"""Status in log and metrics of a client that hung up; nobody receives it."""


class Door:
    """ASGI middleware around the service's app."""

    def __init__(
        self, app: Any, *, limits: Limits, keys: Keys, metrics: Metrics, log: Log,
        closing: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.app, self.limits, self.keys = app, limits, keys
        self.metrics, self.log, self.closing = metrics, log, closing
        self.buckets = Buckets(limits.rate, max(limits.rate, 1.0)) if limits.rate else None

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        name = request_id(headers.get(b"x-request-id"))
        call = Call(name, scope["method"], scope["path"][:200])
        scope.setdefault("state", {})["call"] = call
        answer = _Answer(send, call, self.closing)
        try:
            await self._answer(scope, headers, receive, answer, call)
        except Exception as error:
            call.reason = type(error).__name__
            if not answer.status:
                words = f"something went wrong here; the log knows more of request {call.id}"
                await answer.refuse(Refusal(500, "internal", words))
        finally:
            self._note(call, answer.status or GONE)

    async def _answer(
        self, scope: dict, headers: dict, receive: Callable, answer: _Answer, call: Call
    ) -> None:
        unread = True
        try:
            self._let_in(scope, headers, call)
            body = await self._body(headers, receive)
            unread = False
            await self._within_time(scope, _Replay(body, receive), answer)
        except Refusal as refusal:
            call.reason = refusal.code
            await answer.refuse(refusal, receive if unread else None)
        except _Gone:
            return

    def _let_in(self, scope: dict, headers: dict, call: Call) -> None:
        client = scope.get("client") or ("", 0)
        call.caller = str(client[0])
        if scope["path"] in OPEN:
            return
        if self.keys:
            who = self.keys.name_of(headers.get(b"authorization", b""))
            if who is None:
                words = "send one of this service's keys: Authorization: Bearer KEY"
                raise Refusal(401, "invalid_api_key", words)
            call.caller = who
        if self.buckets and (wait := self.buckets.wait(call.caller)):
            who = "key" if self.keys else "address"
            words = f"more than {self.limits.rate:g} products a second for this {who}"
            raise Refusal(429, "rate_limit", words, retry_after=wait)

    async def _body(self, headers: dict, receive: Callable) -> bytes:
        most = self.limits.body_bytes
        too_large = Refusal(413, "too_large", f"a body may have at most {most:,} bytes")
        coding = headers.get(b"content-encoding", b"identity").strip().lower()
        if coding not in (b"", b"identity"):
            # A few kilobytes may unpack to gigabytes: nothing here needs that.
            raise Refusal(415, "encoded", "send the body as it is, without content-encoding")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 15 or int(length) > most:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    size += len(part := message.get("body", b""))
                    if size > most:
                        raise too_large
                    parts.append(part)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            words = f"the body did not arrive within {self.limits.body_seconds:g} s"
            raise Refusal(408, "slow_body", words) from None

    async def _within_time(self, scope: dict, receive: _Replay, answer: _Answer) -> None:
        """Run the app until it is done, time is over, or the client has hung up."""
        work = asyncio.ensure_future(self.app(scope, receive, answer))
        gone = asyncio.ensure_future(receive.gone())
        try:
            await asyncio.wait(
                {work, gone}, timeout=self.limits.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if work.done():
                return work.result()
            work.cancel()
            await asyncio.wait({work}, timeout=1)
            if gone.done():
                raise _Gone
            if not answer.status:
                words = f"no answer within {self.limits.timeout:g} s"
                raise Refusal(504, "timeout", words, retry_after=1)
        finally:
            for task in (work, gone):
                task.cancel()

    def _note(self, call: Call, status: int) -> None:
        if self.buckets and call.n > 1:
            self.buckets.charge(call.caller, call.n - 1)
        path = call.path if call.path in PATHS else "other"
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(call.seconds)
        if path not in PROBED:
            self.log(call.line(status))


class _Gone(Exception):
    """The client has hung up: there is nobody to answer."""


class _Replay:
    """Hands the app a body that was read already; then waits for the client to hang up."""

    def __init__(self, body: bytes, receive: Callable) -> None:
        self._body: bytes | None = body
        self._receive = receive
        self._over = asyncio.Event()

    async def __call__(self) -> dict:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def gone(self) -> None:
        """Return when the client has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._over.set()


class _Answer:
    """Passes an answer on, with the request's id in its headers; ``status``: 0 until it begins."""

    def __init__(self, send: Callable, call: Call, closing: Callable[[], bool]) -> None:
        self._send, self._call, self._closing = send, call, closing
        self.status = 0

    async def __call__(self, message: dict) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            extra = [(b"x-request-id", self._call.id.encode())]
            if self._closing():  # the next request of this client goes to somebody who stays
                extra.append((b"connection", b"close"))
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await self._send(message)

    async def refuse(self, refusal: Refusal, unread: Callable | None = None) -> None:
        """Send a refusal; ``unread`` is where the rest of the body would come from."""
        body = orjson.dumps(refusal.body())
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        headers |= refusal.headers() | ({"connection": "close"} if unread else {})
        listed = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": refusal.status, "headers": listed})
        await self({"type": "http.response.body", "body": body, "more_body": bool(unread)})
        if unread:
            await _drop(unread)
            await self({"type": "http.response.body", "body": b""})


async def _drop(receive: Callable) -> None:
    """Read what is still to come, for a while, and forget it."""
    end = time.monotonic() + LINGER
    try:
        while (left := end - time.monotonic()) > 0:
            message = await asyncio.wait_for(receive(), left)
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                return
    except TimeoutError:
        return
