"""What a pricer was built for, in numbers: the products and errors that later ones are held to.

A reference is a sample of products that the pricer did not learn from: its errors on those it did
learn from are too small, and every later one would look like drift. There is no text in it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shared.compression.features import words_of
from shared.data.storage import fingerprint, write_text
from shared.evaluation.inputs import item_table

KEPT = 4_000
"""Products that are kept of the items. More would hardly help: the noise of a window of 500 is
that of the window."""

WORDS = 20_000
"""Words that are kept, as four bytes each: those in most texts."""

FORMAT = 1


class Vocabulary:
    """Words that are known, as hashes of 32 bits (about one in 200,000 is taken for a known one).

    Numbers that are nearly as large are one word, as ``shared.compression.features`` has it.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        self.hashes = np.unique(np.asarray(hashes, np.uint32))

    def unknown(self, texts: Sequence[str]) -> np.ndarray:
        """Return the share of each text's words that are not known; 0 for one without words."""
        found = words_of(texts)
        hashes = _hashes(found.rough)
        # The place alone: numpy.isin sorts both, which takes five times as long for one text.
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        known = self.hashes[at] == hashes if len(self.hashes) else np.zeros(len(hashes), bool)
        return np.round(_share(found.texts, ~known, len(texts)), 4)

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True, eq=False)
class Reference:
    """Products as they were when the pricer was built, a row each: see ``fit``.

    ``length`` in characters, ``unknown`` a share of words, ``price`` what the pricer estimates in
    dollars, NaN where it failed, and ``error`` the natural logarithm of estimate / true price,
    NaN where either is missing. ``priced`` is False if no estimates were given at all.
    """

    length: np.ndarray
    unknown: np.ndarray
    category: np.ndarray
    price: np.ndarray
    error: np.ndarray
    vocabulary: Vocabulary
    priced: bool = True
    items: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, items: Any, prices: np.ndarray | None = None, *, seed: int = 42, **facts: Any
    ) -> Reference:
        """Return the reference of items that the pricer did not learn from.

        ``prices`` is what the pricer estimates for them, in dollars, NaN where it failed; without
        it only inputs can be watched. Errors follow from the items' own prices, where these are
        known. ``facts`` are kept with it, such as the version. Raises ValueError if there are
        fewer than two items, or not a price each.

        A word is known if it is in two texts that are no near-duplicates. Whether an item's own
        words are known is decided by the others, or every new product would look strange.
        """
        table = item_table(items)
        if len(table) < 2:
            raise ValueError(f"a reference of {len(table)} items: at least two are needed")
        texts = [text or "" for text in table["text"].to_pylist()]
        estimates = np.full(len(texts), np.nan) if prices is None else np.array(prices, float)
        if estimates.shape != (len(texts),):
            raise ValueError(f"{estimates.shape} prices for {len(texts)} items: one each is needed")
        estimates[~(np.isfinite(estimates) & (estimates > 0))] = np.nan
        vocabulary, unknown = _words(texts, _groups(table))
        with np.errstate(divide="ignore", invalid="ignore"):
            true = table["price"].to_numpy(zero_copy_only=False).astype(float)
            error = np.log(estimates / np.where(true > 0, true, np.nan))
        rows = _drawn(len(texts), seed)
        columns = (
            np.array([len(text) for text in texts]),
            np.round(unknown, 4),
            np.array([str(c or "") for c in table["category"].to_pylist()], dtype=object),
            np.round(estimates, 2),
            np.round(error, 4),
        )
        return cls(
            *(column[rows] for column in columns), vocabulary, prices is not None,
            fingerprint(table), facts,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.length)

    @cached_property
    def known_errors(self) -> np.ndarray:
        """The log errors that are known."""
        return self.error[np.isfinite(self.error)]

    @property
    def error_mean(self) -> float:
        """The mean log error, NaN if none is known; 0.05 is estimates 5 % too high."""
        return float(self.known_errors.mean()) if len(self.known_errors) else float("nan")

    @property
    def error_spread(self) -> float:
        """The standard deviation of the log errors, NaN with fewer than two."""
        known = self.known_errors
        return float(known.std(ddof=1)) if len(known) > 1 else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return the reference as values that JSON can hold; ``from_json`` is its inverse."""
        names = sorted(set(self.category.tolist()))
        at = {name: i for i, name in enumerate(names)}
        words = self.vocabulary.hashes.astype("<u4").tobytes()
        return {
            "format": FORMAT, "items": self.items, "facts": self.facts, "priced": self.priced,
            "length": self.length.tolist(), "unknown": self.unknown.tolist(),
            "categories": names, "category": [at[name] for name in self.category],
            "price": _with_null(self.price), "error": _with_null(self.error),
            "vocabulary": base64.b64encode(words).decode(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Reference:
        """Return a reference from what ``to_json`` gave; ValueError says what is wrong with it."""
        try:
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']!r}, and {FORMAT} is known")
            names = np.array([*map(str, value["categories"]), ""], dtype=object)
            columns = (
                np.array(value["length"], np.int64),
                np.array(value["unknown"], float),
                names[np.array(value["category"], np.int64)],
                np.array(value["price"], float),
                np.array(value["error"], float),
            )
            if {len(column) for column in columns} != {len(columns[0])} or len(columns[0]) < 2:
                raise ValueError(f"columns of {[len(column) for column in columns]} rows")
            words = np.frombuffer(base64.b64decode(value["vocabulary"], validate=True), "<u4")
            return cls(*columns, Vocabulary(words), bool(value["priced"]), str(value["items"]),
                       dict(value["facts"]))  # fmt: skip
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"this is no reference ({error!r}); fit it again") from error

    def save(self, path: Path) -> Path:
        """Write the reference to a JSON file, whole or not at all."""
        # Not a number a line, as write_json has it: this is for programs to read.
        write_text(json.dumps(self.to_json(), allow_nan=False) + "\n", Path(path))
        return Path(path)

    @classmethod
    def open(cls, path: Path) -> Reference:
        """Read a file that ``save`` wrote; ValueError names the file and what is wrong with it."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from error


