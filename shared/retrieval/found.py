"""What the index returns: neighbours, what a change did, and the versions of its knowledge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


class IndexUnusable(ValueError):
    """A folder that holds no index, or half of one; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A product of the index like the one asked about: ``price`` in dollars.

    ``similarity`` is the cosine of the two texts' vectors: 1 for the same direction.
    """

    id: str
    title: str
    text: str
    category: str
    price: float
    cluster: str
    similarity: float


FACTS = ("id", "title", "text", "category", "price", "cluster")
"""Columns of the index that a Neighbour shows."""


@dataclass(frozen=True)
class Changes:
    """What an upsert did, in items: of ``new`` and ``changed`` ones the text was embedded.

    ``updated`` kept their text: another price, title, category or cluster, and nothing embedded.
    """

    new: int = 0
    changed: int = 0
    updated: int = 0
    unchanged: int = 0

    @property
    def embedded(self) -> int:
        """How many texts had to be embedded."""
        return self.new + self.changed

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in asdict(self).items())


@dataclass(frozen=True)
class Version:
    """One state of the knowledge: LanceDB's ``number`` of it, when it came, and what was done.

    ``fingerprint`` is a hash of all rows but their vectors: equal for equal knowledge. ``ann`` says
    how its approximate index is searched, if it has one.
    """

    number: int
    at: str
    note: str
    rows: int
    fingerprint: str
    ann: dict[str, Any] | None = None


def clusters_of(*items: pa.Table) -> dict[str, str]:
    """Return item id -> near-duplicate cluster, of tables in the ITEM schema.

    A pricer sees products, and those have no cluster; with this it can leave a product's
    near-duplicates out of what it looks up.
    """
    return {
        key: cluster
        for table in items
        for key, cluster in zip(
            table["id"].to_pylist(), cluster_column(table).to_pylist(), strict=True
        )
    }


def cluster_column(items: pa.Table) -> pa.ChunkedArray:
    """Return each item's cluster; an item without one is alone in a cluster of its own."""
    return pc.coalesce(items["cluster"], items["id"])


def neighbours(rows: Sequence[Mapping[str, Any]]) -> list[Neighbour]:
    """Return rows with FACTS and ``similarity`` as neighbours, in their order."""
    return [Neighbour(*(row[n] for n in FACTS), row["similarity"]) for row in rows]
