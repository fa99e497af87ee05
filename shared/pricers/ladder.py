"""The whole ladder: every pricer fitted on the training items and scored on the test split."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from shared.data import Items
from shared.data.storage import write_json
from shared.evaluation import evaluate, score
from shared.pricers.registry import PRICERS, make_pricer


def climb(
    items: Items,
    out: Path,
    *,
    names: Sequence[str] = tuple(PRICERS),
    seed: int = 42,
    progress: bool = True,
) -> list[dict]:
    """Fit and score pricers by name; return a row of scores each, best last.

    Predictions and manifests go to the folder ``out``, as ``evaluate`` stores them, and
    ``fit_seconds.json`` beside them. What is stored there already, from the same items, settings
    and code, is neither fitted nor priced again.
    """
    train, test = items.table("train"), items.table("test")
    seconds, rows = _seconds(out), []
    for name in names:
        pricer = make_pricer(name, seed).fit(train, lazily=True)
        result = evaluate(pricer, test, store=out, seed=seed, progress=progress)
        if pricer.fit_seconds is not None:
            seconds[name] = round(pricer.fit_seconds, 2)
            write_json(seconds, Path(out) / "fit_seconds.json")
        rows.append(score(result) | {"fit_seconds": seconds.get(name)})
    return sorted(rows, key=lambda row: -row["mae"])


def learning_curve(
    names: Sequence[str], train: pa.Table, test: pa.Table, sizes: Sequence[int], *, seed: int = 42
) -> pa.Table:
    """Return the error of pricers that learnt from ``sizes`` of the training items.

    A row a pricer and size: pricer, size, mae, mae_low, mae_high (dollars), seconds (to fit).
    The items are shuffled first: in the order of their ids the oldest listings would come first.
    """
    shuffled = train.take(np.random.default_rng(seed).permutation(train.num_rows))
    rows = []
    for name, size in itertools.product(names, sizes):
        pricer = make_pricer(name, seed).fit(shuffled.slice(0, size))
        found = score(evaluate(pricer, test, seed=seed, progress=False))
        row = {k: found[k] for k in ("pricer", "mae", "mae_low", "mae_high")}
        rows.append(row | {"size": min(size, train.num_rows), "seconds": pricer.fit_seconds})
    return pa.Table.from_pylist(rows)


def to_console(rows: Sequence[dict]) -> str:
    """Return the ladder as lines of text, best last."""
    lines = [f"{'pricer':<18} {'error':>8}   {'95 % interval':<18} {'fit':>8}"]
    for row in rows:
        error = f"${row['mae']:,.2f}"
        interval = f"${row['mae_low']:,.2f} to ${row['mae_high']:,.2f}"
        fit = "—" if row["fit_seconds"] is None else f"{row['fit_seconds']:,.1f} s"
        lines.append(f"{row['pricer']:<18} {error:>8}   {interval:<18} {fit:>8}")
    return "\n".join(lines)


def _seconds(out: Path) -> dict[str, float]:
    try:
        return json.loads((Path(out) / "fit_seconds.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
