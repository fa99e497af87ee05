"""What the stand-in thinks a product costs: general knowledge, moved by evidence in the prompt."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from statistics import median

from shared.mind.conversation import Ask

HEDGE = 0.8
"""What knowledge of a noun counts against the price of the unknown: nobody is quite sure."""

CAREFUL = 600
"""Characters it reads with care; what comes after adds noise, not knowledge."""

ALIKE, LEANS_ON = 0.15, 0.5
"""An example is cited from this similarity on, and from this share of that of the most similar."""

PRODUCT = re.compile(r"<product>(.*?)</product>(?:\s*<price>\s*\$?([\d.,]+)\s*</price>)?", re.S)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_WORD = re.compile(r"[a-z0-9][a-z0-9-]*")
_MAIN = re.compile(r",| - | – |\||\(|\[|;|\bfor\b|\bwith\b|\bcompatible\b|\bfits?\b", re.I)
_PACK = re.compile(
    r"(?:packs?|set|box|case|bundle) of (\d+)|(\d+)[ -]?(?:packs?|count|ct|pcs|pc)\b", re.I
)


@cache
def knowledge() -> dict:
    """Return knowledge.toml: nouns by category, words, units, models, the price of the unknown."""
    return tomllib.loads(Path(__file__).with_name("knowledge.toml").read_text(encoding="utf-8"))


@cache
def _units() -> dict[str, re.Pattern]:
    rules = knowledge()["units"].items()
    number = r"(\d+(?:\.\d+)?)[ -]?"
    return {n: re.compile(rf"{number}(?:{r['said']})(?![a-z])", re.I) for n, r in rules}


@cache
def nouns() -> dict[str, tuple[float, str]]:
    """Return noun -> (dollars, category)."""
    tables = knowledge()["nouns"].items()
    return {
        " ".join(words(noun)): (float(price), category)
        for category, table in tables
        for noun, price in table.items()
    }


def words(text: str) -> list[str]:
    """Return the words of a text, small and in the singular."""
    return [
        w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w
        for w in _WORD.findall(text.lower())
    ]


def title_of(product: str) -> str:
    """Return the first line of a product's text."""
    first = product.strip().partition("\n")[0]
    return re.sub(r"^(title|product|name):\s*", "", first, flags=re.I)[:200]


def noun_of(product: str) -> tuple[str, float]:
    """Return the noun that says what a product is ("" if none is known), and how sure that is.

    The last one of the title's main phrase counts (a "dog bed" is a bed), then the first of the
    rest: what comes after a comma is often what a product is for, or comes with.
    """
    title = title_of(product)
    places = (
        (_MAIN.split(title)[0], 1.0, True),
        (title, 0.6, False),
        (product[:CAREFUL], 0.3, False),
    )
    for text, sure, last in places:
        found = words(text)
        known = [
            (end, size)
            for end in range(1, len(found) + 1)
            for size in (3, 2, 1)
            if size <= end and " ".join(found[end - size : end]) in nouns()
        ]
        if known:
            end, size = max(known) if last else min(known, key=lambda at: (at[0] - at[1], -at[1]))
            return " ".join(found[end - size : end]), sure
    return "", 0.0


def pack_of(product: str) -> int:
    """Return how many are sold together, 1 if the text does not say."""
    match = _PACK.search(product[:CAREFUL])
    return max(int(match[1] or match[2]), 1) if match and len(match[0]) < 20 else 1


@lru_cache(maxsize=100_000)
def off_the_cuff(product: str, attributes: bool = True) -> float:
    """Return the log of the price that general knowledge gives, with or without attributes.

    The less sure it is, the nearer to the price of the unknown it stays.
    """
    noun, sure = noun_of(product)
    unknown = math.log(knowledge()["unknown"])
    known = math.log(nouns()[noun][0]) if noun else unknown
    known = unknown + (HEDGE * sure) * (known - unknown)
    if not attributes:
        return known
    title, near = title_of(product), product[:CAREFUL]
    factors, in_title = knowledge()["words"], set(words(title))
    for word in in_title | set(words(near)):
        known += math.log(factors.get(word, 1.0)) * (0.7 if word in in_title else 0.1)
    numbers = {}
    for unit, pattern in _units().items():
        match = pattern.search(title)
        if match and float(match[1]) > 0:
            numbers[unit] = float(match[1])
    numbers["pack"] = pack_of(product)
    for unit, number in numbers.items():
        rule = knowledge()["units"][unit]
        known += max(-0.3, min(0.4, rule["power"] * math.log(number / rule["typical"])))
    return known


