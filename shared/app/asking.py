"""What somebody typed into the page, as a product: cleaned by the very rules of training."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from shared.data import Product
from shared.data.curation import UNKNOWN, assemble
from shared.data.sources import AMAZON_CATEGORIES

MOST_TITLE, MOST_TEXT = 500, 20_000
"""Characters that are taken; what no listing has is refused, not cut in silence."""

CATEGORIES = (UNKNOWN, *(name.replace("_", " ") for name in AMAZON_CATEGORIES))

EXAMPLES = (
    (
        "Wireless mechanical keyboard, 87 keys, hot-swappable switches, RGB",
        "Bluetooth 5.1 and 2.4 GHz. Aluminium frame, 4000 mAh battery, for Windows and macOS.",
        "Electronics",
    ),
    (
        "Replacement water filter for refrigerators, 3-pack",
        "NSF 42 certified, reduces chlorine taste. Replace every six months.",
        "Appliances",
    ),
    (
        "Acoustic guitar, full size, solid spruce top, with gig bag",
        "Mahogany back and sides, rosewood fingerboard, 20 frets. For beginners and players.",
        "Musical Instruments",
    ),
    (
        "Cordless drill driver kit, 20V brushless, two batteries and charger",
        "530 in-lbs of torque, 21 clutch settings, LED light, carrying case, 34 accessories.",
        "Tools and Home Improvement",
    ),
)
"""Title, description and category of products to try; nobody sells exactly these."""


def asked_product(title: str | None, text: str | None, category: str | None) -> Product:
    """Return what was typed as a product, its text cleaned as curation does it.

    Raises ValueError, in words for whoever typed it, if there is no title, too much of either, or
    nothing left once markup, links and part numbers are gone.
    """
    title, text = (title or "").strip(), (text or "").strip()
    if not title:
        raise ValueError("Write a title first: a few words that say what it is.")
    for name, value, most in (("title", title, MOST_TITLE), ("description", text, MOST_TEXT)):
        if len(value) > most:
            raise ValueError(
                f"The {name} has {len(value):,} characters, and {most:,} are taken: shorten it."
            )
    record = {"title": _plain(title), "description": [_plain(text)] if text else []}
    item = assemble(pa.Table.from_pylist([record])).to_pylist()[0]
    if not any(map(str.isalnum, item["text"])):
        raise ValueError(
            "No words are left once links, markup and part numbers are taken out, as they are "
            "before a model sees a text: describe the product in words."
        )
    chosen = category if category in CATEGORIES else UNKNOWN
    name = hashlib.sha256(f"{item['text']}\n{chosen}".encode()).hexdigest()[:16]
    return Product.from_item(item | {"id": name, "category": chosen})


def _plain(text: str) -> str:
    """Drop what cannot be written in UTF-8: halves of characters, from a program's mistake."""
    return text.encode("utf-8", "ignore").decode()
