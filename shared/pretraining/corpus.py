"""What the tiny base model reads before it meets the course: price lists of *other* products.

A real base model has read a good part of the web, with millions of priced products in it. Ours
reads pages and price lists of a catalogue drawn with another seed: the same kinds of things and
the same brands, other products, and none that is a near-duplicate of one the course evaluates on.
And it reads them as a web of many years tells them: at the prices of those years, which went
down for some kinds of goods and up for others, in shops that are cheap or dear, new and used. So it
knows a good deal about what makes a thing dear, and is wrong about what things cost today.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from shared.data.duplicates import Sketches, clusters
from shared.pipeline import prepare
from shared.pretraining.base_model import DOLLARS

SEED = 977
"""Of the other catalogue; the course's own is drawn with 42."""

LISTS, PAGES = 0.5, 0.4
"""Shares of one-line price lists and of pages with a price at their end; the rest has no price."""

YEARS, TODAY = (2004, 2022), 2026
CHANGE = 0.03
CHANGES = {
    "Electronics": -0.07, "Cell Phones and Accessories": -0.05, "Appliances": 0.01,
    "Tools and Home Improvement": 0.02, "Toys and Games": 0.02, "Musical Instruments": 0.03,
    "Office Products": 0.03, "Automotive": 0.04,
}  # fmt: skip
"""How prices of a category move in a year; ``CHANGE`` for all others. Assumed, in the directions
and of the size that consumer price indices show. Pages are old, and most do not say how old."""

SPREAD = 0.4
"""Standard deviation of the log price between offers of the same thing."""

DATED = 0.3
"""Share of the documents that name their year."""

PAGE_CHARS = (120, 420)
"""Least and most characters of a page before its price."""

PHRASES = (
    "Price: ${}", "Our price: ${}", "Now ${}", "Buy it for ${}", "List price ${}", "It costs ${}",
    "On sale for ${}", "Only ${}",
)  # fmt: skip
"""How a page says its price. The course's own question is not among them."""


def other_products(
    records: int, folder: Path, apart_from: pa.Table, *, seed: int = SEED, progress: bool = False
) -> pa.Table:
    """Curate ``records`` records of the other catalogue (ITEM schema), without what is known.

    Left out is whatever is a near-duplicate of an item of ``apart_from`` (ITEM schema), or has the
    same title. ``folder`` holds what was curated: a second call opens it.
    """
    items = prepare("embedded", folder, seed=seed, size=records, progress=progress).table()
    titles, texts = (
        [*apart_from[name].to_pylist(), *items[name].to_pylist()] for name in ("title", "text")
    )
    labels = np.asarray(clusters(Sketches.of(titles, texts)))
    known = set(labels[: len(apart_from)].tolist())
    named = set(apart_from["title"].to_pylist())
    rows = zip(labels[len(apart_from) :].tolist(), items["title"].to_pylist(), strict=True)
    return items.filter(pa.array([label not in known and t not in named for label, t in rows]))


def price_then(price: float, category: str | None, year: int) -> float:
    """Return what a thing that costs ``price`` dollars today did cost in a year, on average."""
    return price * (1 + CHANGES.get(category, CHANGE)) ** (year - TODAY)


def documents(items: pa.Table, seed: int = SEED) -> Iterator[tuple[str, int | None]]:
    """Yield a document for each item, in an order of its own: a text, and what it did cost then.

    The text ends before the number; the price is in whole dollars, or None where there is none.
    """
    draw = random.Random(seed)
    names = ("title", "text", "price", "category")
    rows = list(zip(*(items[name].to_pylist() for name in names), strict=True))
    draw.shuffle(rows)
    for title, text, price, category in rows:
        share, year = draw.random(), draw.randint(*YEARS)
        offered = price_then(price, category, year) * math.exp(draw.gauss(0, SPREAD))
        price = min(max(round(offered), 1), DOLLARS - 1)
        if draw.random() < DATED:
            title, text = f"{year}: {title}", f"{year}\n{text}"
        if share < LISTS:
            yield f"{title} - $", price
        elif share < LISTS + PAGES:
            page = text[: draw.randint(*PAGE_CHARS)].rpartition(" ")[0]
            yield f"{page}\n{draw.choice(PHRASES).partition('{}')[0]}", price
        else:
            yield text[len(title) + 1 :][: PAGE_CHARS[1]], None
