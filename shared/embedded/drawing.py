"""Draw products: which type, brand, size, material, condition … with which odds."""

from __future__ import annotations

import random
from bisect import bisect
from functools import cache
from itertools import accumulate

from shared.embedded.prices import LINES, Product, draw_ending, draw_noise, set_prices
from shared.embedded.vocabulary import (
    ProductType,
    Tier,
    brands,
    coined_syllables,
    pools,
    product_types,
    tiers,
)

CATEGORY_SHARES = {
    "Appliances": 0.20,
    "Automotive": 0.15,
    "Cell Phones and Accessories": 0.07,
    "Electronics": 0.13,
    "Musical Instruments": 0.12,
    "Office Products": 0.09,
    "Tools and Home Improvement": 0.15,
    "Toys and Games": 0.09,
}
"""Share of products in each category."""

ONLY_NEW = frozenset({"supply", "carcare", "case", "cable", "plumbing"})
"""Kinds that nobody sells used."""

CONDITIONS = ((0.06, "renewed"), (0.10, "used"), (0.13, "open"))
"""Cumulative share of conditions other than new."""

FREQUENT = frozenset({"part", "supply", "case", "cable", "carcare"})
"""Kinds of small things that shops list twice as often as the others."""

PACK_SHARE, LINE_SHARE, KIT_SHARE = 0.22, 0.12, 0.4
GRADE_SHARES = {"noname": 0.05, "budget": 0.06, "mid": 0.09, "premium": 0.12, "professional": 0.45}
"""Share of products of a tier that are professional grade, where the type has one."""


@cache
def _shares(values: tuple[float, ...]) -> tuple[float, ...]:
    total = sum(values)
    return tuple(accumulate(value / total for value in values))


@cache
def _listed(category: str) -> tuple[ProductType, ...]:
    types = product_types()[category]
    return types + tuple(kind for kind in types if kind.kind in FREQUENT)


def _by_share(options: dict[str, float], draw) -> str:
    shares = _shares(tuple(options.values()))
    return tuple(options)[min(bisect(shares, draw()), len(options) - 1)]


@cache
def _tier_shares() -> dict[str, float]:
    return {name: tier.share for name, tier in tiers().items()}


def coin_brand(draw) -> str:
    """Invent the name of a small seller from syllables."""
    first, middle, last = coined_syllables()
    name = first[int(draw() * len(first))] + middle[int(draw() * len(middle))]
    if draw() < 0.6:
        name += last[int(draw() * len(last))]
    return name.upper() if draw() < 0.4 else name.capitalize()


def _brand(category: str, tier: Tier, draw) -> str:
    known = brands(category, tier.name)
    return known[int(draw() ** 1.4 * len(known))] if known else coin_brand(draw)


def _values(kind: ProductType, draw) -> tuple[float, float | None]:
    """Draw size and second attribute; a bigger thing tends to have more of the second, too."""
    place = draw()
    size = kind.size.values[int(place * len(kind.size.values))]
    if kind.second is None:
        return size, None
    mixed = place if draw() < 0.5 else draw()
    return size, kind.second.values[int(mixed * len(kind.second.values))]


def _condition(kind: ProductType, draw) -> str:
    share = draw()
    if kind.kind in ONLY_NEW:
        return "new"
    return next((name for limit, name in CONDITIONS if share < limit), "new")


def draw_product(rng: random.Random) -> Product:
    """Draw one product with its median and asking price."""
    draw = rng.random
    types = _listed(_by_share(CATEGORY_SHARES, draw))
    kind = types[int(draw() * len(types))]
    tier = tiers()[_by_share(_tier_shares(), draw)]
    size, second = _values(kind, draw)
    condition = _condition(kind, draw)
    packed = kind.packs and draw() < PACK_SHARE
    colors = pools()["color"]
    product = Product(
        type=kind,
        brand=_brand(kind.category, tier, draw),
        tier=tier,
        size=size,
        second=second,
        made=kind.made[int(draw() ** 1.25 * len(kind.made))],
        grade=kind.pro is not None and draw() < GRADE_SHARES[tier.name],
        condition=condition,
        pack=kind.packs[int(draw() * len(kind.packs))] if packed else 1,
        kit=kind.kit is not None and draw() < KIT_SHARE,
        line=tuple(LINES)[int(draw() * len(LINES))] if draw() < LINE_SHARE else "",
        color=colors[int(draw() * len(colors))],
        ending=draw_ending(rng),
        noise=draw_noise(tier, condition, rng),
    )
    return set_prices(product)
