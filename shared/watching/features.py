"""What of a window is tested, against what of the reference."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from shared.watching import drift
from shared.watching.drift import Psi, Test
from shared.watching.reference import Reference


def numbers_of(rows: pa.Table) -> dict[str, np.ndarray]:
    """Return the columns of observations that are tested; prices in cents' precision."""
    price = rows["price"].to_numpy(zero_copy_only=False).astype(float)
    return {
        "length": rows["length"].to_numpy(),
        "unknown": rows["unknown"].to_numpy().round(4),
        "category": np.array(rows["category"].to_pylist(), dtype=object),
        "price": np.where(price > 0, price, np.nan).round(2),
    }


class _Number:
    """A column of numbers: its distribution by KS and PSI, without what is missing."""

    def __init__(self, column: str, values: np.ndarray, seed: int, like: _Number | None) -> None:
        self.column = column
        self.sorted = np.sort(values[np.isfinite(values)].astype(float))
        self.edges = drift.edges_of(self.sorted) if len(self.sorted) else np.empty(0)
        self.psi = Psi(drift.counted(self.sorted, self.edges), seed, like and like.psi)

    def tests(self, values: np.ndarray) -> dict[str, Test]:
        known = values[np.isfinite(values)].astype(float)
        return {
            f"{self.column} KS": drift.ks(self.sorted, known),
            f"{self.column} PSI": self.psi.test(drift.counted(known, self.edges)),
        }


class _Category:
    """The categories: their shares by PSI, all that are new as one."""

    column = "category"

    def __init__(self, values: np.ndarray, seed: int, like: _Category | None) -> None:
        self.names = np.unique(values)
        self.psi = Psi(drift.category_counts(self.names, values), seed, like and like.psi)

    def tests(self, values: np.ndarray) -> dict[str, Test]:
        return {"category PSI": self.psi.test(drift.category_counts(self.names, values))}


class _Failed:
    """Estimates that failed: whether they are more."""

    column = "price"

    def __init__(self, prices: np.ndarray, priced: bool) -> None:
        self.before = (int(np.isnan(prices).sum()), len(prices)) if priced else (0, 0)

    def tests(self, values: np.ndarray) -> dict[str, Test]:
        now = (int(np.isnan(values).sum()), len(values))
        return {
            "failed share": drift.more_failures(self.before, now)
            if self.before[1]
            else drift.NOTHING
        }


def features_of(reference: Reference, seed: int, like: list | None) -> list:
    """Return the tests of a reference; thresholds are drawn once for those that are ``like``."""
    models = like or [None] * 4
    numbers = [
        _Number(name, getattr(reference, name), seed, one)
        for name, one in zip(("length", "unknown", "price"), models, strict=False)
    ]
    category = _Category(reference.category, seed, models[3])
    return [*numbers, category, _Failed(reference.price, reference.priced)]
