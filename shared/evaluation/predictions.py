"""Predictions as everything else reads them: one checked Arrow table a pricer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.data.schema import PREDICTION

STAND_IN = "stand-in"
TOKENS = ("input", "cached", "output", "reasoning")
EXTRA = pa.schema(
    [
        ("category", pa.string()),
        *((f"{t}_tokens", pa.int64()) for t in TOKENS),
        ("model", pa.string()),
    ]
)
CONTRACT = pa.schema([*PREDICTION, *EXTRA])
"""What is stored: the columns of ``PREDICTION``, then the product's category and the tokens that
pricing it took (``cached`` are part of ``input``, ``reasoning`` of ``output``), and by which name a
model answered. These may be null, and be missing in a file of somebody else."""


@dataclass(frozen=True)
class Scored:
    """The predictions whose true price is known, as arrays of length n in dollars.

    ``estimate`` is NaN where the pricer failed; ``low``/``high`` are NaN without an interval.
    """

    pricer: str
    label: str
    ids: np.ndarray
    category: np.ndarray
    true: np.ndarray
    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seconds: np.ndarray
    cost_usd: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Absolute error in dollars; NaN where the pricer failed."""
        return np.abs(self.estimate - self.true)

    @property
    def title(self) -> str:
        """The pricer's name, with its label where it has one."""
        return f"{self.pricer} ({self.label})" if self.label else self.pricer

    def where(self, chosen: np.ndarray) -> Scored:
        """Return the rows that a boolean array of length n chooses."""
        arrays = {k: v[chosen] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return Scored(self.pricer, self.label, **arrays)


def read_predictions(source: Any) -> pa.Table:
    """Return predictions in the stored schema, from a table, a Parquet path or an ``Evaluation``.

    Columns beyond those stored are dropped. Raises ValueError naming what is wrong:
    a column that is missing or of another kind, an item priced twice, two pricers in one table.
    """
    where = "the predictions" if not isinstance(source, str | Path) else str(source)
    source = getattr(source, "predictions", source)
    if isinstance(source, str | Path):
        source = _read_file(Path(source))
    if not isinstance(source, pa.Table):
        raise TypeError(f"predictions are a pyarrow.Table or a path, not {type(source).__name__}")
    table = _cast(source, where)
    _refuse_ambiguity(table, where)
    return table


def scored(source: Any) -> Scored:
    """Return the rows of ``source`` (as in ``read_predictions``) whose true price is known."""
    table = read_predictions(source)
    values = {f.name: table[f.name].to_numpy(zero_copy_only=False) for f in CONTRACT}
    names = {"ids": "item_id", "true": "price_true", "estimate": "price_estimate"}
    numbers = {k: values[names.get(k, k)] for k in Scored.__dataclass_fields__ if k not in _TEXTS}
    numbers = {k: np.asarray(v, dtype=float) for k, v in numbers.items()}
    estimate = numbers["estimate"]
    # A file of somebody else may hold what our own schema cannot: infinite or negative prices.
    numbers["estimate"] = np.where(np.isfinite(estimate) & (estimate >= 0), estimate, np.nan)
    label = (table.schema.metadata or {}).get(b"label", b"").decode()
    pricer = values["pricer"][0] if len(table) else ""
    everything = Scored(pricer, label, values["item_id"], values["category"], **numbers)
    if (everything.true < 0).any():
        raise ValueError("price_true is below zero in some rows: prices are dollars, 0 or more")
    return everything.where(np.isfinite(everything.true))


_TEXTS = ("pricer", "label", "ids", "category")


def with_label(table: pa.Table, label: str) -> pa.Table:
    """Return ``table`` marked as computed ('') or as the work of a stand-in ('stand-in')."""
    if label not in ("", STAND_IN):
        raise ValueError(f"label {label!r} is neither '' nor {STAND_IN!r}")
    return table.replace_schema_metadata({"label": label} if label else None)


def _read_file(path: Path) -> pa.Table:
    if not path.is_file():
        raise FileNotFoundError(f"no predictions at {path}")
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}") from error


def _cast(table: pa.Table, where: str) -> pa.Table:
    missing = [name for name in PREDICTION.names if name not in table.column_names]
    if missing:
        raise ValueError(f"{where} lack the columns {', '.join(missing)}")
    for column in EXTRA:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), column.type))
    try:
        return table.select(CONTRACT.names).cast(CONTRACT.with_metadata(table.schema.metadata))
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{where} do not fit the predictions schema: {error}") from error


def _refuse_ambiguity(table: pa.Table, where: str) -> None:
    pricers = table["pricer"].unique().to_pylist()
    if len(pricers) > 1:
        raise ValueError(f"{where} hold {len(pricers)} pricers ({pricers[:3]}…): one a table")
    twice = len(table) - len(table["item_id"].unique())
    if twice or table["item_id"].null_count:
        raise ValueError(f"{where} need one row an item: {twice} item_id repeated or null")
