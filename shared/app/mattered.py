"""What mattered to an estimate: each word is left out in turn, and the product priced again.

This is occlusion (Zeiler and Fergus, 2014; Li et al., 2016, for words). It needs nothing of a
model but its prices. What it does not say: two words that tell the same cover for each other, so
that neither seems to matter, and effects do not add up. And it is about the model, not the world.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shared.data import Product
from shared.data.curation import UNKNOWN
from shared.pricers.words import TOKEN

READ = 600
"""Characters of a text whose words are left out in turn: what the shipped student reads of it."""

MOST = 150
"""Words that are tried at most, the first ones: one estimate each."""

LEAST = 0.01
"""Share of the price below which a word is not said to matter."""


@dataclass(frozen=True)
class Effect:
    """A word, wherever it stands, and the dollars that it adds to the estimate (or takes off)."""

    word: str
    dollars: float


@dataclass(frozen=True)
class Mattered:
    """The estimate in dollars, and the effects that are worth telling, the largest first.

    ``tried`` is how many words were left out, ``unread`` how many characters were not looked at.
    """

    price: float
    effects: tuple[Effect, ...]
    tried: int
    unread: int


def what_mattered(pricer: Any, product: Product) -> Mattered:
    """Price a product without each of its words, and without its category.

    A word that occurs twice is left out twice: or else the other would stand in for it. Raises
    ValueError if the product as a whole cannot be priced.
    """
    words = words_of(f"{product.title}\n{product.text[:READ]}")[:MOST]
    known = [product.category] if product.category not in ("", UNKNOWN) else []
    changed = [without(product, word) for word in words]
    changed += [replace(product, category=UNKNOWN) for _ in known]
    found = pricer.price([product, *changed])
    prices = np.asarray(found.price, dtype=float)
    if not np.isfinite(prices[0]):
        raise ValueError(f"no estimate: {found.error[0]}")
    names = [*words, *(f"category: {name}" for name in known)]
    effects = [
        Effect(name, float(prices[0] - price))
        for name, price in zip(names, prices[1:], strict=True)
        if np.isfinite(price) and abs(prices[0] - price) >= LEAST * prices[0]
    ]
    effects.sort(key=lambda effect: (-abs(effect.dollars), effect.word))
    return Mattered(float(prices[0]), tuple(effects), len(names), max(len(product.text) - READ, 0))


def words_of(text: str) -> list[str]:
    """Return the different words of a text in lower case, in the order in which they come."""
    return list(dict.fromkeys(re.findall(TOKEN, text.lower())))


def without(product: Product, word: str) -> Product:
    """Return the product with one word (in lower case) missing from title and text."""
    pattern = re.compile(rf"(?<![\w.]){re.escape(word)}(?![\w])(?!\.\w)", re.IGNORECASE)
    title, text = (
        re.sub(r"[ \t]{2,}", " ", pattern.sub("", part)).strip()
        for part in (product.title, product.text)
    )
    return replace(product, title=title, text=text)


def marked(text: str, effects: Sequence[Effect]) -> list[tuple[str, float | None]]:
    """Cut a text into pieces, each with the dollars of its word, None where it has no effect."""
    dollars = {effect.word: effect.dollars for effect in effects}
    pieces: list[tuple[str, float | None]] = []
    at = 0
    for found in re.finditer(TOKEN, text):
        effect = dollars.get(found[0].lower())
        if effect is not None:
            pieces += [(text[at : found.start()], None), (found[0], effect)]
            at = found.end()
    return [piece for piece in [*pieces, (text[at:], None)] if piece[0]]
