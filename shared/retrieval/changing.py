"""What an upsert writes: new rows, rows with another text, and rows with other facts alone."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from shared.retrieval.embeddings import Embedding
from shared.retrieval.found import Changes
from shared.retrieval.table import CHANGEABLE, Table, with_vectors


def take_in(table: Table, rows: pa.Table, embedding: Embedding, progress: bool) -> Changes:
    """Write rows (FACTS and the text's hash) by their ids, and return what they changed.

    Of new and changed texts the vectors are made; of other rows with a difference, the price
    among them, only the columns that may change are written, and their vectors stay indexed.
    """
    known = table.scan(["id", "content", *CHANGEABLE])
    place = pc.index_in(rows["id"], known["id"].combine_chunks())
    new = pc.is_null(place)
    text = _differs(rows, known, place, ["content"])
    fact = pc.and_not(_differs(rows, known, place, CHANGEABLE), text)
    if (to_embed := rows.filter(pc.or_(new, text))).num_rows:
        vectors = embedding.embed(to_embed["text"].to_pylist(), progress)
        table.merge(with_vectors(to_embed, vectors))
    if (others := rows.filter(fact)).num_rows:
        table.merge(others.select(["id", *CHANGEABLE]))
    counts = [pc.sum(chosen).as_py() or 0 for chosen in (new, text, fact)]
    return Changes(*counts, unchanged=len(rows) - sum(counts))


def _differs(
    rows: pa.Table, known: pa.Table, place: pa.ChunkedArray, names: Sequence[str]
) -> pa.ChunkedArray:
    """Tell which rows differ in a column from what is known of them; unknown ones do not."""
    different = pc.is_null(pc.coalesce(place, 0))  # false, as often as there are rows
    for name in names:
        other = pc.not_equal(rows[name], known[name].take(place))
        different = pc.or_(different, pc.fill_null(other, False))
    return different
