"""Near-duplicates: products whose texts are nearly the same, such as the colours of one case.

Left alone they sit on both sides of a split, and a model that has learnt one by heart is praised
for knowing the other. So they are clustered, and a cluster goes into one split as a whole.

MinHash estimates the Jaccard similarity of two sets of word triples (Broder, 1997); banding finds
the pairs worth comparing without comparing all (Leskovec et al., Mining of Massive Datasets, 3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from tqdm.auto import tqdm

THRESHOLD = 0.7
"""Jaccard similarity from which two products count as near-duplicates."""

PERMUTATIONS = 128
BANDS = 32
"""128 permutations in 32 bands of 4: a pair of similarity 0.7 is compared with probability
1 - (1 - 0.7 ** 4) ** 32 = 0.9999, one of similarity 0.3 with 0.23."""

SHINGLE_WORDS = 3
_WORD = re.compile(r"[^\W_]+")
_PAIRS_AT_ONCE = 50_000


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
    from datasketch import MinHash

    empty = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=xxhash.xxh32_intdigest)
    rows = []
    for text in tqdm(texts, desc="MinHash", unit=" items", disable=not progress):
        sketch = empty.copy()
        sketch.update_batch(list(shingles(text)))
        rows.append(sketch.hashvalues.astype(np.uint32))
    return np.array(rows, dtype=np.uint32).reshape(-1, PERMUTATIONS)


@dataclass
class Sketches:
    """What clustering needs to know of n items: 256 bytes each, and one band at a time.

    ``short`` holds the lower 16 bits of the signatures, shape (n, 128): two that differ agree by
    chance once in 65,536 (b-bit minwise hashing; Li and König, 2010). ``band`` returns the keys
    of band 0 to 31, shape (n,): items with equal keys are compared. ``titles`` are keys too, and
    items with equal ones belong together; 0 stands for a title too short to tell.
    """

    short: np.ndarray
    band: Callable[[int], np.ndarray]
    titles: np.ndarray

    @classmethod
    def of(cls, titles: Sequence[str], texts: Iterable[str], *, progress: bool = False) -> Sketches:
        """Sketch items that are in memory."""
        found = signatures(texts, progress=progress)
        keys = band_keys(found)
        return cls(found.astype(np.uint16), keys.__getitem__, title_keys(titles))


def band_keys(sketches: np.ndarray) -> np.ndarray:
    """Return a key for each band of n signatures, shape (32, n), uint64: equal for equal bands."""
    halves = np.ascontiguousarray(sketches).view(np.uint64).reshape(-1, BANDS, 2)
    keys = halves[:, :, 0] * np.uint64(0x9E3779B97F4A7C15)
    keys += halves[:, :, 1] * np.uint64(0xC2B2AE3D27D4EB4F)
    return np.ascontiguousarray(keys.T)


def title_keys(titles: Sequence[str]) -> np.ndarray:
    """Return a key for each title, shape (n,), uint64; 0 for one of fewer than five words."""
    words = (_WORD.findall(title.lower()) for title in titles)
    keys = [xxhash.xxh3_64_intdigest(" ".join(w).encode()) if len(w) >= 5 else 0 for w in words]
    return np.array(keys, dtype=np.uint64)


def same_key_pairs(keys: np.ndarray) -> np.ndarray:
    """Return pairs (i < j) of rows with equal keys, shape (m, 2).

    Within a group of equal keys each is paired with the one before it and with the first: the
    number of pairs grows with the number of rows, not with its square.
    """
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    linked = np.flatnonzero(same) + 1
    starts = np.flatnonzero(np.concatenate(([True], ~same)))
    first = starts[np.searchsorted(starts, linked, side="right") - 1]
    before = np.column_stack((order[linked - 1], order[linked]))
    return np.concatenate(
        (before, np.column_stack((order[first], order[linked]))[first < linked - 1])
    )


def same_title_pairs(titles: Sequence[str]) -> np.ndarray:
    """Return pairs of items with the same title of at least five words, shape (m, 2)."""
    keys = title_keys(titles)
    rows = np.flatnonzero(keys)
    return rows[same_key_pairs(keys[rows])]


def candidate_pairs(sketches: np.ndarray) -> np.ndarray:
    """Return the pairs of rows that agree on a whole band, shape (m, 2), each once."""
    pairs = np.concatenate([same_key_pairs(keys) for keys in band_keys(sketches)])
    return np.unique(pairs, axis=0)


def near_duplicate_pairs(sketches: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Return the candidate pairs whose estimated similarity reaches the threshold, (m, 2)."""
    return similar_pairs(sketches, candidate_pairs(sketches), threshold)


def similar_pairs(sketches: np.ndarray, pairs: np.ndarray, threshold: float) -> np.ndarray:
    """Return those of the pairs whose estimated similarity reaches the threshold, (m, 2)."""
    agreement = [
        (sketches[chunk[:, 0]] == sketches[chunk[:, 1]]).mean(axis=1)
        for chunk in np.array_split(pairs, len(pairs) // _PAIRS_AT_ONCE + 1)
    ]
    return pairs[np.concatenate(agreement) >= threshold]


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
    smallest id in a cluster: it does not depend on the order of the items.
    """
    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    sketches = Sketches.of([titles[i] for i in order], [texts[i] for i in order], progress=progress)
    first = np.empty(len(ids), dtype=np.int64)
    first[order] = order[clusters(sketches, threshold)] if len(ids) else 0
    return [ids[i] for i in first]


def clusters(
    sketches: Sketches, threshold: float = THRESHOLD, *, progress: bool = False
) -> np.ndarray:
    """Return for each of n items the number of the first item of its cluster, shape (n,).

    Band after band, and pairs that are already in one cluster are not compared again: time and
    memory grow with n, not with the number of pairs.
    """
    labels = np.arange(len(sketches.short))
    for number in tqdm(range(BANDS), desc="cluster", unit=" bands", disable=not progress):
        pairs = same_key_pairs(sketches.band(number))
        pairs = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
        similar = similar_pairs(sketches.short, pairs, threshold)
        labels = components(len(labels), labels[similar])[labels]
    rows = np.flatnonzero(sketches.titles)
    same_title = rows[same_key_pairs(sketches.titles[rows])]
    labels = components(len(labels), labels[same_title])[labels]
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    return first[which]


def components(n: int, pairs: np.ndarray) -> np.ndarray:
    """Return for each of n rows the number of its connected component, shape (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = (pairs[:, 0], pairs[:, 1])
    links = coo_array((np.ones(len(pairs), np.int8), ends), shape=(n, n))
    return connected_components(links, directed=False)[1]
