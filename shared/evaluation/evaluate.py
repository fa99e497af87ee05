"""Price products with anything that prices, and score it: the entrance to this room."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from shared.data.schema import Product
from shared.data.storage import fingerprint, versions
from shared.evaluation import metrics
from shared.evaluation.inputs import StoredPredictions, as_pricer, item_table, reason
from shared.evaluation.predictions import CONTRACT, TOKENS, with_label
from shared.evaluation.protocol import Estimates, Pricer
from shared.evaluation.store import (
    file_stem,
    load,
    read_batches,
    remove_batches,
    run_key,
    save,
    write_batch,
)


@dataclass
class Evaluation:
    """One pricer's predictions on one set of items, and what they add up to.

    ``predictions`` has a row an item; ``manifest`` says what it was computed from.
    """

    predictions: pa.Table
    manifest: dict = field(default_factory=dict)

    @property
    def pricer(self) -> str:
        """The pricer's name."""
        return self.manifest["pricer"]

    @cached_property
    def scores(self) -> dict:
        """All metrics with their 95 % intervals, as ``metrics.score`` returns them."""
        seed, mix = self.manifest.get("seed", 42), self.manifest.get("natural_mix")
        return metrics.score(self.predictions, natural_mix=mix, seed=seed)

    def by_category(self) -> pa.Table:
        """Return the scores of each category, most products first."""
        return metrics.by_category(self.predictions, seed=self.manifest.get("seed", 42))

    def by_price_band(self) -> pa.Table:
        """Return the scores of each price band, cheapest first."""
        return metrics.by_price_band(self.predictions, seed=self.manifest.get("seed", 42))

    def __repr__(self) -> str:
        return metrics.describe(self.scores)


def evaluate(
    pricer: Any,
    items: Any,
    *,
    store: Path | None = None,
    batch_size: int = 256,
    seed: int = 42,
    natural_mix: dict[str, float] | None = None,
    progress: bool = True,
    label: str | None = None,
) -> Evaluation:
    """Let ``pricer`` price ``items`` without seeing their prices, and score it.

    Args:
        pricer: a function ``product -> dollars``, a Pricer, or stored predictions (a Parquet
            path or a table). What a function raises, and what is not a price, is a failed
            estimate with its reason; if a Pricer raises, its whole batch failed.
        items: a ``datasets.Dataset``, a pyarrow.Table or a list of dicts with the ITEM columns.
        store: a folder where the result persists. A run that was killed goes on where it was; a
            finished one is loaded if pricer, settings, code, items and seed are the same.
        batch_size: products a call.
        seed: of the bootstrap.
        natural_mix: price band -> share of the natural population, if ``items`` were balanced.
        progress: show a progress bar on stderr.
        label: 'stand-in' if the pricer only stands in for a real one; by default the pricer's
            own ``label``, if it has one.

    Raises:
        ValueError: no items, bad items, or a pricer that returns too few or too many estimates.
    """
    table, pricer = item_table(items), as_pricer(pricer)
    label = getattr(pricer, "label", "") if label is None else label
    if not len(table):
        raise ValueError("there are no items to evaluate on")
    metrics.check_mix(natural_mix)
    _refuse_other_items(pricer, table)
    manifest = _manifest(pricer, table, seed, natural_mix, label)
    options = {"batch_size": batch_size, "progress": progress, "label": label}
    if store is None:
        return Evaluation(predict(pricer, table, **options), manifest)
    return _stored(pricer, table, Path(store), manifest, options)


def predict(
    pricer: Any,
    items: Any,
    *,
    batch_size: int = 256,
    progress: bool = True,
    label: str = "",
    partial: Path | None = None,
) -> pa.Table:
    """Price every item, known price or not, and return a predictions table in their order.

    The columns are those of PREDICTION, then ``category``. ``seconds`` is per product: the
    pricer's own figure, or the batch's time divided by its size. With ``partial``, a folder,
    each finished batch is written there and what it holds already is not priced again.
    """
    table, pricer = item_table(items), as_pricer(pricer)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: at least 1")
    done = read_batches(partial) if partial else CONTRACT.empty_table()
    left = table.filter(pc.invert(pc.is_in(table["id"], done["item_id"])))
    pieces = [done]
    with tqdm(
        total=len(table), initial=len(table) - len(left), desc=pricer.name, unit="product",
        disable=not progress,
    ) as bar:  # fmt: skip
        for start in range(0, len(left), batch_size):
            pieces.append(_price_batch(pricer, left.slice(start, batch_size)))
            if partial:
                write_batch(pieces[-1], partial)
            bar.update(len(pieces[-1]))
    priced = pa.concat_tables(pieces)
    ordered = priced.take(pc.index_in(table["id"], priced["item_id"])).combine_chunks()
    return with_label(ordered, label)


