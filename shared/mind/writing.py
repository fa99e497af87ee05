"""Texts the stand-in writes: rewrites of a product, new ones, descriptions, judgements, values."""

from __future__ import annotations

import math
import re
from typing import Any

from shared.mind.conversation import uniform
from shared.mind.pricing import knowledge, noun_of, nouns, off_the_cuff, pack_of, title_of, words

NEW_PRODUCT = "new_product"
"""The title of a schema that asks for a product which is not there yet."""

_QUANTITY = re.compile(
    r"\b\d[\d.,/x]*(?: x \d[\d.,/]*)*(?:[ -]?(?!and|or|of|in\b)[a-z\"]{1,6}\b)?", re.I
)
_BRAND = re.compile(r"(?:brand|manufacturer)\"?\s*:\s*\"?([^\n\",]{1,40})", re.I)


def brand_of(product: str) -> str:
    """Return the brand that is named, else the title's first word if it is no common one."""
    named = _BRAND.search(product)
    first = title_of(product).split(" ")[0].strip(",")
    common = not words(first) or words(first)[0] in {*knowledge()["words"], *nouns()}
    return named[1].strip() if named else "" if common or not first[:1].isupper() else first


def two_numbers(text: str) -> str:
    """Return a text without its numbers beyond the first two: what summaries really lose."""
    left = iter((True, True))
    kept = _QUANTITY.sub(lambda m: m[0] if next(left, False) else "", text)
    return re.sub(r"\s+([,.])", r"\1", re.sub(r"[ \t]{2,}", " ", kept)).strip()


def rewrite(product: str) -> dict[str, str]:
    """Return title, category, brand, description and details of a product, in clean words."""
    lines = [line.strip() for line in product.strip().splitlines() if line.strip()]
    title = re.split(r" - | \||\(|\[", title_of(product))[0][:80].strip(" ,")
    title = (title.title() if title.isupper() else title) or "Untitled"
    pairs = [line for line in lines[1:] if re.match(r"[A-Z][\w /]{1,30}: ", line)]
    prose = " ".join(line for line in lines[1:] if line not in pairs) or title
    sentences = re.split(r"(?<=[.!?])\s+", prose)
    shown = two_numbers(f"{title}\n{' '.join(sentences[:2])[:300]}")
    title, _, description = shown.partition("\n")
    return {
        "title": title,
        "category": nouns().get(noun_of(product)[0], (0, "Other"))[1],
        "brand": brand_of(product),
        "description": description,
        "details": two_numbers("; ".join(pairs[:3])),
    }


def another(known: dict[str, Any], *key: Any) -> dict[str, Any]:
    """Return a new product like a known one: of its category, quality and numbers changed.

    Nothing but rough knowledge goes in: nouns and words, and what they make of a price.
    """

    def draw(what: str, options: list) -> Any:
        return options[int(uniform(what, *key, known["title"]) * len(options))]

    old, times = noun_of(known["title"])[0], draw("size", [0.5, 0.75, 1, 1.5, 2])
    kin = [noun for noun, (_, category) in nouns().items() if category == known["category"]]
    noun = draw("noun", [*kin, *[old] * len(kin)] if old else list(nouns()))
    quality = draw("quality", sorted(knowledge()["words"]))
    title = " ".join([known["brand"], quality, noun]).strip().title()
    said = draw("sentence", re.split(r"(?<=[.!?])\s+", known["description"]))
    said = re.sub(re.escape(old), noun, said, flags=re.I) if old else said
    description, details = (
        re.sub(r"\b\d+(?:\.\d+)?\b", lambda m: f"{float(m[0]) * times:.3g}", text)
        for text in (f"{title}. {said}", known["details"])
    )
    texts = (f"{title}\n{details}\n{description}",
             "\n".join(known[name] for name in ("title", "details", "description")))  # fmt: skip
    new, before = map(off_the_cuff, texts)
    price = f"${min(max(known['price'] * math.exp(new - before), 1.0), 50_000.0):.2f}"
    return {
        **known, "title": title, "description": description, "details": details, "price": price,
        "category": nouns()[noun][1],
    }  # fmt: skip


def three_lines(product: str) -> str:
    """Return what kind of thing a product is, its brand, and what drives its price."""
    factors = knowledge()["words"]
    drivers = [w for w in dict.fromkeys(words(product[:600])) if factors.get(w, 1.0) != 1.0][:4]
    if pack_of(product) > 1:
        drivers.insert(0, f"sold {pack_of(product)} at a time")
    return (
        f"Kind: {noun_of(product)[0] or 'an article of unknown kind'}\n"
        f"Brand: {brand_of(product) or 'not named'}\n"
        f"Price drivers: {', '.join(drivers) or 'nothing unusual'}"
    )


