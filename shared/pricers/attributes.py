"""Attributes read from a product's text: weight, size, power, capacity, pieces, brand.

What a person would look for first. A pricer over words sees "1000" and "watts" as two words;
here they become one number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from shared.data import Product

_WEIGHT = re.compile(r"weight: ([\d.,]+) (pounds?|ounces?|kilograms?|grams?)", re.IGNORECASE)
_POUNDS = {"pound": 1.0, "ounce": 1 / 16, "kilogram": 2.2046, "gram": 0.0022046}
_SIZES = re.compile(r"([\d.]+)\D{0,4} x ([\d.]+)\D{0,4} x ([\d.]+)")
_PACK = re.compile(r"\b(?:(\d+)[ -]?(?:pack|pcs?|pieces?|count)|(?:set|pack) of (\d+))\b", re.I)
_BRAND = re.compile(r"(?m)^(?:Brand(?: Name)?|Manufacturer): (.+)$")
_NUMBER = r"(\d[\d,]*(?:\.\d+)?)"

FEATURES = (
    "log pounds",
    "weight known",
    "log cubic inches",
    "size known",
    "log characters",
    "log pieces",
    "numbers in title",
    "spare part",
)
"""Names of the hand-made features, in the order of the columns of ``features``."""

QUANTITIES = {
    "watts": "watts watt w",
    "volts": "volts volt v",
    "amps": "amps amp ah",
    "gigabytes": "gb",
    "terabytes": "tb",
    "inches": 'inches inch in "',
    "btu": "btu",
    "cubic feet": "cu",
    "pounds anywhere": "lbs lb pounds pound",
    "gallons": "gallons gallon gal",
    "pieces": "pcs pc pieces piece packs pack count pk",
    "keys": "keys key strings string channels channel",
    "year": "",
}
"""Quantity -> the units behind its number in a lower-cased text; a year is a number by itself.
Of the first few numbers the largest counts."""

ATTRIBUTES = FEATURES + tuple(f"log {name}" for name in QUANTITIES)
"""Names of the columns of ``attributes``."""

_PLACES = {unit: i for i, units in enumerate(QUANTITIES.values()) for unit in units.split()}
_UNITS = "|".join(re.escape(unit) for unit in sorted(_PLACES, key=len, reverse=True))
_QUANTITY = re.compile(rf"{_NUMBER} ?-?({_UNITS})(?![a-z])|\b((?:19|20)\d\d)\b")
_MENTIONS = 5  # later mentions are accessories, warranties and other models


def features(products: Sequence[Product]) -> np.ndarray:
    """Return the hand-made features of n products, shape (n, 8), as FEATURES names them."""
    return np.array([_features(p) for p in products], dtype=np.float64).reshape(-1, len(FEATURES))


def attributes(products: Sequence[Product]) -> np.ndarray:
    """Return features and quantities of n products, shape (n, 21), NaN where none is mentioned."""
    quantities = np.array([_quantities(p.text.lower()) for p in products], dtype=np.float64)
    return np.hstack([features(products), quantities.reshape(-1, len(QUANTITIES))])


def brand(product: Product) -> str:
    """Return the brand, lower-cased: as listed, else the first word of the title."""
    found = _BRAND.search(product.text)
    return (found[1] if found else product.title.partition(" ")[0]).strip().lower()


def _quantities(text: str) -> list[float]:
    mentioned: list[list[float]] = [[] for _ in QUANTITIES]
    for number, unit, year in _QUANTITY.findall(text):
        place = _PLACES[unit] if unit else len(QUANTITIES) - 1
        value = _number(number or year)
        if value is not None and value < 1e9 and len(mentioned[place]) < _MENTIONS:
            mentioned[place].append(value)
    return [float(np.log1p(max(values))) if values else np.nan for values in mentioned]


def _features(product: Product) -> tuple[float, ...]:
    pounds, volume = _pounds(product.text), _volume(product.text)
    title = product.title.lower()
    return (
        np.log1p(pounds or 0.0),
        float(pounds is not None),
        np.log1p(volume or 0.0),
        float(volume is not None),
        np.log1p(len(product.text)),
        np.log(_pieces(product.title)),
        float(len(re.findall(r"\d+", title))),
        float("replacement" in title or " part" in title),
    )


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _pounds(text: str) -> float | None:
    found = _WEIGHT.search(text)
    value = _number(found[1]) if found else None
    return None if value is None else value * _POUNDS[found[2].lower().rstrip("s")]


def _volume(text: str) -> float | None:
    found = _SIZES.search(text)
    sides = [_number(side) for side in found.groups()] if found else [None]
    return None if None in sides else float(np.prod(sides))


def _pieces(title: str) -> float:
    found = _PACK.search(title)
    return float(min(max(int((found[1] or found[2])[:6]), 1), 10_000)) if found else 1.0
