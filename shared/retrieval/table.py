"""The table on disk: the one module that talks to LanceDB, and knows its traps.

Checked against LanceDB 0.40: a batch of one query comes back without ``query_index``; the distance
of a compressed index is a guess unless it is refined; ``update`` takes every row it touches out of
the vector index, while ``merge_insert`` with some of the columns changes them in place if there is
an index on ``id``; ``optimize`` deletes versions older than a week unless told otherwise; and a
handle merges against the version that it knows, not the newest one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shared.data.storage import Fingerprint
from shared.retrieval.found import FACTS, cluster_column

NAME = "products"
CHANGEABLE = ("title", "category", "price", "cluster")
"""Columns that may change while the text, and so the vector, stays."""

QUERIES = 256
"""Queries sent at once: a scan of the table then serves them all."""

LEXICAL_WORDS = 64
"""Different words of a text that are looked up; a description's first ones say what it is."""

DIGITS = 5
"""Digits of a similarity: what is beyond is rounding, and must not decide an order."""

FOR_EVER = timedelta(days=36_500)
_WORD = re.compile(r"\w+(?:\.\d+)?")


@dataclass(frozen=True)
class Ann:
    """An approximate index: which kind, and how carefully it is searched.

    ``nprobes`` of its ``partitions`` are searched; ``refine`` times as many candidates as wanted
    are compared once more with their full vectors. ``recall`` was measured when it was tuned.
    """

    kind: str
    partitions: int
    nprobes: int = 1
    refine: int | None = None
    recall: float | None = None


KINDS = ("flat", "pq")
"""Approximate indexes: full vectors in partitions, or compressed ones (product quantisation)."""


def schema(size: int) -> pa.Schema:
    """Return the columns: what a neighbour shows, a hash of the text, and its vector."""
    facts = [(name, pa.float64() if name == "price" else pa.string()) for name in FACTS]
    return pa.schema([*facts, ("content", pa.string()), ("vector", pa.list_(pa.float32(), size))])


def facts(items: pa.Table) -> pa.Table:
    """Return items (ITEM schema) as rows without vectors: FACTS, and the text's hash."""
    columns = {name: items[name] for name in FACTS} | {"cluster": cluster_column(items)}
    for name in ("title", "text", "category"):
        columns[name] = columns[name].fill_null("")
    hashes = [hashlib.sha256(t.encode()).hexdigest()[:32] for t in columns["text"].to_pylist()]
    return pa.table(columns | {"content": pa.array(hashes, pa.string())})


def with_vectors(rows: pa.Table, vectors: np.ndarray) -> pa.Table:
    """Return rows with their vectors, shape (n, size), in the table's schema."""
    size = vectors.shape[1]
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, size)
    return rows.append_column("vector", column).cast(schema(size))


