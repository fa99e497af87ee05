"""How much does the service take, for how long, and what does it lose when it is killed?

    python tests/benchmarks/serving.py [--quick] [--write]

On this machine alone, against real servers in processes of their own; the load comes from a third
one. (1) Batches of several sizes against products priced one by one: capacity in a closed loop of
64 clients, then latency in an open loop at 70 % of each one's own capacity, and of all at the same
load. For the tuned language model, and for the shipped student, of which cleaning the text is most
of the work. (2) A soak of ten minutes at 70 % load: lost and wrong answers, memory over time. (3)
kill -9 of a worker under load, twice. ``--quick`` takes seconds for each and reports nothing worth
keeping; ``--write`` stores the figures. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from shared.data.storage import versions, write_json
from shared.operating import Load, PriceClient, Server, run_load
from shared.operating.charts import FILE, batching_table
from shared.pipeline.steps import read_records
from shared.settings import Settings

CLIENTS = 64
"""Of a closed loop: two batches full, so that one fills while another is at work."""
SETTLED = 0.25
"""Seconds that half of the answers may take at most while a load counts as sustained."""
SHARE = 0.7
"""Of its capacity that a service is loaded with."""
BATCHES = (1, 8, 16, 32)
"""Products that are priced at once, at most; the first prices one by one."""
QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
LIBRARIES = ("fastapi", "uvicorn", "pydantic", "onnxruntime", "uvloop", "httptools", "aiohttp")


@dataclass(frozen=True)
class Times:
    """Seconds for each part."""

    load: float = 20.0
    soak: float = 600.0
    kill: float = 60.0
    records: int = 200


def records_of(count: int) -> list[dict[str, Any]]:
    """Return records of the course's catalogue, without their prices."""
    rows = read_records(Settings.from_environment({}), count).to_pylist()
    kept = [{name: value for name, value in row.items() if value and name != "price"}
            for row in rows]  # fmt: skip
    return [row for row in kept if row.get("title", "").strip()]


def prices(url: str, records: list[dict]) -> list[float]:
    """Return what a service that has nothing else to do says of the records."""
    return [one["price"] for one in PriceClient(url, timeout=120).price(records)]


def batching(pricer: str, records: list[dict], times: Times) -> list[dict[str, Any]]:
    """Compare sizes of batches for one pricer: a row each, the first prices one by one."""
    rows: list[dict[str, Any]] = []
    for size in BATCHES:
        options = {"max_batch": size} | ({"max_wait_ms": 0} if size == 1 else {})
        with Server(pricer=pricer, environment=QUIET, progress=True, **options) as server:
            expected = prices(server.url, records)
            ask = lambda **how: run_load(server.url, records, expected=expected,  # noqa: E731, B023
                                         seconds=times.load, **how)  # fmt: skip
            closed = ask(clients=CLIENTS)
            rate = SHARE * closed.throughput
            own = shown(ask(rate=rate), rate)
            slowest = rows[0]["own_load"]["rate"] if rows else rate
            equal = shown(ask(rate=slowest), slowest) if rows else own
        row = {"pricer": pricer, "max_batch": size, "capacity": shown(closed), "own_load": own,
               "equal_load": equal}  # fmt: skip
        first = rows[0] if rows else row
        row |= {
            "faster": round(per_second(row["capacity"]) / per_second(first["capacity"]), 2),
            "p95_ratio_own_load": ratio(own, first["own_load"]),
            "p95_ratio_equal_load": ratio(equal, first["own_load"]),
        }
        rows.append(row)
        print(f"{pricer}, batches of {size}: {closed}", flush=True)
    return rows


