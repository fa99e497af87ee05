"""What compression buys a classifier: bytes, seconds and memory beside the share it tells right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest
from tqdm.auto import tqdm

from shared.compression.measuring import Opening, Spent, as_table, spend, what_it_takes
from shared.compression.probe import SINGLE
from shared.evaluation.bootstrap import mean_intervals
from shared.evaluation.compare import p_text
from shared.understanding.exported import open_classifier
from shared.understanding.labels import of_these

RECORDED = Path(__file__).with_name("recorded") / "understanding.json"
"""The run that is shipped: ``tests/benchmarks/understanding.py --write`` makes it."""

OPENED = "understanding.exported:answering"
"""How a fresh process opens a classifier, see ``compression.probe``."""


@dataclass(frozen=True)
class Measured:
    """A classifier beside its original: the share it tells right, with 95 % interval, and its cost.

    ``difference`` from the original's share and its 95 % interval; ``p``: how likely so uneven a
    split of the texts that only one of the two tells right would be, were both equally good. In the
    original's own row they are 0 and 1. ``smaller`` and ``faster``: how many times.
    """

    name: str
    accuracy: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float
    smaller: float
    faster: float
    spent: Spent

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Measured:
        """Return a row that was stored as JSON."""
        return cls(**{**row, "spent": Spent(**row["spent"])})


def measure_classifiers(
    folders: Sequence[Path], items: pa.Table, *, threads: int = 1, single: int = SINGLE,
    progress: bool = True,
) -> list[Measured]:  # fmt: skip
    """Measure classifiers on items (ITEM schema); the first one is the original of the others.

    Items of none of their categories are left out. Speed is that of this machine while nothing
    else runs on it; see ``compression.measuring.spend``.
    """
    rows: list[Measured] = []
    first: tuple[np.ndarray, Spent] | None = None
    for folder in tqdm(folders, desc="measure", unit="classifier", disable=not progress):
        classifier = open_classifier(folder, threads)
        asked = of_these(items, classifier.categories)
        spent = spend(Opening(OPENED, Path(folder)), asked, threads=threads, single=single)
        hits = classifier.hits(asked)
        first = first or (hits, spent)
        rows.append(_row(classifier.name, hits, spent, first))
    return rows


def _row(name: str, hits: np.ndarray, spent: Spent, first: tuple[np.ndarray, Spent]) -> Measured:
    before, took = first
    columns = np.column_stack([hits, hits.astype(float) - before])
    values, ends = mean_intervals(columns, lambda means: means)
    ratios = took.bytes / spent.bytes, spent.per_second / took.per_second
    numbers = [values[0], *ends[0], values[1], *ends[1], mcnemar(hits, before)]
    return Measured(name, *(float(number) for number in numbers), *ratios, spent)


def mcnemar(hits: np.ndarray, others: np.ndarray) -> float:
    """Return the exact two-sided p-value for two classifiers asked about the same texts, (n,) each.

    Only texts that one of them alone tells right say anything: were both equally good, each would
    have them as often as a coin falls on a side (McNemar, 1947).
    """
    if hits.shape != others.shape:
        raise ValueError(f"{len(hits)} and {len(others)} answers: not to the same texts")
    gained, lost = int((hits & ~others).sum()), int((others & ~hits).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def table_of(rows: Sequence[Measured]) -> str:
    """Return the rows as a table in Markdown; the first one is the original."""
    return as_table([_cells(row, row is rows[0]) for row in rows])


def _cells(row: Measured, first: bool) -> dict[str, str]:
    low, high = (f"{100 * end:+.1f}" for end in (row.difference_low, row.difference_high))
    against = f"{100 * row.difference:+.1f} [{low}, {high}], {p_text(row.p)}"
    return {
        "classifier": row.name,
        "right, %": f"{100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]",
        "against the original, points": "—" if first else against,
        **what_it_takes(row.spent, row.smaller, row.faster),
    }


def recorded() -> dict[str, Any]:
    """Return the recorded run: ``rows`` (see ``Measured.of``), ``small_data`` and their origin."""
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def as_json(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return rows (dataclasses) as they are stored, shares and seconds with six digits."""
    return [json.loads(json.dumps(asdict(row)), parse_float=_rounded) for row in rows]


def _rounded(text: str) -> float:
    return float(f"{float(text):.6g}")
