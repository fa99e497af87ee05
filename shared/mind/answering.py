"""The stand-in's "model": plain code that answers a request. The same one gets the same answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from statistics import NormalDist

from shared.mind.conversation import Ask, Reply, finish, uniform
from shared.mind.planning import plan
from shared.mind.pricing import (
    CAREFUL,
    PRODUCT,
    Evidence,
    cited,
    estimate,
    evidence,
    knowledge,
    noun_of,
    off_the_cuff,
    pack_of,
    title_of,
)
from shared.mind.writing import compare, fill, judge, paragraph, rewrite, three_lines

ROUNDS = 2
"""Calls of tools before it answers, unless one is required."""

_ORDER = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,120}?"
    r"\b(?:answer|say|reply|respond|output|return|price)\b[^\d<]{0,40}(\d+(?:\.\d+)?)",
    re.I | re.S,
)
_DESCRIBE = re.compile(r"\b(describe|summari[sz]e|what kind of)\b", re.I)
_WRITE = re.compile(r"\b(re)?write\b|\bcompose\b", re.I)
_COMPARE = re.compile(r"\b(compare|products like this|cheaper)\b", re.I)
_PRICE = re.compile(r"\b(how much|costs?|prices?|priced|worth|dollars)\b", re.I)

Tuned = Callable[[str], float]
"""What a fine-tuned model has learnt: a product's text -> a correction of its log price."""


def answer(ask: Ask, seed: int, tuned: Tuned | None = None, gullible: bool = False) -> Reply:
    """Return the reply to a request: a text, JSON that fits its schema, or the call of a tool."""
    if planned := plan(ask, gullible):
        return finish(Reply(call=planned, thinking=ask.thinking), ask.limit)
    known = evidence(ask)
    used = sum(turn.role == "call" for turn in _since_product(ask))
    name = _tool(ask, known, used)
    if name is not None:
        values = _values(ask, known, seed, tuned)
        arguments = fill(ask.tools[name], {**values, "query": title_of(known.product)}, name)
        return finish(Reply(call=(name, arguments), thinking=ask.thinking), ask.limit)
    return finish(Reply(_text(ask, known, seed, tuned), thinking=ask.thinking), ask.limit)


def _since_product(ask: Ask) -> tuple:
    """Return the turns after the last one of the user: calls of tools and their results."""
    last = max((i for i, turn in enumerate(ask.turns) if turn.role == "user"), default=-1)
    return ask.turns[last + 1 :]


def _tool(ask: Ask, known: Evidence, used: int) -> str | None:
    """Return the tool to call now, or None. It knows two by name; another has to be forced."""
    tools = ask.tools or {}
    if ask.choice in tools:
        return ask.choice
    wanted = ["search_similar_products"]
    if pack_of(known.product) > 1:
        wanted.append("unit_price")
    wanted = [name for name in wanted if name in tools]
    if ask.choice == "none" or not tools:
        return None
    if ask.choice == "required":
        return next(iter(wanted[min(used, 1) :] or wanted or tools))
    return wanted[used] if used < min(len(wanted), ROUNDS) else None


def _strength(model: str) -> dict:
    return next(m for m in knowledge()["models"] if any(p in model.lower() for p in m["parts"]))


def _price(ask: Ask, known: Evidence, seed: int, tuned: Tuned | None) -> tuple[float, float]:
    """Return (price in dollars, spread of its log).

    Half of the noise belongs to the product: asking again does not take it away.
    """
    model, product = _strength(ask.model), known.product
    base = ask.model.split(":")[1] if tuned else ask.model  # names of fine-tunes are random
    order = _ORDER.search(product)
    if order and uniform("obey", seed, ask.model, product) < model["obeys"]:
        return float(order[1]), 0.1
    log, trust = estimate(known)
    noise = model["noise"] * (1 - 0.5 * trust)
    if tuned is not None:
        log += tuned(product)  # what was learnt, and nothing else: it scatters as before
    if any("<notes>" in turn.text for turn in ask.turns):
        noise *= 0.8
    if len(product) > CAREFUL:
        noise *= 1 + 0.1 * math.log2(len(product) / CAREFUL)
    said = json.dumps([(turn.role, turn.text) for turn in ask.turns])
    lasting = NormalDist().inv_cdf(uniform("product", seed, base, product))
    passing = NormalDist().inv_cdf(uniform("sample", seed, base, said, ask.salt))
    log += noise * math.sqrt(0.5) * (lasting + passing)
    return float(f"{min(max(math.exp(log), 0.5), 50_000.0):.3g}"), math.hypot(noise, 0.5)


_JUDGED = "By the share of the product's own words, invented numbers and length."


def _values(ask: Ask, known: Evidence, seed: int, tuned: Tuned | None) -> dict:
    """Return all it can say about a product, by the name of the property."""
    price, spread = _price(ask, known, seed, tuned)
    noun, _ = noun_of(known.product)
    seen = f" and {len(known.examples)} known prices" if known.examples else ""
    last = next((t.text for t in reversed(ask.turns) if t.role == "user"), "")
    return {
        **rewrite(known.product),
        "price": price,
        "low": round(price * math.exp(-1.28 * spread), 2),
        "high": round(price * math.exp(1.28 * spread), 2),
        "reason": _JUDGED
        if "<first>" in last
        else f"Judged as {noun or 'something unknown'}, from general knowledge{seen}.",
        "quantity": pack_of(known.product),
        "winner": judge(last, known.product, seed),
        "neighbours": cited(last, known.product),
    }


def _text(ask: Ask, known: Evidence, seed: int, tuned: Tuned | None) -> str:
    if ask.schema is not None:
        return json.dumps(fill(ask.schema, _values(ask, known, seed, tuned), seed, ask.salt, ""))
    if ask.turns and ask.turns[-1].role == "assistant":  # its first words were put in its mouth
        price = math.exp(off_the_cuff(known.product, attributes=False))
        return f"{max(round(price / 10), 1) * 10 - 0.01:.2f}"
    asked = any(PRODUCT.search(turn.text) or _PRICE.search(turn.text) for turn in ask.turns)
    if not asked and tuned is None:
        return "I am a stand-in: plain code that has rough ideas of what things cost."
    price = f"${_price(ask, known, seed, tuned)[0]:.2f}"
    for role in ("user", "system"):  # what the turn asks for counts before what is always asked
        said = next((turn.text for turn in reversed(ask.turns) if turn.role == role), "")
        said = re.sub(r"<notes>.*?</notes>", " ", PRODUCT.sub(" ", said), flags=re.S)
        if re.search(r"\b(how much|estimate|guess)\b", said, re.I):
            return price
        if _DESCRIBE.search(said):
            return three_lines(known.product)
        if _COMPARE.search(said):
            return compare(known.product)
        if _WRITE.search(said):
            return paragraph(known.product)
        if _PRICE.search(said):
            return price
    return price
