"""The index of products: what is known of them, on disk, searched by meaning.

LanceDB keeps texts, prices and vectors together, and every state they ever had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shared.data.schema import ITEM
from shared.data.storage import write_json
from shared.retrieval import building
from shared.retrieval.changing import take_in
from shared.retrieval.embeddings import Embedding, load_embedding, unit
from shared.retrieval.exact import Exact, recall
from shared.retrieval.found import FACTS, Changes, IndexUnusable, Neighbour, Version, neighbours
from shared.retrieval.leaving_out import LeftOut
from shared.retrieval.table import Ann, Table, facts

STALE_ROWS, STALE_SHARE = 1_000, 0.05
"""Rows that came later are found without being indexed; from so many on they are indexed, too."""


class ProductIndex:
    """Products with prices, found by similarity; open one with ``open``, make one with ``build``.

    A reader sees the last state that was finished, whatever another process is writing.
    """

    def __init__(
        self, folder: Path, manifest: dict, embedding: Embedding, number: int | None = None
    ) -> None:
        self.folder, self.embedding = Path(folder), embedding
        self._manifest, self._fixed = manifest, number is not None
        self._show(manifest["version"] if number is None else number)

    @classmethod
    def build(
        cls, items: Any, embedding: Embedding, folder: Path, *, ann: str = "flat",
        ann_from: int = building.ANN_FROM, seed: int = 42, progress: bool = True,
    ) -> ProductIndex:  # fmt: skip
        """Embed items (ITEM schema, each with a price above $0) and index them in a folder.

        Killed, it goes on where it was; done, it is opened; changed since, or of other items, it
        is built anew. From ``ann_from`` rows on an approximate index is made and tuned: ``ann``
        is ``flat`` (full vectors) or ``pq`` (compressed: small, and poor unless refined).
        Raises ValueError for bad items, FileExistsError if the folder holds something else.
        """
        options = {"ann": ann, "ann_from": ann_from, "seed": seed, "progress": progress}
        building.build(items, embedding, folder, **options)
        return cls.open(folder, embedding)

    @classmethod
    def open(cls, folder: Path, embedding: Embedding | None = None) -> ProductIndex:
        """Open a finished index; ``embedding`` is read from the folder unless it is given.

        Raises IndexUnusable if it is not whole, or its vectors are of another embedding.
        """
        manifest = building.read_manifest(folder)
        embedding = embedding or load_embedding(Path(folder) / building.EMBEDDING)
        made_with = manifest["embedding"]
        if embedding.fingerprint != made_with["fingerprint"]:
            raise IndexUnusable(
                f"{folder}: its vectors were made with another {made_with['name']}; open it "
                "without an embedding, or build it again with this one"
            )
        return cls(folder, manifest, embedding)

    def _show(self, number: int) -> None:
        """Read the state with this number from now on."""
        known = {v["number"]: Version(**v) for v in self._manifest["versions"]}
        if number not in known:
            raise ValueError(f"{self.folder}: no version {number}; there are {sorted(known)}")
        try:
            self._table = Table(self.folder, number)
            rows = len(self._table)
        except (ValueError, RuntimeError, OSError) as error:
            raise IndexUnusable(f"{self.folder}: damaged ({error}); build it again") from error
        self._state, self._exact = known[number], None
        if rows != self._state.rows:
            raise IndexUnusable(f"{self.folder}: {rows} rows, not {self._state.rows}; build again")

    # What it is

    def __len__(self) -> int:
        return self._state.rows

    @property
    def version(self) -> int:
        """LanceDB's number of the state that is read; it goes up with every change."""
        return self._state.number

    @property
    def fingerprint(self) -> str:
        """Hash of what is known in this state: equal for equal rows, whatever their order."""
        return self._state.fingerprint

    @property
    def settings(self) -> dict[str, str | int | None]:
        """All that decides what is found, for the manifest of a pricer."""
        ann = self.ann
        how = f"{ann.kind}, {ann.nprobes}, {ann.refine}" if ann else None
        embedding = self._manifest["embedding"]["fingerprint"]
        return {"knowledge": self.fingerprint, "embedding": embedding, "ann": how}

    @property
    def ann(self) -> Ann | None:
        """How the approximate index is searched; None where every row is compared."""
        return Ann(**self._state.ann) if self._state.ann else None

    def versions(self) -> list[Version]:
        """Return every finished state, the oldest first: each can be asked with ``at``."""
        return [Version(**v) for v in self._manifest["versions"]]

    def at(self, version: int) -> ProductIndex:
        """Return the index as it was, for reading: which knowledge gave that answer?"""
        return ProductIndex(self.folder, self._manifest, self.embedding, version)

    def items(self) -> pa.Table:
        """Return what is stored, in the ITEM schema; details and split are not kept."""
        rows = self._table.scan(FACTS).sort_by("id")
        columns = [rows[f.name] if f.name in FACTS else pa.nulls(len(rows), f.type) for f in ITEM]
        return pa.table(columns, schema=ITEM)

    def __repr__(self) -> str:
        found = f"{self.ann.kind}, recall {self.ann.recall:.3f}" if self.ann else "exact"
        name = self._manifest["embedding"]["name"]
        return f"{len(self):,} products, version {self.version}, {name}, search: {found}"

    # Searching

    def search(
        self, queries: Sequence[Any] | np.ndarray, k: int = 5, *,
        exclude_clusters: Sequence[str | None] | None = None,
        exclude_ids: Sequence[str | None] | None = None,
    ) -> list[list[Neighbour]]:  # fmt: skip
        """Return the k most similar products for each of m queries, the most similar first.

        ``queries`` are texts, products, or vectors of shape (m, size). ``exclude_clusters`` has a
        cluster a query whose products it must not find, or None: near-duplicates of a test
        product make retrieval look better than it is. ``exclude_ids`` does so for one product.
        """
        vectors = self._placed(queries)
        out = LeftOut(len(vectors), exclude_clusters, exclude_ids)
        ann = self.ann

        def ask(rows: list[int], k: int, where: str | None) -> list[list[dict]]:
            return self._table.nearest(vectors[rows], k, ann, where)

        return [neighbours(rows) for rows in out.search(ask, k)]

    def lexical(
        self, texts: Sequence[Any], k: int = 5, *,
        exclude_clusters: Sequence[str | None] | None = None,
        exclude_ids: Sequence[str | None] | None = None,
    ) -> list[list[Neighbour]]:  # fmt: skip
        """Return the k products that share most with the words of each text (BM25), best first.

        They may be fewer than k, or none: a text without a known word has no neighbour here.
        """
        vectors, texts = self._placed(texts), [_text(t) for t in texts]
        out = LeftOut(len(texts), exclude_clusters, exclude_ids)
        found = (
            self._table.lexical(text, vectors[i], k, out.where(i)) for i, text in enumerate(texts)
        )
        return [neighbours(rows) for rows in found]

    def exact(
        self, queries: Sequence[Any] | np.ndarray, k: int = 5, *,
        exclude_clusters: Sequence[str | None] | None = None,
        exclude_ids: Sequence[str | None] | None = None,
    ) -> list[list[Neighbour]]:  # fmt: skip
        """Return what ``search`` would if it compared a query with every row, by NumPy alone.

        The yardstick of the approximate search. It holds all vectors in memory.
        """
        vectors = self._placed(queries)
        out = LeftOut(len(vectors), exclude_clusters, exclude_ids)
        best = list(self._compared().nearest(vectors, k, out))
        rows = self._table.rows(key for pairs in best for key, _ in pairs)
        return [neighbours([rows[key] | {"similarity": s} for key, s in pairs]) for pairs in best]

    def recall(self, queries: Sequence[Any] | np.ndarray, k: int = 5) -> float:
        """Return the share of the k true nearest neighbours that ``search`` finds, 0 to 1.

        Of equally similar rows any will do. 1 where no approximate index is used.
        """
        vectors = self._placed(queries)
        found = [[n.similarity for n in near] for near in self.search(vectors, k)]
        pairs = self._compared().nearest(vectors, k, LeftOut(len(vectors)))
        return recall(found, [[similarity for _, similarity in near] for near in pairs])

    def tune(
        self, queries: Sequence[Any] | np.ndarray, k: int = 5, goal: float = building.GOAL
    ) -> float:
        """Search just so carefully that ``goal`` of the true neighbours is found; return the share.

        ``build`` tunes with stored products; what is really asked may be harder to find. Where no
        care is enough the best is kept. 1 where no approximate index is used.
        """
        if self.ann is None:
            return 1.0
        vectors = self._placed(queries)
        out = LeftOut(len(vectors))
        with self._writing() as table:
            how = building.tuned(table, self.ann, self._compared(), vectors, out, k=k, goal=goal)
            self._manifest["versions"][-1]["ann"] = vars(how)
            write_json(self._manifest, self.folder / building.MANIFEST)
        self._show(self._manifest["version"])
        return how.recall

    def _compared(self) -> Exact:
        self._exact = self._exact or Exact(self._table)
        return self._exact

    def _placed(self, queries: Sequence[Any] | np.ndarray) -> np.ndarray:
        size = self._manifest["embedding"]["size"]
        if isinstance(queries, str):
            raise TypeError("queries are a list of texts, not one text")
        if not isinstance(queries, np.ndarray):
            return self.embedding.embed([_text(q) for q in queries])
        if queries.ndim != 2 or queries.shape[1] != size:
            raise ValueError(f"vectors have the shape {queries.shape}, not (m, {size})")
        return unit(queries)

    # Changing

    def upsert(self, items: Any, *, progress: bool = False) -> Changes:
        """Take in items (ITEM schema) by their ids, and return what they changed.

        Only new and changed texts are embedded; another price alone is written and embeds
        nothing. Killed halfway it changed nothing. Raises ValueError for items without a price.
        """
        rows = facts(building.priced(items))
        with self._writing() as table:
            changes = take_in(table, rows, self.embedding, progress)
            if changes.embedded or changes.updated:
                self._publish(table, f"upsert: {changes}", self.ann)
        return changes

    def delete(self, ids: Sequence[str]) -> int:
        """Forget products by their ids; return how many there were."""
        if isinstance(ids, str):
            raise TypeError(f"ids are a list: delete([{ids!r}])")
        with self._writing() as table:
            before = len(table)
            table.delete(list(ids))
            if gone := before - len(table):
                self._publish(table, f"delete: {gone:,} gone", self.ann)
        return gone

    def restore(self, version: int) -> None:
        """Make an earlier state the newest one, prices and all; nothing is copied or embedded."""
        was = self.at(version)
        with self._writing() as table:
            table.restore(version)
            self._publish(table, f"restore: version {version}", was.ann)

    @contextmanager
    def _writing(self) -> Iterator[Table]:
        """Yield the newest state to write to, ours alone; what was left half done is undone."""
        if self._fixed:
            raise ValueError(f"version {self.version} is for reading: open the index to change it")
        with building.alone(self.folder):
            self._manifest = building.read_manifest(self.folder)  # another process may have written
            self._show(self._manifest["version"])
            table = Table(self.folder)
            if table.version != self._manifest["version"]:
                table.restore(self._manifest["version"])
            yield table

    def _publish(self, table: Table, note: str, ann: Ann | None) -> None:
        if table.unindexed() > max(STALE_ROWS, STALE_SHARE * len(table)):
            table.optimize()
        request = self._manifest["request"]
        ann = ann or building.approximate(table, *(request[n] for n in ("ann", "ann_from", "seed")))
        self._manifest = building.publish(self.folder, self._manifest, table, ann, note)
        self._show(self._manifest["version"])


def _text(query: Any) -> str:
    return query if isinstance(query, str) else query.text