def compare(product: str) -> str:
    """Return what is cheaper and what is dearer than a product, and where it stands."""
    noun = noun_of(product)[0] or "article of its kind"
    extra = off_the_cuff(product) - off_the_cuff(product, attributes=False)
    place = "at the upper end" if extra > 0.3 else "at the lower end" if extra < -0.1 else "between"
    return f"Cheaper: a basic {noun}. Dearer: a professional {noun}. This one stands {place}."


def paragraph(product: str) -> str:
    """Return a short description of a product, as prose."""
    clean = rewrite(product)
    by = f" by {clean['brand']}" if clean["brand"] else ""
    return f"{clean['title']}{by}. {clean['description']}".strip()


def judge(text: str, product: str, seed: int) -> str:
    """Return which of ``<first>`` and ``<second>`` describes the product better, or "tie".

    Shared words count for a text, invented numbers and excess length against it; and the first
    has a head start, which decides close cases: judges have that, and a course should show it.
    """
    texts = [re.search(rf"<{t}>(.*?)</{t}>", text, re.S) for t in ("first", "second")]
    first, second = (match[1].strip() if match else "" for match in texts)
    if first == second:
        return "tie"
    first_score, second_score = (_score(t, product) for t in (first, second))
    head_start = 0.02 + 0.06 * uniform("judge", seed, first, second)
    return "first" if first_score + head_start >= second_score else "second"


def _score(text: str, product: str) -> float:
    own, source = set(words(text)), set(words(product))
    precision = len(own & source) / max(len(own), 1)
    recall = min(len(own & source) / max(min(len(source), 40), 1), 1.0)
    invented = {n for n in re.findall(r"\d+", text) if n not in product} if product else ()
    return 0.5 * precision + 0.5 * recall - 0.15 * len(invented) - max(len(text) - 600, 0) / 3000


def fill(schema: dict, known: dict[str, Any], *key: Any, root: dict | None = None) -> Any:
    """Return a value that fits a JSON schema: known properties by name, the rest by type."""
    root = root or schema
    if schema.get("title") == NEW_PRODUCT:
        known = another(known, *key)
    name = key[-1] if key else ""
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return fill(target, known, *key, root=root)
    for option in schema.get("anyOf") or schema.get("oneOf") or ():
        return fill(option, known, *key, root=root)
    kind, value = schema.get("type"), _known(name, known)
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        options = schema["enum"]
        drawn = options[int(uniform("enum", *key) * len(options))]
        return value if value in options else drawn
    if kind == "object":
        properties = schema.get("properties", {})
        return {n: fill(s, known, *key, n, root=root) for n, s in properties.items()}
    if kind == "array" and isinstance(value, list):
        return value
    if kind == "array":
        items = value.split("; ") if isinstance(value, str) else []
        if schema.get("items", {}).get("type") == "string":
            return [v for v in items if v] or [_text(name, known)] * schema.get("minItems", 0)
        least = schema.get("minItems", 0)
        return [fill(schema.get("items", {}), known, *key, i, root=root) for i in range(least)]
    if kind in ("number", "integer"):
        number = value if isinstance(value, (int, float)) else _number(name, known, key, schema)
        return round(number) if kind == "integer" else number
    if kind == "boolean":
        return uniform("boolean", *key) < 0.5
    return None if kind == "null" else value if isinstance(value, str) else _text(name, known)


def _known(name: Any, known: dict[str, Any]) -> Any:
    """Return what is known under a name, or under a name that has one of ours in it."""
    if name in known:
        return known[name]
    same = (n for n in ("price", "quantity", "title") if isinstance(name, str) and n in name)
    return known.get(next(same, None))


def _number(name: Any, known: dict, key: tuple, schema: dict) -> float:
    named = {"count": "quantity", "total": "price", "amount": "price", "units": "quantity"}
    for part, ours in named.items():
        if part in str(name) and ours in known:
            return known[ours]
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high = schema.get("maximum", low + 1)
    return round(low + (high - low) * (0.5 + 0.5 * uniform("number", *key)), 2)


def _text(name: Any, known: dict) -> str:
    return known.get("reason") or f"This is the {name} that plain code can give."
