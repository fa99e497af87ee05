"""How much smaller and faster can the tuned model be, and at what price? On the embedded data.

    python tests/benchmarks/compression.py [--work DIR] [--records N] [--write]

Distils both presets from the shipped tuned model on texts without a price (those of the course's
own catalogue, and of ``--records`` of another one), prunes, quantises, exports, and measures all of
them in processes of their own on one thread. ``--work`` keeps the teacher's estimates, so that a
stopped run goes on. ``--write`` stores the figures. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa

from shared.compression import (
    PRESETS,
    OnnxLanguagePricer,
    Opening,
    Student,
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
from shared.data.storage import file_hash, versions, write_json
from shared.open_models.adapters import ADAPTER, TUNED
from shared.open_models.pricer import tuned_pricer
from shared.pipeline import course_items
from shared.settings import Settings

RESULTS = Path(__file__).parent / "results" / "compression.json"
OTHER_SEED = 1042
"""Of the catalogue whose texts are read besides: neither the course's nor the base model's."""
LEARN_ON = {"epochs": 3, "rate": 3e-3}
"""How a student learns on after pruning."""


class Other(Settings):
    """The other catalogue, as large as it is asked for."""

    size = 70_000


def texts_of(settings: Settings, held_out: pa.Table, records: int) -> pa.Table:
    """Return texts without a price, apart from what is evaluated on."""
    tables = [unpriced(settings, held_out)]
    if records:
        tables.append(unpriced(Other(seed=OTHER_SEED), held_out, limit=records))
    return pa.concat_tables(tables)


def run(work: Path, records: int) -> dict:
    """Distil, prune, export and measure; return the figures."""
    settings = Settings.from_environment({})
    items = course_items(settings, progress=False)
    train, validation, test = (items.table(name) for name in ("train", "validation", "test"))
    start = time.perf_counter()
    texts = texts_of(settings, pa.concat_tables([validation, test]), records)
    seconds = {"texts": time.perf_counter() - start}
    language = {
        precision: export_language_model(tuned_pricer(), work / f"language-{precision}", precision)
        for precision in ("fp32", "int8")
    }
    # The exported teacher says what the tuned model says, in half the time.
    teacher = OnnxLanguagePricer(language["fp32"])
    start = time.perf_counter()
    lesson = prepare(teacher, train, texts, cache=work / "teacher")
    seconds["teacher"] = time.perf_counter() - start
    students: dict[str, Student] = {}
    for name in PRESETS:
        start = time.perf_counter()
        students[name] = distil(
            teacher, train, validation, name, texts=texts, cache=work / "teacher"
        )
        seconds[name] = time.perf_counter() - start
        print(students[name].settings["tried"], flush=True)
    start = time.perf_counter()
    found = sweep(students["small"], lesson, validation, replace(PRESETS["small"], **LEARN_ON))
    seconds["sweep"] = time.perf_counter() - start
    # The smallest that errs no more on validation than the student as it was.
    good = [one for one in found if one[0].dollars <= 1.01 * found[0][0].dollars]
    row, network = min(good, key=lambda one: one[0].bytes)
    small = students["small"]
    students["pruned"] = Student(network, small.settings, f"pruned ({row.setting}) {small.name}")
    openings = [Opening("tuned", TUNED)]
    openings += [Opening("language model", folder) for folder in language.values()]
    for name, student in students.items():
        for precision in ("fp32", "int8"):
            folder = export_student(student, work / f"{name}-{precision}", precision)
            openings.append(Opening("student", folder))
    rows = measure(openings, test)
    print(to_markdown(rows))
    print(size_chart(rows))
    return {
        "texts": len(texts), "trained_on": len(train), "tested_on": len(test),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "students": {name: one.settings["tried"] for name, one in students.items()},
        "pruning": [asdict(one) for one, _ in found],
        "rows": [asdict(one) for one in rows],
    }  # fmt: skip


def main() -> None:
    """Measure, print, and with ``--write`` store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder that keeps what is done")
    parser.add_argument("--records", type=int, default=70_000, help="of the other catalogue")
    parser.add_argument("--write", action="store_true", help=f"store the figures in {RESULTS.name}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(arguments.work or Path(folder), arguments.records)
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "teacher": file_hash(TUNED / ADAPTER), "versions": versions(),
    }  # fmt: skip
    if arguments.write:
        write_json(about | figures, RESULTS)


if __name__ == "__main__":
    main()
