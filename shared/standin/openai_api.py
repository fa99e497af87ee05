"""OpenAI's protocol: the Responses API and Chat Completions."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from shared.mind.conversation import Ask, Reply, Turn, count_tokens, uniform
from shared.standin.wire import BadRequest, PromptCache, find_model, need, new_id, plain_text, shape

THINKING = {"none": 0, "minimal": 16, "low": 32, "medium": 96, "high": 320, "xhigh": 640}
"""Reasoning effort -> about how many tokens it takes."""

CACHE_STEP = 128 * 4
"""Characters of the steps in which a prompt's beginning is cached: 128 tokens."""

MOST_CHOICES = 128
"""Answers to one request of Chat Completions, at most."""

_THINKS = re.compile(r"(ft:)?(gpt-[5-9]|o\d)")
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}

Think = Callable[[Ask], Reply]


class Generation:
    """Answers POST /v1/responses and /v1/chat/completions.

    ``tuned``: tells whether a model of that name was fine-tuned here.
    """

    def __init__(self, tuned: Callable[[str], bool]) -> None:
        self._tuned, self._cache = tuned, PromptCache()
        self._stored: dict[str, tuple[list, dict]] = {}

    def generate(self, path: str, body: dict, think: Think) -> dict:
        """Return the body of the response; raise BadRequest for what OpenAI refuses."""
        ask = self.ask(path, body)
        chat = path == "/v1/chat/completions"
        replies = [think(each) for each in (_draws(ask, body) if chat else [ask])]
        usage = self._usage(ask, replies, chat)
        if chat:
            return _completion(body, replies, usage)
        response = _response(body, ask, replies[0], usage)
        if body.get("store") is not False:
            self._stored[response["id"]] = self._input(body) + response["output"], response
        return response

    def stored(self, name: str) -> dict:
        """Return a response again; raise BadRequest (404) if none of that id was stored."""
        if name not in self._stored:
            raise BadRequest(f"Response with id '{name}' not found.", status=404)
        return self._stored[name][1]

    def delete(self, name: str) -> dict:
        """Forget a response: no conversation goes on from it."""
        self.stored(name)
        del self._stored[name]
        return {"id": name, "object": "response", "deleted": True}

    def model(self, name: str) -> dict:
        """Return what the API shows of a model; raise BadRequest (404) if none is of that name."""
        if name.startswith("ft:") and self._tuned(name):
            return shape("model", id=name)
        refused = f"The model '{name}' does not exist or you do not have access to it."
        return shape("model", **find_model("models", name, refused))

    def ask(self, path: str, body: dict) -> Ask:
        """Read a request of either endpoint."""
        self.model(need(body, "model", str))
        return self._chat_ask(body) if path.endswith("completions") else self._response_ask(body)

    def _response_ask(self, body: dict) -> Ask:
        turns = [Turn("system", body["instructions"])] if body.get("instructions") else []
        for item in self._input(body):
            kind = item.get("type", "message")
            if kind == "function_call":
                turns.append(Turn("call", f"{item.get('name')}({item.get('arguments')})"))
            elif kind == "function_call_output":
                turns.append(Turn("result", plain_text(item.get("output"))))
            elif kind == "message":
                turns.append(_turn(item))
        form = (body.get("text") or {}).get("format") or {}
        effort = (body.get("reasoning") or {}).get("effort")
        return _ask(body, turns, form, effort, _whole(body, "max_output_tokens"))

    def _chat_ask(self, body: dict) -> Ask:
        turns, messages = [], need(body, "messages", list)
        if not messages:
            message = "Invalid 'messages': empty array. Expected one with minimum length 1."
            raise BadRequest(message, param="messages", code="empty_array")
        for item in messages:
            calls = item.get("tool_calls") or () if isinstance(item, dict) else ()
            turns += [Turn("call", json.dumps(call.get("function"))) for call in calls]
            if isinstance(item, dict) and item.get("role") == "tool":
                turns.append(Turn("result", plain_text(item.get("content"))))
            elif not calls:
                turns.append(_turn(item))
        form = body.get("response_format") or {}
        form = {**form, **form.get("json_schema", {})}
        limits = [_whole(body, name) for name in ("max_completion_tokens", "max_tokens")]
        return _ask(body, turns, form, body.get("reasoning_effort"), limits[0] or limits[1])

    def _input(self, body: dict) -> list[dict]:
        given, before = body.get("input"), body.get("previous_response_id")
        if given is None or not isinstance(given, (str, list)):
            need(body, "input", (str, list))
        if before and before not in self._stored:
            message = f"Previous response with id '{before}' not found."
            raise BadRequest(message, param="previous_response_id", code="not_found")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        if not items or not all(isinstance(item, dict) for item in items):
            raise BadRequest(
                "Invalid value for 'input': empty, or no list of items.", param="input"
            )
        return (self._stored[before][0] if before else []) + items

    def _usage(self, ask: Ask, replies: list[Reply], chat: bool) -> dict:
        prompt = prompt_of(ask)
        ends = range(CACHE_STEP, len(prompt) + 1, CACHE_STEP)
        read, written = self._cache.longest(ask.model, prompt, ends)
        count, made = count_tokens(prompt), sum(reply.tokens for reply in replies)
        thought = sum(reply.thinking for reply in replies)
        first, then = ("prompt", "completion") if chat else ("input", "output")
        cached = {"cached_tokens": read, "cache_write_tokens": written}
        return {
            f"{first}_tokens": count,
            f"{first}_tokens_details": cached,
            f"{then}_tokens": made,
            f"{then}_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": count + made,
        }


