"""How much faster are many calls at a time, and does anything get lost in between?

    python tests/benchmarks/frontier.py [--items 250] [--latency 0.3] [--write]

Prices products with the stand-in, a server on this machine that waits ``--latency`` seconds
before each answer: one call after the other, then with growing concurrency. Client and server
share this process, which makes the server the slower part. ``--write`` stores the figures in
tests/benchmarks/results/frontier.json.
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path

from shared.data import Product
from shared.data.storage import versions, write_json
from shared.frontier.connection import CONCURRENCY, connect
from shared.prompting.pricer import FrontierPricer
from shared.prompting.techniques import ZeroShot
from shared.standin import StandIn

RESULTS = Path(__file__).parent / "results" / "frontier.json"


def run(products: list[Product], latency: float, concurrency: int) -> dict:
    """Price the products; return seconds, what failed, and how many calls were at once."""
    server = StandIn(latency=latency)
    with connect("gpt-6-luna", stand_in=server, concurrency=concurrency, cap=100) as connection:
        pricer = FrontierPricer(connection, ZeroShot(), progress=False)
        pricer.price(products[:1])  # the SDK loads its parts at the first call
        start = time.perf_counter()
        found = pricer.price(products[1:])
        seconds = time.perf_counter() - start
        return {
            "concurrency": concurrency,
            "seconds": round(seconds, 3),
            "failed": sum(error is not None for error in found.error),
            "most_at_once": server.most_at_once,
        }


def main() -> None:
    """Measure, print, and with ``--write`` store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=250)
    parser.add_argument("--latency", type=float, default=0.3)
    parser.add_argument("--write", action="store_true", help=f"store the figures in {RESULTS.name}")
    arguments = parser.parse_args()
    products = [
        Product(str(i), f"Kettle {i}", f"Kettle {i}, steel, {i % 9 + 1} quarts", "Home", "{}")
        for i in range(arguments.items + 1)
    ]
    rows = []
    for concurrency in (1, 16, CONCURRENCY, 64):
        rows.append(run(products, arguments.latency, concurrency))
        rows[-1]["ratio"] = round(rows[0]["seconds"] / rows[-1]["seconds"], 1)
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if arguments.write:
        figures = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "items": arguments.items,
            "latency_seconds": arguments.latency,
            "default": CONCURRENCY,
            "versions": versions(),
            "runs": rows,
        }
        write_json(figures, RESULTS)


if __name__ == "__main__":
    main()
