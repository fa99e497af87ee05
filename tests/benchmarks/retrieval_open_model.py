"""What is it worth to a model of one's own to be shown neighbours, and to be trained so?

    python tests/benchmarks/retrieval_open_model.py [--work DIR] [--seeds 42] [--write]

On the embedded data: the tiny base, tuned with neighbours in its prompts, once as things are and
once with prices that move in training; against the plain tuned model that is shipped, and against
the neighbours' prices alone. Choices were made on validation; this is the test split. ``--work``
keeps adapters and estimates, so that a stopped run goes on. ``--write`` stores the figures and the
adapter of the first seed with moved prices where a lesson reads them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from shared.data import products
from shared.data.storage import file_hash, fingerprint, versions, write_json
from shared.evaluation import Evaluation, Pricer, compare_many, evaluate
from shared.open_models.adapters import ADAPTER, CONFIG, MANIFEST, TUNED
from shared.open_models.pricer import tuned_pricer
from shared.pipeline import course_items
from shared.pretraining.making import TINY
from shared.retrieval import (
    NeighbourPricer,
    ProductIndex,
    TfidfEmbedding,
    clusters_of,
    neighbour_model_pricer,
    outside_range,
    stale_knowledge,
    tune_with_neighbours,
)
from shared.retrieval.open_model import RECORDED, SHIPPED, SHOWN
from shared.settings import Settings
from shared.training.fine_tuning import Plan

PLAIN, ALONE = "tiny, QLoRA", "neighbours alone"
MOVED = {"as they are": 1.0, "moved": 2.0}
"""How far prices are moved in training, by the name of the model."""
CHOSEN = "moved"
"""Which of them is shipped: the one that follows the store."""
FACTOR = 1.3
"""By which all prices in the store change, to see who follows."""
TIMED = 200
"""Products that are priced for the seconds."""


def folder_of(work: Path, name: str, seed: int) -> Path:
    """Return where the model of a name and a seed lies."""
    return work / f"seed-{seed}-{name.replace(' ', '-')}"


class Bench:
    """The items, two stores, and everything that prices them."""

    def __init__(self, work: Path, seeds: list[int]) -> None:
        items = course_items(Settings.from_environment({}), progress=False)
        self.train, self.validation, self.test = (
            items.table(name) for name in ("train", "validation", "test")
        )
        self.work, self.seeds = work, seeds
        self.clusters = clusters_of(self.train, self.validation, self.test)
        embedding = TfidfEmbedding().fit(self.train)
        everything = pa.concat_tables([self.train, self.validation, self.test])
        self.index = ProductIndex.build(self.train, embedding, work / "index")
        self.shop = ProductIndex.build(everything, embedding, work / "shop")

    def tuned(self) -> list[dict]:
        """Tune what is not tuned yet; return how it went."""
        rows = []
        for seed in self.seeds:
            for name, moved in MOVED.items():
                folder = folder_of(self.work, name, seed)
                found = tune_with_neighbours(
                    self.train, self.validation, self.index, folder, Plan(seed=seed), moved=moved
                )
                about = json.loads((folder / SHOWN).read_text(encoding="utf-8"))
                chosen = next(e for e in found["curve"] if e["step"] == found["best_step"])
                rows.append(
                    {
                        "name": name, "seed": seed, "moved": moved, "seconds": found["seconds"],
                        "steps": found["steps"], "validation_dollars": chosen["eval_dollars"],
                        "adapter": about["adapter"], "layout": about["layout"],
                    }
                )  # fmt: skip
        return rows

    def pricers(
        self, index: ProductIndex, clusters: dict | None, seed: int | None = None
    ) -> dict[str, Pricer]:
        """Return all that look up in an index, by their names; models of the first seed."""
        seed = self.seeds[0] if seed is None else seed
        models = {
            name: neighbour_model_pricer(
                index, folder_of(self.work, name, seed), clusters=clusters, name=name
            )
            for name in MOVED
        }
        return {ALONE: NeighbourPricer(index, clusters=clusters, name=ALONE)} | models

    def evaluation(self, pricer: object) -> Evaluation:
        """Price the test items, or open what was priced."""
        return evaluate(pricer, self.test, store=self.work / "results", progress=False)


def scores(found: Evaluation) -> dict:
    """Return the figures of an evaluation that are recorded: dollars, and their 95 % interval."""
    names = {"dollars": "mae", "low": "mae_low", "high": "mae_high"}
    return {name: found.scores[key] for name, key in names.items()}


def errors(bench: Bench) -> tuple[dict, dict[str, Evaluation]]:
    """Measure (a): the error on test, and paired differences."""
    plain = bench.evaluation(tuned_pricer(name=PLAIN))
    found = {PLAIN: plain} | {
        name: bench.evaluation(pricer)
        for name, pricer in bench.pricers(bench.index, bench.clusters).items()
    }
    pairs = [
        {name: getattr(one, name) for name in ("a", "b", "difference", "low", "high", "p_holm")}
        for one in compare_many(list(found.values()))
    ]
    seeds = [
        {"name": name, "seed": seed, **scores(bench.evaluation(pricer))}
        for seed in bench.seeds[1:]
        for name, pricer in bench.pricers(bench.index, bench.clusters, seed).items()
        if name in MOVED
    ]
    rows = {name: scores(one) for name, one in found.items()}
    return {"errors": rows, "compared": pairs, "other_seeds": seeds}, found


def near_duplicates(bench: Bench) -> dict:
    """Measure (b): a shop that knows all items, with and without a product's near-duplicates."""
    of_test = bench.test["cluster"].to_pylist()
    size = Counter(bench.clusters.values())
    has = np.array([size[cluster] > 1 for cluster in of_test])
    rows = {}
    for kind, clusters in (("left out", bench.clusters), ("shown", None)):
        for name, pricer in bench.pricers(bench.shop, clusters).items():
            found = bench.evaluation(pricer).predictions
            error = np.abs(found["price_estimate"].to_numpy() - found["price_true"].to_numpy())
            rows.setdefault(name, {})[kind] = {
                "dollars": float(error.mean()), "with_near_duplicates": float(error[has].mean()),
            }  # fmt: skip
    return {"n": len(has), "with_near_duplicates": int(has.sum()), "rows": rows}


