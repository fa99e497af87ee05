"""The price model of the embedded catalogue, written out so that a learner can argue with it.

median price = base of the type
    x brand factor (tier, raised to how much a kind cares about brands; a personal touch of the
      brand, and of the brand in this category)
    x (size / middle size) ** (exponent of the type x slope of the tier)
    x (second / its middle) ** exponent
    x material x kit x model line x grade x condition
    x pack ** (0.88 - bulk discount of the tier)

Interactions, which no sum over words can state: size x tier (slope), grade x type x tier, condition
x tier, pack x tier, line x tier, tier x kind, brand x category. The asking price is the median
times log-normal noise that nothing in a listing explains (``NOISE``, more for used pieces and for
unknown sellers, and a few sellers who are far off), rounded to the seller's habit.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache

from shared.embedded.vocabulary import ProductType, Tier

NOISE = 0.17
"""Standard deviation of the logarithm of price that no attribute explains."""

FAR_OFF, FAR_OFF_SCALE = 0.04, 3.0
"""Share of sellers who price carelessly, and how many times wider they scatter."""

ENDINGS = ((0.37, 0.99), (0.54, 0.0), (0.61, 0.95), (0.64, 0.49), (0.665, 0.98), (0.69, 0.97))
"""Cumulative share of listings, and the cents they end in; the rest is not rounded at all."""

BRAND_WEIGHT = {"part": 0.6, "supply": 0.75, "case": 1.1, "instrument": 1.25, "stage": 1.15}
"""How much a kind of product cares about brands (exponent of the tier factor; else 1)."""

PACK_EXPONENT = 0.88
LINES = {"Lite": (0.80, 0.86), "Plus": (1.03, 1.16), "Pro": (1.04, 1.36), "Max": (1.05, 1.27)}
"""Model line -> price factor for (no-name and budget, other) tiers: a budget "Pro" is hot air."""

SPREAD_OF_CONDITION = {"used": 1.6, "renewed": 1.15, "open": 1.15}


@dataclass(slots=True)
class Product:
    """What a listing is really about; dollars are noise-free in ``median``, asked in ``price``."""

    type: ProductType
    brand: str
    tier: Tier
    size: float
    second: float | None
    made: tuple[str, float]
    grade: bool
    condition: str
    pack: int
    kit: bool
    line: str
    color: str
    ending: float | None
    noise: float
    median: float = 0.0
    price: float = 0.0


@cache
def brand_touch(brand: str, category: str) -> float:
    """Return a brand's own price factor, part of it valid in this category only."""
    general = random.Random(f"touch {brand}").gauss(0, 0.12)
    return math.exp(general + random.Random(f"touch {brand} in {category}").gauss(0, 0.08))


def brand_factor(product: Product) -> float:
    """Return what the name on the box does to the price."""
    kind, tier = product.type.kind, product.tier
    touch = 1.0 if tier.name == "noname" else brand_touch(product.brand, product.type.category)
    return touch * tier.factor ** BRAND_WEIGHT.get(kind, 1.0)


def size_factor(product: Product) -> float:
    """Return the effect of the measured attributes: better brands charge more for each step up."""
    size, second = product.type.size, product.type.second
    factor = (product.size / size.middle) ** (size.exponent * product.tier.slope)
    if second is not None:
        factor *= (product.second / second.middle) ** second.exponent
    return factor


def extras_factor(product: Product) -> float:
    """Return the effect of material, kit, model line, grade and condition."""
    factor, tier = product.made[1], product.tier
    serious = tier.name not in ("noname", "budget")
    if product.kit:
        factor *= product.type.kit[1]
    if product.line:
        factor *= LINES[product.line][serious]
    if product.grade:
        factor *= product.type.pro ** (1.0 if serious else 0.55)
    return factor if product.condition == "new" else factor * getattr(tier, product.condition)


def median_price(product: Product) -> float:
    """Return the noise-free price in dollars, before rounding."""
    pack = product.pack ** (PACK_EXPONENT - product.tier.bulk)
    return (
        product.type.base
        * brand_factor(product)
        * size_factor(product)
        * extras_factor(product)
        * pack
    )


def draw_noise(tier: Tier, condition: str, rng: random.Random) -> float:
    """Return the logarithm of what the seller adds to or takes off the median price."""
    spread = NOISE * tier.spread * SPREAD_OF_CONDITION.get(condition, 1.0)
    if rng.random() < FAR_OFF:
        spread *= FAR_OFF_SCALE
    return rng.gauss(0.0, spread)


def draw_ending(rng: random.Random) -> float | None:
    """Return the cents a seller's prices end in, None for a seller without the habit."""
    share = rng.random()
    return next((cents for limit, cents in ENDINGS if share < limit), None)


def rounded(dollars: float, ending: float | None) -> float:
    """Round a price to a seller's habit: the nearest price that ends in ``ending``."""
    if ending is None or dollars < 1.5:
        return round(max(dollars, 0.5), 2)
    return round(max(round(dollars - ending), 1 - (ending > 0)) + ending, 2)


def set_prices(product: Product) -> Product:
    """Fill in ``median`` and ``price``, both rounded as this seller rounds."""
    dollars = median_price(product)
    product.median = rounded(dollars, product.ending)
    product.price = rounded(dollars * math.exp(product.noise), product.ending)
    return product
