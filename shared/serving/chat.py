"""The same prices for clients of OpenAI's: Chat Completions, Responses, and the list of models.

A program that asks a hosted model what a product costs asks this service instead by changing one
line, its ``base_url``. The product is what stands between ``<product>`` and ``</product>`` in the
last message that has one (``shared.prompts.question``), else the last message. A chat carries no
category, so a model that reads one may answer a little differently than over /v1/price. Token
counts are estimates, four characters each: the model behind this need not read tokens.

The answer fits the schema that was asked for, from ``price``, ``low`` and ``high``; the bounds are
null where the model gives none. What could not be priced is refused, with the reason.
"""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from shared.mind.conversation import count_tokens
from shared.prompts import QUESTION, answer
from shared.serving.limits import Refusal
from shared.serving.schemas import LONGEST_TEXT, result
from shared.serving.service import Priced

_PRODUCT = re.compile(r"<product>\n?(.*?)\n?</product>", re.DOTALL)
_FILLED = ("price", "low", "high", "currency")
"""Properties of a schema that can be filled."""

_ASKED = f"{QUESTION}\n\n<product>\nElectric kettle, 1.7 litres, stainless steel\n</product>"
_OPEN = ConfigDict(extra="ignore")


class Part(BaseModel):
    """A part of a message; text is all that is read."""

    model_config = _OPEN
    type: Annotated[str, Field(max_length=50)] = "text"
    text: Annotated[str, Field(max_length=LONGEST_TEXT)] | None = None


class Message(BaseModel):
    """One message of a conversation."""

    model_config = _OPEN
    role: Annotated[str, Field(max_length=50)] = "user"
    content: (
        Annotated[str, Field(max_length=LONGEST_TEXT)]
        | Annotated[list[Part], Field(max_length=100)]
        | None
    ) = None

    def said(self) -> str:
        """Return the text of the message."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.text)
        return self.content or ""


Messages = Annotated[list[Message], Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(max_length=200, min_length=1)]


class StreamOptions(BaseModel):
    """What comes with a stream."""

    model_config = _OPEN
    include_usage: StrictBool | None = None


class ChatRequest(BaseModel):
    """A request in the protocol of OpenAI's Chat Completions; any ``model`` name is taken.

    Settings of how a model draws its words are ignored: there is one answer.
    """

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [
        {"model": "prices", "messages": [{"role": "user", "content": _ASKED}]}]})  # fmt: skip

    model: Name
    messages: Messages
    response_format: dict[str, Any] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    n: StrictInt | None = None
    tool_choice: str | dict[str, Any] | None = None


class ResponsesRequest(BaseModel):
    """A request in the protocol of OpenAI's Responses."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [
        {"model": "prices", "input": _ASKED}]})  # fmt: skip

    model: Name
    input: Annotated[str, Field(max_length=LONGEST_TEXT)] | Messages
    text: dict[str, Any] | None = None
    stream: StrictBool | None = None
    tool_choice: str | dict[str, Any] | None = None


def add_routes(app: FastAPI, refusals: dict[int | str, dict[str, Any]]) -> None:
    """Add the endpoints to the app of the service."""

    async def priced(texts: Sequence[str], request: Request) -> tuple[Priced, str]:
        text = product_in(texts)
        title, _, rest = text.partition("\n")
        call = request.state.call
        if app.state.log_texts:
            call.texts = [title]
        found = await app.state.service.price([{"title": title, "description": [rest]}], call)
        return found[0], call.version

    @app.post("/v1/chat/completions", responses=refusals, tags=["OpenAI-compatible"])
    async def chat(asked: ChatRequest, request: Request) -> Response:
        """Price the product in a conversation."""
        if asked.n not in (None, 1):
            raise Refusal(422, "one_answer", "n: there is one answer to a question about a price")
        _refuse_tools(asked.tool_choice)
        form = _form(asked.response_format, "json_schema")
        texts = [message.said() for message in asked.messages if message.role != "assistant"]
        found, version = await priced(texts, request)
        body = _completion(texts, found, form, version)
        if not asked.stream:
            return Response(orjson.dumps(body), media_type="application/json")
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return StreamingResponse(_stream(body, usage), media_type="text/event-stream")

    @app.post("/v1/responses", responses=refusals, tags=["OpenAI-compatible"])
    async def responses(asked: ResponsesRequest, request: Request) -> Response:
        """Price the product in an input."""
        if asked.stream:
            words = "stream: not here; /v1/chat/completions streams"
            raise Refusal(422, "no_stream", words)
        _refuse_tools(asked.tool_choice)
        form = _form((asked.text or {}).get("format"), None)
        listed = [asked.input] if isinstance(asked.input, str) else [
            message.said() for message in asked.input if message.role != "assistant"
        ]  # fmt: skip
        found, version = await priced(listed, request)
        body = _response(listed, found, form, version)
        return Response(orjson.dumps(body), media_type="application/json")

    only = {status: refusals[status] for status in (401, 429)}

    @app.get("/v1/models", responses=only, tags=["OpenAI-compatible"])
    async def models() -> dict[str, Any]:
        """List the one model there is."""
        known = {
            "id": app.state.service.current,
            "object": "model",
            "created": 0,
            "owned_by": "you",
        }
        return {"object": "list", "data": [known]}


