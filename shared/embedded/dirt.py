"""Make a clean listing as dirty as real ones; each kind of dirt and its rate is in ``Dirt``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from shared.embedded.prices import Product
from shared.embedded.slots import Facts, fill, part_number, pick, sentences, word
from shared.embedded.vocabulary import table


@dataclass(frozen=True)
class Dirt:
    """Share of records with each kind of dirt (the last three: share of products)."""

    other_language: float = 0.018
    text_long: float = 0.006
    boilerplate: float = 0.25
    part_number: float = 0.12
    price_in_text: float = 0.04
    markup: float = 0.12
    whitespace: float = 0.05
    emoji: float = 0.03
    text_short: float = 0.015
    text_empty: float = 0.012
    title_empty: float = 0.004
    details_dict: float = 0.01
    details_quotes: float = 0.008
    details_broken: float = 0.012
    wrong_shape: float = 0.02
    category_null: float = 0.58
    category_underscore: float = 0.01
    key_missing: float = 0.01
    price_missing: float = 0.48
    price_text: float = 0.05
    price_out_of_range: float = 0.012
    variants: float = 0.06
    copies: float = 0.025
    copies_same_asin: float = 0.01


RATES = Dirt()
"""The rates the catalogue uses."""

TRUE_PRICE_IN_TEXT = 0.4
"""Of the prices mentioned in texts, the share that is the true one: a leak if it is not masked."""

ODD_PRICES = (0.01, 0.0, 4999.0, 0.1, 9999.99, 0.25, 4999.0, 0.01, 1299000.0, -1.0)
PRICE_TEXTS = (
    "from {0:.2f}", "${0:,.2f}", "${0:.2f} - ${1:.2f}", "${0:,.2f}", "USD {0:.2f}", "—", "",
    "Currently unavailable", "See price in cart",
)  # fmt: skip
SPACES = ("  ", "\t", "\u00a0", " \n ", "\u200b ", "   ")
EMOJI = ("🔥", "⭐⭐⭐⭐⭐", "🎁", "👍", "❤", "💡", "✔", "★", "®", "™")


def _insert(lines: list, line: str, draw) -> None:
    lines.insert(int(draw() * (len(lines) + 1)), line)


def _texts(record: dict) -> list[str]:
    """Return the list that holds most of the text, so that dirt lands where it shows."""
    return record["description"] or record["features"]


def _other_language(record: dict, product: Product, facts: Facts, draw) -> None:
    code = pick(tuple(table("languages")), draw)
    texts = sentences("text", code, "languages")
    lines = [fill(line, facts, draw) for line in texts if draw() < 0.8]
    record["title"] = fill(pick(sentences("title", code, "languages"), draw), facts, draw)
    record["features"], record["description"] = lines[1:5], [" ".join([*lines[:1], *lines[5:]])]


def _text_long(record: dict, product: Product, facts: Facts, draw) -> None:
    size = 4000 + 5000 * draw()
    while size > 0:
        line = fill(pick(sentences(pick(("any", product.type.kind), draw)), draw), facts, draw)
        record["description"].append(line)
        size -= len(line)


def _boilerplate(record: dict, product: Product, facts: Facts, draw) -> None:
    lines = [line for line in table("sentences")["boilerplate"].splitlines() if line]
    for _ in range(1 + int(draw() * 3)):
        _insert(_texts(record), pick(lines, draw), draw)


def _part_number(record: dict, product: Product, facts: Facts, draw) -> None:
    numbers = [part_number(draw) for _ in range(1 + int(draw() ** 2 * 9))]
    if draw() < 0.6:
        record["title"] = f"{numbers[0]} {record['title']}"
    _insert(_texts(record), f"Replaces: {', '.join(numbers)}", draw)


def _price_in_text(record: dict, product: Product, facts: Facts, draw) -> None:
    other = product.price * (1.1 + draw())
    price = product.price if draw() < TRUE_PRICE_IN_TEXT else other
    line = fill(pick(sentences("lines", "prices"), draw), {"price": (f"{price:,.2f}",)}, draw)
    _insert(_texts(record), line, draw)


def _each_text(change: Callable) -> Callable:
    def soil(record: dict, product: Product, facts: Facts, draw) -> None:
        for key in ("features", "description"):
            record[key] = [change(text, draw) for text in record[key]]

    return soil


def _markup(text: str, draw) -> str:
    text = text.replace("&", "&amp;").replace('"', "&quot;").replace("'", "&#39;")
    text = text.replace(". ", ".<br>", 1 + int(draw() * 3))
    return f"<b>{text}</b>" if draw() < 0.2 else f"<p>{text}" if draw() < 0.1 else text


def _whitespace(text: str, draw) -> str:
    return text.replace(" ", pick(SPACES, draw), 1 + int(draw() * 4)) + "  "


def _emoji(record: dict, product: Product, facts: Facts, draw) -> None:
    record["title"] = f"{pick(EMOJI, draw)} {record['title']}"
    _insert(_texts(record), f"{pick(EMOJI, draw)} {record['title']} {pick(EMOJI, draw)}", draw)


def _text_short(record: dict, product: Product, facts: Facts, draw) -> None:
    words = (product.brand, product.type.name, record["title"], word("adjective", draw))
    record["features"], record["description"] = [], [pick(words, draw)]


def _text_empty(record: dict, product: Product, facts: Facts, draw) -> None:
    record["features"], record["description"] = [], [""] if draw() < 0.3 else []


def _details_quotes(record: dict, product: Product, facts: Facts, draw) -> None:
    record["details"] = str(record["details"])


def _details_broken(record: dict, product: Product, facts: Facts, draw) -> None:
    text = json.dumps(record["details"] or {"Brand": product.brand})
    record["details"] = text[: 1 + int(draw() * (len(text) - 1))]


def _wrong_shape(record: dict, product: Product, facts: Facts, draw) -> None:
    key = pick(("title", "features", "description", "features", "description"), draw)
    value = record[key]
    if key == "title":
        record[key] = [value]
    else:
        record[key] = " ".join(value) if draw() < 0.6 else None


def _key_missing(record: dict, product: Product, facts: Facts, draw) -> None:
    optional = ("features", "description", "details", "store", "categories", "price", "title")
    del record[pick(optional, draw)]


def _set(key: str, value: Callable) -> Callable:
    def soil(record: dict, product: Product, facts: Facts, draw) -> None:
        record[key] = value(product, draw)

    return soil


STEPS: dict[str, Callable] = {
    "price_missing": _set("price", lambda product, draw: None),
    "price_text": _set(
        "price",
        lambda product, draw: pick(PRICE_TEXTS, draw).format(product.price, product.price * 1.7),
    ),
    "price_out_of_range": _set("price", lambda product, draw: pick(ODD_PRICES, draw)),
    "other_language": _other_language,
    "text_long": _text_long,
    "boilerplate": _boilerplate,
    "part_number": _part_number,
    "price_in_text": _price_in_text,
    "markup": _each_text(_markup),
    "whitespace": _each_text(_whitespace),
    "emoji": _emoji,
    "text_short": _text_short,
    "text_empty": _text_empty,
    "title_empty": _set("title", lambda product, draw: ""),
    "details_dict": _set("details", lambda product, draw: {"Brand": product.brand}),
    "details_quotes": _details_quotes,
    "details_broken": _details_broken,
    "wrong_shape": _wrong_shape,
    "category_null": _set("main_category", lambda product, draw: None),
    "category_underscore": _set(
        "main_category", lambda product, draw: product.type.category.replace(" ", "_")
    ),
    "key_missing": _key_missing,
}
"""How each kind of dirt is applied, in this order; kinds of one group exclude each other."""

GROUPS = ("price_", "text_", "details_", "category_")


def _group(kind: str) -> str:
    if kind == "price_in_text":
        return kind
    return next((group for group in GROUPS if kind.startswith(group)), kind)


@cache
def _steps(rates: Dirt) -> tuple[tuple[str, str, float, Callable], ...]:
    return tuple((kind, _group(kind), getattr(rates, kind), STEPS[kind]) for kind in STEPS)


def soil(record: dict, product: Product, facts: Facts, draw, rates: Dirt = RATES) -> list[str]:
    """Dirty a record in place; return the kinds of dirt it got.

    ``facts`` are the wordings from ``writing.write``; ``draw`` returns random numbers in [0, 1).
    """
    kinds, groups = [], set()
    for kind, group, rate, apply in _steps(rates):
        if draw() < rate and group not in groups:
            apply(record, product, facts, draw)
            kinds.append(kind)
            groups.add(group)
    if isinstance(record.get("details"), dict) and "details_dict" not in kinds:
        record["details"] = json.dumps(record["details"])
    return kinds
