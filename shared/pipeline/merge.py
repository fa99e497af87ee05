"""From curated shards to one file of items: exact duplicates out, sorted, clustered, split.

Nothing here holds the texts: some 60 bytes an item are in memory to order them, 256 more to find
near-duplicates, and the file is written 65,536 items at a time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from shared.data.duplicates import (
    BANDS,
    PERMUTATIONS,
    Sketches,
    band_keys,
    clusters,
    components,
    signatures,
    title_keys,
)
from shared.data.schema import ITEM
from shared.data.splits import assign_splits
from shared.data.storage import PARQUET, ROW_GROUP, Fingerprint, replacing
from shared.pipeline.shards import read_keys, read_rows
from shared.pipeline.workers import run


@dataclass
class Order:
    """Which stored items stay, sorted by id: ``frame`` has ``id``, ``shard`` and ``row``."""

    folder: Path
    names: list[str]
    frame: pl.DataFrame

    def by_shard(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield name, rows in the shard (ascending) and places in the order, a shard a time."""
        shard, row = self.frame["shard"].to_numpy(), self.frame["row"].to_numpy()
        places = np.lexsort((row, shard))
        ends = np.searchsorted(shard[places], np.arange(len(self.names) + 1))
        for number, name in enumerate(self.names):
            here = places[ends[number] : ends[number + 1]]
            if len(here):
                yield name, row[here], here

    def part(self, start: int, length: int) -> pa.Table:
        """Return ``length`` items from place ``start`` on, in the STORED schema."""
        part = Order(self.folder, self.names, self.frame.slice(start, length))
        tables, places = [], []
        for name, rows, here in part.by_shard():
            tables.append(read_rows(self.folder, name, rows))
            places.append(here)
        return pa.concat_tables(tables).take(np.argsort(np.concatenate(places)))


def order_items(folder: Path, names: list[str]) -> tuple[Order, int]:
    """Drop exact duplicates and sort by id; return the order and how many were dropped.

    Duplicates have the same id, or the same title and text. Which of them stays depends on what
    is in them, not on the order of loading.
    """
    shards = []
    for number, name in enumerate(names):
        keys = pl.from_arrow(read_keys(folder, name)).with_row_index("row")
        shards.append(keys.with_columns(shard=pl.lit(number, pl.UInt32)))
    frame = pl.concat(shards)
    total = frame.height
    frame = frame.sort("id", "order", "shard", "row").unique(
        "id", keep="first", maintain_order=True
    )
    frame = frame.unique("same", keep="first", maintain_order=True)
    return Order(folder, names, frame.select("id", "shard", "row")), total - frame.height


def cluster_items(
    order: Order, *, titles: bool = True, workers: int | None = None, progress: bool = False
) -> np.ndarray:
    """Return for each item the place of the first of its near-duplicate cluster, shape (n,).

    ``titles``: items with the same title belong together, too.

    Sketches are made a shard at a time, by worker processes, and kept on disk band by band.
    """
    kept = order.folder / "clusters.npy"
    if kept.exists():
        return np.load(kept)
    shards = list(order.by_shard())
    step = partial(_sketch_shard, order.folder)
    made = run(step, ((name, rows) for name, rows, _ in shards), workers=workers)
    for _ in tqdm(made, desc="sketch", unit=" shards", total=len(shards), disable=not progress):
        pass
    sketches = _sketches(order, shards)
    sketches.titles *= titles  # 0 is a title that tells nothing
    found = clusters(sketches, progress=progress)
    with replacing(kept) as temporary, temporary.open("wb") as file:
        np.save(file, found)
    return found


def with_groups(order: Order, firsts: np.ndarray, groups: Mapping[str, str]) -> np.ndarray:
    """Return ``firsts`` with clusters joined that hold items of one group, by their ids.

    An item that is not in ``groups`` (id -> name of its group) is in none.
    """
    named: dict[str, int] = {}
    pairs = [
        (named.setdefault(groups[item], at), at)
        for at, item in enumerate(order.frame["id"])
        if item in groups
    ]
    near = np.column_stack([firsts, np.arange(len(firsts))])
    labels = components(len(firsts), np.vstack([near, np.array(pairs, int).reshape(-1, 2)]))
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    return first[which]