def _words(texts: Sequence[str], groups: np.ndarray) -> tuple[Vocabulary, np.ndarray]:
    """Return the words of at least two groups, and the share of each text's in no two others."""
    found = words_of(texts)
    hashes = _hashes(found.rough)
    pairs = np.unique(groups[found.texts] << np.uint64(32) | hashes)
    words, counts = np.unique(pairs.astype(np.uint32), return_counts=True)
    most = np.argsort(-counts, kind="stable")[:WORDS]
    kept = most[counts[most] >= 2]
    enough = np.zeros(len(words), bool)
    enough[kept] = counts[kept] >= 3
    strange = ~enough[np.searchsorted(words, hashes)]
    return Vocabulary(words[kept]), _share(found.texts, strange, len(texts))


def _groups(table: pa.Table) -> np.ndarray:
    """Return the number of each item's group of near-duplicates: they share their words."""
    names = [cluster or f"item {i}" for i, cluster in enumerate(table["cluster"].to_pylist())]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.uint64)


def _hashes(words: np.ndarray) -> np.ndarray:
    """Return 32 bits of each word's hash: the upper ones, into which the multiplication mixes."""
    return (words >> np.uint64(32)).astype(np.uint32)


def _share(texts: np.ndarray, chosen: np.ndarray, n: int) -> np.ndarray:
    """Return the share of each of n texts' words that are chosen, 0 for a text without words."""
    return np.bincount(texts, chosen, n) / np.maximum(np.bincount(texts, minlength=n), 1)


def _drawn(n: int, seed: int) -> np.ndarray:
    """Return the rows that are kept, in the order of the items."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(n, KEPT, replace=False)) if n > KEPT else np.arange(n)


def _with_null(values: np.ndarray) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]