class Table:
    """The products in a folder: at a version, or the newest state to write to."""

    def __init__(self, folder: Path, version: int | None = None) -> None:
        self._table = _database(folder).open_table(NAME)
        if version is not None:
            self._table.checkout(version)

    @classmethod
    def create(cls, folder: Path, size: int) -> Table:
        """Make an empty table, in place of one that is there and of all its versions."""
        if exists(folder):
            shutil.rmtree(_path(folder))
        _database(folder).create_table(NAME, schema=schema(size))
        return cls(folder)

    @property
    def version(self) -> int:
        """LanceDB's number of the state that this handle reads."""
        return self._table.version

    def __len__(self) -> int:
        return self._table.count_rows()

    # Writing

    def add(self, rows: pa.Table) -> None:
        """Append rows with vectors; all of them, or none if the process dies."""
        self._table.add(rows)

    def merge(self, rows: pa.Table) -> None:
        """Write rows by ``id``: a known one is replaced, column by column, a new one appended.

        Rows without vectors are for known ids alone, and leave vectors and their index as they are.
        """
        merge = self._table.merge_insert("id").when_matched_update_all()
        if "vector" in rows.column_names:
            merge = merge.when_not_matched_insert_all()
        merge.execute(rows)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove the rows with these ids."""
        for some in _thousands(ids):
            self._table.delete(f"id IN ({', '.join(map(quoted, some))})")

    def restore(self, version: int) -> None:
        """Make an earlier state the newest one; nothing is copied."""
        self._table.restore(version)

    def index_words(self) -> None:
        """Index ids, for merges, and the words of the texts, for lexical search."""
        from lancedb.index import FTS, BTree

        self._table.create_index("id", config=BTree())
        self._table.create_index("text", config=FTS())

    def index_vectors(self, ann: Ann) -> None:
        """Make the approximate index over all vectors, in place of one that is there."""
        from lancedb.index import IvfFlat, IvfPq

        kind = {"flat": IvfFlat, "pq": IvfPq}[ann.kind]
        config = kind(distance_type="cosine", num_partitions=ann.partitions)
        self._table.create_index("vector", config=config)

    def has_index(self, column: str) -> bool:
        """Tell whether a column is indexed."""
        return any(column in index.columns for index in self._table.list_indices())

    def unindexed(self) -> int:
        """How many rows some index does not hold; they are found by looking at each."""
        found = (self._table.index_stats(index.name) for index in self._table.list_indices())
        return max((s.num_unindexed_rows for s in found if s is not None), default=0)

    def optimize(self) -> None:
        """Take rows that came later into the indexes; every version is kept."""
        self._table.optimize(cleanup_older_than=FOR_EVER)

    # Reading

    def scan(self, columns: Sequence[str], where: str | None = None) -> pa.Table:
        """Return columns of all rows, or of those that an SQL condition chooses."""
        query = self._table.search().select(list(columns))
        return (query.where(where) if where else query).to_arrow()

    def vectors(self) -> tuple[pa.Table, np.ndarray]:
        """Return ids and clusters of the n rows, and their vectors, shape (n, size)."""
        found = self.scan(["id", "cluster", "vector"])
        flat = found["vector"].combine_chunks().flatten().to_numpy()
        size = found.schema.field("vector").type.list_size
        return found.select(["id", "cluster"]), flat.reshape(len(found), size)

    def rows(self, ids: Iterable[str]) -> dict[str, dict]:
        """Return id -> FACTS of the rows with these ids."""
        found: dict[str, dict] = {}
        for some in _thousands(sorted(set(ids))):
            table = self.scan(FACTS, f"id IN ({', '.join(map(quoted, some))})")
            found |= {row["id"]: row for row in table.to_pylist()}
        return found

    def nearest(
        self, vectors: np.ndarray, k: int, ann: Ann | None, where: str | None = None
    ) -> list[list[dict]]:
        """Return the k most similar rows for each of m vectors: FACTS and ``similarity``.

        With ``where``, an SQL condition, every row that fulfils it is compared.
        """
        found: list[list[dict]] = [[] for _ in vectors]
        for start in range(0, len(vectors), QUERIES):
            batch = vectors[start : start + QUERIES]
            query = self._table.search(list(batch)).distance_type("cosine").limit(k)
            if where:  # an index stops at the first k that pass, which need not be the nearest
                query = query.where(where).bypass_vector_index()
            elif ann is not None:
                query = query.nprobes(ann.nprobes)
                query = query.refine_factor(ann.refine) if ann.refine else query
            for row in query.select([*FACTS, "_distance"]).to_arrow().to_pylist():
                row["similarity"] = round(1.0 - row.pop("_distance"), DIGITS)
                found[start + row.pop("query_index", 0)].append(row)
        return [sorted(rows, key=lambda r: (-r["similarity"], r["id"])) for rows in found]

    def lexical(
        self, text: str, vector: np.ndarray, k: int, where: str | None = None
    ) -> list[dict]:
        """Return the k rows that share most with the words of a text (BM25), best first.

        ``vector`` is the text's own, shape (size,): it gives the rows' ``similarity``.
        """
        words = list(dict.fromkeys(_WORD.findall(text.lower())))[:LEXICAL_WORDS]
        if not words:
            return []
        query = self._table.search(" ".join(words), query_type="fts", fts_columns="text")
        query = query.where(where) if where else query
        rows = query.limit(k).select([*FACTS, "vector", "_score"]).to_arrow().to_pylist()
        for row in rows:
            row["similarity"] = float(np.dot(row.pop("vector"), vector))
        return sorted(rows, key=lambda r: (-r.pop("_score"), r["id"]))

    def fingerprint(self) -> str:
        """Return a hash of all rows but their vectors, whatever their order."""
        names = ["id", "content", *CHANGEABLE]
        rows = self.scan(names).sort_by("id").select(names)
        whole = Fingerprint(rows.schema)
        whole.update(rows)
        return whole.digest()


def quoted(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def exists(folder: Path) -> bool:
    """Tell whether a folder holds a table, whole or not."""
    return _path(folder).is_dir()


def _path(folder: Path) -> Path:
    return Path(folder) / f"{NAME}.lance"


def _thousands(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + 1_000] for start in range(0, len(ids), 1_000))


def _database(folder: Path) -> Any:
    """Connect to the folder; LanceDB is loaded here, and tells of nothing but errors."""
    os.environ.setdefault("LANCEDB_LOG", "error")
    import lancedb

    return lancedb.connect(str(Path(folder).absolute()))
