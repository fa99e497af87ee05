"""Exact search: a query is compared with every row, by NumPy. The yardstick of all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from shared.retrieval.leaving_out import LeftOut
from shared.retrieval.table import DIGITS, Table

_CELLS = 20_000_000  # similarities held at once: 80 MB
SAME = 2 * 10.0**-DIGITS
"""Difference of two similarities that says nothing: what rounding does."""


class Exact:
    """All vectors of a table, in memory: n rows of ``size`` float32 numbers."""

    def __init__(self, table: Table) -> None:
        rows, self.vectors = table.vectors()
        self.ids, self.clusters = rows["id"].to_numpy(), rows["cluster"].to_numpy()

    def nearest(
        self, queries: np.ndarray, k: int, out: LeftOut
    ) -> Iterator[list[tuple[str, float]]]:
        """Yield (id, similarity) of the k nearest rows for each of m queries, nearest first."""
        k = min(k, len(self.ids))
        block = max(1, _CELLS // max(len(self.ids), 1))
        for start in range(0, len(queries), block):
            similar = np.round(queries[start : start + block] @ self.vectors.T, DIGITS)
            for i, row in enumerate(similar, start):
                row[out.rows(i, self.ids, self.clusters)] = -np.inf
                top = np.argpartition(-row, k - 1)[:k] if k else np.empty(0, int)
                top = sorted(top[np.isfinite(row[top])], key=lambda r: (-row[r], self.ids[r]))
                yield [(self.ids[r], round(float(row[r]), DIGITS)) for r in top]


def recall(found: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> float:
    """Return the mean share of true neighbours that was found, from similarities, falling.

    What is as similar as the last true one counts: which of two equal ones was found says nothing.
    """
    shares = [
        min(sum(s >= limits[-1] - SAME for s in near) / len(limits), 1.0)
        for near, limits in zip(found, true, strict=True)
        if len(limits)
    ]
    return float(np.mean(shares)) if shares else 1.0
