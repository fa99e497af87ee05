"""The embedded catalogue: raw product records made here, so that the course runs offline.

An honest stand-in for Amazon Reviews 2023 metadata (https://amazon-reviews-2023.github.io): same
fields, same mess, invented brands, and a price model whose best possible error can be computed.
Records are made in blocks of ``BLOCK``; a block depends on the seed and its number only, so the
first thousand of a large catalogue are the small catalogue.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from statistics import fmean, median

from shared.embedded.dirt import RATES, soil
from shared.embedded.drawing import draw_product
from shared.embedded.prices import Product, set_prices
from shared.embedded.vocabulary import pools
from shared.embedded.writing import write

BLOCK = 64
"""Records that share one random generator; variants and copies of a product stay in one block."""

WINDOW = (0.5, 999.49)
"""The prices, in dollars, that the course keeps."""

SHOP_SHARE, PATH_SHARE, RATED_SHARE = 0.55, 0.55, 0.7

Row = tuple[Product, dict, list[str]]
"""A product, the record that lists it, and the kinds of dirt that the record got."""


def generate(size: int, seed: int = 42) -> Iterator[dict]:
    """Yield ``size`` raw records in the schema of Amazon Reviews 2023 metadata.

    Prices are dollars where they are numbers. The same size and seed give the same records on
    every machine, and a smaller size gives the beginning of a larger one.
    """
    return (record for _, record, _ in rows(size, seed))


def true_products(size: int, seed: int = 42) -> Iterator[dict]:
    """Yield what the records of ``generate(size, seed)`` are really about, in the same order.

    ``median`` is the noise-free price and ``price`` the asking price before dirt, both in dollars
    and rounded as the seller rounds; ``dirt`` lists the kinds of dirt, see ``dirt.Dirt``.
    """
    return (_truth(product, record, dirt) for product, record, dirt in rows(size, seed))


def rows(size: int, seed: int = 42) -> Iterator[Row]:
    """Yield products, records and dirt together; refuse a negative size."""
    if size < 0:
        raise ValueError(f"size {size} is negative: ask for 0 records or more")
    blocks = (_block(seed, number) for number in count())
    return islice((row for block in blocks for row in block), size)


def irreducible_error(size: int = 20_000, seed: int = 42) -> dict[str, float]:
    """Compute the error of the best possible estimator on the priced records of a catalogue.

    It knows every attribute and the whole price model, and answers the noise-free median, which
    minimises the mean absolute error because the noise is symmetric in the logarithm. Texts leave
    some attributes out, so a reader of texts cannot quite reach it. Returns dollars: ``mae``,
    ``median_absolute_error``; ``rmsle`` (log dollars); ``constant_mae``, what always answering the
    median price gets; and ``records``, the priced records within ``WINDOW`` that were counted.
    """
    priced = [
        (product.median, product.price)
        for product, record, _ in rows(size, seed)
        if record.get("price") == product.price and WINDOW[0] <= product.price <= WINDOW[1]
    ]
    errors = [abs(best - price) for best, price in priced]
    logs = [(math.log1p(best) - math.log1p(price)) ** 2 for best, price in priced]
    middle = median(price for _, price in priced)
    return {
        "records": len(priced),
        "mae": fmean(errors),
        "median_absolute_error": median(errors),
        "rmsle": math.sqrt(fmean(logs)),
        "constant_mae": fmean(abs(price - middle) for _, price in priced),
    }


def _block(seed: int, number: int) -> list[Row]:
    rng, made = random.Random(f"{seed}:{number}"), []
    while len(made) < BLOCK:
        made += _family(rng)
    return made[:BLOCK]


def _family(rng: random.Random) -> list[Row]:
    """Make the records of one product: usually one, sometimes variants or copies of it."""
    product, words, draw = draw_product(rng), rng.getrandbits(64), rng.random
    family = [_listing(product, words, rng)]
    if draw() < RATES.variants:
        for _ in range(1 + int(draw() * 4)):
            family.append(_listing(_variant(product, draw), words, rng, "variant"))
    for kind in ("copies", "copies_same_asin"):
        if draw() < getattr(RATES, kind):
            family.append(_copy(family[0], kind, draw))
    return family


def _listing(product: Product, words: int, rng: random.Random, *notes: str) -> Row:
    listing, facts = write(product, random.Random(words))
    record = _record(product, listing, rng.random)
    return product, record, [*notes, *soil(record, product, facts, rng.random)]


def _variant(product: Product, draw) -> Product:
    """Return the product in another color, sometimes in another size at that size's price."""
    colors = pools()["color"]
    sizes, size = product.type.size.values, product.size
    if draw() < 0.25:
        size = sizes[int(draw() * len(sizes))]
    other = replace(product, color=colors[int(draw() * len(colors))], size=size)
    if draw() < 0.15:
        other.noise += 0.06 * (draw() - 0.5)
    return set_prices(other)


def _copy(row: Row, kind: str, draw) -> Row:
    product, record, dirt = row
    again = dict(record)
    if kind == "copies":
        again["parent_asin"] = _asin(draw)
    return product, again, [*dirt, kind]


def _asin(draw) -> str:
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "B0" + "".join(letters[int(draw() * 36)] for _ in range(8))


def _record(product: Product, listing: dict, draw) -> dict:
    rated, category = draw() < RATED_SHARE, product.type.category
    return {
        "main_category": category,
        "title": listing["title"],
        "average_rating": round(5 - 2.2 * draw() ** 2.5, 1) if rated else None,
        "rating_number": int(10 ** (3.6 * draw())) if rated else None,
        "features": listing["features"],
        "description": listing["description"],
        "price": product.price,
        "images": [],
        "videos": [],
        "store": product.brand if draw() < SHOP_SHARE else None,
        "categories": [category, product.type.name.title() + "s"] if draw() < PATH_SHARE else [],
        "details": listing["details"],
        "parent_asin": _asin(draw),
    }


def _truth(product: Product, record: dict, dirt: list[str]) -> dict:
    kind = product.type
    return {
        "parent_asin": record["parent_asin"],
        "type": kind.name,
        "category": kind.category,
        "brand": product.brand,
        "tier": product.tier.name,
        "size": product.size,
        "unit": kind.size.unit,
        "second": product.second,
        "second_unit": kind.second.unit if kind.second else None,
        "material": product.made[0],
        "professional": product.grade,
        "condition": product.condition,
        "pack": product.pack,
        "kit": kind.kit[0] if product.kit else None,
        "line": product.line,
        "color": product.color,
        "median": product.median,
        "price": product.price,
        "dirt": dirt,
    }
