"""Two pictures of retrieval: a map of the products, and the neighbours of one product as cards.

Both are words, too: the map has alt text, the cards are a list. What sellers wrote is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from shared.data import Product
from shared.pricers.words import TOKEN
from shared.reports.figures import DARK, LIGHT, dollars
from shared.reports.likeness import LikenessMap, label, likeness_map, short
from shared.retrieval.found import Neighbour
from shared.retrieval.index import ProductIndex

WORDS = 8
"""Shared words that a card shows."""

_FIELD = re.compile(r"^[^:\n]{1,40}:", re.M)  # "Item Weight:" is in every text


def product_map(
    index: ProductIndex, query: str | Product | None = None, neighbours: Sequence[Neighbour] = (),
    *, count: int = 1_000, seed: int = 42,
) -> LikenessMap:  # fmt: skip
    """Draw ``count`` products of an index on a plane, and a query among its neighbours.

    It takes some seconds for a thousand; see ``likeness_map`` for what it shows, and what not.
    Raises ValueError for neighbours that the index does not hold.
    """
    items = index.items()
    row = {key: i for i, key in enumerate(items["id"].to_pylist())}
    if missing := [near.id for near in neighbours if near.id not in row]:
        raise ValueError(f"the index does not hold the neighbour {missing[0]!r}")
    last = [row[near.id] for near in neighbours]
    others = np.setdiff1d(np.arange(len(items)), last)
    size = min(max(count - len(last), 0), len(others))
    drawn = np.random.default_rng(seed).choice(others, size, replace=False)
    items, asked = items.take([*drawn, *last]), "" if query is None else _text(query)
    vectors = index.embedding.embed([*items["text"].to_pylist(), *filter(None, [asked])])
    return likeness_map(items, vectors, asked, len(last), seed=seed)


@dataclass(frozen=True)
class Cards:
    """A query and its neighbours: cards in a notebook, light or dark, and plain lines elsewhere."""

    query: str
    neighbours: tuple[Neighbour, ...]

    def _repr_html_(self) -> str:
        template = Template(Path(__file__).with_name("cards.html").read_text(encoding="utf-8"))
        light, dark = (" ".join(f"--{k}: {v};" for k, v in vars(t).items()) for t in (LIGHT, DARK))
        cards = "".join(map(self._card, self.neighbours)) or "<li>no neighbour</li>"
        return template.substitute(light=light, dark=dark, asked=escape(short(self.query)),
                                   cards=cards)  # fmt: skip

    def __repr__(self) -> str:
        lines = [f"looked for: {short(self.query)}"]
        for i, near in enumerate(self.neighbours, 1):
            said = label(near.title, near.price, near.category)
            words = ", ".join(shared_words(self.query, near.text))
            lines += [f"{i}. {near.similarity:.2f}  {said}", f"   shares {words or 'no word'}"]
        return "\n".join(lines)

    def _card(self, near: Neighbour) -> str:
        words = (f"<mark>{escape(word)}</mark>" for word in shared_words(self.query, near.text))
        width = 100 * min(max(near.similarity, 0.0), 1.0)
        return (  # the spaces are for where styles are stripped
            f'<li class="card"><span class="price">{dollars(near.price)}</span> '
            f"<b>{escape(short(near.title))}</b> <small>{escape(near.category)}</small> "
            f'<span class="bar" aria-hidden="true"><span style="width:{width:.0f}%"></span></span> '
            f"<small>similarity {near.similarity:.2f}; shares {' '.join(words) or 'no word'}"
            "</small></li>"
        )


def neighbour_cards(query: str | Product, neighbours: Sequence[Neighbour]) -> Cards:
    """Show what was found for a text or a product, in the order found: price, likeness, words."""
    return Cards(_text(query), tuple(neighbours))


def shared_words(one: str, other: str, most: int = WORDS) -> list[str]:
    """Return the first words of a text that another has, too, but not such as every text has."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    first, second = (re.findall(TOKEN, _FIELD.sub("", text).lower()) for text in (one, other))
    common = {word for word in second if len(word) > 2} - ENGLISH_STOP_WORDS
    return [word for word in dict.fromkeys(first) if word in common][:most]


def _text(query: str | Product) -> str:
    return query if isinstance(query, str) else query.text
