"""Splits by hash: the same product lands in the same split, whoever loads it and in what order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Split name -> share of the clusters it gets."""


def split_of(key: str, seed: int = 42) -> str:
    """Return the split of a cluster: its key's place between 0 and 1, by SHA-256.

    Not Python's ``hash``, which differs from one process to the next.
    """
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "test"


def assign_splits(keys: Iterable[str], seed: int = 42) -> list[str]:
    """Return the split of each cluster key."""
    known: dict[str, str] = {}
    return [known.get(key) or known.setdefault(key, split_of(key, seed)) for key in keys]
