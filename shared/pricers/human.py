"""The human baseline: what people say a product costs, kept answer by answer, scored like a model.

Answers go to one file of JSON lines, each written to disk before the next product is shown, so
that a crash loses nothing that was answered. Later lines win, so an answer can be taken back.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from shared.data import Product
from shared.data.text import parse_price
from shared.evaluation.bootstrap import bca, resamples
from shared.evaluation.protocol import Estimates

LEAST, MOST = 0.01, 1_000_000.0  # dollars: what is outside is a slip of the finger


def asked(items: pa.Table, n: int = 100, seed: int = 42) -> pa.Table:
    """Return the n items that every rater is asked about, in the order in which they are asked.

    Both depend on seed and ids alone, so all raters price the same products, whoever loads them.
    """
    ids = items["id"].to_pylist()
    rank = [hashlib.sha256(f"ask:{seed}:{i}".encode()).digest() for i in ids]
    order = sorted(range(len(ids)), key=lambda i: rank[i])[:n]
    return items.take(pa.array(order, pa.int64()))


def answered(items: pa.Table, answers: Answers, rater: str | None = None) -> pa.Table:
    """Return the items that a rater (None: any rater) has priced or skipped, in their order.

    Score people on these: a product that nobody has come to yet is not a failed estimate.
    """
    raters = answers.raters if rater is None else [rater]
    seen = {item for r in raters for item in answers.by_rater.get(r, {})}
    return items.filter(pc.is_in(items["id"], pa.array(sorted(seen), pa.string())))


def read_price(text: str) -> float:
    """Read what a rater typed, in dollars ("$1,299.00", "12.5"), or raise ValueError."""
    value = pl.select(parse_price(pl.lit(text.strip(), pl.String))).item()
    if value is None:
        raise ValueError(f"{text.strip()[:40]!r} is not a price; write dollars, such as 24.99")
    return _plausible(value)


def _plausible(dollars: float) -> float:
    if not LEAST <= dollars <= MOST:
        raise ValueError(
            f"{dollars:,g} dollars is not a price; it is one cent to a million dollars"
        )
    return float(dollars)


class Answers:
    """What raters answered: rater -> item id -> price in dollars, None where they skipped."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.by_rater: dict[str, dict[str, float | None]] = {}
        self.seconds: dict[tuple[str, str], float] = {}
        self._bytes = self._lines = 0  # how much of the file is in here
        self._writing = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Take in what others, such as a page in a second process, have added to the file.

        Raises ValueError for a line that is no answer. A last line without an end was being
        written when its process died: nobody was told that it is kept, so it is not.
        """
        with self._writing:
            self._take_in()

    def _take_in(self) -> None:
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < self._bytes:  # somebody deleted the file, or put another one in its place
            self.by_rater.clear()
            self.seconds.clear()
            self._bytes = self._lines = 0
        if size == self._bytes:
            return
        with self.path.open("rb") as file:
            file.seek(self._bytes)
            whole, end, _ = file.read().rpartition(b"\n")
        lines = whole.split(b"\n") if end else []
        for number, line in enumerate(lines, start=self._lines + 1):
            self._replay(line, number)
        self._lines += len(lines)
        self._bytes += len(whole + end)

    def _replay(self, line: bytes, number: int) -> None:
        if not line.strip():
            return
        try:
            event = json.loads(line)
            rater, item = str(event["rater"]), str(event["item_id"])
            price = None if event["price"] is None else _plausible(float(event["price"]))
            seconds = event.get("seconds")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}, line {number}: no answer ({error!r})") from error
        answers = self.by_rater.setdefault(rater, {})
        answers.pop(item, None)  # so that the last answer is last, too
        self.seconds.pop((rater, item), None)
        if not event.get("undone"):
            answers[item] = price
            if seconds is not None:
                self.seconds[rater, item] = float(seconds)

    def add(self, rater: str, item: str, price: float | None, seconds: float | None = None) -> None:
        """Keep an answer in dollars, None for a skip. When this returns, it is on the disk."""
        price = None if price is None else _plausible(price)
        self._write({"rater": rater, "item_id": item, "price": price, "seconds": seconds})

    def undo(self, rater: str, among: Sequence[str] | None = None) -> str | None:
        """Take back a rater's last answer (to one of the items ``among``, if given).

        Returns its item id, None if there is none.
        """
        given = reversed(self.by_rater.get(rater, {}))
        item = next((i for i in given if among is None or i in among), None)
        if item is not None:
            self._write({"rater": rater, "item_id": item, "price": None, "undone": True})
        return item

    def _write(self, event: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        with self._writing, self.path.open("ab") as file:
            _wait_for_others(file)
            self._take_in()
            file.truncate(self._bytes)  # what a killed process had written of a line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._take_in()

    @property
    def raters(self) -> list[str]:
        """Return the raters with an answer, by name."""
        return sorted(rater for rater, answers in self.by_rater.items() if answers)


def _wait_for_others(file: BinaryIO) -> None:
    """Lock a file until it is closed; where the system cannot (Windows), use one process."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return


