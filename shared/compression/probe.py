"""A process that opens one pricer, prices, and says how long that took: ``measuring`` starts it.

One question in JSON on stdin, one answer in JSON on stdout. In a process of its own nothing else
has warmed a cache, loaded a library or taken memory.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPENERS = {
    "student": ("compression.exported", "StudentPricer"),
    "language model": ("compression.exported_text", "OnnxLanguagePricer"),
    "tuned": ("open_models.pricer", "tuned_pricer"),
    "fitted": ("pricers", "load_pricer"),
    "scaled": ("compression.scaled", "open_scaled"),
}
"""Kinds of folders that can be opened: exported ones, a tuned model, a fitted pricer, and any of
them that answers in another unit."""

SINGLE, WARM_UP = 200, 5
"""Products that are priced one by one, and before these, unmeasured."""
LEAST_SECONDS, MOST_ROUNDS = 1.0, 50
"""Batches are priced until so many seconds are over, or so many rounds."""


def open_pricer(kind: str, folder: Path, threads: int = 1) -> Any:
    """Return the pricer in a folder. ValueError for a kind that is none of ``OPENERS``.

    A kind may also be "room.module:name": what that makes of folder and threads is then measured,
    a pricer or any function of products.
    """
    if ":" in kind:
        module, _, name = kind.partition(":")
        return getattr(importlib.import_module(f"shared.{module}"), name)(folder, threads)
    if kind not in OPENERS:
        raise ValueError(f"kind {kind!r} is not one of: {', '.join(OPENERS)}")
    module, name = OPENERS[kind]
    opened = getattr(importlib.import_module(f"shared.{module}"), name)
    return opened(folder, threads) if module.startswith("compression") else opened(folder)


def answer(asked: dict[str, Any]) -> dict[str, float]:
    """Open ``asked["folder"]`` and price ``asked["items"]``, a Parquet file; return seconds.

    ``load``: from the start of the process to the first price; ``single``: of each product that
    was priced alone, a list; ``batch``: seconds a product, the median of the rounds.
    """
    import pyarrow.parquet as pq

    from shared.data import products

    opened = open_pricer(asked["kind"], Path(asked["folder"]), asked["threads"])
    price = getattr(opened, "price", opened)
    listed = products(pq.read_table(asked["items"]))
    price(listed[:1])
    loaded = time.time() - asked["started"]
    single = [_seconds(price, [listed[n % len(listed)]]) for n in range(WARM_UP + asked["single"])]
    rounds: list[float] = []
    while len(rounds) < 2 or (sum(rounds) < LEAST_SECONDS and len(rounds) < MOST_ROUNDS):
        rounds.append(_seconds(price, listed))
    middle = sorted(rounds)[len(rounds) // 2]
    return {"load": loaded, "single": single[WARM_UP:], "batch": middle / len(listed)}


def _seconds(price: Callable[[list], Any], listed: list) -> float:
    start = time.perf_counter()
    price(listed)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(answer(json.load(sys.stdin))))
