"""Does fine-tuning reach what it has to, and how fast is a price read?

    python tests/benchmarks/open_model.py [--work DIR] [--write]

On the embedded data: the plan of the course with three seeds, against a random forest and a ridge
on the same items, and against a ridge that got the reading of the base; the median against the
likeliest price, by a paired test; prices read in batches against prices written one by one.
Leave the machine alone meanwhile. ``--work`` keeps what is done, so that a stopped run goes on.
``--write`` stores the figures here and the controls where lesson 5 of week 7 shows them.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from pathlib import Path

from shared.data import Product, products
from shared.data.storage import file_hash, versions, write_json
from shared.evaluation import compare, evaluate
from shared.open_models.pricer import tuned_pricer
from shared.pipeline import course_items
from shared.pretraining.making import TINY
from shared.pricers import make_pricer
from shared.settings import Settings
from shared.training.studies import RECORDED, SEEDS, controls

RESULTS = Path(__file__).parent / "results" / "open_model.json"
READ, WRITTEN = 1_000, 60
"""Products that are read in batches, and that are written one by one: enough for seconds."""


def speed(folder: Path, asked: list[Product]) -> dict[str, float]:
    """Return products a second, read in batches and written one by one, and how many times."""
    found = {}
    for name, generate, some in (
        ("read", False, asked[:READ]),
        ("written", True, asked[:WRITTEN]),
    ):
        pricer = tuned_pricer(folder, generate=generate)
        pricer.price(some[:8])
        start = time.perf_counter()
        pricer.price(some)
        found[name] = len(some) / (time.perf_counter() - start)
    return {**found, "ratio": found["read"] / found["written"]}


def measure(work: Path) -> tuple[dict, dict]:
    """Return the figures, and the controls that they rest on."""
    items = course_items(Settings.from_environment({}), progress=False)
    train, validation, test = (items.table(name) for name in ("train", "validation", "test"))
    found = controls(train, validation, test, work)
    runs = [row for row in found["rows"] if "seed" in row]
    rivals = {}
    for name in ("random-forest", "tfidf-ridge", "lightgbm"):
        rivals[name] = evaluate(make_pricer(name).fit(train), test, progress=False)
        print(rivals[name], flush=True)
    folder = work / f"seed-{runs[0]['seed']}"
    median = evaluate(tuned_pricer(folder), test, progress=False)
    greedy = tuned_pricer(folder, reading="greedy", name="likeliest price")
    against = {
        name: compare(median, other)
        for name, other in {**rivals, "greedy": evaluate(greedy, test, progress=False)}.items()
    }
    middle = statistics.median(row["dollars"] for row in runs)
    forest, ridge = (rivals[name].scores["mae"] for name in ("random-forest", "tfidf-ridge"))
    return {
        "dollars": middle,
        "seconds": statistics.median(row["seconds"] for row in runs),
        "ratio_to_random_forest": middle / forest,
        "ratio_to_ridge": middle / ridge,
        "random_forest": forest, "ridge": ridge, "lightgbm": rivals["lightgbm"].scores["mae"],
        "compared": {name: str(one) for name, one in against.items()},
        "items_a_second": speed(folder, products(test)),
        "trained_on": len(train), "tested_on": len(test),
    }, found  # fmt: skip


def main() -> None:
    """Measure, print, and with ``--write`` store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder that keeps what is done")
    parser.add_argument("--write", action="store_true", help=f"store the figures in {RESULTS.name}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures, found = measure(arguments.work or Path(folder))
    for name, value in figures.items():
        print(f"{name}: {value}")
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "base": file_hash(TINY / "model.safetensors"), "seeds": list(SEEDS), "versions": versions(),
    }  # fmt: skip
    if arguments.write:
        write_json(about | figures, RESULTS)
        write_json(about | found, RECORDED / "controls.json")


if __name__ == "__main__":
    main()
