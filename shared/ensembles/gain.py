"""Is the ensemble worth asking all its members? Tested on test, and member by member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from shared.ensembles.fitting import out_of_fold
from shared.ensembles.model import Ensemble
from shared.ensembles.stored import Recorded, predictions_table, price_stored, recorded
from shared.evaluation import Comparison, compare, holm
from shared.evaluation.metrics import score


@dataclass(frozen=True)
class Gain:
    """The ensemble against each of its members on test items, paired, after Holm.

    ``best`` is the member with the lowest error on validation, which is the one that you would
    have used without the ensemble. ``predictions`` are the ensemble's, a row a test item.
    """

    predictions: pa.Table
    best: str
    comparisons: tuple[Comparison, ...]

    @property
    def against_best(self) -> Comparison:
        """The comparison with the best member; ``difference`` below 0: the ensemble is better."""
        return self.comparisons[0]

    def __repr__(self) -> str:
        found = self.against_best
        worth = found.distinguishable and found.difference < 0
        head = "worth asking them all" if worth else "no gain over the best member is shown"
        return "\n".join([head, *(f"  {comparison}" for comparison in self.comparisons)])


@dataclass(frozen=True)
class LeftOut:
    """What the ensemble loses without a member, on validation, by weights of other folds.

    ``mae`` and ``mae_without`` are mean absolute errors in dollars; ``loss`` compares the two:
    above 0, the ensemble is worse without the member.
    """

    member: str
    mae: float
    mae_without: float
    loss: Comparison

    def __repr__(self) -> str:
        return f"{self.mae_without:,.2f} instead of {self.mae:,.2f}: {self.loss}"


def gain(ensemble: Ensemble, runs: Recorded | Sequence[Any], *, seed: int = 42) -> Gain:
    """Compare the ensemble with its members on their stored predictions of the test split.

    Raises ValueError if a run is not of the test split, or of the items the weights were fitted
    on, if a member has no run, or if it was another one when the weights were fitted.
    """
    runs = recorded(runs, split="test")
    if runs.items["fingerprint"] == ensemble.fitted_on["fingerprint"]:
        raise ValueError("the weights were fitted on these very items: they prove nothing")
    predictions = price_stored(ensemble, runs)
    best = min(ensemble.members, key=lambda member: member.mae).name
    names = sorted(ensemble.names, key=lambda name: name != best)
    members = [runs.tables[runs.names.index(name)] for name in names]
    return Gain(predictions, best, _compared([(predictions, m) for m in members], seed))


def leave_one_out(
    runs: Recorded | Sequence[Any], *, items: pa.Table | None = None, seed: int = 42, **fit: Any
) -> list[LeftOut]:
    """Return what the ensemble loses without each member, the most missed first.

    ``runs`` are of validation, two or more. ``fit`` are the options of ``fit_ensemble`` about
    weights (balance, scaled, least). An error on the products that weights were fitted on can only
    fall with another member, so both are measured on products that the weights have not seen.
    """
    runs = recorded(runs, items=items)
    if len(runs.names) < 2:
        raise ValueError("one member alone cannot be left out")
    whole = _priced("all", runs, out_of_fold(runs, seed=seed, **fit))
    parts = [
        _priced(f"without {name}", runs, out_of_fold(runs.without(name), seed=seed, **fit))
        for name in runs.names
    ]
    mae = score(whole, seed=seed)["mae"]
    found = [
        LeftOut(name, mae, score(part, seed=seed)["mae"], loss)
        for name, part, loss in zip(
            runs.names, parts, _compared([(part, whole) for part in parts], seed), strict=True
        )
    ]
    return sorted(found, key=lambda each: -each.loss.difference)


def _compared(pairs: Sequence[tuple[pa.Table, pa.Table]], seed: int) -> tuple[Comparison, ...]:
    """Compare the first of each pair with the second; p-values are corrected for all pairs."""
    found = [compare(a, b, seed=seed) for a, b in pairs]
    corrected = holm([c.p for c in found])
    return tuple(replace(c, p_holm=p) for c, p in zip(found, corrected, strict=True))


def _priced(name: str, runs: Recorded, prices: np.ndarray) -> pa.Table:
    failed = [None if np.isfinite(price) else "no member has an estimate" for price in prices]
    # To the cent: what differs by less is the rounding of the solver, and no member's doing.
    rounded = np.round(prices, 2)
    return predictions_table(name, runs.tables[0], price_estimate=rounded, error=failed)
