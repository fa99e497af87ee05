"""Near-duplicates: products whose texts are nearly the same, such as the colours of one case.

Left alone they sit on both sides of a split, and a model that has learnt one by heart is praised
for knowing the other. So they are clustered, and a cluster goes into one split as a whole.

MinHash estimates the Jaccard similarity of two sets of word triples (Broder, 1997); banding finds
the pairs worth comparing without comparing all (Leskovec et al., Mining of Massive Datasets, 3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
import xxhash
from datasketch import MinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

THRESHOLD = 0.7
"""Jaccard similarity from which two products count as near-duplicates."""

PERMUTATIONS = 128
BANDS = 32
"""128 permutations in 32 bands of 4: a pair of similarity 0.7 is compared with probability
1 - (1 - 0.7 ** 4) ** 32 = 0.9999, one of similarity 0.3 with 0.23."""

SHINGLE_WORDS = 3
_WORD = re.compile(r"[^\W_]+")


def shingles(text: str) -> set[bytes]:
    """Return the set of word triples of a text, lower-cased, as bytes."""
    words = _WORD.findall(text.lower())
    if len(words) < SHINGLE_WORDS:
        return {" ".join(words).encode()}
    triples = zip(*(words[i:] for i in range(SHINGLE_WORDS)), strict=False)
    return {" ".join(triple).encode() for triple in triples}


def jaccard(a: str, b: str) -> float:
    """Return the exact similarity of two texts: shared word triples / all word triples."""
    first, second = shingles(a), shingles(b)
    return len(first & second) / len(first | second)


def signatures(texts: Iterable[str], *, progress: bool = False) -> np.ndarray:
    """Return the MinHash signatures of n texts, shape (n, 128), dtype uint32."""
    empty = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=xxhash.xxh32_intdigest)
    rows = []
    for text in tqdm(texts, desc="MinHash", unit=" items", disable=not progress):
        sketch = empty.copy()
        sketch.update_batch(list(shingles(text)))
        rows.append(sketch.hashvalues.astype(np.uint32))
    return np.array(rows, dtype=np.uint32).reshape(-1, PERMUTATIONS)


def candidate_pairs(sketches: np.ndarray) -> np.ndarray:
    """Return pairs of rows that agree on a whole band, shape (m, 2), each once.

    Within a group of agreeing rows each is paired with the one before it and with the first: the
    number of pairs grows with the number of rows, not with its square.
    """
    pairs = []
    for band in np.split(sketches, BANDS, axis=1):
        keys = np.ascontiguousarray(band).view(f"V{band.shape[1] * 4}").ravel()
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        starts = np.concatenate(([True], ~same)) if len(keys) else np.array([], bool)
        first = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
        linked = np.flatnonzero(same) + 1
        pairs += [
            np.column_stack((order[linked - 1], order[linked])),
            np.column_stack((first[linked], order[linked])),
        ]
    found = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(found[found[:, 0] != found[:, 1]], axis=0)


def near_duplicate_pairs(sketches: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Return the candidate pairs whose estimated similarity reaches the threshold, (m, 2)."""
    pairs = candidate_pairs(sketches)
    agreement = np.concatenate(
        [
            (sketches[chunk[:, 0]] == sketches[chunk[:, 1]]).mean(axis=1)
            for chunk in np.array_split(pairs, max(1, len(pairs) // 100_000))
        ]
    )
    return pairs[agreement >= threshold]


def cluster(
    ids: Sequence[str],
    titles: Sequence[str],
    texts: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    progress: bool = False,
) -> list[str]:
    """Return for each of n items the key of its near-duplicate cluster.

    Clusters are the connected components of near-duplicate texts and of equal titles (the same
    product is often listed twice, with descriptions of different length). The key is the
    smallest id in a cluster: neither depends on the order of the items.
    """
    pairs = np.concatenate(
        [
            near_duplicate_pairs(signatures(texts, progress=progress), threshold),
            same_title_pairs(titles),
        ]
    )
    n = len(ids)
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, labels = connected_components(links, directed=False)
    frame = pl.DataFrame({"id": list(ids), "label": labels}, schema_overrides={"id": pl.String})
    return frame.select(pl.col("id").min().over("label"))["id"].to_list()


def same_title_pairs(titles: Sequence[str]) -> np.ndarray:
    """Return pairs of items with the same title of at least five words, shape (m, 2)."""
    first: dict[str, int] = {}
    pairs = []
    for i, title in enumerate(titles):
        words = _WORD.findall(title.lower())
        if len(words) >= 5 and (j := first.setdefault(" ".join(words), i)) != i:
            pairs.append((j, i))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