@dataclass(frozen=True)
class Evidence:
    """What a prompt holds: the product asked about, and texts with their price in dollars."""

    product: str
    examples: tuple[tuple[str, float], ...]


def evidence(ask: Ask) -> Evidence:
    """Read a conversation: products with an answer or a price are examples, the last is asked."""
    product, waiting, examples = "", "", []
    for turn in ask.turns:
        if turn.role in ("user", "system"):
            for text, price in PRODUCT.findall(turn.text):
                if text.strip() == "and":  # instructions that name the tags
                    continue
                if turn.role == "user":
                    product = waiting = text.strip()
                if price:
                    examples.append((text.strip(), _number(price)))
                    waiting = ""
        elif turn.role == "assistant" and waiting and turn is not ask.turns[-1]:
            examples.append((waiting, _number(turn.text)))
            waiting = ""
        elif turn.role == "result":
            examples += _results(turn.text)
    if not product:  # a fine-tuned model is asked as it was taught: the text, and nothing around it
        product = next((t.text.strip() for t in reversed(ask.turns) if t.role == "user"), "")
    return Evidence(
        product, tuple((t, p) for t, p in examples if p and 0.0 < p < 1e7 and t != product)
    )


def _number(text: str) -> float | None:
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            return float(value["price"])
    except (ValueError, KeyError, TypeError):
        pass
    match = NUMBER.search(text)
    return float(match[0].replace(",", "")) if match else None


def _results(text: str) -> list[tuple[str, float | None]]:
    """Read the result of a tool: a JSON list of {"title", "price"}, perhaps inside an object."""
    try:
        value = json.loads(text)
    except ValueError:
        return []
    if isinstance(value, dict):
        value = next((v for v in value.values() if isinstance(v, list)), [])
    found = []
    for row in value if isinstance(value, list) else []:
        if isinstance(row, dict) and "title" in row and "price" in row:
            product = "\n".join(dict.fromkeys([str(row["title"]), str(row.get("text") or "")]))
            found.append((product, _number(str(row["price"]))))
    return found


def similarities(product: str, texts: Sequence[str]) -> list[float]:
    """Return the cosine of each text's words with the product's, rare words counting more."""
    bags = [Counter(words(t[: 2 * CAREFUL])) for t in (product, *texts)]
    seen = Counter(word for bag in bags for word in bag)
    vectors = [{w: n**0.5 * math.log(1 + len(bags) / seen[w]) for w, n in b.items()} for b in bags]
    sizes = [math.sqrt(sum(v * v for v in vector.values())) or 1.0 for vector in vectors]
    own = vectors[0]
    return [
        sum(v * own.get(w, 0.0) for w, v in vector.items()) / (size * sizes[0])
        for vector, size in zip(vectors[1:], sizes[1:], strict=True)
    ]


def cited(text: str, product: str) -> list[int]:
    """Return the numbers, from 1, of a text's priced products that are like the one asked about.

    None of them if none is alike: then it answers from general knowledge, and says so.
    """
    near = similarities(product, [shown.strip() for shown, price in PRODUCT.findall(text) if price])
    least = max([ALIKE, *(LEANS_ON * s for s in near)])
    return [number for number, s in enumerate(near, start=1) if s >= least]


def estimate(known: Evidence) -> tuple[float, float]:
    """Return (log price, trust): trust, from 0 to 1, is how much similar examples decided.

    Any examples fix the level: where knowledge is off by the same factor everywhere, it shifts.
    Similar ones are worth more than knowledge.
    """
    own = off_the_cuff(known.product)
    if not known.examples:
        return own, 0.0
    texts, prices = zip(*known.examples, strict=True)
    thought = [off_the_cuff(text) for text in texts]
    off = [math.log(p) - t for p, t in zip(prices, thought, strict=True)]
    level = own + median(off) * len(off) / (len(off) + 6)
    weights = [s**3 for s in similarities(known.product, texts)]
    total = sum(weights)
    trust = total / (total + 0.03)
    if not total:
        return level, 0.0
    local = sum(
        w * (math.log(p) + 0.25 * (own - t))
        for w, p, t in zip(weights, prices, thought, strict=True)
    )
    return (1 - trust) * level + trust * local / total, trust
