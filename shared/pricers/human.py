"""The human baseline: what people say a product costs, kept answer by answer, scored like a model.

Answers go to one file of JSON lines, each written to disk before the next product is shown, so
that a crash loses nothing that was answered. Later lines win, so an answer can be taken back.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from shared.data import Product
from shared.data.text import parse_price
from shared.evaluation.bootstrap import bca, resamples
from shared.evaluation.protocol import Estimates

MOST = 1_000_000.0  # dollars: above it is a slip of the finger


def asked(items: pa.Table, n: int = 100, seed: int = 42) -> pa.Table:
    """Return the n items that every rater is asked about, in the order in which they are asked.

    Both depend on seed and ids alone, so all raters price the same products, whoever loads them.
    """
    ids = items["id"].to_pylist()
    rank = [hashlib.sha256(f"ask:{seed}:{i}".encode()).digest() for i in ids]
    order = sorted(range(len(ids)), key=lambda i: rank[i])[:n]
    return items.take(pa.array(order, pa.int64()))


def read_price(text: str) -> float:
    """Read what a rater typed, in dollars ("$1,299.00", "12.5"), or raise ValueError."""
    value = pl.select(parse_price(pl.lit(text.strip(), pl.String))).item()
    if value is None:
        raise ValueError(f"{text.strip()[:40]!r} is not a price; write dollars, such as 24.99")
    if not 0 < value <= MOST:
        raise ValueError(f"{value:g} dollars cannot be a price; it has to be above 0, to a million")
    return float(value)


class Answers:
    """What raters answered: rater -> item id -> price in dollars, None where they skipped."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.by_rater: dict[str, dict[str, float | None]] = {}
        self.seconds: dict[tuple[str, str], float] = {}
        if self.path.is_file():
            for number, line in enumerate(self.path.read_bytes().split(b"\n"), start=1):
                self._replay(line, number)

    def _replay(self, line: bytes, number: int) -> None:
        if not line.strip():
            return
        try:
            event = json.loads(line)
            rater, item = str(event["rater"]), str(event["item_id"])
            price, undone = event["price"], event.get("undone", False)
            price = None if price is None else float(price)
        except (ValueError, KeyError, TypeError) as error:
            if number == self._lines():  # the line that was being written when it was killed
                return
            raise ValueError(f"{self.path}, line {number}: no answer ({error!r})") from error
        answers = self.by_rater.setdefault(rater, {})
        answers.pop(item, None)  # so that the last answer is last, too
        if not undone:
            answers[item] = price
            self.seconds[rater, item] = float(event.get("seconds") or 0.0)

    def _lines(self) -> int:
        return len(self.path.read_bytes().split(b"\n"))

    def add(self, rater: str, item: str, price: float | None, seconds: float | None = None) -> None:
        """Keep an answer in dollars, None for a skip. When this returns, it is on the disk."""
        self._write({"rater": rater, "item_id": item, "price": price, "seconds": seconds})

    def undo(self, rater: str) -> str | None:
        """Take back a rater's last answer; return its item id, None if there is none."""
        if not (answers := self.by_rater.get(rater)):
            return None
        item = next(reversed(answers))
        self._write({"rater": rater, "item_id": item, "price": None, "undone": True})
        return item

    def _write(self, event: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        whole = self.path.read_bytes().rfind(b"\n") + 1 if self.path.is_file() else 0
        with self.path.open("ab") as file:
            file.truncate(whole)  # what a killed process had written of a line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._replay(line, 0)

    @property
    def raters(self) -> list[str]:
        """Return the raters with an answer, by name."""
        return sorted(rater for rater, answers in self.by_rater.items() if answers)


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


def agreement(answers: Answers, seed: int = 42) -> dict[str, float | int]:
    """Return how well raters agree on the items that all of them priced, with 95 % intervals.

    ``difference`` is the mean absolute difference of two raters in dollars; ``icc`` the share of
    the variance of log prices that is due to the products: ICC(2,1), two-way random effects,
    single rater, absolute agreement (Shrout and Fleiss, 1979); 1 is perfect, 0 is chance. Raises
    ValueError with fewer than two raters or three common items.
    """
    raters = answers.raters
    priced = [{i for i, p in answers.by_rater[r].items() if p is not None} for r in raters]
    common = sorted(set.intersection(*priced)) if priced else []
    if len(raters) < 2 or len(common) < 3:
        raise ValueError(
            f"{len(raters)} raters with {len(common)} items that all of them priced: agreement "
            "needs two raters and three items"
        )
    prices = np.array([[answers.by_rater[r][i] for r in raters] for i in common], dtype=float)
    result: dict[str, float | int] = {"raters": len(raters), "n": len(common)}
    for name, statistic in (("difference", _difference), ("icc", icc)):
        drawn = np.concatenate(list(resamples(len(common), seed, 2000)))
        replicates = np.array([statistic(prices[rows]) for rows in drawn])
        jackknife = np.array([statistic(np.delete(prices, i, 0)) for i in range(len(common))])
        value = statistic(prices)
        low, high = bca(value, replicates, jackknife)
        result |= {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
    return result


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
