"""The shapes of the data that flows through the course, each declared once.

record -> item -> product -> prediction. A product is an item without its price, and it is all a
pricer ever gets to see: the type makes leaking the answer impossible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

RECORD = pa.schema(
    [
        ("parent_asin", pa.string()),
        ("title", pa.string()),
        ("features", pa.list_(pa.string())),
        ("description", pa.list_(pa.string())),
        ("details", pa.string()),
        ("main_category", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("store", pa.string()),
        ("price", pa.string()),
    ]
)
"""One product as the shop lists it (the fields we use of Amazon Reviews 2023 metadata).

``details`` is JSON text; ``price`` is the text of whatever was there: number, words or nothing.
"""

ITEM = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("category", pa.string()),
        ("details", pa.string()),
        ("price", pa.float64()),
        ("cluster", pa.string()),
        ("split", pa.string()),
    ]
)
"""One curated product: ``price`` in dollars, ``cluster`` its near-duplicate group, ``split`` its
share of the data (train, validation or test)."""

PRICE_BANDS = {
    "0-25": (0.0, 25.0),
    "25-50": (25.0, 50.0),
    "50-100": (50.0, 100.0),
    "100-200": (100.0, 200.0),
    "200-500": (200.0, 500.0),
    "500+": (500.0, float("inf")),
}
"""Price band -> the dollars in it, from the first up to but without the second."""

SPLITS = ("train", "validation", "test")

PREDICTION = pa.schema(
    [
        ("pricer", pa.string()),
        ("item_id", pa.string()),
        ("price_true", pa.float64()),
        ("price_estimate", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("seconds", pa.float64()),
        ("cost_usd", pa.float64()),
        ("error", pa.string()),
    ]
)
"""One estimate of one pricer: dollars, null where it failed (``error`` says why); ``price_true``
is null where nobody knows the price."""


@dataclass(frozen=True, slots=True)
class Product:
    """An item without its price: what a pricer sees. ``details`` is JSON text."""

    id: str
    title: str
    text: str
    category: str
    details: str

    @classmethod
    def from_item(cls, item: Mapping) -> Product:
        """Drop everything an item knows beyond what a pricer may see."""
        return cls(*(item.get(name) or "" for name in cls.__slots__))
