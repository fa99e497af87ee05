"""The stand-in as a server: sockets, threads, keys, and faults that break a connection."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from shared.standin.bodies import read_body
from shared.standin.faults import Fault
from shared.standin.probe import SIGNATURE
from shared.standin.routes import GENERATION, Answer, Desk, Request, refusal
from shared.standin.wire import MISSHAPEN, BadRequest, misshapen, new_id

NO_JSON = b"<html><body>502 Bad Gateway</body></html>"

PATIENCE = 1.0
"""Seconds for which a refused client may pause sending before it is hung up on."""


class StandIn(Desk):
    """A server on loopback that speaks the protocols of OpenAI and Anthropic, for a ``with``.

    ``latency``: seconds before each generation answer; ``speed``: batches and jobs take a second
    divided by it. ``port`` 0 takes a free one. The same seed gives the same answers and faults.
    ``gullible``: as a planner it obeys orders that it finds in the results of tools.
    ``faults`` is what the next generation requests meet, in order, and used up; ``fault_rate``
    (kind -> share) holds for all others, and for lines of batches; ``batch_expires``: batches
    made from now on expire when half of them is done. ``calls`` lists the generation requests
    (path, model, body, time, fault), and ``most_at_once`` counts how many were in progress
    together; lines of batches are not among them.
    """

    def __init__(
        self, latency: float = 0.0, seed: int = 42, speed: float = 1.0, port: int = 0,
        gullible: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(seed, speed)
        self.latency, self._port, self.gullible = latency, port, gullible
        self.calls: list[dict] = []
        self.most_at_once = self._at_once = 0
        self.stopping = threading.Event()
        self._counting, self._server = threading.Lock(), None

    @property
    def url(self) -> str:
        """The address, without a slash at its end; OpenAI's begins at ``/v1`` below it."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> StandIn:
        """Listen, in threads of its own."""
        self.stopping.clear()
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.stand_in = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="stand-in", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop: the port is closed and every thread gone when this returns."""
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.hang_up()

    def answer(self, request: Request, allowed: bool) -> tuple[Answer, Fault | None]:
        """Answer a request, and say which fault the connection is to show."""
        fault = None
        try:
            if not allowed:
                message = "Incorrect API key provided: it is empty."
                raise BadRequest(message, status=401, code="invalid_api_key")
            if request.method != "POST" or request.path not in GENERATION:
                return self.manage(request), None
            fault = self.next_fault(request.data)
            return self._generated(request, fault), fault
        except BadRequest as error:
            return refusal(request.vendor, error, fault.retry_after if fault else None), fault
        except MISSHAPEN as error:
            return refusal(request.vendor, misshapen(error)), None
        except Exception as error:  # of our own making: it must not look like a lost connection
            wrong = BadRequest(f"the stand-in failed: {error!r}", status=500, code="server_error")
            return refusal(request.vendor, wrong), fault

    def _generated(self, request: Request, fault: Fault | None) -> Answer:
        with self._counting:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            body = request.body
            kind = fault.kind if fault else None
            call = {"path": request.path, "model": body.get("model"), "body": body}
            self.calls.append({**call, "time": time.time(), "fault": kind})
            slow = fault.seconds if kind == "slow" else 0.0
            self.stopping.wait(self.latency + slow)
            return self.generate(request, fault)
        finally:
            with self._counting:
                self._at_once -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    stand_in: StandIn

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: dict[threading.Thread, socket.socket] = {}

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        """Start a thread that is remembered: connections kept alive would outlive the server."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._open[thread] = request
        thread.start()

    def shutdown_request(self, request: socket.socket) -> None:
        super().shutdown_request(request)
        self._open.pop(threading.current_thread(), None)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client that hangs up is no error of ours."""

    def hang_up(self) -> None:
        for thread, connection in list(self._open.items()):
            with suppress(OSError):  # it was just closed
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version, server_version = "HTTP/1.1", SIGNATURE
    disable_nagle_algorithm = True  # or a small answer waits for the client's acknowledgement
    wbufsize = 1 << 16
    server: _Server
    path, headers = "", ()  # until a request could be read that far

    def _serve(self) -> None:
        try:
            request = self._request()
        except BadRequest as error:
            self._refuse(error)
            return
        key = self.headers.get("x-api-key") or self.headers.get("Authorization", "")
        allowed = bool(key.removeprefix("Bearer").strip())
        answer, fault = self.server.stand_in.answer(request, allowed)
        if fault is not None and fault.kind == "drop":
            self.close_connection = True
        elif fault is not None and fault.kind in ("cut", "bad_json"):
            self._broken(answer, fault)
        elif answer.events is not None:
            self._stream(answer)
        else:
            self._whole(answer)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_HEAD = do_OPTIONS = _serve

    def _request(self) -> Request:
        try:
            asked = urlsplit(self.path)
        except ValueError as error:
            raise BadRequest(f"Invalid URL: {error}.") from error
        path = unquote(asked.path)
        return Request(
            self._vendor(path),
            self.command,
            path,
            dict(parse_qsl(asked.query)),
            read_body(self.headers, self.rfile),
            self.headers.get("Content-Type", ""),
            self.server.stand_in.url,
        )

    def _vendor(self, path: str) -> str:
        theirs = "anthropic-version" in self.headers or "x-api-key" in self.headers
        return "anthropic" if theirs or path.startswith("/v1/messages") else "openai"

    def _refuse(self, error: BadRequest) -> None:
        """Answer a request whose end nobody knows, and hang up: what follows may be its rest."""
        answer = refusal(self._vendor(self.path), error)
        answer.headers["Connection"] = "close"
        self._whole(answer)
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            # To close over what was not read would reset the connection, and lose the answer.
            self.connection.settimeout(PATIENCE)
            end = time.monotonic() + 5 * PATIENCE
            while self.rfile.read1(1 << 16) and time.monotonic() < end:
                pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request in the vendor's words; the base class would send a page."""
        self.request_version = self.protocol_version  # or a broken first line gets no status
        status = 405 if code == 501 else int(code)
        self._refuse(BadRequest(message or "Bad request.", status=status))

    def handle_expect_100(self) -> bool:
        """Say at once that the body may come: a client waits for it."""
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def _head(self, answer: Answer, kind: str, **headers: str) -> None:
        self.send_response(answer.status)
        name = new_id("req")
        given = {"Content-Type": kind, "x-request-id": name, "request-id": name, **answer.headers}
        for name, value in (given | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def _whole(self, answer: Answer) -> None:
        raw = isinstance(answer.body, bytes)
        body = answer.body if raw else json.dumps(answer.body).encode()
        kind = "application/octet-stream" if raw else "application/json"
        self._head(answer, kind, **{"Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self, answer: Answer) -> None:
        self._head(answer, "text/event-stream", **{"Transfer-Encoding": "chunked"})
        for event in _written(answer):
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _broken(self, answer: Answer, fault: Fault) -> None:
        """Send what is no JSON, or half of what was promised."""
        if fault.kind == "bad_json":
            self._whole(Answer(NO_JSON) if answer.status == 200 else answer)
            return
        streamed = answer.events is not None
        body = b"".join(_written(answer)) if streamed else json.dumps(answer.body).encode()
        kind = "text/event-stream" if streamed else "application/json"
        self._head(answer, kind, **{"Content-Length": str(len(body))})
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Write no log: it would mix with what a notebook shows."""


def _written(answer: Answer) -> list[bytes]:
    """Return the events of a stream as they travel."""
    written = []
    for name, data in answer.events or ():
        said = data if isinstance(data, str) else json.dumps(data)
        written.append((f"event: {name}\n" * bool(name) + f"data: {said}\n\n").encode())
    return written


def serve(port: int = 8808) -> None:
    """Serve until interrupted; prints the address first (port 0 takes a free one)."""
    with StandIn(port=port) as server:
        print(server.url, flush=True)
        try:
            server.stopping.wait()
        except KeyboardInterrupt:
            return
