"""Which address does what: paths of both APIs, and how each says what went wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shared.mind.answering import answer
from shared.mind.conversation import Ask, Reply, count_tokens
from shared.standin import anthropic_api, openai_stream
from shared.standin.batches import AnthropicBatches, Files, OpenAIBatches, page
from shared.standin.bodies import read_object
from shared.standin.faults import Fault, Faults
from shared.standin.jobs import Jobs
from shared.standin.openai_api import Generation, prompt_of
from shared.standin.wire import MISSHAPEN, BadRequest, misshapen, new_id, shape

GENERATION = ("/v1/responses", "/v1/chat/completions", "/v1/messages")
METHODS = ("GET", "POST", "DELETE")

_OPENAI_TYPES = {401: "invalid_request_error", 429: "requests", 500: "server_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Request:
    """What arrived: ``vendor`` is openai or anthropic, ``form`` the content type."""

    vendor: str
    method: str
    path: str
    query: dict[str, str]
    data: bytes
    form: str = ""
    address: str = ""

    @property
    def body(self) -> dict:
        """The JSON object that was sent; raises BadRequest if it is none."""
        return read_object(self.data or b"{}")


@dataclass(frozen=True)
class Answer:
    """What goes back: a body (an object, or bytes as they are), or the events of a stream."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, Any]] | None = None


def refusal(vendor: str, error: BadRequest, retry_after: float | None = None) -> Answer:
    """Return an error in a vendor's own shape, with the headers that go with its status."""
    status, code, headers = error.status, error.code, {}
    if vendor == "anthropic":
        status = {"overloaded": 529, "insufficient_quota": 402}.get(code or "", status)
        kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error")
        body = {"type": "error", "error": {"type": kind, "message": error.message}}
        body["request_id"] = new_id("req")
    else:
        kind = "insufficient_quota" if code == "insufficient_quota" else ""
        kind = kind or _OPENAI_TYPES.get(status, "invalid_request_error")
        code = "rate_limit_exceeded" if code == "rate_limit" else code
        shown = {"message": error.message, "type": kind, "param": error.param, "code": code}
        body = {"error": shown}
    if retry_after is not None and error.code in ("rate_limit", "overloaded"):
        headers["retry-after"] = f"{retry_after:g}"
        if vendor == "openai":
            headers["retry-after-ms"] = f"{retry_after * 1000:g}"
            limits = {"limit": "500", "remaining": "0", "reset": f"{retry_after:g}s"}
            headers |= {f"x-ratelimit-{name}-requests": value for name, value in limits.items()}
    return Answer(body, status, headers)


