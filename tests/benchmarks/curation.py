"""How fast is curation, how much memory does it take, and where does the time go?

    python tests/benchmarks/curation.py [PATH.jsonl[.gz]] [--sizes 50000,500000] [--write]

The default source is the embedded catalogue; ``--sizes 50000,500000,5000000`` is the full curve.
A source is repeated to each size, as gzip files beside each other. Every repetition gets ids and
titles of its own ("Lot 0007 …"): else exact duplicates would be dropped, and hide the cost of
the rest; near-duplicates of each other they are, and that stage is timed apart. Memory is that of
all processes. The rules' shares and the plain loop are measured on one core, in the same run.
``--write`` stores the figures in tests/benchmarks/results/curation.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gzip
import html
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pyarrow as pa

from shared.data import curate, open_items, parse_block, source_blocks
from shared.data import text as rules
from shared.data.curation import MAX_CHARS, MAX_PRICE, MIN_CHARS, MIN_PRICE, NOISY_DETAILS
from shared.data.similarity import pair_quality
from shared.data.sources import _open_gzip
from shared.data.storage import versions, write_json, write_parquet
from shared.pipeline import merge, steps

RESULTS = Path(__file__).parent / "results" / "curation.json"
STAGES = {"_collect": "curate", "order_items": "order", "cluster_items": "near-duplicates",
          "write_items": "write"}  # fmt: skip
GIGABYTE = 2**30


class Watch:
    """Seconds, CPU seconds and peak memory of each stage, over this process and its children."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self._stage, self._peaks = "start", {}
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        """Look ten times a second; for new processes once, since that takes a walk of them all."""
        me = psutil.Process()
        for look in itertools.count():
            if look % 10 == 0:
                processes = [me, *me.children(recursive=True)]
            total = 0
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
            self._peaks[self._stage] = max(self._peaks.get(self._stage, 0), total)
            time.sleep(0.1)

    def stage(self, module, name: str, label: str) -> None:
        """Time every call of ``module.name`` as the stage ``label``."""
        work = getattr(module, name)

        def timed(*arguments, **options):
            self._stage, before, cpu = label, time.perf_counter(), _cpu_seconds()
            try:
                return work(*arguments, **options)
            finally:
                seconds = time.perf_counter() - before
                self.stages[label] = {"seconds": seconds, "cpu": _cpu_seconds() - cpu}
                self._stage = "between"

        setattr(module, name, timed)

    def peak_gb(self) -> dict[str, float]:
        """Return the peak memory of each stage, in GB."""
        return {stage: round(peak / GIGABYTE, 2) for stage, peak in self._peaks.items()}


def _cpu_seconds() -> float:
    """CPU seconds of this process and of those of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def curate_folder(source: Path, out: Path) -> None:
    """Curate in this (fresh) process, as the command does; print figures as JSON."""
    watch = Watch()
    watch.stage(steps, "_collect", "curate")
    for name in list(STAGES)[1:]:
        watch.stage(merge, name, STAGES[name])
    items = steps.prepare(str(source), out, progress=False)
    rows, kept = items.manifest["rows_in"], items.manifest["kept"]
    apart = watch.stages["near-duplicates"]
    rest = [figures for name, figures in watch.stages.items() if name != "near-duplicates"]
    seconds, cpu = (sum(figures[key] for figures in rest) for key in ("seconds", "cpu"))
    found = {
        "records": rows,
        "items": kept,
        "seconds": seconds,
        "records_per_second": rows / seconds,
        "cpu_microseconds_per_record": 1e6 * cpu / rows,
        "near_duplicates_seconds": apart["seconds"],
        "near_duplicates_items_per_second": kept / apart["seconds"],
        "near_duplicates_cpu_microseconds_per_item": 1e6 * apart["cpu"] / kept,
        "peak_gb": watch.peak_gb(),
        "stages": watch.stages,
    }
    print(json.dumps(found))


def repeated(source: Path, size: int, folder: Path) -> Path:
    """Write ``size`` records, the source again and again, each time with ids of its own."""
    open_source = gzip.open if source.suffix == ".gz" else open
    with open_source(source, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    for lot, start in enumerate(range(0, size, len(lines))):
        text = b"".join(lines[: size - start])
        for key, mark in ((b"parent_asin", b"L%04d"), (b"title", b"Lot %04d ")):
            text = re.sub(b'("%s": ?")' % key, b"\\g<1>" + mark % lot, text)
        with _open_gzip(folder / f"lot-{lot:04d}.jsonl.gz", "wb", compresslevel=1) as file:
            file.write(text)
    return folder


def curve(source: Path, sizes: list[int]) -> list[dict]:
    """Curate the source at each size, in a process of its own."""
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir="runs") as folder:
            inside = Path(folder, "source")
            inside.mkdir()
            repeated(source, size, inside)
            command = [sys.executable, __file__, "--one", str(inside), str(Path(folder, "out"))]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout))
        print_row(rows[-1])
    return rows


def print_row(row: dict) -> None:
    """Print one line of the curve."""
    memory = max(row["peak_gb"].values())
    print(
        f"{row['records']:>10,} {row['seconds']:>8.1f} s {row['records_per_second']:>8,.0f}/s "
        f"{row['cpu_microseconds_per_record']:>6.1f} us CPU {memory:>6.2f} GB   pairs "
        f"{row['near_duplicates_seconds']:.1f} s {row['near_duplicates_items_per_second']:,.0f}/s"
    )


def rule_shares(source: Path, limit: int = 20_000) -> dict[str, float]:
    """Return microseconds a priced record for each cleaning rule, on one core."""
    tables = [parse_block(block)[0] for block in source_blocks(str(source))]
    records = pl.from_arrow(pa.concat_tables(tables)).drop_nulls("price").head(limit)
    lists = [pl.col(n).list.join("\n") for n in ("features", "description")]
    frame = records.select(text=pl.concat_str("title", *lists, separator="\n", ignore_nulls=True))
    text = pl.col("text")
    steps = {
        "tags": text.str.replace_all(rules._TAGS, " "),
        "links": text.map_batches(rules._drop_links, pl.String),
        "noise": text.str.replace_all(rules._NOISE, " "),
        "prices": text.str.replace_all(rules.PRICES, rules.MASK),
        "hinted prices": text.str.replace_all(rules.HINTED_PRICES, rules.MASK),
        "boilerplate": text.str.replace_all(rules.BOILERPLATE, " "),
        "part numbers": text.map_batches(rules._drop_part_numbers, pl.String),
        "white space": rules.settle(text),
    }
    shares = {}
    for name, step in steps.items():
        (frame, seconds) = best_of(3, frame.select, text=step)
        shares[name] = 1e6 * seconds / frame.height
    _, seconds = best_of(3, frame.select, text=rules.is_english(text))
    shares["language"] = 1e6 * seconds / frame.height
    return shares


def best_of(repeats: int, work, *arguments, **options):
    """Return what ``work`` returns and the least CPU seconds it took."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        result = work(*arguments, **options)
        found.append(time.process_time() - start)
    return result, min(found)


