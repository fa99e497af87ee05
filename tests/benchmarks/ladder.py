"""How good is each pricer, and how long does it learn? The whole ladder, in one run.

    python tests/benchmarks/ladder.py [PATH.jsonl[.gz]] [--write]

The default source is the embedded catalogue. Curates it, fits every pricer on the training split
and scores it on the test split, at the natural price mix and as if the sample had been balanced
over prices; then learning curves. ``--write`` stores the figures in
tests/benchmarks/results/ladder-<source>.json, from which the README's table is written.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
from pathlib import Path

import numpy as np

from shared.data import Items
from shared.data.storage import versions, write_json
from shared.evaluation import compare, read_predictions
from shared.pipeline import prepare
from shared.pricers import climb, learning_curve
from shared.pricers.ladder import to_console
from shared.reports import power_law

RESULTS = Path(__file__).parent / "results"
CURVES = ("constant-median", "random-forest", "knn", "tfidf-ridge", "lightgbm")
BALANCED_MEAN = 219.0
"""Mean price, in dollars, of the balanced test sets that many courses report on."""


def balanced_weights(prices: np.ndarray, mean: float = BALANCED_MEAN) -> np.ndarray:
    """Weigh products by a power of their price so that the weighted mean price is ``mean``."""
    low, high = -3.0, 3.0
    for _ in range(60):
        power = (low + high) / 2
        weights = prices**power
        low, high = (power, high) if np.average(prices, weights=weights) < mean else (low, power)
    return weights


def balanced_errors(folder: Path, names: list[str]) -> dict[str, float]:
    """Return each pricer's mean absolute error as if the test products had been balanced."""
    found = {}
    for name in names:
        table = read_predictions(folder / f"{name}.parquet")
        true, estimate = (table[c].to_numpy() for c in ("price_true", "price_estimate"))
        found[name] = float(np.average(np.abs(true - estimate), weights=balanced_weights(true)))
    return found


def measure(items: Items, folder: Path, curves: bool) -> dict:
    """Climb the ladder and return its figures; the learning curves too if asked for."""
    rows = climb(items, folder)
    print(to_console(rows))
    best, forest = rows[-1], next(r for r in rows if r["pricer"] == "random-forest")
    paths = [folder / f"{row['pricer']}.parquet" for row in (best, forest)]
    kept = ("pricer", "n", "mae", "mae_low", "mae_high", "coverage", "fit_seconds")
    balanced = balanced_errors(folder, [row["pricer"] for row in rows])
    figures = {
        "items": items.manifest["fingerprint"],
        "train": items.manifest["splits"]["train"],
        "rows": [{k: r[k] for k in kept} | {"balanced": balanced[r["pricer"]]} for r in rows],
        "ratio_to_random_forest": best["mae"] / forest["mae"],
        "p_against_random_forest": compare(*paths).p,
        "ladder_seconds": sum(row["fit_seconds"] for row in rows),
    }
    print(f"best / random forest: {figures['ratio_to_random_forest']:.3f}")
    print(f"whole ladder fitted in {figures['ladder_seconds']:.0f} s")
    return figures | ({"curves": measure_curves(items)} if curves else {})


def measure_curves(items: Items) -> list[dict]:
    """Return rows of the learning curves, with what ten times the items would buy."""
    train, test = items.table("train"), items.table("test")
    sizes = [n for n in (500, 1000, 2000, 4000, 8000) if n < train.num_rows] + [train.num_rows]
    curve = learning_curve(CURVES, train, test, sizes).to_pylist()
    for name in CURVES:
        slope = power_law([row for row in curve if row["pricer"] == name])[1]
        print(f"{name}: ten times the items, error x {10**slope:.2f}")
    return curve


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--write", action="store_true", help="store the figures as JSON")
    parser.add_argument("--no-curves", action="store_true", help="leave out the learning curves")
    arguments = parser.parse_args()
    source = str(arguments.path or "embedded")
    with tempfile.TemporaryDirectory() as folder:
        items = prepare(source, Path(folder, "items"))
        figures = measure(items, Path(folder, "results"), not arguments.no_curves)
    if arguments.write:
        name = "embedded" if source == "embedded" else "records"
        head = {
            "date": datetime.date.today().isoformat(),
            "source": Path(source).name,
            "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
            "versions": versions(),
        }
        RESULTS.mkdir(exist_ok=True)
        write_json(head | figures, RESULTS / f"ladder-{name}.json")


if __name__ == "__main__":
    main()
