"""How good are the near-duplicate pairs? MinHash against exact similarity, on a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from shared.data.duplicates import (
    candidate_pairs,
    components,
    shingles,
    signatures,
    similar_pairs,
)

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
_ROWS_AT_ONCE = 256


def exact_pairs(texts: Sequence[str], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs (i < j) of n texts at least ``threshold`` similar, and their similarity.

    Shapes (m, 2) and (m,). Exact Jaccard of word triples, from an inverted index of triples: it
    compares all with all, a few thousand texts take seconds and a million would take weeks.
    """
    index = _inverted_index(texts)
    sizes = np.diff(index.indptr)
    pairs, similarities = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        shared = (index[start : start + _ROWS_AT_ONCE] @ index.T).tocoo()
        i, j = shared.coords[0] + start, shared.coords[1]
        similarity = shared.data / (sizes[i] + sizes[j] - shared.data)
        found = (i < j) & (similarity >= threshold)
        pairs.append(np.column_stack((i, j))[found])
        similarities.append(similarity[found])
    return np.concatenate(pairs), np.concatenate(similarities)


def _inverted_index(texts: Sequence[str]) -> csr_array:
    """Return a row a text and a column a word triple, 1 where the text has it."""
    columns: dict[bytes, int] = {}
    rows = [[columns.setdefault(s, len(columns)) for s in shingles(text)] for text in texts]
    ends = np.cumsum([0, *map(len, rows)])
    flat = np.fromiter((c for row in rows for c in row), np.int64, ends[-1])
    return csr_array((np.ones(len(flat), np.int32), flat, ends), shape=(len(rows), len(columns)))


def pair_quality(
    texts: Sequence[str], thresholds: Sequence[float] = THRESHOLDS, margin: float = 0.05
) -> list[dict[str, float]]:
    """Measure near-duplicate detection on n texts against exact similarity; a row a threshold.

    ``exact``: the pairs that are as similar as ``threshold``; ``recall``: the share of them that
    ends up in one cluster. ``found``: the pairs that MinHash joins; ``precision``: the share of
    them that is as similar. ``recall_clear`` and ``precision_close`` forgive errors within
    ``margin`` of the threshold: pairs that much more similar which are found, and pairs found
    that are at most that much less similar. ``largest``: items in the largest cluster. A share
    of no pairs is NaN. Take a few thousand texts that belong together, not a thin sample of
    many: of a thin one the near-duplicates are elsewhere.
    """
    pairs, similarity = exact_pairs(texts, max(0.05, min(thresholds) - margin))
    found = signatures(texts)
    candidates = candidate_pairs(found)
    return [
        {"threshold": threshold} | _quality(found, candidates, pairs, similarity, threshold, margin)
        for threshold in thresholds
    ]


def _quality(
    sketches: np.ndarray,
    candidates: np.ndarray,
    pairs: np.ndarray,
    similarity: np.ndarray,
    threshold: float,
    margin: float,
) -> dict[str, float]:
    joined = similar_pairs(sketches, candidates, threshold)
    labels = components(len(sketches), joined)
    together = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    n = len(sketches)
    known = dict(zip((pairs @ [n, 1]).tolist(), similarity.tolist(), strict=True))
    of_joined = np.array([known.get(pair, 0.0) for pair in (joined @ [n, 1]).tolist()])
    return {
        "exact": int((similarity >= threshold).sum()),
        "recall": _share(together[similarity >= threshold]),
        "recall_clear": _share(together[similarity >= threshold + margin]),
        "found": len(joined),
        "precision": _share(of_joined >= threshold),
        "precision_close": _share(of_joined >= threshold - margin),
        "largest": int(np.bincount(labels).max(initial=0)),
    }


def _share(hits: np.ndarray) -> float:
    return float(hits.mean()) if len(hits) else float("nan")
