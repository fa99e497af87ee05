"""How fast is an index of products built and searched, and does it find what is there?

    python tests/benchmarks/retrieval.py [--items 500000] [--queries 500] [--write]

The products are made by the embedded catalogue and curated, without the search for
near-duplicates; the queries are products of another seed. They are built and searched in a
process of its own, so that the peak of memory is that of the index. ``--write`` stores the
figures in shared/retrieval/recorded/benchmark.json, where lesson 1 of week 8 reads them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.data import curate, parse_block, source_blocks
from shared.data.storage import versions, write_json, write_parquet
from shared.retrieval import ProductIndex, TfidfEmbedding, building

RESULTS = Path(building.__file__).parent / "recorded" / "benchmark.json"
"""In the package, where a lesson finds it without the tests."""

ENOUGH = 10**9  # records: the catalogue has no end, and is read until there are items enough


def catalogue(count: int, seed: int) -> pa.Table:
    """Return ``count`` curated items of the catalogue with this seed, ids of their own."""
    tables, found = [], 0
    for block in source_blocks("embedded", size=ENOUGH, seed=seed):
        tables.append(curate(parse_block(block)[0])[0])
        found += len(tables[-1])
        if found >= count:
            break
    items = pa.concat_tables(tables).slice(0, count)
    ids = pa.array([f"{seed}-{row}" for row in range(count)])
    return items.set_column(items.schema.get_field_index("id"), "id", ids)


def seconds_of(work, *arguments):
    """Return what ``work`` returns, and the seconds it took."""
    start = time.perf_counter()
    found = work(*arguments)
    return found, time.perf_counter() - start


def measure(folder: Path) -> None:
    """Build and search in this (fresh) process; print figures as JSON."""
    items, queries = (pq.read_table(folder / f"{name}.parquet") for name in ("items", "queries"))
    texts = queries["text"].to_pylist()
    before = peak_gb()
    embedding, fitted = seconds_of(TfidfEmbedding().fit, items)
    index, built = seconds_of(ProductIndex.build, items, embedding, folder / "index")
    vectors = embedding.embed(texts)
    index.search(vectors[:10])
    alone = [seconds_of(index.search, vectors[i : i + 1])[1] for i in range(len(vectors))]
    words = [seconds_of(index.lexical, [text])[1] for text in texts[:100]]
    _, together = seconds_of(index.search, vectors)
    recall = index.recall(vectors, 5)
    _, compared = seconds_of(index.exact, vectors)
    peak = peak_gb()
    some = items.slice(0, max(len(items) // 100, 1))
    dearer = pa.array(np.round(some["price"].to_numpy() * 1.3, 2))
    some = some.set_column(items.schema.get_field_index("price"), "price", dearer)
    changes, repriced = seconds_of(index.upsert, some)
    disk = sum(path.stat().st_size for path in (folder / "index").rglob("*") if path.is_file())
    ann = index.ann
    figures = {
        "items": len(items),
        "columns": embedding.size,
        "fit_seconds": fitted,
        "build_seconds": built,
        "items_per_second": len(items) / built,
        "peak_gb": peak,
        "peak_gb_of_the_items_alone": before,
        "disk_gb": disk / 2**30,
        "search": f"{ann.kind}, {ann.nprobes} of {ann.partitions} partitions" if ann else "exact",
        "queries": len(texts),
        "recall_at_5": recall,
        "milliseconds_a_query": {
            "median": 1e3 * float(np.median(alone)),
            "95 %": 1e3 * float(np.quantile(alone, 0.95)),
            "in a batch": 1e3 * together / len(texts),
            "exact, by NumPy, in a batch": 1e3 * compared / len(texts),
            "by words": 1e3 * float(np.median(words)),
        },
        "prices_changed": changes.updated,
        "embedded_for_that": changes.embedded,
        "seconds_for_that": repriced,
    }
    print(json.dumps(figures))


def peak_gb() -> float:
    """Return the most memory this process has held so far, in GB."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def hardware() -> dict:
    """Return what this ran on."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    model = names[0] if names else platform.processor()
    return {"cpu": model, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}


def rounded(value):
    """Round figures for people: four digits that count."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    """Measure, print, and with ``--write`` store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=500_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--write", action="store_true", help=f"store the figures in {RESULTS.name}")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return measure(arguments.one)
    start = hardware()
    Path("runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="runs") as folder:
        for name, count, seed in (
            ("items", arguments.items, 42),
            ("queries", arguments.queries, 7),
        ):
            write_parquet(catalogue(count, seed), Path(folder, f"{name}.parquet"))
        command = [sys.executable, __file__, "--one", folder]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures = rounded(json.loads(done.stdout))
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):<32} {value}")
    if arguments.write:
        head = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "hardware": start,
            "versions": versions(),
        }
        head["hardware"]["load_at_end"] = round(os.getloadavg()[0], 1)
        write_json(head | figures, RESULTS)


if __name__ == "__main__":
    main()