def soak(records: list[dict], times: Times) -> dict[str, Any]:
    """Load the shipped release with 70 % of what it can do, for long; sample its memory."""
    with Server(environment=QUIET, progress=True) as server:
        expected = prices(server.url, records)
        most = sustained(server.url, records, times)
        rate = SHARE * most
        with sampled(server) as memory:
            found = run_load(server.url, records, rate=rate, seconds=times.soak, expected=expected)
    samples = np.array(memory)
    settled = samples[len(samples) // 5 :]  # the first fifth: caches and pools fill
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0] * 3600 if len(settled) > 2 else np.nan
    return {
        "load": shown(found, rate), "sustained": round(most, 1),
        "megabytes_first": round(float(settled[0, 1]), 1),
        "megabytes_last": round(float(settled[-1, 1]), 1),
        "megabytes_most": round(float(samples[:, 1].max()), 1),
        "megabytes_an_hour": round(float(slope), 1),
        "samples": samples[:: max(1, len(samples) // 60)].round(1).tolist(),
    }  # fmt: skip


def sustained(url: str, records: list[dict], times: Times) -> float:
    """Return the requests a second that an open loop may send for a while without a queue.

    Fewer than a closed loop finds: there, clients wait for each other, and batches are always full.
    """
    closed = run_load(url, records, clients=CLIENTS, seconds=times.load).throughput
    for share in np.arange(1.0, 0.2, -0.1):
        found = run_load(url, records, rate=share * closed, seconds=times.load)
        late = np.array(found.latency)[np.array(found.when) > times.load / 2]
        if found.answered == found.asked and np.median(late) < SETTLED:
            return float(share * closed)
        time.sleep(1.0)
    raise RuntimeError(f"a queue grows even at a fifth of {closed:.0f} requests a second")


@contextlib.contextmanager
def sampled(server: Server) -> Iterator[list[tuple[float, float]]]:
    """Yield a list that gets (seconds, megabytes of all workers) while the block runs."""
    found: list[tuple[float, float]] = []
    over, start = threading.Event(), time.monotonic()

    def sample() -> None:
        while not over.wait(0.5):
            with contextlib.suppress(psutil.Error):
                size = sum(psutil.Process(pid).memory_info().rss for pid in server.workers())
                found.append((time.monotonic() - start, size / 2**20))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def killed(records: list[dict], times: Times) -> dict[str, Any]:
    """Kill a worker of two under load, twice, and see what clients that ask again notice."""
    with Server(workers=2, environment=QUIET, progress=True) as server:
        expected = prices(server.url, records)
        closed = run_load(server.url, records, clients=CLIENTS, seconds=min(times.load, times.kill))
        rate, found = 0.35 * closed.throughput, []  # one worker alone can do that
        load = threading.Thread(target=lambda: found.append(run_load(
            server.url, records, rate=rate, seconds=times.kill, expected=expected, retries=20
        )))  # fmt: skip
        load.start()
        back = []
        for _ in range(2):
            time.sleep(times.kill / 3)
            back.append(kill_one(server))
        load.join()
    return {"load": shown(found[0], rate), "kills": len(back),
            "seconds_until_replaced": [round(one, 2) for one in back]}  # fmt: skip


def kill_one(server: Server) -> float:
    """Kill a worker, and return the seconds until there are two again."""
    victim, start = server.workers()[0], time.monotonic()
    os.kill(victim, signal.SIGKILL)
    while victim in server.workers() or len(server.workers()) < 2:
        time.sleep(0.05)
    return time.monotonic() - start


def shown(load: Load, rate: float | None = None) -> dict[str, Any]:
    """Return a load's figures, and the requests a second that were sent."""
    return load.summary() | ({} if rate is None else {"rate": round(rate, 1)})


def per_second(row: dict[str, Any]) -> float:
    """Return products a second."""
    return row["products_a_second"]


def ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return how many times as long the 95th percentile of one is as that of the other."""
    return round(one["p95_ms"] / other["p95_ms"], 2)


def machine() -> dict[str, Any]:
    """Return what this was measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line),
                 platform.processor())  # fmt: skip
    memory = psutil.virtual_memory().total / 2**30
    return {"cpu": model, "cores": os.cpu_count(), "memory_gb": round(memory, 1),
            "load": round(os.getloadavg()[0], 2)}  # fmt: skip


def main() -> None:
    """Measure, print, and with ``--write`` store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--write", action="store_true", help=f"store {FILE.name}")
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("figures of --quick are not worth storing")
    times = Times(3.0, 6.0, 9.0, 100) if arguments.quick else Times()
    begun, records = machine(), records_of(times.records)
    rows = [row for pricer in ("tuned", "small") for row in batching(pricer, records, times)]
    print(batching_table(rows))
    figures = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": begun,
        "versions": versions() | {name: metadata.version(name) for name in LIBRARIES if has(name)},
        "records": len(records), "clients": CLIENTS, "share": SHARE, "batching": rows,
        "soak": soak(records, times), "killed": killed(records, times),
    }  # fmt: skip
    for name in ("soak", "killed"):
        print(name, {k: v for k, v in figures[name].items() if k != "samples"})
    if arguments.write:
        write_json(figures, FILE)


def has(library: str) -> bool:
    """Tell whether a library is installed."""
    try:
        metadata.version(library)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