class Desk(Faults):
    """Answers requests of both vendors: all that the server knows, and no sockets."""

    gullible = False

    def __init__(self, seed: int, speed: float) -> None:
        super().__init__(seed)
        self.seed, self.batch_expires = seed, False
        self.files, self.messages = Files(), anthropic_api.Messages()
        self.jobs = Jobs(self.files, speed, seed)
        self.generation = Generation(lambda model: self.jobs.tuned(model) is not None)
        clock = (speed, seed, lambda: self.batch_expires)
        self.batches = OpenAIBatches(self._line("openai"), *clock)
        self.message_batches = AnthropicBatches(self._line("anthropic"), *clock)
        self._lock = threading.RLock()  # polls of one batch by two threads must not run it twice
        self._routes = [(re.compile(pattern), does) for pattern, does in self._table()]

    def generate(self, request: Request, fault: Fault | None) -> Answer:
        """Answer a generation request; raise BadRequest for what the vendor refuses."""
        if fault is not None:
            fault.check()
        body = request.body
        made = self._made(request.path, body, fault)
        if not body.get("stream"):
            return Answer(made)
        if request.vendor == "anthropic":
            return Answer(events=list(anthropic_api.events(made)))
        return Answer(events=list(openai_stream.events(request.path, body, made)))

    def _made(self, path: str, body: dict, fault: Fault | None) -> dict:
        def think(ask: Ask) -> Reply:
            reply = answer(ask, self.seed, self.jobs.tuned(ask.model), self.gullible)
            return fault.spoil(reply) if fault else reply

        if path == "/v1/messages":
            return self.messages.generate(body, think)
        return self.generation.generate(path, body, think)

    def _line(self, vendor: str) -> Callable[[str, dict, bytes], tuple[int, dict]]:
        def run(path: str, body: dict, line: bytes) -> tuple[int, dict]:
            fault = self.draw_fault(line)
            try:
                if fault is not None:
                    broken = fault.kind in ("cut", "drop", "bad_json")
                    (Fault("server_error") if broken else fault).check()
                return 200, self._made(path, body, fault)
            except (BadRequest, *MISSHAPEN) as error:
                wrong = error if isinstance(error, BadRequest) else misshapen(error)
                refused = refusal(vendor, wrong)
                return refused.status, refused.body

        return run

    def manage(self, request: Request) -> Answer:
        """Answer any other request; raise BadRequest if address (404) or method (405) is wrong."""
        found = self._route(request, request.method)
        if found is not None:
            match, does = found
            with self._lock:
                made = does(request, *match.groups())
            return made if isinstance(made, Answer) else Answer(made)
        if request.path in GENERATION or any(self._route(request, other) for other in METHODS):
            message = f"Not allowed to {request.method} on {request.path}."
            raise BadRequest(message, status=405, code="method_not_supported")
        raise BadRequest(f"Invalid URL ({request.method} {request.path})", status=404)

    def _route(self, request: Request, method: str) -> tuple[re.Match, Callable] | None:
        line = f"{request.vendor} {method} {request.path}"
        found = ((pattern.fullmatch(line), does) for pattern, does in self._routes)
        return next(((match, does) for match, does in found if match), None)

    def _table(self) -> list[tuple[str, Callable]]:
        files, batches, jobs, messages = self.files, self.batches, self.jobs, self.message_batches

        def listed(held: Any, view: Callable, **how: Any) -> Callable:
            newest = lambda: [view(row) for row in reversed(held.values())]  # noqa: E731
            return lambda r: page(newest(), r.query, **how)

        one, after = "/([^/]+)", {"cursor": "after_id"}
        files_at, batches_at, jobs_at = "/v1/files", "/v1/batches", "/v1/fine_tuning/jobs"
        theirs = "/v1/messages/batches"
        responses = self.generation
        openai = {
            "POST /v1/responses/input_tokens": self._count,
            f"GET /v1/responses{one}": lambda r, n: responses.stored(n),
            f"DELETE /v1/responses{one}": lambda r, n: responses.delete(n),
            "GET /v1/models": lambda r: page(self._models(), r.query, limit=1000),
            "GET /v1/models/(.+)": lambda r, n: responses.model(n),
            "DELETE /v1/models/(.+)": lambda r, n: jobs.delete_model(n),
            f"POST {files_at}": lambda r: files.upload(r.form, r.data),
            f"GET {files_at}": listed(files.held, lambda row: row[0], limit=10_000),
            f"GET {files_at}{one}": lambda r, n: files.get(n)[0],
            f"GET {files_at}{one}/content": lambda r, n: Answer(files.get(n)[1]),
            f"DELETE {files_at}{one}": lambda r, n: files.delete(n),
            f"POST {batches_at}": lambda r: batches.create(r.body, files),
            f"GET {batches_at}": listed(batches.held, lambda b: batches.view(b, files)),
            f"GET {batches_at}{one}": lambda r, n: batches.view(batches.get(n), files),
            f"POST {batches_at}{one}/cancel": lambda r, n: batches.view(batches.cancel(n), files),
            f"POST {jobs_at}": lambda r: jobs.create(r.body),
            f"GET {jobs_at}": listed(jobs.held, jobs.view),
            f"GET {jobs_at}{one}": lambda r, n: jobs.view(jobs.get(n)),
            f"POST {jobs_at}{one}/cancel": lambda r, n: jobs.cancel(n),
            f"GET {jobs_at}{one}/events": lambda r, n: jobs.events(n, r.query),
            f"GET {jobs_at}{one}/checkpoints": lambda r, n: jobs.checkpoints(n, r.query),
        }
        claudes = [shape("claude", **model) for model in shape("claudes")]
        anthropic = {
            "POST /v1/messages/count_tokens": lambda r: self.messages.count(r.body),
            "GET /v1/models": lambda r: page(claudes, r.query, **after),
            "GET /v1/models/(.+)": lambda r, n: self.messages.model(n),
            f"POST {theirs}": lambda r: messages.create(r.body, r.address),
            f"GET {theirs}": listed(messages.held, messages.view, **after),
            f"GET {theirs}{one}": lambda r, n: messages.view(messages.get(n)),
            f"DELETE {theirs}{one}": lambda r, n: messages.delete(n),
            f"GET {theirs}{one}/results": lambda r, n: Answer(messages.results(n).encode()),
            f"POST {theirs}{one}/cancel": lambda r, n: messages.view(messages.cancel(n)),
        }
        tables = {"openai": openai, "anthropic": anthropic}
        return [
            (f"{vendor} {line}", does) for vendor in tables for line, does in tables[vendor].items()
        ]

    def _count(self, request: Request) -> dict:
        ask = self.generation.ask("/v1/responses", request.body)
        return {"object": "response.input_tokens", "input_tokens": count_tokens(prompt_of(ask))}

    def _models(self) -> list[dict]:
        tuned = [{"id": job.model} for job in self.jobs.models()]
        return [shape("model", **model) for model in shape("models") + tuned]
