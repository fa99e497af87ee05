"""Requests in OpenAI's two protocols: Responses, and the Chat Completions that others speak too.

Bodies and replies are plain dicts, so that one call and a line of a batch file are the same.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from shared.frontier.messages import Call, Reply, Request, Turn, Usage


def responses_body(request: Request) -> dict[str, Any]:
    """Return the JSON body of ``POST /v1/responses``."""
    body: dict[str, Any] = {
        "model": request.model,
        "input": [item for turn in request.turns for item in _items(turn)],
        "max_output_tokens": request.max_tokens,
        "store": False,
    }
    if request.system:
        body["instructions"] = request.system
    if request.schema:
        body["text"] = {"format": {"type": "json_schema"} | _schema(request.schema)}
    if request.effort:
        body["reasoning"] = {"effort": request.effort}
    if request.tools:
        body["tools"] = [{"type": "function", "strict": True} | vars(t) for t in request.tools]
        body |= {} if request.may_call else {"tool_choice": "none"}
    if request.shared:
        body["prompt_cache_key"] = _prefix_key(request)
    if request.sample:
        body["metadata"] = {"user_id": f"sample={request.sample}"}
    return body


def responses_reply(value: dict[str, Any]) -> Reply:
    """Read the body of an answer of ``/v1/responses``. ValueError if the model failed to answer."""
    if value.get("status") in ("failed", "cancelled"):
        raise ValueError(f"{value['status']}: {(value.get('error') or {}).get('message')}")
    texts, calls, stop = [], [], "end"
    for item in value["output"]:
        if item["type"] == "function_call":
            calls.append(Call(item["call_id"], item["name"], item["arguments"]))
        for part in item.get("content") or [] if item["type"] == "message" else []:
            if part["type"] == "refusal":
                stop = "refusal"
            texts.append(part.get("text") or part.get("refusal") or "")
    if value.get("status") == "incomplete":
        reason = (value.get("incomplete_details") or {}).get("reason")
        stop = "refusal" if reason == "content_filter" else "length"
    elif calls and stop == "end":
        stop = "tool"
    usage = value.get("usage") or {}
    return _reply(
        "".join(texts), stop, calls, value.get("model", ""),
        usage.get("input_tokens"), (usage.get("input_tokens_details") or {}).get("cached_tokens"),
        usage.get("output_tokens"),
        (usage.get("output_tokens_details") or {}).get("reasoning_tokens"),
        (usage.get("input_tokens_details") or {}).get("cache_write_tokens"),
    )  # fmt: skip


def chat_body(request: Request) -> dict[str, Any]:
    """Return the JSON body of ``POST /v1/chat/completions``."""
    messages = [{"role": "system", "content": request.system}] if request.system else []
    messages += [message for turn in request.turns for message in _messages(turn)]
    body: dict[str, Any] = {"model": request.model, "messages": messages}
    body["max_completion_tokens"] = request.max_tokens
    if request.schema:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": _schema(request.schema),
        }
    if request.effort:
        body["reasoning_effort"] = request.effort
    if request.tools:
        body["tools"] = [{"type": "function", "function": vars(tool)} for tool in request.tools]
        body |= {} if request.may_call else {"tool_choice": "none"}
    if request.sample:
        body["user"] = f"sample={request.sample}"
    return body


def chat_reply(value: dict[str, Any]) -> Reply:
    """Read the body of an answer of ``/v1/chat/completions``."""
    choice = value["choices"][0]
    message = choice["message"]
    stops = {"length": "length", "content_filter": "refusal", "tool_calls": "tool"}
    stop = "refusal" if message.get("refusal") else stops.get(choice["finish_reason"], "end")
    calls = [
        Call(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or []
    ]
    usage = value.get("usage") or {}
    content = message.get("content") or message.get("refusal") or ""
    if isinstance(content, list):  # parts, as some servers answer
        content = "".join(part.get("text") or "" for part in content)
    return _reply(
        content, stop, calls, value.get("model", ""),
        usage.get("prompt_tokens"), (usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        usage.get("completion_tokens"),
        (usage.get("completion_tokens_details") or {}).get("reasoning_tokens"),
    )  # fmt: skip


def _reply(text: str, stop: str, calls: list[Call], model: str, *tokens: int | None) -> Reply:
    return Reply(text, stop, tuple(calls), Usage(*(count or 0 for count in tokens)), model)


def _items(turn: Turn) -> list[dict]:
    items: list[dict] = [
        {"type": "function_call_output", "call_id": result.id, "output": result.text}
        for result in turn.results
    ]
    if turn.text:
        items.append({"role": turn.role, "content": turn.text})
    items += [
        {"type": "function_call", "call_id": c.id, "name": c.name, "arguments": c.arguments}
        for c in turn.calls
    ]
    return items


def _messages(turn: Turn) -> list[dict]:
    messages: list[dict] = [
        {"role": "tool", "tool_call_id": result.id, "content": result.text}
        for result in turn.results
    ]
    if turn.calls:
        calls = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in turn.calls
        ]
        messages.append({"role": turn.role, "content": turn.text or None, "tool_calls": calls})
    elif turn.text:
        messages.append({"role": turn.role, "content": turn.text})
    return messages


def _schema(schema: dict) -> dict:
    return {"name": schema.get("title", "answer"), "schema": schema, "strict": True}


def _prefix_key(request: Request) -> str:
    prefix = [request.system, *(turn.text for turn in request.turns[: request.shared])]
    return hashlib.sha256(json.dumps(prefix).encode()).hexdigest()[:16]
