"""OpenAI's streams: a finished answer as the events in which it would have come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PIECE = 12
"""Characters of one piece of a stream; longer answers come in at most 500 pieces."""


def pieces(text: str) -> Iterator[str]:
    """Yield a text in the pieces of a stream."""
    size = max(PIECE, -(-len(text) // 500))
    return (text[at : at + size] for at in range(0, len(text), size))


def events(path: str, body: dict, answer: dict) -> Iterator[tuple[str, Any]]:
    """Yield the (event, data) of an answer's stream; events of chat completions have no name."""
    if path == "/v1/chat/completions":
        yield from (("", chunk) for chunk in _chunks(body, answer))
        yield "", "[DONE]"
        return
    for number, (name, data) in enumerate(_response_events(answer)):
        yield name, {"type": name, "sequence_number": number, **data}


def _response_events(answer: dict) -> Iterator[tuple[str, dict]]:
    started = {**answer, "status": "in_progress", "output": [], "usage": None}
    started["incomplete_details"] = None
    yield "response.created", {"response": started}
    yield "response.in_progress", {"response": started}
    for index, item in enumerate(answer["output"]):
        begun = {**item, "status": "in_progress"}
        begun |= {"content": []} if "content" in item else {}
        begun |= {"arguments": ""} if "arguments" in item else {}
        yield "response.output_item.added", {"output_index": index, "item": begun}
        where = {"item_id": item["id"], "output_index": index}
        if item["type"] == "function_call":
            name = "response.function_call_arguments"
            for piece in pieces(item["arguments"]):
                yield f"{name}.delta", {**where, "delta": piece}
            yield f"{name}.done", {**where, "name": item["name"], "arguments": item["arguments"]}
        for at, part in enumerate(item.get("content", ())):
            yield from _part_events({**where, "content_index": at}, part)
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield f"response.{answer['status']}", {"response": answer}


def _part_events(where: dict, part: dict) -> Iterator[tuple[str, dict]]:
    field = "refusal" if part["type"] == "refusal" else "text"
    name = "response.refusal" if field == "refusal" else "response.output_text"
    extra = {} if field == "refusal" else {"logprobs": []}
    yield "response.content_part.added", {**where, "part": {**part, field: ""}}
    for piece in pieces(part[field]):
        yield f"{name}.delta", {**where, **extra, "delta": piece}
    yield f"{name}.done", {**where, **extra, field: part[field]}
    yield "response.content_part.done", {**where, "part": part}


def _chunks(body: dict, answer: dict) -> Iterator[dict]:
    base = {name: answer[name] for name in ("id", "created", "model")}
    base["object"] = "chat.completion.chunk"
    for choice in answer["choices"]:
        index = choice["index"]
        for delta in _deltas(choice["message"]):
            yield {**base, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
        last = {"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}
        yield {**base, "choices": [last]}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**base, "choices": [], "usage": answer["usage"]}


def _deltas(message: dict) -> list[dict]:
    deltas: list[dict] = [{"role": "assistant", "content": ""}]
    for field in ("content", "refusal"):
        deltas += [{field: piece} for piece in pieces(message[field] or "")]
    for index, call in enumerate(message.get("tool_calls", ())):
        said, function = call["function"]["arguments"], call["function"]
        deltas.append(
            {"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]}
        )
        for piece in pieces(said):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    return deltas