def _price_batch(pricer: Pricer, items: pa.Table) -> pa.Table:
    products = [Product.from_item(item) for item in items.to_pylist()]
    start = time.perf_counter()
    try:
        estimates = pricer.price(products)
    except Exception as error:
        estimates = Estimates([np.nan] * len(products), [reason(error)] * len(products))
    elapsed = time.perf_counter() - start
    estimates = _checked(estimates, pricer.name, len(products))
    if estimates.seconds is None:
        estimates.seconds = np.full(len(products), elapsed / len(products))
    return _batch_table(pricer.name, items, estimates)


def _checked(estimates: Any, name: str, n: int) -> Estimates:
    if not isinstance(estimates, Estimates):
        estimates = Estimates(estimates)  # a list or an array of dollars will do
    if len(estimates.price) != n:
        raise ValueError(f"{name} returned {len(estimates.price)} estimates for {n} products")
    return estimates


def _batch_table(name: str, items: pa.Table, estimates: Estimates) -> pa.Table:
    def column(values: np.ndarray | None) -> pa.Array:
        if values is None:
            return pa.nulls(len(items), pa.float64())
        return pa.array(values, pa.float64(), from_pandas=True)  # NaN becomes null

    columns = [pa.array([name] * len(items), pa.string()), items["id"], items["price"]]
    columns += [column(getattr(estimates, k)) for k in ("price", "low", "high")]
    columns += [column(estimates.seconds), column(estimates.cost_usd)]
    columns += [pa.array(estimates.error, pa.string()), items["category"]]
    usage = estimates.usage or [{}] * len(items)
    columns += [pa.array([used.get(t) for used in usage], pa.int64()) for t in TOKENS]
    columns += [pa.array([used.get("model") or None for used in usage], pa.string())]
    return pa.table(columns, schema=CONTRACT)


def _stored(
    pricer: Pricer, items: pa.Table, folder: Path, manifest: dict, options: dict
) -> Evaluation:
    stem = file_stem(pricer.name)
    found = load(folder / f"{stem}.parquet")
    partial = folder / ".partial" / f"{stem}-{manifest['key']}"
    if found and found[1]["key"] == manifest["key"]:
        again = found[0].filter(pc.is_null(found[0]["error"]))
        if len(again) == len(found[0]) or not getattr(pricer, "retries_failures", False):
            old = {k: found[1].get(k) for k in ("label", "natural_mix")}
            new = {k: manifest[k] for k in old}
            table = with_label(found[0], new["label"])
            if old != new:
                save(folder, table, found[1] | new)
            return Evaluation(table, found[1] | new)
        remove_batches(partial)
        write_batch(again, partial)  # what failed then may succeed now
    table = predict(pricer, items, partial=partial, **options)
    save(folder, table, manifest)
    remove_batches(partial)
    return Evaluation(table, manifest)


def _manifest(
    pricer: Pricer, items: pa.Table, seed: int, mix: dict[str, float] | None, label: str
) -> dict:
    # Cluster and split do not change what is priced; the same products are the same set.
    identity = fingerprint(items.drop_columns(["cluster", "split"]))
    return {
        "pricer": pricer.name,
        "label": label,
        "key": run_key(pricer, identity, seed),
        "items": {
            "fingerprint": identity,
            "n": len(items),
            "known_prices": len(items) - items["price"].null_count,
            "splits": sorted(s for s in items["split"].unique().to_pylist() if s),
        },
        "settings": getattr(pricer, "settings", None),
        "seed": seed,
        "natural_mix": mix,
        "versions": versions(),
    }


def _refuse_other_items(pricer: Pricer, items: pa.Table) -> None:
    if isinstance(pricer, StoredPredictions):
        common = pc.sum(pc.is_in(items["id"], pricer.table["item_id"])).as_py()
        if not common:
            raise ValueError(f"the stored predictions of {pricer.name} are for other items")