def _sketch_shard(folder: Path, task: tuple[str, np.ndarray]) -> None:
    name, rows = task
    if _sketch_path(folder, name, "bands").exists():  # written last
        return
    items = read_rows(folder, name, rows)
    found = signatures(items["text"].to_pylist())
    keys = np.vstack((band_keys(found), title_keys(items["title"].to_pylist())))
    for kind, array in (("short", found.astype(np.uint16)), ("bands", keys)):
        path = _sketch_path(folder, name, kind)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, array)


def _sketches(order: Order, shards: list) -> Sketches:
    """Gather what the shards stored, in the order of the items."""
    short = np.empty((order.frame.height, PERMUTATIONS), np.uint16)
    for name, _, places in shards:
        short[places] = np.load(_sketch_path(order.folder, name, "short"))

    def band(number: int) -> np.ndarray:
        keys = np.empty(order.frame.height, np.uint64)
        for name, _, places in shards:
            path = _sketch_path(order.folder, name, "bands")
            keys[places] = np.load(path, mmap_mode="r")[number]
        return keys

    return Sketches(short, band, band(BANDS))


def _sketch_path(folder: Path, name: str, kind: str) -> Path:
    return folder / f"{name}.{kind}.npy"


@dataclass
class Written:
    """What was written: its hash, and for each item its price (dollars) and length (characters)."""

    fingerprint: str = ""
    prices: np.ndarray = field(default_factory=lambda: np.empty(0))
    lengths: np.ndarray = field(default_factory=lambda: np.empty(0))
    categories: Counter = field(default_factory=Counter)
    splits: Counter = field(default_factory=Counter)


def write_items(
    order: Order, firsts: np.ndarray, seed: int, path: Path, *, progress: bool = False
) -> Written:
    """Write the items with their cluster and split, a row group at a time.

    The file is the one that ``write_parquet`` writes of the whole table, byte for byte.
    """
    written, digest, columns = Written(), Fingerprint(ITEM), []
    starts = range(0, order.frame.height, ROW_GROUP)
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, ITEM, **PARQUET) as file,
        ThreadPoolExecutor(1) as beside,
    ):
        grouped = _ahead(partial(_grouped, order, firsts, seed), starts)
        for items in tqdm(
            grouped, desc="write", unit=" row groups", total=len(starts), disable=not progress
        ):
            writing = beside.submit(file.write_table, items, row_group_size=ROW_GROUP)
            digest.update(items)
            written.categories.update(_counts(items["category"]))
            written.splits.update(_counts(items["split"]))
            columns.append([items["price"].to_numpy(), pc.utf8_length(items["text"]).to_numpy()])
            writing.result()
    written.fingerprint = digest.digest()
    written.prices, written.lengths = (np.concatenate(c) for c in zip(*columns, strict=True))
    return written


def _ahead(step: Callable, tasks: Iterable) -> Iterator:
    """Yield ``step(task)`` for each; the next two are computed while one is used."""
    with ThreadPoolExecutor(2) as threads:
        pending = deque()
        for task in tasks:
            pending.append(threads.submit(step, task))
            if len(pending) > 2:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _grouped(order: Order, firsts: np.ndarray, seed: int, start: int) -> pa.Table:
    items = order.part(start, ROW_GROUP).drop_columns(["same", "order"])
    keys = order.frame["id"].gather(firsts[start : start + ROW_GROUP]).to_list()
    items = items.append_column("cluster", pa.array(keys, pa.string()))
    splits = pa.array(assign_splits(keys, seed), pa.string())
    return items.append_column("split", splits).cast(ITEM).combine_chunks()


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()}
