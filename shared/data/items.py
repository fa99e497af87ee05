"""A folder of curated items, and what is made of it: tables, data sets, products."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.data.parsing import SourceError
from shared.data.schema import ITEM, PRICE_BANDS, Product

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Items:
    """A folder of curated items: ``items.parquet``, and ``manifest.json`` that vouches for it."""

    folder: Path
    manifest: dict

    def table(self, split: str | None = None) -> pa.Table:
        """Return the items of one split, or of all, as an Arrow table in the ITEM schema."""
        wanted = None if split is None else [("split", "=", split)]
        return pq.read_table(self.folder / "items.parquet", filters=wanted, schema=ITEM)

    def dataset(self, split: str) -> Dataset:
        """Return the items of one split as a ``datasets.Dataset``."""
        from datasets import Dataset

        return Dataset(self.table(split))

    @property
    def train(self) -> Dataset:
        """Items to learn from."""
        return self.dataset("train")

    @property
    def validation(self) -> Dataset:
        """Items to make choices with: prompts, weights, settings."""
        return self.dataset("validation")

    @property
    def test(self) -> Dataset:
        """Items for the final table, and for nothing else."""
        return self.dataset("test")

    @property
    def card(self) -> str:
        """The data card, as Markdown; ``card.json`` beside it has the same for programs."""
        return (self.folder / "card.md").read_text(encoding="utf-8")


def open_items(folder: Path) -> Items:
    """Open a folder written by ``prepare``; raise SourceError if it is not one, or unfinished."""
    path = Path(folder) / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["fingerprint"], manifest["rows_in"]
    except FileNotFoundError:
        raise SourceError(
            f"{folder}: holds no manifest.json; make it with: python -m shared curate SOURCE "
            f"--out {folder}"
        ) from None
    except NotADirectoryError:
        raise SourceError(
            f"{folder}: is a file, and a folder of curated items is needed; make one with: "
            f"python -m shared curate {folder} --out DIR"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: damaged ({error!r}); curate again") from error
    return Items(Path(folder), manifest)


def products(items: pa.Table | Dataset) -> list[Product]:
    """Return items as products, without their prices."""
    table = items if isinstance(items, pa.Table) else items.with_format("arrow")[:]
    return [Product.from_item(row) for row in table.select(list(Product.__slots__)).to_pylist()]


def price_mix(prices: np.ndarray) -> dict[str, float]:
    """Return the share of each price band (for example "25-50") among prices in dollars."""
    counts, _ = np.histogram(prices, [low for low, _ in PRICE_BANDS.values()] + [np.inf])
    return {n: float(c / max(len(prices), 1)) for n, c in zip(PRICE_BANDS, counts, strict=True)}
