"""What a release is to say of itself: the factor of its interval, and its errors, measured.

The interval is split conformal (``shared.pricers.conformal``): its factor comes from the validation
split, and whether it keeps its promise is measured on test. An ensemble whose weights were fitted
on validation, too, is a little too sure of itself there; what test says is what counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from shared.data import Items, Product
from shared.data.storage import fingerprint
from shared.evaluation import Estimates, evaluate
from shared.evaluation.inputs import StoredPredictions
from shared.pricers.conformal import WithIntervals
from shared.releases.release import ReleaseError, widened
from shared.watching import Reference

SPLITS = ("validation", "test")


def splits_of(items: Items | Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables of validation, and of test where there is one.

    Raises ReleaseError if there is nothing to calibrate with.
    """
    if isinstance(items, Items):
        items = {split: items.table(split) for split in SPLITS}
    found = {s: items[s] for s in SPLITS if s in items and items[s].num_rows}
    if "validation" not in found:
        raise ReleaseError("a release needs items of the validation split, for its interval")
    return found


def calibrate(
    pricer: Any, tables: Mapping[str, pa.Table], coverage: float = 0.9, seed: int = 42
) -> tuple[dict[str, Any], Reference]:
    """Price validation and test; return what the record says of them, and the drift reference.

    That is name, label, factor, coverage, metrics, items, settings and seed. Each product is
    priced once. Raises ReleaseError if there are too few estimates for an interval.
    """
    label = getattr(pricer, "label", "")
    priced = {s: evaluate(pricer, t, seed=seed, progress=False) for s, t in tables.items()}
    stored = {s: StoredPredictions(found.predictions) for s, found in priced.items()}
    factor = _factor(stored["validation"], tables["validation"], coverage)
    scores = {
        split: evaluate(_Widened(stored[split], factor), table, seed=seed, progress=False,
                        label=label).scores
        for split, table in tables.items()
    }  # fmt: skip
    facts = {
        "name": pricer.name, "label": label, "factor": factor, "coverage": coverage,
        "metrics": scores, "items": {split: fingerprint(t) for split, t in tables.items()},
        "settings": getattr(pricer, "settings", None), "seed": seed,
    }  # fmt: skip
    estimates = stored["validation"].table["price_estimate"].to_numpy(zero_copy_only=False)
    return facts, Reference.fit(tables["validation"], estimates, seed=seed)


class _Widened:
    """A pricer with an interval of a known factor around each price."""

    def __init__(self, pricer: Any, factor: float) -> None:
        self.pricer, self.name, self.factor = pricer, pricer.name, factor

    def price(self, products: Sequence[Product]) -> Estimates:
        return widened(self.pricer.price(products), self.factor)


def _factor(pricer: Any, validation: pa.Table, coverage: float) -> float:
    try:
        factor = WithIntervals(pricer, validation, coverage).factor
    except ValueError as error:
        raise ReleaseError(f"{pricer.name}: {error}") from error
    if not 1 <= factor < math.inf:
        raise ReleaseError(
            f"{pricer.name}: no finite interval covers {coverage:.0%} of the "
            f"{validation.num_rows} validation items; give more, or ask for less"
        )
    return factor
