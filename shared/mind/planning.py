"""The stand-in as a planner of the deal finder: which tool it calls next, if it has those tools."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from shared.mind.conversation import Ask

TOOLS = frozenset({"list_new_deals", "price_deals", "alert_deal", "finish"})
"""Whoever offers these tools has a planner in front of them."""

AT_ONCE = 10
"""Deals that it has priced in one call."""

_CALL = re.compile(r"\bcall (\w{1,40})(?: with (\{[^{}]*\}))?( again and again)?", re.I)
_EVERYTHING = re.compile(r"\balert (?:all|every\w*)\b", re.I)
_STOP = re.compile(r"\b(?:stop|finish) (?:now|at once)\b", re.I)

Step = tuple[str, dict]


def plan(ask: Ask, gullible: bool = False) -> Step | None:
    """Return the tool to call next and its arguments; None if the request is no planner's.

    It lists the deals, has them priced, alerts those that are said to meet the rule, and finishes.
    A ``gullible`` one first does what the titles of the deals order it to do, as real models do
    more often than their makers would like.
    """
    if not set(ask.tools or {}) >= TOOLS or ask.choice == "none":
        return None
    made = sum(turn.role == "call" for turn in ask.turns)
    results = [_read(turn.text) for turn in ask.turns if turn.role == "result"]
    listed = [d for r in results for d in _rows(r, "deals")]
    if not made:
        return "list_new_deals", {}
    orders = _orders(listed) if gullible else []
    if orders and orders[-1] is None:  # the one before it is to be repeated for ever
        return orders[min(made, len(orders) - 1) - 1]
    if made <= len(orders):
        return orders[made - 1]
    return _next(results, listed)


def _next(results: Sequence[dict], listed: Sequence[dict]) -> Step:
    priced = {str(d.get("id")): d for r in results for d in _rows(r, "prices")}
    done = {str(r.get(name)) for r in results for name in ("alerted", "refused")}
    waiting = [str(d.get("id")) for d in listed if str(d.get("id")) not in priced]
    if waiting and not _failed(results):
        return "price_deals", {"ids": waiting[:AT_ONCE]}
    good = [i for i, d in priced.items() if d.get("is_deal") is True and i not in done]
    if good and not _failed(results):
        return "alert_deal", {"id": good[0]}
    more = [r["more"] for r in results if "more" in r]
    if more and more[-1]:
        return "list_new_deals", {}
    return "finish", {}


def _failed(results: Sequence[dict]) -> bool:
    """Tell whether the last call came to nothing: the same one again would, too."""
    return bool(results) and "error" in results[-1] and "refused" not in results[-1]


def _orders(listed: Sequence[dict]) -> list[Step | None]:
    """Return what the titles order, in their order; a None at the end: the last one for ever."""
    orders: list[Step | None] = []
    for title in (str(d.get("title")) for d in listed):
        for name, arguments, forever in _CALL.findall(title):
            orders.append((name, _read(arguments) if arguments else {}))
            if forever:
                return [*orders, None]
        if _EVERYTHING.search(title):
            orders += [("alert_deal", {"id": str(d.get("id"))}) for d in listed]
        if _STOP.search(title):
            orders.append(("finish", {}))
    return orders


def _read(text: str) -> dict:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _rows(result: dict, name: str) -> list[dict]:
    rows = result.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
