"""How much smaller and faster can a pricer be, and at what price? On the embedded data.

    python tests/benchmarks/compression.py [--work DIR] [--records N] [--write]

Two teachers: the shipped tuned model, and its ensemble with boosted trees. Each prices texts
without a price (those of the course's own catalogue, and of ``--records`` of another one); students
learn that, are pruned, quantised and exported; and all are measured in processes of their own on
one thread. ``--work`` keeps what is done: a stopped run goes on, and a finished one is only
measured anew. ``--write`` stores the figures and ships the students. Let nothing else run
meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.compression import (
    PRESETS,
    OnnxLanguagePricer,
    Opening,
    Student,
    StudentPricer,
    distil,
    export_language_model,
    export_student,
    measure,
    prepare,
    size_chart,
    sweep,
    to_markdown,
    unpriced,
)
from shared.compression.bundle import bundle, open_bundle
from shared.compression.recorded import EXPECTED, FILE, SHIPPED
from shared.data import products
from shared.data.storage import (
    file_hash,
    fingerprint,
    replacing_folder,
    versions,
    write_json,
    write_parquet,
)
from shared.ensembles import fit_ensemble
from shared.evaluation import evaluate
from shared.open_models.adapters import ADAPTER, TUNED
from shared.open_models.pricer import tuned_pricer
from shared.pipeline import course_items
from shared.pricers import make_pricer
from shared.pricers.saving import save_pricer
from shared.settings import Settings

OTHER_SEED = 1042
"""Of the catalogue whose texts are read besides: neither the course's nor the base model's."""
LEARN_ON = {"epochs": 3, "rate": 3e-3}
"""How a student learns on after pruning."""
ALMOST = 1.01
"""A pruned student is good enough if it errs so many times as much on validation, at most."""
COMPARED = 100
"""Test products whose prices by the original students are shipped, to compare with."""
LONGEST = PRESETS["small"].reading.characters
BUNDLE = "compression.bundle:open_bundle"


class Other(Settings):
    """The other catalogue, as large as it is asked for."""

    size = 70_000


class Run:
    """One run in its folder; ``seconds`` and ``tried`` are kept there from one start to the next.

    ``splits``: train, validation and test.
    """

    def __init__(self, work: Path, records: int) -> None:
        # What was learnt with fewer texts is not what is reported of more.
        self.work, self.records = work / f"records-{records}", records
        self.work.mkdir(parents=True, exist_ok=True)
        self.settings = Settings.from_environment({})
        items = course_items(self.settings, progress=False)
        self.splits = {name: items.table(name) for name in ("train", "validation", "test")}
        self.notes = self.work / "notes.json"
        kept = json.loads(self.notes.read_text()) if self.notes.exists() else {}
        self.seconds: dict[str, float] = kept.get("seconds", {})
        self.tried: dict[str, Any] = kept.get("tried", {})

    def timed(self, name: str, do: Callable[[], Any]) -> Any:
        """Do something, and note how long it took."""
        start = time.perf_counter()
        found = do()
        self.note("seconds", name, round(time.perf_counter() - start, 1))
        return found

    def note(self, kind: str, name: str, value: Any) -> None:
        """Keep a finding."""
        getattr(self, kind)[name] = value
        write_json({"seconds": self.seconds, "tried": self.tried}, self.notes)

    def texts(self) -> pa.Table:
        """Return texts without a price, apart from what is evaluated on."""
        path = self.work / "texts.parquet"
        if not path.exists():
            write_parquet(self.timed("texts", self._texts), path)
        return pq.read_table(path)

    def _texts(self) -> pa.Table:
        held_out = pa.concat_tables([self.splits["validation"], self.splits["test"]])
        tables = [unpriced(self.settings, held_out)]
        if self.records:
            tables.append(unpriced(Other(seed=OTHER_SEED), held_out, limit=self.records))
        return pa.concat_tables(tables)

    def language(self) -> dict[str, Path]:
        """Export the tuned model with 32, 8 and 4 bits."""
        made = {}
        for bits in ("fp32", "int8", "int4"):
            make = lambda out, bits=bits: export_language_model(tuned_pricer(), out, bits)  # noqa: E731
            made[bits] = self._once(f"language-{bits}", make)
        return made

    def ensemble(self) -> Path:
        """Fit the ensemble of the tuned model and boosted trees on validation, and bundle it."""
        return self._once("ensemble", self._ensemble)

    def _ensemble(self, out: Path) -> None:
        train, validation = self.splits["train"], self.splits["validation"]
        trees = make_pricer("lightgbm", seed=self.settings.seed).fit(train)
        fitted = save_pricer(trees, self.work / "lightgbm")
        onnx = OnnxLanguagePricer(self.language()["fp32"])
        runs = [evaluate(one, validation, progress=False) for one in (onnx, trees)]
        found = fit_ensemble(runs, items=validation)
        print(found)
        members = {onnx.name: Opening("language model", self.language()["fp32"])}
        bundle(found, members | {trees.name: Opening("fitted", fitted)}, out)

    def students(self, key: str, teacher: Any) -> dict[str, Path]:
        """Distil both presets, prune the larger one, export; return name -> folder."""
        folders = {
            f"{name}-{bits}": self.work / f"{key}-{name}-{bits}"
            for name, bits in (("small", "fp32"), ("small", "int8"), ("pruned", "int8"),
                               ("smallest", "int8"))
        }  # fmt: skip
        if all((folder / "manifest.json").exists() for folder in folders.values()):
            return folders
        train, validation = self.splits["train"], self.splits["validation"]
        texts, cache = self.texts(), self.work / f"teacher-{key}"
        lesson = self.timed(f"{key}: teacher", lambda: prepare(teacher, train, texts, cache=cache))
        made: dict[str, Student] = {}
        for name in PRESETS:
            student = self.timed(
                f"{key}: {name}",
                lambda n=name: distil(teacher, train, validation, n, texts=texts, cache=cache),
            )
            self.note("tried", f"{key}: {name}", student.settings["tried"])
            made[name] = Student(student.network, student.settings, f"{name} student")
        found = self.timed(
            f"{key}: sweep",
            lambda: sweep(made["small"], lesson, validation, replace(PRESETS["small"], **LEARN_ON)),
        )
        self.note("tried", f"{key}: pruning", [asdict(one) for one, _ in found])
        good = [one for one in found if one[0].dollars <= ALMOST * found[0][0].dollars]
        row, network = min(good, key=lambda one: one[0].bytes)
        settings = made["small"].settings | {"pruned": asdict(row)}
        made["pruned"] = Student(network, settings, "small student, pruned")
        for name in made:
            expected = self.prices(made[name])
            self.note("tried", f"{key}: {name} says", expected)
        for name, folder in folders.items():
            which, bits = name.split("-")
            export_student(made[which], folder, bits)
        return folders

    def prices(self, student: Any) -> list[float]:
        """Return what a student says of the first test products, in dollars."""
        return student.price(products(self.splits["test"].slice(0, COMPARED))).price.tolist()

    def _once(self, name: str, make: Callable[[Path], Any]) -> Path:
        """Make a folder, unless it was finished before."""
        folder = self.work / name
        if not any((folder / mark).exists() for mark in ("manifest.json", "members.json")):
            self.timed(name, lambda: make(folder))
        return folder

    def measured(self) -> dict[str, list]:
        """Measure both teachers and all their students."""
        language, ensemble, test = self.language(), self.ensemble(), self.splits["test"]
        # The exported teacher says what the tuned model says, in half the time.
        of_tuned = self.students("tuned", OnnxLanguagePricer(language["fp32"]))
        of_both = self.students("ensemble", open_bundle(ensemble))
        openings = {
            "tuned": [Opening("tuned", TUNED),
                      *(Opening("language model", folder) for folder in language.values()),
                      *(Opening("student", folder) for folder in of_tuned.values())],
            "ensemble": [Opening(BUNDLE, ensemble),
                         *(Opening("student", folder) for folder in of_both.values())],
        }  # fmt: skip
        return {name: measure(some, test) for name, some in openings.items()}

    def ship(self) -> None:
        """Put the ensemble's students with eight bits into the package, with expected prices."""
        with replacing_folder(SHIPPED, EXPECTED, "shipped students") as building:
            expected = {}
            for name, made in (("small", "pruned"), ("smallest", "smallest")):
                shutil.copytree(self.work / f"ensemble-{made}-int8", building / name)
                expected[name] = self.tried[f"ensemble: {made} says"]
            # What a student reads of them: the whole texts would be larger than the students.
            shown = [
                {"id": one.id, "title": one.title, "text": one.text[:LONGEST],
                 "category": one.category, "details": "{}"}
                for one in products(self.splits["test"].slice(0, COMPARED))
            ]  # fmt: skip
            write_json({"products": shown, "prices": expected}, building / EXPECTED)
        StudentPricer(SHIPPED / "small")


def main() -> None:
    """Measure, print, and with ``--write`` store and ship."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder that keeps what is done")
    parser.add_argument("--records", type=int, default=70_000, help="of the other catalogue")
    parser.add_argument("--write", action="store_true", help=f"store {FILE.name}, ship students")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        run = Run(work, arguments.records)
        rows = run.measured()
        for some in rows.values():
            print(to_markdown(some))
            print(size_chart(some), end="\n\n")
        tried = {k: v for k, v in run.tried.items() if not k.endswith((" says", "pruning"))}
        figures = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "adapter": file_hash(TUNED / ADAPTER), "versions": versions(),
            "items": {name: fingerprint(table) for name, table in run.splits.items()},
            "texts": len(run.texts()), "trained_on": len(run.splits["train"]),
            "tested_on": len(run.splits["test"]), "seconds": run.seconds, "tried": tried,
            "pruning": run.tried["ensemble: pruning"],
            "rows": {name: [asdict(one) for one in some] for name, some in rows.items()},
        }  # fmt: skip
        if arguments.write:
            write_json(figures, FILE)
            run.ship()


if __name__ == "__main__":
    main()
