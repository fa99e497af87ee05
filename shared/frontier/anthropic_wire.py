"""Requests in Anthropic's protocol, Messages. Bodies and replies are plain dicts."""

from __future__ import annotations

import json
from typing import Any

from shared.frontier.messages import Call, Reply, Request, Turn, Usage

_STOPS = {"max_tokens": "length", "tool_use": "tool", "refusal": "refusal"}


def messages_body(request: Request) -> dict[str, Any]:
    """Return the JSON body of ``POST /v1/messages``.

    The last of the ``shared`` turns is marked, so that repeating what is before it costs a tenth.
    """
    messages = [{"role": turn.role, "content": _blocks(turn)} for turn in request.turns]
    if request.shared:
        messages[request.shared - 1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": messages,
    }
    if request.system:
        body["system"] = request.system
    output = {"effort": request.effort} if request.effort else {}
    if request.schema:
        output["format"] = {"type": "json_schema", "schema": request.schema}
    if output:
        body["output_config"] = output
    if request.tools:
        body["tools"] = [
            {"name": t.name, "description": t.description, "input_schema": t.parameters}
            for t in request.tools
        ]
        body |= {} if request.may_call else {"tool_choice": {"type": "none"}}
    if request.sample:
        body["metadata"] = {"user_id": f"sample={request.sample}"}
    return body


def messages_reply(value: dict[str, Any]) -> Reply:
    """Read the body of an answer of ``/v1/messages``; thinking is paid for and not kept."""
    blocks = value["content"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [
        Call(block["id"], block["name"], json.dumps(block["input"], ensure_ascii=False))
        for block in blocks
        if block["type"] == "tool_use"
    ]
    stop = _STOPS.get(value.get("stop_reason") or "", "end")
    usage = value.get("usage") or {}
    read = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    tokens = Usage(
        input=(usage.get("input_tokens") or 0) + read + written,
        cached=read,
        output=usage.get("output_tokens") or 0,
        written=written,
    )
    return Reply(text, stop, tuple(calls), tokens, value.get("model", ""))


def _blocks(turn: Turn) -> list[dict]:
    blocks: list[dict] = [
        {"type": "tool_result", "tool_use_id": result.id, "content": result.text}
        for result in turn.results
    ]
    if turn.text:
        blocks.append({"type": "text", "text": turn.text})
    blocks += [
        {"type": "tool_use", "id": c.id, "name": c.name, "input": json.loads(c.arguments or "{}")}
        for c in turn.calls
    ]
    return blocks
