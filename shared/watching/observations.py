"""What a service leaves behind of each product it priced: numbers, and no product text.

Observations and late true prices go to two files of JSON lines. They meet in the item: a hash of
the product's text. Such a hash keeps a text from being read, not from being recognised: whoever
has the same text can tell that it was asked about.
"""

from __future__ import annotations

import hashlib
import io
import math
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as arrow_json

from shared.data.schema import Product
from shared.evaluation.protocol import Estimates
from shared.watching.lines import append_lines, whole_lines
from shared.watching.reference import Vocabulary

LONGEST = 100
"""Characters that are kept of a category, a version or an error: a seller may write anything."""

OBSERVATION = pa.schema(
    [
        ("time", pa.float64()),
        ("request", pa.string()),
        ("version", pa.string()),
        ("item", pa.string()),
        ("length", pa.int64()),
        ("unknown", pa.float64()),
        ("category", pa.string()),
        ("price", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)
"""An ``Observation`` in a table: prices are null where there is none."""

_NEEDED = ("time", "request", "version", "item", "length", "unknown", "category")


@dataclass(frozen=True, slots=True)
class Observation:
    """One priced product, as the service saw it.

    ``time``: Unix seconds. ``item``: see ``item_key``. ``length``: characters of the text;
    ``unknown``: the share of its words that the reference does not know, 0 to 1. ``price``,
    ``low`` and ``high``: dollars, NaN where there is none; ``error`` then says why.
    ``seconds``: how long the answer took.
    """

    time: float
    request: str
    version: str
    item: str
    length: int
    unknown: float
    category: str
    price: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seconds: float = math.nan
    error: str | None = None


def item_key(text: str) -> str:
    """Return the hash of a product's text by which a late true price finds its estimate."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def observe(
    products: Sequence[Product],
    estimates: Estimates,
    *,
    vocabulary: Vocabulary,
    version: str,
    request: str = "",
    time: float | None = None,
) -> list[Observation]:
    """Return what is kept of products and their estimates: an observation each, in their order.

    ``vocabulary`` is the reference's; ``time`` in Unix seconds, now if not given. Raises
    ValueError unless there is an estimate a product.
    """
    if len(products) != len(estimates.price):
        raise ValueError(f"{len(estimates.price)} estimates for {len(products)} products")
    texts = [product.text or "" for product in products]
    nothing = np.full(len(texts), np.nan)
    numbers = [
        nothing if values is None else values
        for values in (estimates.price, estimates.low, estimates.high, estimates.seconds)
    ]
    now = clock.time() if time is None else time
    return [
        Observation(
            now, _short(request), _short(version), item_key(text), len(text), unknown,
            _short(product.category), *found, _short(error) if error else None,
        )
        for product, text, unknown, found, error in zip(
            products, texts, vocabulary.unknown(texts).tolist(),
            np.column_stack(numbers).round(6).tolist(), estimates.error, strict=True,
        )
    ]  # fmt: skip


class ObservationLog:
    """A file of observations, which several processes may append to at once.

    ``damaged`` counts the lines that were left out when it was last read, because they are no
    observations: a process was killed while it wrote, or something else wrote there.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.damaged = Path(path), 0

    def append(self, observations: Sequence[Observation]) -> None:
        """Append observations; killing this process afterwards loses none of them."""
        append_lines(self.path, map(_row, observations))

    def table(self) -> pa.Table:
        """Return the observations in the OBSERVATION schema, in the order they were written.

        Give a watch all of them: it counts its windows from the first row that it is given.
        """
        tables, lines = [OBSERVATION.empty_table()], 0
        for block in whole_lines(self.path):
            tables.append(_parsed(block))
            lines += sum(1 for line in block.split(b"\n") if line.strip())
        found = pa.concat_tables(tables)
        self.damaged = lines - len(found)
        return found

    def read(self) -> list[Observation]:
        """Return the observations, in the order they were written."""
        return [
            Observation(**row | {name: math.nan for name in _NUMBERS if row[name] is None})
            for row in self.table().to_pylist()
        ]


class Truths(Mapping[str, float]):
    """True prices that arrive late: item -> dollars, in the order of their first arrival.

    Kept in a file of JSON lines, or in memory without one. A second price of an item corrects
    the first. ``damaged`` counts the lines that are no true prices.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.damaged = path and Path(path), 0
        self._prices: dict[str, float] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in what other processes have added to the file."""
        if self.path is None:
            return
        self._prices.clear()
        self.damaged = 0
        for block in whole_lines(self.path):
            for line in filter(bytes.strip, block.split(b"\n")):
                try:
                    row = orjson.loads(line)
                    self._prices[_text(row["item"])] = _dollars(row["price"])
                except (ValueError, KeyError, TypeError):
                    self.damaged += 1

    def add(self, prices: Mapping[str, float], time: float | None = None) -> None:
        """Add true prices in dollars, by ``item_key`` of the product's text.

        Raises ValueError, and adds none of them, if one is not above 0.
        """
        known = {_text(item): _dollars(price) for item, price in prices.items()}
        now = clock.time() if time is None else time
        if self.path is not None:
            rows = [{"time": now, "item": item, "price": known[item]} for item in known]
            append_lines(self.path, rows)
        self._prices |= known

    def __getitem__(self, item: str) -> float:
        return self._prices[item]

    def __iter__(self) -> Iterator[str]:
        return iter(self._prices)

    def __len__(self) -> int:
        return len(self._prices)


def as_table(observations: pa.Table | Sequence[Observation]) -> pa.Table:
    """Return observations as a table in the OBSERVATION schema, which may be one already."""
    if isinstance(observations, pa.Table):
        return observations.select(OBSERVATION.names).cast(OBSERVATION)
    rows = [_row(observation) for observation in observations]
    return pa.Table.from_pylist(rows, OBSERVATION)


_NUMBERS = ("price", "low", "high", "seconds")


def _row(observation: Observation) -> dict:
    row = {name: getattr(observation, name) for name in OBSERVATION.names}
    return row | {name: row[name] if math.isfinite(row[name]) else None for name in _NUMBERS}


def _parsed(block: bytes) -> pa.Table:
    """Return the observations in some lines, by Arrow where it can read all of them."""
    options = arrow_json.ParseOptions(
        explicit_schema=OBSERVATION, unexpected_field_behavior="ignore"
    )
    try:
        read = arrow_json.ReadOptions(use_threads=False, block_size=2 * len(block) + 1)
        found = arrow_json.read_json(io.BytesIO(block), read, options)
    except pa.ArrowInvalid:
        rows = [row for line in block.split(b"\n") if (row := _checked(line))]
        found = pa.Table.from_pylist(rows, OBSERVATION)
    return found.filter(reduce(pc.and_, [pc.is_valid(found[name]) for name in _NEEDED]))


def _checked(line: bytes) -> dict | None:
    """Return an observation's row, None for a line that is none."""
    try:
        row = {
            name: value for name, value in orjson.loads(line).items() if name in OBSERVATION.names
        }
        pa.Table.from_pylist([row], OBSERVATION)
        return row
    except (ValueError, TypeError, AttributeError, pa.ArrowInvalid):
        return None


def _short(text: str | None) -> str:
    """Keep the beginning of a text, without what is no text: half a character, a line break."""
    kept = " ".join(str(text or "")[: 2 * LONGEST].split())[:LONGEST]
    return kept.encode("utf-8", "replace").decode("utf-8")


def _text(item: object) -> str:
    if not isinstance(item, str) or not item:
        raise ValueError(f"{item!r} is no item: see item_key")
    return item


def _dollars(price: object) -> float:
    value = math.nan if isinstance(price, bool) else float(price)  # type: ignore[arg-type]
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{price!r} is no true price: dollars above 0 are needed")
    return value