class HumanPricer:
    """A rater as a pricer, or ``human``: the median of all raters. What nobody answered failed."""

    def __init__(self, answers: Answers, rater: str | None = None) -> None:
        if rater is not None and rater not in answers.raters:
            raise ValueError(f"no answers of {rater!r}; there are: {', '.join(answers.raters)}")
        self.name = "human" if rater is None else f"human:{rater}"
        self.answers, self.raters = answers, answers.raters if rater is None else [rater]
        said = json.dumps({r: answers.by_rater[r] for r in self.raters}, sort_keys=True)
        self.settings = {
            "raters": self.raters,
            "answers": hashlib.sha256(said.encode()).hexdigest(),
        }

    def price(self, products: Sequence[Product]) -> Estimates:
        """Return the answers in dollars; NaN, with the reason, where there is none."""
        found = [self._answer(product.id) for product in products]
        seconds = [self._seconds(product.id) for product in products]
        return Estimates([f[0] for f in found], [f[1] for f in found], seconds=np.array(seconds))

    def _answer(self, item: str) -> tuple[float, str | None]:
        given = [self.answers.by_rater[r][item] for r in self.raters
                 if item in self.answers.by_rater[r]]  # fmt: skip
        prices = [price for price in given if price is not None]
        if prices:
            return float(np.median(prices)), None
        return float("nan"), "skipped" if given else "not answered"

    def _seconds(self, item: str) -> float:
        known = [self.answers.seconds.get((r, item)) for r in self.raters]
        return float(np.mean([s for s in known if s is not None] or [np.nan]))


def agreement(
    answers: Answers, seed: int = 42, raters: Sequence[str] | None = None
) -> dict[str, float | int]:
    """Return how well raters agree on the items that all of them priced, with 95 % intervals.

    ``difference`` is the mean absolute difference of two raters in dollars; ``icc`` the share of
    the variance of log prices that is due to the products: ICC(2,1), two-way random effects,
    single rater, absolute agreement (Shrout and Fleiss, 1979); 1 is perfect, 0 is chance. The
    intervals are BCa bootstraps over items. ``raters`` leaves out who has not come far. Raises
    ValueError with fewer than two raters or three common items.
    """
    raters = answers.raters if raters is None else list(raters)
    prices = _common_prices(answers, raters)
    result: dict[str, float | int] = {"raters": len(raters), "n": len(prices)}
    drawn = np.concatenate(list(resamples(len(prices), seed)))
    for name, statistic in (("difference", _difference), ("icc", icc)):
        replicates = np.array([statistic(prices[rows]) for rows in drawn])
        jackknife = np.array([statistic(np.delete(prices, i, 0)) for i in range(len(prices))])
        value = statistic(prices)
        low, high = bca(value, replicates, jackknife)
        result |= {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
    return result


def _common_prices(answers: Answers, raters: Sequence[str]) -> np.ndarray:
    """Return dollars, (items, raters), of the items that all of these raters priced."""
    priced = [{i for i, p in answers.by_rater.get(r, {}).items() if p is not None} for r in raters]
    common = sorted(set.intersection(*priced)) if priced else []
    if len(raters) < 2 or len(common) < 3:
        each = ", ".join(f"{r} priced {len(p)}" for r, p in zip(raters, priced, strict=True))
        raise ValueError(
            f"{len(raters)} raters with {len(common)} items that all of them priced "
            f"({each or 'nobody answered'}): agreement needs two raters and three items"
        )
    return np.array([[answers.by_rater[r][i] for r in raters] for i in common], dtype=float)


def _difference(prices: np.ndarray) -> float:
    pairs = itertools.combinations(range(prices.shape[1]), 2)
    return float(np.mean([np.abs(prices[:, a] - prices[:, b]).mean() for a, b in pairs]))


def icc(prices: np.ndarray) -> float:
    """Return ICC(2,1) of log prices; ``prices`` in dollars, shape (items, raters)."""
    y = np.log(prices)
    n, k = y.shape
    items, raters = y.mean(axis=1), y.mean(axis=0)
    between = k * ((items - y.mean()) ** 2).sum() / (n - 1)
    judges = n * ((raters - y.mean()) ** 2).sum() / (k - 1)
    rest = ((y - items[:, None] - raters + y.mean()) ** 2).sum() / ((n - 1) * (k - 1))
    total = between + (k - 1) * rest + k * (judges - rest) / n
    return float((between - rest) / total) if total > 0 else 1.0
