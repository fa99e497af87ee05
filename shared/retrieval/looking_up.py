"""What a pricer may look up about a product, and what it must not: the product's own price."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from shared.data import Product
from shared.retrieval.found import Neighbour


class Searcher(Protocol):
    """An index, or what is searched like one. ``settings``: all that decides what is found."""

    settings: dict[str, Any]

    def search(
        self, queries: Sequence[Any], k: int = 5, *,
        exclude_clusters: Sequence[str | None] | None = None,
        exclude_ids: Sequence[str | None] | None = None,
    ) -> list[list[Neighbour]]:  # fmt: skip
        """Return the k best neighbours for each of m products."""
        ...


@dataclass(frozen=True)
class LookUp:
    """Looks up ``k`` neighbours of products; never a product itself.

    With ``clusters`` (id -> near-duplicate cluster, see ``clusters_of``) no near-duplicate of it
    either. Without, near-duplicates count, which flatters where they are in the index.
    """

    searcher: Searcher
    k: int
    clusters: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse to look up nothing."""
        if self.k < 1:
            raise ValueError(f"k={self.k}: at least 1 neighbour")

    @property
    def settings(self) -> dict[str, Any]:
        """What the neighbours depend on."""
        without = "itself"
        if self.clusters is not None:
            pairs = repr(sorted(self.clusters.items())).encode()
            without = f"near-duplicates {hashlib.sha256(pairs).hexdigest()[:16]}"
        own = {"k": self.k, "without": without, "code": _code()}
        return own | self.searcher.settings

    def neighbours(self, products: Sequence[Product]) -> list[list[Neighbour]]:
        """Return up to k neighbours of each product, the best first.

        Raises ValueError for a product of which ``clusters`` says nothing.
        """
        clusters = None
        if self.clusters is not None:
            unknown = [p.id for p in products if p.id not in self.clusters]
            if unknown:
                raise ValueError(
                    f"the clusters say nothing of product {unknown[0]!r}: give clusters_of(...) of "
                    "the items that are priced, too"
                )
            clusters = [self.clusters[p.id] for p in products]
        own = [p.id for p in products]
        return self.searcher.search(products, self.k, exclude_clusters=clusters, exclude_ids=own)


@cache
def _code() -> str:
    """Hash the code of this room: what other code found is not what this finds."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]
