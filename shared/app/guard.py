"""What the page does not need of gradio's server is refused, and so is a request of any size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

MOST_BYTES = 200_000
"""Of a request: a description of 20,000 characters, whatever they are, and what gradio adds."""

CLOSED = (
    "upload", "upload_progress", "proxy=", "file", "stream", "run/", "api/", "call", "vibe-edit",
    "undo-vibe-edit", "process_recording", "component_server", "run-history", "runs", "deep_link",
    "info", "openapi.json",
)  # fmt: skip
"""Of gradio's addresses below ``/gradio_api/``: uploads, files, proxies, and calls by name."""

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


class Guard:
    """ASGI middleware: 404 for what is closed, 413 for a request that is too large."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].lstrip("/")
        below = path.removeprefix("gradio_api/")
        if below.startswith(CLOSED) or path.startswith("monitoring"):
            await _answer(send, 404, b"This page does not use that address.")
            return
        read = 0

        async def counted() -> dict[str, Any]:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MOST_BYTES:
                return {"type": "http.disconnect"}  # it stated no length, or a wrong one
            return message

        if _length(scope) > MOST_BYTES:
            await _answer(send, 413, b"Too much at once: shorten the text.")
            return
        await self.app(scope, counted, send)


def middleware(host: str) -> list[Any]:
    """Return what stands before gradio; on loopback, requests under another name are refused.

    A web site that gives its own name the address 127.0.0.1 (DNS rebinding) would else be served.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    found = [Middleware(Guard)]
    if host in LOOPBACK:
        found.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK)))
    return found


def _length(scope: dict) -> int:
    """Return the length that a request states, 0 if it states none that can be read."""
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


async def _answer(send: Callable, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
