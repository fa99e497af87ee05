"""What a student is taught: texts, what the teacher says they cost, and what they do cost.

The texts may be products of the same shop that nobody has priced; none is in validation or test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from shared.data import Product, products
from shared.data import text as rules
from shared.data.curation import MAX_PRICE, MIN_CHARS, MIN_PRICE
from shared.data.duplicates import Sketches, clusters
from shared.data.schema import ITEM
from shared.data.storage import fingerprint
from shared.evaluation import evaluate
from shared.pipeline import read_products
from shared.settings import Settings


@dataclass(frozen=True)
class Lesson:
    """What is taught: ``products`` (n), log prices by the ``teacher`` and the ``true`` ones, (n,).

    The true price of an unlabelled text is NaN, and so is an estimate that failed.
    """

    products: list[Product]
    teacher: np.ndarray
    true: np.ndarray

    @property
    def middle(self) -> float:
        """The median log price, the true one where it is known."""
        return float(np.nanmedian(np.where(np.isnan(self.true), self.teacher, self.true)))


def unpriced(
    settings: Settings, apart_from: pa.Table, *, limit: int | None = None, progress: bool = False
) -> pa.Table:
    """Return what a source lists without a price that can be read, as items (ITEM schema).

    Curation drops these records; a teacher can price their texts. They are curated like all
    others, and near-duplicates of ``apart_from`` (validation and test items) are left out.
    ``limit``: records that are read. Price and split of the rows are null.
    """
    items, _ = read_products(
        settings.source, size=settings.size, seed=settings.seed, amazon=settings.amazon,
        limit=limit,
    )  # fmt: skip
    items = items.filter(pc.is_null(items["price"]))
    frame = pl.from_arrow(items.select(["text"]))
    usable = (pl.col("text").str.len_chars() >= MIN_CHARS) & rules.is_english(pl.col("text"))
    items = items.filter(frame.select(usable.alias("usable"))["usable"].to_arrow())
    return apart(items, apart_from, progress=progress)


def apart(items: pa.Table, held_out: pa.Table, *, progress: bool = False) -> pa.Table:
    """Return the items without those that are, or nearly are, among the held-out ones.

    Both have the ITEM schema. An item goes if it has the title of a held-out one, or is in its
    near-duplicate cluster, be it by way of others; and so does each further copy of one that stays.
    """
    both = pa.concat_tables([held_out, items.cast(ITEM)])
    titles, texts = (both[name].to_pylist() for name in ("title", "text"))
    first = np.asarray(clusters(Sketches.of(titles, texts, progress=progress)))
    n = len(held_out)
    known, named = set(first[:n].tolist()), set(held_out["title"].to_pylist())
    kept = [
        first[row] == row and first[row] not in known and titles[row] not in named
        for row in range(n, len(both))
    ]
    return items.filter(pa.array(kept, pa.bool_()))


def prepare(
    teacher: Any, train: pa.Table, texts: pa.Table | None = None, *, cache: Path | None = None,
    progress: bool = True,
) -> Lesson:  # fmt: skip
    """Let the teacher price items and texts, and return what is to be learnt.

    Prices of ``texts``, should there be any, are not looked at. Raises ValueError if an item of
    ``train`` has none.
    """
    prices = known_prices(train, "learn from")
    tables = [train] if texts is None else [train, texts]
    said = [teacher_says(teacher, table, cache, progress=progress) for table in tables]
    true = np.full(sum(map(len, tables)), np.nan)
    true[: len(train)] = np.log(prices)
    everything = [product for table in tables for product in products(table)]
    return Lesson(everything, np.log(np.concatenate(said)), true)


def known_prices(items: pa.Table, purpose: str) -> np.ndarray:
    """Return the prices of items, (n,). Raises ValueError if there is none, or one is unknown."""
    prices = items["price"].to_numpy(zero_copy_only=False)
    if not len(prices):
        raise ValueError(f"there are no items to {purpose}")
    if bad := int((~((prices > 0) & (prices < np.inf))).sum()):
        raise ValueError(f"{bad} of {len(prices)} items to {purpose} have no price over 0")
    return prices


def teacher_says(
    teacher: Any, items: pa.Table, cache: Path | None = None, *, progress: bool = True
) -> np.ndarray:
    """Return the teacher's estimates in dollars, (n,); NaN where it failed.

    ``cache`` keeps them batch after batch: what is there is not asked again, unless the teacher's
    settings, its code or the items are others.
    """
    store = None if cache is None else Path(cache) / fingerprint(items)
    found = evaluate(teacher, items, store=store, progress=progress).predictions
    failed = found.filter(pc.is_valid(found["error"]))["error"]
    if 2 * len(failed) > len(found):
        raise ValueError(
            f"{teacher.name} failed on {len(failed):,} of {len(found):,} products "
            f"({failed[0].as_py()}): there is nothing to learn from it"
        )
    dollars = found["price_estimate"].to_numpy(zero_copy_only=False).astype(float)
    return dollars.clip(MIN_PRICE, MAX_PRICE)


def targets_of(lesson: Lesson, true_share: float, balance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the log prices of teacher and shop, (n, 2), and how much each counts, (n, 2).

    A product counts as its price to the power ``balance``; on average all of them count 1.
    """
    if not 0 <= true_share <= 1:
        raise ValueError(f"true share {true_share} is not between 0 and 1")
    targets = np.column_stack([lesson.teacher, lesson.true])
    counts = np.nan_to_num(np.exp(balance * targets))
    labelled = np.isfinite(lesson.true)
    counts[labelled] *= (1 - true_share, true_share)
    return targets, counts / counts.sum(axis=1).mean()
