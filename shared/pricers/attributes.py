"""Attributes read from a product's text: weight, size, power, capacity, pieces, brand.

What a person would look for first. A pricer over words sees "1000" and "watts" as two words;
here they become one number.
"""

from __future__ import annotations

import itertools
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
    "watts": rf"{_NUMBER} ?-?(?:watts?|w)\b",
    "volts": rf"{_NUMBER} ?-?(?:volts?|v)\b",
    "amps": rf"{_NUMBER} ?-?(?:amps?|ah)\b",
    "gigabytes": rf"{_NUMBER} ?-?gb\b",
    "terabytes": rf"{_NUMBER} ?-?tb\b",
    "inches": rf"{_NUMBER} ?-?(?:inch(?:es)?\b|in\b|\")",
    "btu": rf"{_NUMBER} ?btu\b",
    "cubic feet": rf"{_NUMBER} ?-?cu\b",
    "pounds anywhere": rf"{_NUMBER} ?-?(?:lbs?|pounds?)\b",
    "gallons": rf"{_NUMBER} ?-?(?:gallons?|gal)\b",
    "pieces": r"(\d+) ?-?(?:pcs?|pieces?|packs?|count|pk)\b",
    "keys": r"(\d+) ?-?(?:keys?|strings?|channels?)\b",
    "year": r"\b((?:19|20)\d\d)\b",
}
"""Quantity -> where its number stands in a lower-cased text; the largest of a few counts."""

ATTRIBUTES = FEATURES + tuple(f"log {name}" for name in QUANTITIES)
"""Names of the columns of ``attributes``."""

_QUANTITIES = [re.compile(pattern) for pattern in QUANTITIES.values()]
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
    return [_largest(pattern, text) for pattern in _QUANTITIES]


def _largest(pattern: re.Pattern, text: str) -> float:
    mentions = itertools.islice(pattern.finditer(text), _MENTIONS)
    numbers = [_number(found[1]) for found in mentions]
    known = [n for n in numbers if n is not None and n < 1e9]
    return float(np.log1p(max(known))) if known else np.nan


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