def ours(path: Path, out: Path) -> int:
    """Parse, clean and write in this process, as the plain loop does."""
    tables, read = [], 0
    for block in source_blocks(str(path)):
        tables.append(curate(parse_block(block)[0])[0])
        read += len(block)
    write_parquet(pa.concat_tables(tables), out)
    return read


def plain_loop(path: Path, out: Path, limit: int = 10_000) -> int:
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
    blocks = source_blocks("embedded")
    path.write_bytes(b"".join(block.text + b"\n" for block in blocks))
    return path


def hardware() -> dict:
    """Return what this ran on."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    memory = round(psutil.virtual_memory().total / GIGABYTE, 1)
    model = names[0] if names else platform.processor()
    return {"cpu": model, "cores": os.cpu_count(), "memory_gb": memory, "load": os.getloadavg()[0]}


def quality(source: Path) -> list[dict]:
    """Measure near-duplicate pairs of the source, each record once, against exact similarity."""
    with tempfile.TemporaryDirectory(dir="runs") as out:
        steps.prepare(str(source), Path(out), progress=False)
        texts = open_items(Path(out)).table()["text"].to_pylist()
    return [{"items": len(texts)} | row for row in pair_quality(texts)]


def rounded(value):
    """Round figures for people: four digits that count."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value


def main() -> None:
    """Measure all, print it, and with ``--write`` store it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--sizes", default="50000,500000")
    parser.add_argument("--write", action="store_true", help=f"store the figures in {RESULTS.name}")
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return curate_folder(*arguments.one)
    Path("runs").mkdir(exist_ok=True)
    path, out = arguments.path or embedded_file(), Path("runs") / "benchmark.parquet"
    start = hardware()
    print(f"{start['cores']} cores, load {start['load']:.1f} before this began")
    sizes = curve(path, [int(size) for size in arguments.sizes.split(",")])
    (read, alone), (plain, loop) = best_of(3, ours, path, out), best_of(1, plain_loop, path, out)
    one_core = {"ours": read / alone, "plain_loop": plain / loop}
    ratio = one_core["ours"] / one_core["plain_loop"]
    print(
        "\none core, records a CPU second: "
        + ", ".join(f"{k} {v:,.0f}" for k, v in one_core.items())
    )
    print(f"ratio {ratio:.1f}\n")
    shares = rule_shares(path)
    for name, microseconds in sorted(shares.items(), key=lambda s: -s[1]):
        print(f"  {name:<14} {microseconds:>6.2f} us a priced record"
              f" {microseconds / sum(shares.values()):>6.1%} of cleaning")  # fmt: skip
    pairs = quality(path)
    print("\nnear-duplicate pairs against exact similarity")
    for row in pairs:
        print("  " + "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}"
                               for k, v in row.items()))  # fmt: skip
    if arguments.write:
        RESULTS.parent.mkdir(exist_ok=True)
        figures = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "source": path.name,
            "hardware": start,
            "versions": versions(),
            "curve": sizes,
            "one_core_records_per_cpu_second": one_core | {"ratio": ratio},
            "microseconds_per_priced_record": shares,
            "near_duplicate_pairs": pairs,
        }
        write_json(rounded(figures), RESULTS)


if __name__ == "__main__":
    main()
