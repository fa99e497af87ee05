"""What a search must not find: the product itself, and its near-duplicates.

A product's near-duplicate (another colour, the same thing listed twice) gives its price away. A
shop may use it; an evaluation that does measures memory, not estimating.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from shared.retrieval.table import quoted

SPARE = 8
"""Rows fetched beyond those wanted where some may have to go: most clusters are smaller."""

Ask = Callable[[list[int], int, str | None], list[list[dict]]]
"""(numbers of the queries, k, SQL condition or None) -> the k nearest rows of each."""


class LeftOut:
    """For each of m queries a cluster and an id that it must not find, or None."""

    def __init__(
        self,
        queries: int,
        clusters: Sequence[str | None] | None = None,
        ids: Sequence[str | None] | None = None,
    ) -> None:
        for name, values in (("exclude_clusters", clusters), ("exclude_ids", ids)):
            if isinstance(values, str) or (values is not None and len(values) != queries):
                raise ValueError(f"{name} is a list of one value a query, and there are {queries}")
        none = [None] * queries
        self._pairs = list(zip(clusters or none, ids or none, strict=True))

    def where(self, query: int) -> str | None:
        """Return the SQL condition that keeps what a query may find, or None."""
        columns = zip(("cluster", "id"), self._pairs[query], strict=True)
        parts = [f"{name} != {quoted(value)}" for name, value in columns if value is not None]
        return " AND ".join(parts) or None

    def rows(self, query: int, ids: np.ndarray, clusters: np.ndarray) -> np.ndarray:
        """Return which of n rows a query must not find, shape (n,)."""
        cluster, own = self._pairs[query]
        gone = np.zeros(len(ids), dtype=bool)
        if cluster is not None:
            gone |= clusters == cluster
        if own is not None:
            gone |= ids == own
        return gone

    def search(self, ask: Ask, k: int) -> list[list[dict]]:
        """Return the k nearest rows that each query may find.

        All are asked at once for a few rows more than k. Only where too few are left is one asked
        again, with its condition: a large cluster, whose members are each other's neighbours.
        """
        if k < 1:
            raise ValueError(f"k={k}: at least 1 neighbour")
        everybody = list(range(len(self._pairs)))
        limited = any(pair != (None, None) for pair in self._pairs)
        wanted = k + SPARE if limited else k
        found = ask(everybody, wanted, None) if self._pairs else []
        kept = [self._kept(i, rows)[:k] for i, rows in enumerate(found)]
        for i in everybody:
            if len(kept[i]) < k and len(found[i]) == wanted and (where := self.where(i)):
                kept[i] = ask([i], k, where)[0]
        return kept

    def _kept(self, query: int, rows: list[dict]) -> list[dict]:
        cluster, own = self._pairs[query]
        return [
            row
            for row in rows
            if (cluster is None or row["cluster"] != cluster) and (own is None or row["id"] != own)
        ]
