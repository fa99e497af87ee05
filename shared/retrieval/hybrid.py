"""Hybrid search: the words of a text and its meaning, their rankings joined.

Words find what vectors blur (a part number, a rare brand), vectors what words miss (another word
for the same thing). Scores of the two cannot be compared, ranks can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.retrieval.found import Neighbour
from shared.retrieval.index import ProductIndex

CONSTANT = 60
"""Damps the first ranks, as in the paper: being first in one ranking is not everything."""

DEPTH = 50
"""Neighbours taken of each ranking."""


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[str]], constant: int = CONSTANT
) -> list[tuple[str, float]]:
    """Return (id, score) of everything ranked, best first: the sum of 1 / (constant + rank).

    Ranks start at 1. Equal scores go by id. Cormack, Clarke and Büttcher (SIGIR 2009).
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + 1.0 / (constant + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


class HybridSearch:
    """An index searched by vectors and by words; it goes wherever an index is asked."""

    def __init__(
        self, index: ProductIndex, *, depth: int = DEPTH, constant: int = CONSTANT
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth={depth}: at least 1 neighbour of each ranking")
        self.index, self.depth, self.constant = index, depth, constant

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what is found."""
        return self.index.settings | {"hybrid": f"{self.depth}, {self.constant}"}

    def search(
        self, queries: Sequence[Any], k: int = 5, *,
        exclude_clusters: Sequence[str | None] | None = None,
        exclude_ids: Sequence[str | None] | None = None,
    ) -> list[list[Neighbour]]:  # fmt: skip
        """Return the k best of both rankings for each of m texts or products, best first.

        ``similarity`` stays the cosine of the vectors, so the list need not fall in it.
        """
        out = {"exclude_clusters": exclude_clusters, "exclude_ids": exclude_ids}
        depth = max(self.depth, k)
        by_vector = self.index.search(queries, depth, **out)
        by_words = self.index.lexical(queries, depth, **out)
        return [self._joined(both, k) for both in zip(by_vector, by_words, strict=True)]

    def _joined(self, both: tuple[list[Neighbour], ...], k: int) -> list[Neighbour]:
        known = {near.id: near for ranking in reversed(both) for near in ranking}
        ranked = [[near.id for near in ranking] for ranking in both]
        return [known[key] for key, _ in reciprocal_rank_fusion(ranked, self.constant)[:k]]