def product_in(texts: Sequence[str]) -> str:
    """Return the product's text in what was said. Raises Refusal if there is none, or several."""
    tagged = [found for text in texts if (found := _PRODUCT.findall(text))]
    last = tagged[-1] if tagged else [texts[-1].replace(QUESTION, "")] if texts else []
    if len(last) > 1:
        words = f"{len(last)} products in a message: ask about one, or use /v1/price"
        raise Refusal(422, "several_products", words)
    if not last or not last[0].strip():
        raise Refusal(422, "no_product", "messages: none of them says what the product is")
    return last[0].strip()


def _refuse_tools(choice: str | dict | None) -> None:
    if choice not in (None, "auto", "none"):
        raise Refusal(422, "no_tools", "tool_choice: this model calls no tools")


def _form(asked: dict[str, Any] | None, inside: str | None) -> list[str] | None:
    """Return the properties that an answer in JSON needs; None for an answer in words."""
    kind = (asked or {}).get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return list(_FILLED[:3])
    if kind != "json_schema":
        raise Refusal(422, "format", "the format is text, json_object or json_schema")
    outer = asked.get(inside) if inside else asked
    schema = outer.get("schema") if isinstance(outer, dict) else None
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or "price" not in properties:
        raise Refusal(422, "schema", "the schema needs an object with a property price")
    required = schema.get("required", [])
    named = isinstance(required, list) and all(isinstance(one, str) for one in required)
    unknown = [name for name in required if name not in _FILLED] if named else ["required"]
    if unknown:
        words = f"the schema requires {str(unknown[0])[:50]!r}; only {', '.join(_FILLED)} are known"
        raise Refusal(422, "schema", words)
    return [name for name in _FILLED if name in properties]


def _said(found: Priced, form: list[str] | None) -> str:
    if form is None:
        price = round(found.price, 2)
        return answer(price) if found.unit == "USD" else f"{price:.2f} {found.unit}"
    known = result(found.price, found.low, found.high, None, found.unit)
    return orjson.dumps({name: known[name] for name in form}).decode()


def _content(found: Priced, form: list[str] | None) -> tuple[str | None, str | None]:
    """Return what is answered and what is refused: one of them is None."""
    if math.isfinite(found.price):
        return _said(found, form), None
    return None, found.error or "the pricer gave no price"


def _completion(texts: Sequence[str], found: Priced, form: Any, version: str) -> dict[str, Any]:
    content, refusal = _content(found, form)
    read, written = count_tokens("\n".join(texts)), count_tokens(content or refusal or "")
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {
        "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written
    }  # fmt: skip
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion",
        "created": int(time.time()), "model": version, "choices": [choice], "usage": usage,
    }  # fmt: skip


async def _stream(body: dict[str, Any], usage: bool) -> AsyncIterator[bytes]:
    """Yield an answer as the events of a stream: the whole of it in one piece, then the end."""
    common = {**body, "object": "chat.completion.chunk"}
    common.pop("usage")
    message = body["choices"][0]["message"]
    for delta, finish in ((message, None), ({}, "stop")):
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        yield _event({**common, "choices": [choice]})
    if usage:
        yield _event({**common, "choices": [], "usage": body["usage"]})
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _response(texts: Sequence[str], found: Priced, form: Any, version: str) -> dict[str, Any]:
    content, refusal = _content(found, form)
    read, written = count_tokens("\n".join(texts)), count_tokens(content or refusal or "")
    part: dict[str, Any] = {"type": "output_text", "text": content, "annotations": []}
    part = {"type": "refusal", "refusal": refusal} if content is None else part
    message = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant",
               "status": "completed", "content": [part]}  # fmt: skip
    usage = {
        "input_tokens": read, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": written, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }  # fmt: skip
    return {
        "id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": int(time.time()),
        "status": "completed", "model": version, "output": [message], "usage": usage,
        "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
        "parallel_tool_calls": False, "tool_choice": "none", "tools": [],
    }  # fmt: skip
