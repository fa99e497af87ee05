"""Measure two sets of raw records with the same ruler, to see how real the catalogue looks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

import numpy as np

WORD = re.compile(r"[a-z0-9]+")
ALPHABETIC = re.compile(r"[a-z]{2,}")


def listing_text(record: dict) -> str:
    """Return title, features and description as one text, whatever shape they came in."""
    values = (record.get(key) or "" for key in ("title", "features", "description"))
    return "\n".join(value if isinstance(value, str) else "\n".join(value) for value in values)


def vocabulary_size(texts: Iterable[str], pattern: re.Pattern[str] = WORD) -> int:
    """Count the distinct words of some texts, in lower case."""
    words: set[str] = set()
    for text in texts:
        words.update(pattern.findall(text.lower()))
    return len(words)


def detail_count(record: dict) -> float:
    """Return the number of keys in ``details``, NaN where it cannot be parsed."""
    details = record.get("details")
    try:
        details = json.loads(details) if isinstance(details, str) else details
    except json.JSONDecodeError:
        return float("nan")
    return float(len(details or {}))


def describe(records: Sequence[dict], vocabulary_of: int = 5_000) -> dict[str, float]:
    """Return the figures of a set of records: dollars, characters, distinct words, shares.

    Vocabulary is counted on the first 1,000 and the first ``vocabulary_of`` records, so sets of
    different size compare fairly; prices within 0.5 and 999.49 dollars.
    """
    texts = [listing_text(record) for record in records]
    raw = (record.get("price") for record in records)
    prices = np.array([p for p in raw if isinstance(p, int | float) and 0.5 <= p <= 999.49])
    lengths, keys = np.array([len(text) for text in texts]), [detail_count(r) for r in records]
    titles = [len(record.get("title") or "") for record in records]
    figures = {"priced": len(prices) / len(records), "price mean": prices.mean()}
    figures |= {f"price p{q}": np.percentile(prices, q) for q in (5, 25, 50, 75, 95)}
    figures |= {"price log deviation": np.log(prices).std(), "length mean": lengths.mean()}
    figures |= {f"length p{q}": np.percentile(lengths, q) for q in (5, 25, 50, 75, 95)}
    figures |= {f"title p{q}": np.percentile(titles, q) for q in (25, 50, 75)}
    figures |= {f"detail keys p{q}": np.nanpercentile(keys, q) for q in (25, 50, 75)}
    for size in (1_000, vocabulary_of):
        figures[f"words in {size}"] = vocabulary_size(texts[:size])
        figures[f"alphabetic words in {size}"] = vocabulary_size(texts[:size], ALPHABETIC)
    return {name: float(value) for name, value in figures.items()}


def compare(records_a: Sequence[dict], records_b: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Return for each figure of ``describe`` both values and the ratio a / b."""
    a, b = describe(records_a), describe(records_b)
    return {
        name: {"a": a[name], "b": b[name], "ratio": a[name] / b[name] if b[name] else float("nan")}
        for name in a
    }
