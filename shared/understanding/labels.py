"""Texts and their categories, and what every classifier here can do: PyTorch is not needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.data.curation import UNKNOWN


class TextClassifier:
    """Says of which of its ``categories`` a text is. A kind of classifier adds ``logits``."""

    categories: tuple[str, ...]

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the outputs for n texts, float64, (n, categories)."""
        raise NotImplementedError

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return how likely each category is for n texts, (n, categories); rows sum to 1."""
        return likely(self.logits(texts))

    def classify(self, texts: Sequence[str]) -> list[str]:
        """Return the likeliest category of each text."""
        return [self.categories[at] for at in self.logits(texts).argmax(axis=1)]

    def hits(self, items: pa.Table) -> np.ndarray:
        """Return for each item of these categories, (n,) boolean, whether it is told right."""
        texts, labels = examples(items, self.categories)
        return self.logits(texts).argmax(axis=1) == labels

    def accuracy(self, items: pa.Table) -> float:
        """Return the share of items whose category it tells."""
        return float(self.hits(items).mean())


def categories_of(items: pa.Table, least: int = 10) -> tuple[str, ...]:
    """Return the categories that at least so many items have, sorted; not the unknown one."""
    counts = Counter(items["category"].to_pylist())
    return tuple(sorted(n for n, c in counts.items() if n and n != UNKNOWN and c >= least))


def of_these(items: pa.Table, categories: Sequence[str]) -> pa.Table:
    """Return the items of one of these categories. Raises ValueError if there is none."""
    some = items.filter(pc.is_in(items["category"], pa.array(categories, pa.string())))
    if not len(some):
        raise ValueError(f"none of {len(items):,} items is of: {', '.join(categories)}")
    return some


def examples(items: pa.Table, categories: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return texts and labels (places in ``categories``) of the items that have one of these.

    Raises ValueError if none has.
    """
    some = of_these(items, categories)
    places = {name: at for at, name in enumerate(categories)}
    return some["text"].to_pylist(), np.array([places[c] for c in some["category"].to_pylist()])


def with_unlabelled(items: pa.Table, categories: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the texts of all items, and labels: -1 where a category is unknown, or none of these.

    For a student these are worth as much: its teacher says what they are.
    """
    places = {name: at for at, name in enumerate(categories)}
    labels = [places.get(name, -1) for name in items["category"].to_pylist()]
    return items["text"].to_pylist(), np.array(labels)


def likely(logits: np.ndarray) -> np.ndarray:
    """Return outputs (n, categories) as probabilities; rows sum to 1."""
    found = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return found / found.sum(axis=1, keepdims=True)