def prompt_of(ask: Ask) -> str:
    """Return all text that a request sends to the model, what stays the same first."""
    fixed = [json.dumps(x) for x in (ask.tools, ask.schema) if x]
    return "\n".join([*fixed, *(f"{turn.role}: {turn.text}" for turn in ask.turns)])


def _whole(body: dict, name: str) -> int | None:
    """Return a whole number above zero, or None if the field is not there."""
    return None if body.get(name) is None else need(body, name, int)


def _draws(ask: Ask, body: dict) -> list[Ask]:
    """Return what is asked for each of the ``n`` choices: the same, with other luck."""
    count = _whole(body, "n") or 1
    if count > MOST_CHOICES:
        raise BadRequest(f"Invalid 'n': {count} is above {MOST_CHOICES}.", param="n")
    salts = [f"{ask.salt}|choice={number}" for number in range(1, count)]
    fixed = body.get("temperature") == 0
    return [ask, *(ask if fixed else replace(ask, salt=salt) for salt in salts)]


def _turn(item: Any) -> Turn:
    role = item.get("role") if isinstance(item, dict) else None
    if role not in _ROLES:
        raise BadRequest(f"Invalid value: {role!r}. Supported values are: {list(_ROLES)}.")
    return Turn(_ROLES[role], plain_text(item.get("content")))


def _ask(body: dict, turns: list, form: dict, effort: str | None, limit: int | None) -> Ask:
    model = body["model"]
    thinks = _THINKS.match(model)
    if thinks and effort != "none" and "temperature" in body:
        message = "Unsupported parameter: 'temperature' is not supported with this model."
        raise BadRequest(message, param="temperature", code="unsupported_parameter")
    if effort is not None and effort not in THINKING:
        message = f"Invalid value: '{effort}'. Supported values are: {list(THINKING)}."
        raise BadRequest(message, param="reasoning.effort", code="invalid_value")
    schema = {"json_object": {"type": "object", "properties": {"price": {"type": "number"}}}}
    schema["json_schema"] = form.get("schema")
    wanted = schema.get(form.get("type", "text"))
    if form.get("type") == "json_schema":
        if not isinstance(wanted, dict):
            raise BadRequest("Missing required parameter: 'text.format.schema'.")
        if form.get("strict") and wanted.get("additionalProperties") is not False:
            message = "Invalid schema: 'additionalProperties' is required to be supplied and false."
            raise BadRequest(message, param="text.format.schema", code="invalid_json_schema")
    tools = [tool.get("function", tool) for tool in body.get("tools") or ()]
    salt = [body.get(n) or "" for n in ("user", "safety_identifier", "prompt_cache_key")]
    salt = [s for s in (*salt, (body.get("metadata") or {}).get("user_id", "")) if "sample=" in s]
    thinking = THINKING[effort or "medium"] if thinks else 0
    return Ask(
        model,
        tuple(turns),
        wanted,
        {tool["name"]: tool.get("parameters") or {} for tool in tools if tool.get("name")},
        _choice(body.get("tool_choice")),
        "|".join(salt),
        limit,
        round(thinking * (0.75 + 0.5 * uniform(model, turns))),
    )


def _choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return choice.get("function", choice).get("name") or choice.get("mode") or "auto"
    return choice or "auto"


def _response(body: dict, ask: Ask, reply: Reply, usage: dict) -> dict:
    status, output = "incomplete" if reply.truncated else "completed", []
    if reply.thinking:
        output.append({"id": new_id("rs"), "type": "reasoning", "summary": []})
    if reply.call:
        call = {"call_id": new_id("call"), "name": reply.call[0], "arguments": reply.output}
        output.append({"id": new_id("fc"), "type": "function_call", "status": status, **call})
    elif reply.text or not reply.truncated:
        part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
        part = {"type": "refusal", "refusal": reply.refusal} if reply.refusal else part
        message = {"role": "assistant", "status": status, "content": [part]}
        output.append({"id": new_id("msg"), "type": "message", **message})
    copied = ("instructions", "metadata", "max_output_tokens", "previous_response_id", "user")
    copied += ("parallel_tool_calls", "text", "tool_choice", "temperature", "top_p", "reasoning")
    return shape(
        "response",
        id=new_id("resp"),
        created_at=int(time.time()),
        status=status,
        incomplete_details={"reason": "max_output_tokens"} if reply.truncated else None,
        model=ask.model,
        output=output,
        tools=[{"strict": True, **tool} for tool in body.get("tools") or ()],
        usage=usage,
        **{name: body[name] for name in copied if body.get(name) is not None},
    )


def _completion(body: dict, replies: list[Reply], usage: dict) -> dict:
    made = {"id": new_id("chatcmpl"), "created": int(time.time()), "model": body["model"]}
    choices = [_drawn(number, reply) for number, reply in enumerate(replies)]
    return shape("chat.completion", **made, choices=choices, usage=usage)


def _drawn(number: int, reply: Reply) -> dict:
    message = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
    reason = "length" if reply.truncated else "stop"
    if reply.refusal:
        message |= {"content": None, "refusal": reply.refusal}
    if reply.call:
        function = {"name": reply.call[0], "arguments": reply.output}
        call = {"id": new_id("call"), "type": "function", "function": function}
        message |= {"content": None, "tool_calls": [call]}
        reason = "tool_calls"
    return {"index": number, "message": message, "logprobs": None, "finish_reason": reason}
