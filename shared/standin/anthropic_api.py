"""Anthropic's protocol: the Messages API, whole and streamed, and counting tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from shared.mind.conversation import Ask, Reply, Turn, count_tokens, uniform
from shared.standin.openai_stream import pieces
from shared.standin.wire import BadRequest, PromptCache, find_model, need, new_id, plain_text, shape

PREFILL = "prefilling assistant messages is not supported for this model"

_CHOICES = {"any": "required", "none": "none", "auto": "auto"}


class Messages:
    """Answers POST /v1/messages and its token counting."""

    def __init__(self) -> None:
        self._cache = PromptCache()

    def generate(self, body: dict, think: Callable[[Ask], Reply]) -> dict:
        """Return the body of the response; raise BadRequest for what Anthropic refuses."""
        ask, parts = self.ask(body), prompt_parts(body)
        reply = think(ask)
        ends, length = [], 0
        for text, marked in parts:
            length += len(text)
            ends += [length] if marked else []
        prompt = "".join(text for text, _ in parts)
        read, written = self._cache.longest(ask.model, prompt, ends)
        return _message(ask, reply, count_tokens(prompt) - read - written, read, written)

    def count(self, body: dict) -> dict:
        """Return how many input tokens a request has."""
        self.ask({"max_tokens": 1, **body}, counting=True)
        return {"input_tokens": count_tokens("".join(text for text, _ in prompt_parts(body)))}

    @staticmethod
    def model(name: str) -> dict:
        """Return what the API shows of a model; raise BadRequest (404) if none is of that name."""
        return shape("claude", **find_model("claudes", name, f"model: {name}."))

    def ask(self, body: dict, counting: bool = False) -> Ask:
        """Read a request."""
        model, limit = need(body, "model", str), need(body, "max_tokens", int)
        messages = need(body, "messages", list)
        self.model(model)
        for name in ("temperature", "top_p", "top_k"):
            if name in body:
                raise BadRequest(f"{name}: this parameter is not supported for this model")
        turns = [Turn("system", plain_text(body["system"]))] if body.get("system") else []
        for message in messages:
            turns += _turns(message)
        if not messages:
            raise BadRequest("messages: at least one message is required")
        if messages[-1]["role"] == "assistant" and not model.startswith("claude-3"):
            raise BadRequest(PREFILL)
        output = body.get("output_config") or {}
        schema = (output.get("format") or {}).get("schema")
        choice = body.get("tool_choice") or {}
        name = choice.get("name") if choice.get("type") == "tool" else None
        salt = str((body.get("metadata") or {}).get("user_id") or "")
        thinking = _thinking(body, limit, counting)
        return Ask(
            model,
            tuple(turns),
            schema,
            {t["name"]: t.get("input_schema") or {} for t in body.get("tools") or ()},
            name or _CHOICES.get(choice.get("type", "auto"), "auto"),
            salt if "sample=" in salt else "",
            limit,
            round(thinking * (0.75 + 0.5 * uniform(model, turns))),
        )


def _thinking(body: dict, limit: int, counting: bool) -> int:
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens", 0)
        if not isinstance(budget, int) or budget < 1024:
            raise BadRequest("thinking.enabled.budget_tokens: must be at least 1024")
        if budget >= limit and not counting:
            raise BadRequest("max_tokens must be greater than thinking.budget_tokens")
    return 120 if thinking.get("type") in ("enabled", "adaptive") else 0


def _turns(message: Any) -> list[Turn]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ("user", "assistant"):
        raise BadRequest("messages: Unexpected role; allowed are 'user' and 'assistant'")
    content = need(message, "content", (str, list))
    if not content:
        raise BadRequest("messages: text content must be non-empty")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    turns = []
    for block in blocks:
        if not isinstance(block, dict):
            raise BadRequest("messages: content blocks must be objects")
        if block.get("type") == "tool_use":
            turns.append(Turn("call", f"{block.get('name')}({json.dumps(block.get('input'))})"))
        elif block.get("type") == "tool_result":
            turns.append(Turn("result", plain_text(block.get("content"))))
        elif block.get("text"):
            turns.append(Turn(role, block["text"]))
    return turns


def prompt_parts(body: dict) -> list[tuple[str, bool]]:
    """Return the prompt in the order in which it is cached, and after which parts it may be cut."""
    system = body.get("system") or []
    blocks = list(body.get("tools") or ())
    blocks += [{"type": "text", "text": system}] if isinstance(system, str) else system
    for message in body.get("messages") or ():
        content = message["content"]
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    parts = []
    for block in blocks:
        bare = {name: value for name, value in block.items() if name != "cache_control"}
        text = bare["text"] if bare.get("type") == "text" else json.dumps(bare, default=str)
        parts.append((text, bool(block.get("cache_control"))))
    if body.get("cache_control") and parts:
        parts[-1] = (parts[-1][0], True)
    return parts


def _message(ask: Ask, reply: Reply, fresh: int, read: int, written: int) -> dict:
    content: list[dict] = []
    if reply.thinking:
        content.append({"type": "thinking", "thinking": "", "signature": new_id("sig")})
    stop = "max_tokens" if reply.truncated else "refusal" if reply.refusal else "end_turn"
    if reply.call:
        name, values = reply.call
        content.append({"type": "tool_use", "id": new_id("toolu"), "name": name, "input": values})
        stop = "tool_use"
    elif reply.output:  # a refusal says why, or nobody would know
        content.append({"type": "text", "text": reply.output, "citations": None})
    refused = {"type": "refusal", "category": None, "explanation": reply.refusal}
    usage = {
        "input_tokens": fresh,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": reply.tokens,
        "output_tokens_details": {"thinking_tokens": reply.thinking},
    }
    return shape(
        "message",
        id=new_id("msg"),
        model=ask.model,
        content=content,
        stop_reason=stop,
        stop_details=refused if reply.refusal else None,
        usage=usage,
    )


def events(answer: dict) -> Iterator[tuple[str, dict]]:
    """Yield the (event, data) of an answer's stream."""
    ended = {name: answer[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    usage = {**answer["usage"], "output_tokens": 1}
    started = {**answer, **dict.fromkeys(ended), "content": [], "usage": usage}
    for name, data in (("message_start", {"message": started}), ("ping", {})):
        yield name, {"type": name, **data}
    for index, block in enumerate(answer["content"]):
        for name, data in _block_events(block):
            yield name, {"type": name, "index": index, **data}
    final = {"delta": ended, "usage": {"output_tokens": answer["usage"]["output_tokens"]}}
    yield "message_delta", {"type": "message_delta", **final}
    yield "message_stop", {"type": "message_stop"}


def _block_events(block: dict) -> Iterator[tuple[str, dict]]:
    kind, deltas = block["type"], []
    if kind == "text":
        begun = {**block, "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
    elif kind == "tool_use":
        begun, said = {**block, "input": {}}, json.dumps(block["input"])
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(said)]
    else:
        begun = {**block, "signature": ""}
        deltas = [{"type": "signature_delta", "signature": block["signature"]}]
    yield "content_block_start", {"content_block": begun}
    for delta in deltas:
        yield "content_block_delta", {"delta": delta}
    yield "content_block_stop", {}
