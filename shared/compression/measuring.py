"""What compression buys: bytes, seconds and memory beside the error, each against the teacher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow as pa
from tqdm.auto import tqdm

from shared.compression.exported import size_of
from shared.compression.probe import SINGLE, open_pricer
from shared.data.storage import write_parquet
from shared.evaluation import Comparison, Evaluation, compare, evaluate
from shared.evaluation.compare import p_text
from shared.reports.tables import pipes

MIB = 2**20
SAMPLED_EVERY = 0.005
"""Seconds between two looks at the memory of a process."""


class Opening(NamedTuple):
    """How a pricer is opened in a fresh process: a kind (``probe.OPENERS``) and its folder."""

    kind: str
    folder: Path


@dataclass(frozen=True)
class Spent:
    """What a pricer takes in a process of its own.

    ``bytes`` on disk; ``load_seconds`` from the start of the process to the first price, libraries
    included; ``peak_mib`` of memory; ``p50_ms`` and ``p99_ms`` of one product alone;
    ``per_second`` products, in batches.
    """

    bytes: int
    load_seconds: float
    peak_mib: float
    p50_ms: float
    p99_ms: float
    per_second: float


@dataclass(frozen=True)
class Measured:
    """A pricer beside its teacher: error in dollars with its 95 % interval, and what it takes.

    ``against``: the paired comparison with the teacher on the same products; None in the teacher's
    own row. ``smaller`` and ``faster``: how many times.
    """

    name: str
    mae: float
    mae_low: float
    mae_high: float
    against: Comparison | None
    smaller: float
    faster: float
    spent: Spent


def spend(opening: Opening, items: pa.Table, *, threads: int = 1, single: int = SINGLE) -> Spent:
    """Open a pricer in a fresh process, let it price items (ITEM schema), and return what it took.

    ``threads``: for PyTorch, ONNX Runtime and all else. Raises RuntimeError with the last words of
    a process that failed.
    """
    if not len(items) or single < 1:
        raise ValueError("to measure a pricer takes at least 1 product")
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "items.parquet"
        write_parquet(items, path)
        asked = {"kind": opening.kind, "folder": str(opening.folder), "items": str(path)}
        asked |= {"threads": threads, "single": single}
        said, peak = _run(asked, threads)
    each = np.array(said["single"]) * 1_000
    p50, p99 = np.quantile(each, [0.5, 0.99]).tolist()
    return Spent(bytes_of(opening), said["load"], peak / MIB, p50, p99, 1 / said["batch"])


def bytes_of(opening: Opening) -> int:
    """Return the bytes on disk that a pricer needs; those of a tuned model with its base."""
    size = size_of(opening.folder)
    if opening.kind != "tuned":
        return size
    from shared.open_models.adapters import read_tuned
    from shared.pretraining.making import TINY

    base = read_tuned(opening.folder)["plan"]["base"]
    folder = TINY if base == "tiny" else Path(base)
    if not folder.is_dir():
        raise ValueError(f"{base} lies in no folder here: how large it is cannot be measured")
    return size + size_of(folder)


def _run(asked: dict[str, Any], threads: int) -> tuple[dict[str, Any], int]:
    """Ask a fresh process; return what it said, and the most memory it was seen to have."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environ = os.environ | dict.fromkeys(names, str(threads))
    with subprocess.Popen(
        [sys.executable, "-m", "shared.compression.probe"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
    ) as process:  # fmt: skip
        seen: list[int] = []
        watcher = threading.Thread(target=_watch, args=(process.pid, seen), daemon=True)
        watcher.start()
        out, err = process.communicate(json.dumps(asked | {"started": time.time()}))
        watcher.join()
    if process.returncode:
        last = err.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"{asked['kind']} in {asked['folder']} was not measured: {last[0]}")
    return json.loads(out.splitlines()[-1]), max(seen, default=0)


def _watch(pid: int, seen: list[int]) -> None:
    # The system's own peak would do, were it not handed down from the process that starts it.
    try:
        process = psutil.Process(pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            seen.append(process.memory_info().rss)
            time.sleep(SAMPLED_EVERY)
    except psutil.NoSuchProcess:
        return


def measure(
    openings: Sequence[Opening], items: pa.Table, *, threads: int = 1, store: Path | None = None,
    single: int = SINGLE, progress: bool = True,
) -> list[Measured]:  # fmt: skip
    """Measure pricers on items with known prices; the first one is the teacher of the others.

    ``store`` keeps the predictions. Speed is that of this machine while nothing else runs on it.
    """
    rows: list[Measured] = []
    teacher: tuple[Evaluation, Spent] | None = None
    for opening in tqdm(openings, desc="measure", unit="pricer", disable=not progress):
        spent = spend(opening, items, threads=threads, single=single)
        pricer = open_pricer(*opening, threads)
        found = evaluate(pricer, items, store=store, progress=False)
        teacher = teacher or (found, spent)
        rows.append(_row(found, spent, teacher))
    return rows


def _row(found: Evaluation, spent: Spent, teacher: tuple[Evaluation, Spent]) -> Measured:
    error = [found.scores[name] for name in ("mae", "mae_low", "mae_high")]
    against, took = None if found is teacher[0] else compare(found, teacher[0]), teacher[1]
    ratios = took.bytes / spent.bytes, spent.per_second / took.per_second
    return Measured(found.pricer, *error, against, *ratios, spent)


def to_markdown(rows: Sequence[Measured]) -> str:
    """Return the rows as a table in Markdown."""
    return as_table([_cells(row) for row in rows])


def as_table(cells: Sequence[dict[str, str]]) -> str:
    """Return rows, each from the names of the columns to texts, as a table in Markdown."""
    titles = list(cells[0])
    return pipes(titles, [list(one.values()) for one in cells], titles[:1])


def _cells(row: Measured) -> dict[str, str]:
    one = row.against
    worse = "—"
    if one is not None:
        worse = f"{one.difference:+.2f} [{one.low:+.2f}, {one.high:+.2f}], {p_text(one.p)}"
    return {
        "pricer": row.name,
        "error, dollars": f"{row.mae:.2f} [{row.mae_low:.2f}, {row.mae_high:.2f}]",
        "against its teacher": worse,
        **what_it_takes(row.spent, row.smaller, row.faster),
    }


def what_it_takes(spent: Spent, smaller: float, faster: float) -> dict[str, str]:
    """Return the cells of a table that say how large and how fast something is."""
    return {
        "size": in_bytes(spent.bytes),
        "smaller": f"{smaller:,.1f} ×",
        "items a second": f"{spent.per_second:,.0f}",
        "faster": f"{faster:,.1f} ×",
        "p50 / p99, ms": f"{spent.p50_ms:.2f} / {spent.p99_ms:.2f}",
        "load, s": f"{spent.load_seconds:.1f}",
        "peak, MiB": f"{spent.peak_mib:,.0f}",
    }


def in_bytes(size: float) -> str:
    """Return a size in kB or MB, of a thousand each, with three digits or a few more."""
    unit, divisor = ("MB", 1e6) if size >= 1e6 else ("kB", 1e3)
    return f"{size / divisor:{',.0f' if size >= 100 * divisor else '.3g'}} {unit}"
