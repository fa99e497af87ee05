"""The app: what the service answers under which address, and its description of itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from shared.serving import chat
from shared.serving.door import Door
from shared.serving.limits import Keys, Limits, Refusal
from shared.serving.logs import Log, to_stderr
from shared.serving.metrics import Metrics
from shared.serving.schemas import ErrorBody, PriceRequest, PriceResponse, problems, result
from shared.serving.service import Observe, Router, Service

PAGE = Path(__file__).with_name("docs.html")
DEEPEST = 50
"""Levels of lists and objects in one another; more is no record of a product."""

_ABOUT = """Estimates what products cost when they are new, in US dollars.

* `POST /v1/price`: records as a shop lists them in, prices with intervals out.
* `POST /v1/chat/completions` and `/v1/responses`: the same for clients of OpenAI's; ask about one
  product, between `<product>` and `</product>`.
* `GET /health`, `/ready`, `/metrics`: for whoever runs this.

Every refusal has a body `{"error": {"message", "type", "code"}}`. After 429 and 503 wait as long as
`retry-after` says, and send the same again: asking twice changes nothing."""

_REFUSALS = {
    401: "No key, or a wrong one", 408: "The body came too slowly", 413: "The body is too large",
    415: "The body is compressed", 422: "A field is wrong; the message names it",
    429: "Too many requests; wait", 500: "A mistake of the service's", 503: "Not ready; wait",
    504: "No answer in time",
}  # fmt: skip
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "model": ErrorBody} for status, words in _REFUSALS.items()
}


def create_app(
    pricer: Any, version: str = "", *, limits: Limits | None = None, keys: Keys | None = None,
    router: Router | None = None, observe: Observe | None = None, log: Log = to_stderr,
    log_texts: bool = False, wait_until_warm: bool = False,
    failed: Callable[[Exception], None] | None = None,
    started: Callable[[Service], None] | None = None,
) -> FastAPI:  # fmt: skip
    """Return the service as an ASGI app.

    ``pricer`` has ``name`` and ``price(products) -> Estimates``, or is a function without arguments
    that opens such a one; it is opened and used in one thread. ``router`` chooses pricer and
    version by request id instead, for a canary release. ``observe`` is called with the products and
    estimates of each request. ``log`` gets a dict for each request; ``log_texts`` puts titles into
    it. ``wait_until_warm``: take no connection before that, instead of answering /ready with 503.
    ``failed`` is told if the pricer cannot be opened, ``started`` gets the service when
    it starts.
    """
    limits, metrics = limits or Limits(), Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = Service(pricer, version, limits, router=router, observe=observe, metrics=metrics)
        app.state.service = service
        warming = asyncio.ensure_future(service.start())
        if started:
            started(service)
        if wait_until_warm:
            await warming
        else:
            warming.add_done_callback(lambda task: _tell(task, failed))
        yield
        warming.cancel()
        await service.close()

    app = FastAPI(
        title="What does it cost?", version="1", description=_ABOUT, lifespan=lifespan,
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.router.route_class = _Route
    app.state.log_texts = log_texts
    app.add_middleware(
        Door, limits=limits, keys=keys or Keys(), metrics=metrics, log=log,
        closing=lambda: app.state.service.closing,
    )  # fmt: skip
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _missing)
    _add_routes(app, metrics)
    chat.add_routes(app, REFUSALS)
    return app


def _tell(task: asyncio.Task, failed: Callable[[Exception], None] | None) -> None:
    if not task.cancelled() and task.exception() and failed:
        failed(task.exception())


def _add_routes(app: FastAPI, metrics: Metrics) -> None:
    @app.post("/v1/price", response_model=PriceResponse, responses=REFUSALS, tags=["prices"])
    async def price(asked: PriceRequest, request: Request) -> Response:
        """Price products.

        The answer has one result for each product, in the same order. A product that could not be
        priced has a null price and the reason; the others are not affected.
        """
        call, service = request.state.call, app.state.service
        if app.state.log_texts:
            call.texts = [record.title for record in asked.products]
        records = [record.model_dump() for record in asked.products]
        found = await service.price(records, call)
        results = [result(one.price, one.low, one.high, one.error, one.unit) for one in found]
        for one, said in zip(found, results, strict=True):
            said |= {"model": one.version} if one.version not in ("", call.version) else {}
        latency = round(call.seconds * 1000, 3)
        return as_json({"model": call.version, "results": results, "latency_ms": latency})

    @app.get("/health", responses={503: REFUSALS[503]}, tags=["operation"])
    async def health() -> Response:
        """Tell whether this process works. If not, restart it."""
        if app.state.service.healthy:
            return as_json({"status": "ok"})
        raise Refusal(503, "unhealthy", "the model of this service does not work: restart it")

    @app.get("/ready", responses={503: REFUSALS[503]}, tags=["operation"])
    async def ready() -> Response:
        """Tell whether requests are welcome: not before the model is warm, nor while it stops."""
        if app.state.service.ready:
            return as_json({"status": "ready", "model": app.state.service.current})
        why = "is shutting down" if app.state.service.closing else "is not ready yet"
        raise Refusal(503, "not_ready", f"this service {why}", retry_after=1)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        """Return a page that describes all this and tries it out; it needs no other server."""
        return Response(PAGE.read_bytes(), media_type="text/html; charset=utf-8")

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={401: REFUSALS[401], 429: REFUSALS[429]},
        tags=["operation"],
    )
    async def measured() -> Response:
        """Return the metrics of all workers, for Prometheus."""
        metrics.depth.set(app.state.service.batcher.depth)
        found = await asyncio.to_thread(metrics.text)
        return Response(found, media_type="text/plain; version=0.0.4; charset=utf-8")


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response; NaN would become null, and does not occur."""
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


class _Request(Request):
    async def json(self) -> Any:
        """Read JSON strictly: no NaN, no half characters, nothing endlessly nested."""
        if not hasattr(self, "_json"):
            value = orjson.loads(await self.body())
            if _deeper(value, DEEPEST):  # FastAPI knows what to do with errors of this kind only
                raise json.JSONDecodeError(f"nested more than {DEEPEST} deep", "", 0)
            self._json = value
        return self._json


class _Route(APIRoute):
    def get_route_handler(self) -> Callable:
        """Give the route our own way of reading JSON."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_Request(request.scope, request.receive))

        return handle


def _deeper(value: Any, levels: int) -> bool:
    """Tell whether lists and objects lie in one another more than ``levels`` deep."""
    found = [[value]]
    for _ in range(levels + 1):
        inner = [v.values() if isinstance(v, dict) else v for v in found]
        found = [v for values in inner for v in values if isinstance(v, dict | list)]
        if not found:
            return False
    return True


async def _refused(request: Request, refusal: Exception) -> Response:
    request.state.call.reason = refusal.code
    return as_json(refusal.body(), refusal.status, refusal.headers())


async def _invalid(request: Request, error: Exception) -> Response:
    found = problems(error.errors())
    words = "; ".join(f"{one['field']} {one['problem']}" for one in found)
    if found and found[0]["field"] == "body":
        words += "; send a JSON object with the header content-type: application/json"
    return await _refused(request, Refusal(422, "invalid_request", words, fields=found))


async def _missing(request: Request, error: Exception) -> Response:
    words = f"{request.method} {request.url.path[:100]}: {error.detail}; /docs lists what there is"
    code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "refused")
    response = as_json(Refusal(error.status_code, code, words).body(), error.status_code)
    response.headers.update(error.headers or {})
    return response
