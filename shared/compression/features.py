"""Words as numbers in a fixed range: hashed n-grams, the same in every process, on every machine.

Python's own hash of a text is another one each time Python starts, so it cannot be stored. Here a
word is the polynomial of its bytes (Karp and Rabin, 1987): with the running sums of a whole batch
at hand, the hash of any stretch of it is one subtraction, and NumPy does those of all words of all
texts at once. A loop over words takes ten times as long, which is more than the student itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from shared.data.schema import Product

_FACTOR = 0x9E3779B97F4A7C15  # odd: modulo 2 ** 64 it has an inverse
_INVERSE = pow(_FACTOR, -1, 2**64)
_STEP = 0xD1B54A32D192ED03  # from one word of an n-gram to the next, and from one kind to another


@dataclass(frozen=True)
class Reading:
    """What a student reads of a product: the same when it is taught and when it is asked.

    ``characters`` of the text; ``grams``: words of it in a row, at most; ``buckets``: places for
    hashed n-grams, a power of two. Two n-grams may share a place.
    """

    characters: int = 600
    grams: int = 1
    buckets: int = 2**15

    def __post_init__(self) -> None:
        if not all(type(each) is int for each in (self.characters, self.grams, self.buckets)):
            raise TypeError("characters, grams and buckets are whole numbers")
        if self.buckets < 2 or self.buckets & (self.buckets - 1):
            raise ValueError(f"{self.buckets} buckets: a power of two is needed")
        if self.characters < 1 or self.grams < 1:
            raise ValueError("a student has to read at least 1 character, and n-grams of 1 word")


@dataclass(frozen=True)
class Words:
    """All words of some texts, in their order: the number of the text, and hashes (uint64).

    ``rough`` is the same for numbers that are nearly as large: "1450w" is "1" with three digits
    after it and a "w", like "1200w". For other words it is what ``exact`` is.
    """

    texts: np.ndarray
    exact: np.ndarray
    rough: np.ndarray


def hashed(products: Sequence[Product], reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Return the buckets of n products and the weight of each one's sum.

    Buckets: int32, (n, most n-grams); rows are filled up with ``reading.buckets``, a place of its
    own. Weights: float32, (n, 1), one over the root of a product's n-grams, 1 where it has none.

    Read are: words of category and text, numbers in them once more, roughly and with a neighbour
    ("12 ounces"), and the title once more, in words and pairs: it says most of all.
    """
    most = reading.characters
    text = words_of([f"{(p.category or '')[:most]}\n{p.text[:most]}" for p in products])
    title = words_of([(p.title or "")[:most] for p in products])
    numbers = text.exact != text.rough
    found = [_grams(text.texts, text.exact, n, kind=0) for n in range(1, reading.grams + 1)]
    found += [_grams(text.texts, text.rough, n, kind=1, near=numbers) for n in (1, 2)]
    found += [_grams(title.texts, title.rough, n, kind=2) for n in (1, 2)]
    rows, grams = (np.concatenate(parts) for parts in zip(*found, strict=True))
    shift = np.uint64(65 - reading.buckets.bit_length())
    return _in_rows(rows, _mixed(grams) >> shift, len(products), reading.buckets)


def words_of(texts: Sequence[str]) -> Words:
    """Return the words of texts.

    A word is a run of letters and digits in lower case, with a point between digits: "1.5". All
    that is not ASCII counts as a letter.
    """
    pieces = [text.lower().encode("utf-8", "replace") for text in texts]
    whole = np.frombuffer(b"\n".join([*pieces, b"\n"]), np.uint8)
    digits, letters = _DIGITS[whole], _LETTERS[whole]
    points = np.flatnonzero(whole[1:-1] == ord(".")) + 1
    letters[points] = digits[points - 1] & digits[points + 1]
    edges = np.flatnonzero(letters[1:] != letters[:-1]) + 1
    if letters[0]:
        edges = np.append(0, edges)
    starts, ends = edges[::2], edges[1::2]
    sums = np.zeros(len(whole) + 1, np.uint64)
    np.cumsum(_VALUES[whole] * _powers(_FACTOR, len(whole)), out=sums[1:])
    back = _powers(_INVERSE, len(whole))
    exact = (sums[ends] - sums[starts]) * back[starts]
    rough = exact.copy()
    at = np.flatnonzero(digits[starts])
    stops = np.flatnonzero(~digits)
    first, behind = starts[at], stops[np.searchsorted(stops, starts[at])]
    unit = behind + np.where(whole[behind] == ord("."), 1, 0)  # "1.5l": behind the fraction, too
    unit = np.minimum(stops[np.searchsorted(stops, unit)], ends[at])
    half = (whole[first + 1] >= ord("5")) & (behind - first > 1) & (whole[first] < ord("4"))
    size = (behind - first) * 1_000 + whole[first] * 2 + half
    rough[at] = _mixed(size.astype(np.uint64)) + (sums[ends[at]] - sums[unit]) * back[unit]
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces)) + 1
    return Words(np.searchsorted(np.cumsum(lengths), starts, side="right"), exact, rough)


def _grams(
    texts: np.ndarray, words: np.ndarray, n: int, kind: int, near: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return text and hash of each run of ``n`` words within a text.

    The same words of another ``kind`` are others. ``near``: only runs with one of these words.
    """
    count = max(len(words) - n + 1, 0)
    runs = [slice(start, start + count) for start in range(n)]
    chosen = texts[runs[0]] == texts[runs[-1]]
    if near is not None:
        chosen &= np.logical_or.reduce([near[run] for run in runs])
    grams = np.full(np.count_nonzero(chosen), (10 * kind + n) * _STEP % 2**64, np.uint64)
    for run in runs:
        grams = grams * np.uint64(_STEP) + words[run][chosen]
    return texts[runs[0]][chosen], grams


def _in_rows(
    places: np.ndarray, buckets: np.ndarray, n: int, filler: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the buckets of each of n texts as a row, and the weight of its sum."""
    counts = np.bincount(places, minlength=n)
    order = np.argsort(places, kind="stable")
    first = np.cumsum(counts) - counts
    column = np.arange(len(places)) - np.repeat(first, counts)
    table = np.full((n, max(int(counts.max(initial=0)), 1)), filler, np.int32)
    table[places[order], column] = buckets[order]
    weights = 1 / np.sqrt(np.maximum(counts, 1), dtype=np.float32)
    return table, weights[:, None].astype(np.float32)


def _powers(factor: int, count: int) -> np.ndarray:
    """Return the powers 0 to ``count`` - 1 of an odd factor modulo 2 ** 64."""
    return _many_powers(factor, max(count - 1, 1).bit_length())[:count]


@cache
def _many_powers(factor: int, doublings: int) -> np.ndarray:
    powers = np.full(2**doublings, factor, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Spread hashes evenly over 64 bits (the last step of SplitMix64; Steele et al., 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


_DIGITS = np.isin(np.arange(256), [*b"0123456789"])
_LETTERS = _DIGITS | np.isin(np.arange(256), [*b"abcdefghijklmnopqrstuvwxyz"])
_LETTERS[128:] = True
_VALUES = _mixed(np.arange(1, 257, dtype=np.uint64))
"""A large number for each byte: sums of small ones would meet."""
