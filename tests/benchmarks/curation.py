"""How fast is curation? Ours against a plain loop, on the same records, in one run.

    python tests/benchmarks/curation.py [PATH.jsonl[.gz]]     # default: the embedded catalogue

The plain loop does what most notebooks do: one record at a time, ``json`` and ``re``, the same
rules. Near-duplicates are timed apart. Prints records a second, the ratio, and where time goes.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import html
import json
import re
import time
from pathlib import Path

import pyarrow as pa

from shared.data import curate, parse_block, source_blocks
from shared.data import text as rules
from shared.data.curation import MAX_CHARS, MAX_PRICE, MIN_CHARS, MIN_PRICE, NOISY_DETAILS
from shared.data.duplicates import cluster
from shared.data.storage import write_parquet
from shared.embedded import generate


def ours(path: Path, out: Path) -> pa.Table:
    """Parse, clean, filter and write Parquet with the course's own curation."""
    tables = [curate(parse_block(block)[0])[0] for block in source_blocks(str(path))]
    table = pa.concat_tables(tables)
    write_parquet(table, out)
    return table


def plain_loop(path: Path, out: Path, limit: int) -> int:
    """Do the same with one record at a time; return how many records were read."""
    steps = [
        (re.compile(pattern.replace("(?-u:\\b)", "\\b")), to)
        for pattern, to in (
            (rules._TAGS, " "),
            (rules._LINKS, " "),
            (rules.PRICES, rules.MASK),
            (rules.BOILERPLATE, " "),
            (rules.PART_NUMBERS, lambda m: m[1] or ""),
            (r"[^\S\n]+", " "),
        )
    ]
    open_text = gzip.open if path.suffix == ".gz" else open
    kept, read = [], 0
    with open_text(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            read += 1
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                kept.append(_plain_item(json.loads(line), steps))  # dirt stops a plain loop
            if read == limit:
                break
    write_parquet(pa.Table.from_pylist([item for item in kept if item]), out)
    return read


def _plain_item(record: dict, steps: list) -> dict | None:
    price = record.get("price")
    if not isinstance(price, int | float) or not MIN_PRICE <= price <= MAX_PRICE:
        return None
    details = json.loads(record["details"] or "{}")
    facts = [f"{k}: {v}" for k, v in details.items() if k.lower() not in NOISY_DETAILS]
    parts = [record["title"], *facts, *record["features"], *record["description"]]
    text = html.unescape("\n".join(parts))
    for pattern, to in steps:
        text = pattern.sub(to, text)
    text = text.strip()[:MAX_CHARS]
    item = {"title": record["title"], "text": text, "price": price}
    return item if len(text) >= MIN_CHARS else None


def embedded_file() -> Path:
    """Write the embedded catalogue to a file once, so that making it is not what is timed."""
    path = Path("runs") / "benchmark.jsonl"
    path.parent.mkdir(exist_ok=True)
    blocks = source_blocks("embedded")
    path.write_bytes(b"".join(line + b"\n" for block in blocks for line in block.lines))
    return path


def timed(work, *arguments):
    """Return what ``work`` returns and the seconds it took."""
    start = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - start


def main() -> None:
    """Run both and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    repeats, out = arguments.repeats, Path("runs") / "benchmark.parquet"
    path = arguments.path or embedded_file()
    records = sum(len(b.lines) for b in source_blocks(str(path)))
    table, best = min((timed(ours, path, out) for _ in range(repeats)), key=lambda r: r[1])
    read, loop = timed(plain_loop, path, out, 10_000)
    columns = (table[name].to_pylist() for name in ("id", "title", "text"))
    _, clustering = timed(cluster, *columns)
    speed, loop_speed = records / best, read / loop
    print(f"curation:        {speed:>9,.0f} records/s  ({records:,} records, best of {repeats})")
    print(f"plain loop:      {loop_speed:>9,.0f} records/s  ({read:,} records)")
    print(f"ratio:           {speed / loop_speed:>9.1f}")
    made, making = timed(lambda: sum(1 for _ in generate(24_000)))
    print(f"catalogue:       {made / making:>9,.0f} records/s  (made, one core)")
    print(f"near-duplicates: {table.num_rows / clustering:>9,.0f} items/s  ({table.num_rows:,})")


if __name__ == "__main__":
    main()
