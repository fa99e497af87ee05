"""What people hand to ``evaluate``, turned into the two things it works on: items and a pricer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.data.schema import ITEM, Product
from shared.data.storage import fingerprint
from shared.evaluation.predictions import read_predictions
from shared.evaluation.protocol import Estimates, Pricer


def item_table(items: Any) -> pa.Table:
    """Return ``items`` (Dataset, pyarrow.Table or list of dicts) in the ITEM schema.

    Columns that are missing become null, except ``id``; a NaN price becomes null, that is,
    unknown. Raises ValueError for repeated or missing ids and for prices below zero.
    """
    try:
        table = _in_schema(_as_arrow(items))
    except pa.ArrowException as error:
        raise ValueError(f"items do not fit the ITEM schema: {error}") from error
    unknown = pc.is_null(table["price"], nan_is_null=True)
    price = pc.if_else(unknown, pa.scalar(None, pa.float64()), table["price"])
    table = table.set_column(ITEM.get_field_index("price"), ITEM.field("price"), price)
    _refuse_bad_items(table)
    return table


def as_pricer(pricer: Any) -> Pricer:
    """Return ``pricer`` as a Pricer: it may be one, a plain function, or stored predictions."""
    if isinstance(pricer, type):
        raise TypeError(f"{pricer.__name__} is a class: pass a pricer made from it")
    if hasattr(pricer, "price") and hasattr(pricer, "name"):
        return pricer
    if isinstance(pricer, str | Path | pa.Table) or hasattr(pricer, "predictions"):
        return StoredPredictions(read_predictions(pricer))
    if callable(pricer):
        return FunctionPricer(pricer)
    raise TypeError(
        f"{type(pricer).__name__} cannot price: pass a function of one product, an object with "
        "a name and a price(products) method, or stored predictions"
    )


def reason(error: BaseException) -> str:
    """Return an exception as one short line for the ``error`` column."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class FunctionPricer:
    """A plain function of one product as a Pricer; what it raises becomes a failed estimate."""

    def __init__(self, function: Callable[[Product], float]):
        self.function = function
        inner = getattr(function, "func", function)  # functools.partial
        self.name = getattr(inner, "__name__", type(inner).__name__)

    def price(self, products: Sequence[Product]) -> Estimates:
        """Call the function once a product, and time each call."""
        prices, errors, seconds = [], [], []
        for product in products:
            start = time.perf_counter()
            value, error = self._price_one(product)
            seconds.append(time.perf_counter() - start)
            prices.append(value)
            errors.append(error)
        return Estimates(prices, errors, seconds=seconds)

    def _price_one(self, product: Product) -> tuple[float, str | None]:
        try:
            value = self.function(product)
            if value is None or isinstance(value, str | bytes | bool):
                return np.nan, f"returned {value!r:.80}, not a number"
            return float(value), None
        except Exception as error:
            return np.nan, reason(error)


class StoredPredictions:
    """Predictions of an earlier run as a Pricer: looks each product up by its id."""

    def __init__(self, table: pa.Table):
        if not len(table):
            raise ValueError("the stored predictions are empty")
        self.table = table
        self.name = table["pricer"][0].as_py()
        self.settings = {"predictions": fingerprint(table)}

    def price(self, products: Sequence[Product]) -> Estimates:
        """Return what is stored; a product that is not there failed, with that reason."""
        rows = pc.index_in(pa.array([p.id for p in products]), self.table["item_id"])
        found = self.table.take(rows)
        values = {name: found[name].to_numpy() for name in ("low", "high", "seconds", "cost_usd")}
        absent = "not in the stored predictions"
        errors = [
            absent if row is None else error
            for row, error in zip(rows.to_pylist(), found["error"].to_pylist(), strict=True)
        ]
        return Estimates(found["price_estimate"].to_numpy(), errors, **values)


def _in_schema(table: pa.Table) -> pa.Table:
    if "id" not in table.column_names:
        raise ValueError(f"items have no column 'id', only {', '.join(table.column_names)}")
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type)
        for f in ITEM
    ]
    return pa.table(columns, schema=ITEM)


def _as_arrow(items: Any) -> pa.Table:
    if isinstance(items, pa.Table):
        return items
    if isinstance(items, Mapping):  # a DatasetDict is one too
        raise TypeError(f"items hold several splits ({', '.join(map(str, items))}): choose one")
    if hasattr(items, "with_format"):
        return items.with_format("arrow")[:]
    rows = list(items)
    if not all(isinstance(row, Mapping) for row in rows):
        raise TypeError("items are a Dataset, a pyarrow.Table or a list of dicts")
    if rows and "id" not in rows[0]:
        raise ValueError(f"items have no column 'id', only {', '.join(map(str, rows[0]))}")
    named = [{**row, "id": str(row["id"])} if row.get("id") is not None else row for row in rows]
    return pa.Table.from_pylist(named, schema=ITEM)


def _refuse_bad_items(table: pa.Table) -> None:
    if table["id"].null_count or len(table["id"].unique()) < len(table):
        raise ValueError("every item needs an id of its own: some are repeated or missing")
    bad = table.filter(pc.or_(pc.less(table["price"], 0), pc.is_inf(table["price"])))
    if len(bad):
        item = bad.slice(0, 1).to_pylist()[0]
        raise ValueError(f"item {item['id']!r} has the impossible price {item['price']}")
