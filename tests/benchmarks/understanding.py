"""How much smaller and faster can a classifier be, and what are ten labels a class worth?

    python tests/benchmarks/understanding.py [--work DIR] [--size N] [--write]

Lets an encoder read the texts of the course's items, teaches it their categories, distils, prunes,
quantises and exports, measures all of them in processes of their own on one thread, and runs the
study of small data with the stand-in. ``--work`` keeps what is done: a stopped run goes on, and a
finished one only measures again. ``--write`` stores the figures, and ships the classifiers that
lessons open. Let nothing else run while it measures.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shared.compression.exported import MANIFEST, size_of
from shared.data.storage import fingerprint, replacing_folder, versions, write_json
from shared.frontier import connect
from shared.pipeline import course_items
from shared.settings import Settings
from shared.understanding import (
    HASHED,
    NARROW,
    SHIPPED,
    SMALLEST,
    TEACHER,
    BagOfWords,
    accuracy_chart,
    categories_of,
    examples,
    export_classifier,
    measure_classifiers,
    new_classifier,
    new_hashed,
    open_classifier,
    pretrain,
    save_classifier,
    table_of,
    teach_classifier,
    teach_hashed,
    without_neurons,
)
from shared.understanding.contrastive import Pairs
from shared.understanding.exported import EXPECTED
from shared.understanding.gold import encoder_learner, study, words_learner
from shared.understanding.labels import of_these, with_unlabelled
from shared.understanding.measuring import RECORDED, as_json

MEASURED = (
    *("encoder", "encoder-fp32", "encoder-int8", "pruned-int8", "narrow-int8"),
    *("narrow-pruned-int8", "hashed-fp32", "hashed-int8", "smallest-int8", "hashed-alone-int8"),
    "words",
)
"""In the order of the table; the first one is the original."""
SHIPS = ("encoder-int8", "narrow-pruned-int8", "hashed-int8", "smallest-int8")
SHOWN = 40
"""Test texts whose outputs are shipped, to compare with."""

SEEDS = (1, 2, 3)
WRITER = "gpt-6-luna"
PRUNED = 0.5
"""Share of the neurons in the feed-forward parts that go; after that, one epoch of learning."""
STEPS = 600
"""Of the study; an encoder on all labels takes three times as many."""


class Work:
    """A folder that keeps what is done, and how long it took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "seconds.json"

    def once(self, name: str, make: Callable[[Path], Any]) -> Path:
        """Make a folder or a file of this name, unless it is there; return its path."""
        path = self.folder / name
        if not ((path / MANIFEST).is_file() or path.is_file()):
            start = time.perf_counter()
            make(path)
            write_json(self.seconds | {name: round(time.perf_counter() - start, 1)}, self.log)
            print(f"made {name} in {self.seconds[name]:,.0f} s", flush=True)
        return path

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by name, of what took any."""
        return json.loads(self.log.read_text(encoding="utf-8")) if self.log.exists() else {}


def teach(work: Work, train: pa.Table) -> None:
    """Make all classifiers out of training items; none of them looks at others."""
    categories = categories_of(train)
    labelled, every = examples(train, categories), with_unlabelled(train, categories)
    read = work.once("read", lambda out: save_classifier(
        pretrain(new_classifier(categories, TEACHER), train["text"].to_pylist(), Pairs()), out
    ))  # fmt: skip
    work.once("encoder", lambda out: save_classifier(
        teach_classifier(open_classifier(read), *labelled), out
    ))  # fmt: skip
    teacher = open_classifier(work.folder / "encoder")

    def pruned(one: Any) -> Any:
        found = without_neurons(one, PRUNED)
        again = replace(found, recipe=replace(found.recipe, epochs=1, rate=found.recipe.rate / 3))
        return teach_classifier(again, *every, teacher=teacher)

    def narrow() -> Any:
        found = replace(new_classifier(categories, NARROW), name="narrow student of encoder")
        return teach_classifier(found, *every, teacher=teacher)

    work.once("pruned", lambda out: save_classifier(pruned(teacher), out))
    work.once("narrow", lambda out: save_classifier(narrow(), out))
    work.once("narrow-pruned", lambda out: save_classifier(
        pruned(open_classifier(work.folder / "narrow")), out
    ))  # fmt: skip
    for name in ("encoder", "pruned", "narrow", "narrow-pruned"):
        for precision in ("fp32", "int8"):
            work.once(f"{name}-{precision}", lambda out, name=name, precision=precision: (
                export_classifier(open_classifier(work.folder / name), out, precision)
            ))  # fmt: skip
    for name, (title, plan, learnt, by) in {
        "hashed": ("hashed student of encoder", HASHED, every, teacher),
        "smallest": ("smallest hashed student of encoder", SMALLEST, every, teacher),
        "hashed-alone": ("hashed, labels alone", HASHED, labelled, None),
    }.items():

        def export(out: Path, name=name, title=title, plan=plan, learnt=learnt, by=by) -> None:
            made = replace(new_hashed(categories, plan), name=title)
            teach_hashed(made, *learnt, teacher=by)
            for precision in ("fp32", "int8"):  # of one and the same student
                export_classifier(made, work.folder / f"{name}-{precision}", precision)

        work.once(f"{name}-int8", export)
    work.once("words", lambda out: BagOfWords.fit(*labelled, categories).save(out))


def small_data(work: Work, train: pa.Table, test: pa.Table) -> list[dict[str, Any]]:
    """Run the study, a file a seed; encoders that have read start from the same reading."""
    read = open_classifier(work.folder / "read")
    learners = {
        "bag of words": words_learner,
        "encoder": encoder_learner(new_classifier(read.categories, TEACHER), STEPS),
        "encoder that has read": encoder_learner(read, STEPS),
    }
    rows = []
    for seed in SEEDS:

        def one(out: Path, seed: int = seed) -> None:
            with connect(WRITER, stand_in=True) as writer:
                write_json(as_json(study(train, test, writer, learners, seeds=(seed,))), out)

        rows += json.loads(work.once(f"study-{seed}.json", one).read_text(encoding="utf-8"))
    return rows


def named(items: pa.Table, categories: Sequence[str]) -> float:
    """Return the share of items whose text names its own category."""
    some = of_these(items, categories)
    pairs = zip(some["text"].to_pylist(), some["category"].to_pylist(), strict=True)
    return float(np.mean([name.lower() in text.lower() for text, name in pairs]))


def ship(work: Path, test: pa.Table) -> None:
    """Copy the classifiers that lessons open, and store what their originals say."""
    texts, expected = of_these(test, open_classifier(work / SHIPS[0]).categories), {}
    asked = texts["text"].to_pylist()[:SHOWN]
    with replacing_folder(SHIPPED, EXPECTED, "shipped classifiers") as building:
        for name in SHIPS:
            shutil.copytree(work / name, building / name)
            original = open_classifier(work / name.replace("int8", "fp32"))
            expected[name] = np.round(original.probabilities(asked), 6).tolist()
        write_json({"texts": asked, "probabilities": expected}, building / EXPECTED)
    print(f"shipped {size_of(SHIPPED) / 1e6:.2f} MB")


def run(work: Work, size: int | None) -> dict[str, Any]:
    """Make what is not there, measure, and return the figures."""
    items = course_items(Settings.from_environment({}), progress=False)
    train, test = (items.table(name) for name in ("train", "test"))
    if size:
        train, test = train.slice(0, size), test.slice(0, size // 8)
    teach(work, train)
    study_rows = small_data(work, train, test)
    rows = measure_classifiers([work.folder / name for name in MEASURED], test)
    print(table_of(rows))
    print(accuracy_chart(rows))
    categories = categories_of(train)
    return {
        "categories": list(categories), "named_in_text": round(named(test, categories), 5),
        "trained_on": len(of_these(train, categories)), "read": len(train),
        "tested_on": len(of_these(test, categories)), "seeds": list(SEEDS),
        "train": fingerprint(train), "test": fingerprint(test),
        "recipes": {"teacher": asdict(TEACHER), "narrow": asdict(NARROW), "read": asdict(Pairs()),
                    "hashed": asdict(HASHED), "smallest": asdict(SMALLEST), "steps": STEPS},
        "seconds": work.seconds, "rows": as_json(rows), "small_data": study_rows,
    }  # fmt: skip


def main() -> None:
    """Measure, print, and with ``--write`` store and ship."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder that keeps what is done")
    parser.add_argument("--size", type=int, help="training items, to try it out")
    parser.add_argument("--write", action="store_true", help="store the figures, and ship")
    arguments = parser.parse_args()
    if arguments.size and arguments.write:
        parser.error("--size is to try it out: such a run is not written")
    with tempfile.TemporaryDirectory() as folder:
        # What was made of a few items is not what is reported of all.
        work = (arguments.work or Path(folder)) / f"size-{arguments.size or 'all'}"
        work.mkdir(parents=True, exist_ok=True)
        figures = run(Work(work), arguments.size)
        about = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                 "versions": versions()}  # fmt: skip
        if arguments.write:
            items = course_items(Settings.from_environment({}), progress=False)
            ship(work, items.table("test"))
            write_json(about | figures, RECORDED)


if __name__ == "__main__":
    main()