def outside(bench: Bench, found: dict[str, Evaluation]) -> dict:
    """Measure (d): estimates outside the prices of the neighbours that the models are shown."""
    model = bench.pricers(bench.index, bench.clusters)[CHOSEN]
    near = model.neighbours(products(bench.test))
    estimates = {
        name: one.predictions["price_estimate"].to_numpy() for name, one in found.items()
    } | {"true prices": bench.test["price"].to_numpy()}
    counted = {name: outside_range(prices, near) for name, prices in estimates.items()}
    return {
        name: {"share": one.share, "low": one.interval[0], "high": one.interval[1]}
        for name, one in counted.items()
    }


def seconds(bench: Bench) -> dict:
    """Measure (e): the seconds an item takes, all together in batches; the median of three."""
    asked = products(bench.test)[:TIMED]
    pricers = {PLAIN: tuned_pricer(name=PLAIN)} | bench.pricers(bench.index, bench.clusters)
    found = {}
    for name, pricer in pricers.items():
        pricer.price(asked[:8])
        times = []
        for _ in range(3):
            start = time.perf_counter()
            pricer.price(asked)
            times.append((time.perf_counter() - start) / len(asked))
        found[name] = float(np.median(times))
    return found


def measure(work: Path, seeds: list[int]) -> dict:
    """Return all figures."""
    bench = Bench(work, seeds)
    trained = bench.tuned()
    figures, found = errors(bench)
    knowing = bench.pricers(bench.index, bench.clusters)
    followed = stale_knowledge(
        bench.index, [tuned_pricer(name=PLAIN), *knowing.values()], bench.test, FACTOR
    )
    return {
        "seeds": seeds, "shipped": CHOSEN, "trained": trained, **figures,
        "near_duplicates": near_duplicates(bench),
        "stale": [asdict(one) | {"followed": one.followed} for one in followed],
        "outside": outside(bench, found),
        "seconds_an_item": seconds(bench),
        "trained_on": len(bench.train), "tested_on": len(bench.test),
        "fingerprints": {
            "train": fingerprint(bench.train), "validation": fingerprint(bench.validation),
            "test": fingerprint(bench.test), "knowledge": bench.index.fingerprint,
            "embedding": bench.index.embedding.fingerprint,
            "plain": file_hash(TUNED / ADAPTER), "base": file_hash(TINY / "model.safetensors"),
        },
    }  # fmt: skip


def rounded(value):
    """Round figures for people: five digits that count."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def ship(folder: Path) -> None:
    """Copy an adapter to where the package has it, what vouches for it last."""
    SHIPPED.mkdir(parents=True, exist_ok=True)
    for name in (ADAPTER, CONFIG, SHOWN, MANIFEST):
        shutil.copyfile(folder / name, SHIPPED / name)


def main() -> None:
    """Measure, print, and with ``--write`` store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder that keeps what is done")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--write", action="store_true", help="store the figures and an adapter")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        load = round(os.getloadavg()[0], 1)
        figures = rounded(measure(work, arguments.seeds))
        print(json.dumps(figures, indent=2))
        if arguments.write:
            about = {
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "cores": os.cpu_count(), "load": load, "versions": versions(),
            }  # fmt: skip
            ship(folder_of(work, CHOSEN, arguments.seeds[0]))
            write_json(about | figures, RECORDED / "open_model.json")


if __name__ == "__main__":
    main()
