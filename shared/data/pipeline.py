"""From a source to a folder of items: read, curate, cluster, split, store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from shared.data import duplicates, sources
from shared.data.curation import Report, assemble, curate
from shared.data.parsing import Malformed, SourceError, parse_block
from shared.data.schema import ITEM, PRICE_BANDS, SPLITS, Product
from shared.data.splits import assign_splits
from shared.data.storage import fingerprint, versions, write_json, write_parquet
from shared.settings import Settings

if TYPE_CHECKING:
    from datasets import Dataset

_CODE = ("curation", "duplicates", "pipeline", "parsing", "schema", "sources", "splits", "text")


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


def prepare(
    source: str,
    out: Path,
    *,
    seed: int = 42,
    size: int = 24_000,
    amazon: str | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> Items:
    """Curate a source into the folder ``out``, or open it if that very work is already there.

    ``size`` is the number of records the embedded catalogue makes; ``limit`` stops after so many
    records of any source. Raises SourceError, and then leaves ``out`` as it was.
    """
    out = Path(out)
    request = _request(source, seed, size, amazon, limit)
    manifest_path = out / "manifest.json"
    if manifest_path.is_file():
        found = open_items(out)
        if found.manifest.get("request") == request:
            return found
    items, report, origin = _curate_source(source, seed, size, amazon, limit, progress)
    items = _group_and_split(items, report, seed, progress)
    if not items.num_rows:
        raise SourceError(f"{source}: no record survived curation: {report.to_dict()}")
    manifest_path.unlink(missing_ok=True)  # while it is absent, the folder counts as unfinished
    write_parquet(items, out / "items.parquet")
    manifest = _manifest(items, report, origin, request)
    write_json(manifest, manifest_path)
    return Items(out, manifest)


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
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: damaged ({error!r}); curate again") from error
    return Items(Path(folder), manifest)


def course_items(settings: Settings, *, progress: bool = True) -> Items:
    """Curate the records of these settings, or open what an earlier lesson curated from them."""
    limit = settings.size if settings.source.startswith("amazon:") else None
    return prepare(
        settings.source,
        settings.data,
        seed=settings.seed,
        size=settings.size,
        amazon=settings.amazon,
        limit=limit,
        progress=progress,
    )


def read_records(settings: Settings, limit: int | None = None) -> pa.Table:
    """Return the first ``limit`` raw records of a source, in the RECORD schema."""
    parsed = _parsed(settings.source, settings.size, settings.seed, settings.amazon, limit)
    return pa.concat_tables(table for table, _ in parsed)


def read_products(
    source: str, *, size: int = 24_000, seed: int = 42, amazon: str | None = None
) -> tuple[pa.Table, Malformed]:
    """Read every record of a source as an item to be priced; nothing is curated away.

    Returns a table in the ITEM schema (``price`` null where unknown, ``split`` and ``cluster``
    null) and what was malformed. Ids are unique: a record without one is named after its
    place, and a repeated id gets a suffix ``#2``, ``#3``…
    """
    tables, malformed = [], Malformed()
    for table, found in _parsed(source, size, seed, amazon, None):
        malformed += found
        tables.append(assemble(table))
    items = pa.concat_tables(tables)
    ids = pa.array(_unique(items["id"].to_pylist()), pa.string())
    return items.set_column(items.column_names.index("id"), "id", ids), malformed


def products(items: pa.Table | Dataset) -> list[Product]:
    """Return items as products, without their prices."""
    table = items if isinstance(items, pa.Table) else items.with_format("arrow")[:]
    return [Product.from_item(row) for row in table.select(list(Product.__slots__)).to_pylist()]


def price_mix(prices: np.ndarray) -> dict[str, float]:
    """Return the share of each price band (for example "25-50") among prices in dollars."""
    counts, _ = np.histogram(prices, [low for low, _ in PRICE_BANDS.values()] + [np.inf])
    return {n: float(c / max(len(prices), 1)) for n, c in zip(PRICE_BANDS, counts, strict=True)}


def _parsed(
    source: str, size: int, seed: int, amazon: str | None, limit: int | None
) -> Iterator[tuple[pa.Table, Malformed]]:
    """Parse block after block, and refuse the source when too much of it is malformed."""
    lines, malformed = 0, Malformed()
    for block in sources.source_blocks(source, size=size, seed=seed, amazon=amazon):
        if limit is not None:
            block.lines = block.lines[: limit - lines]
        lines += len(block.lines)
        table, found = parse_block(block)
        malformed += found
        if lines > 1000:  # early, so that a large file of another kind fails at once
            malformed.check(lines)
        yield table, found
        if lines == limit:
            break
    malformed.check(lines)


def _curate_source(
    source: str, seed: int, size: int, amazon: str | None, limit: int | None, progress: bool
) -> tuple[pa.Table, Report, dict]:
    report, malformed, tables = Report(), Malformed(), [ITEM.empty_table()]
    raw = hashlib.sha256()
    with tqdm(desc="curate", unit=" records", disable=not progress) as bar:
        for table, found in _parsed(source, size, seed, amazon, limit):
            raw.update(fingerprint(table).encode())
            items, part = curate(table)
            tables.append(items)
            report = report + part
            malformed += found
            bar.update(table.num_rows + found.count)
    report.rows_in += malformed.count
    report.kept += malformed.count
    report.drop("malformed", malformed.count)
    origin = {"records_fingerprint": raw.hexdigest()[:16], "malformed": malformed.examples}
    return pa.concat_tables(tables), report, origin


def _group_and_split(items: pa.Table, report: Report, seed: int, progress: bool) -> pa.Table:
    """Drop exact duplicates, cluster near ones, split; the result is sorted by id."""
    frame = pl.from_arrow(items).with_columns(
        id=pl.when(pl.col("id").fill_null("") == "")
        .then(pl.concat_str(pl.lit("text-"), pl.col("text").map_elements(_digest, pl.String)))
        .otherwise(pl.col("id"))
    )
    # Sorted first, so that which of two duplicates stays does not depend on the order of loading.
    frame = frame.sort("id", "text", "price", maintain_order=True)
    unique = frame.unique("id", keep="first", maintain_order=True)
    unique = unique.unique(["title", "text"], keep="first", maintain_order=True)
    report.drop("duplicate", frame.height - unique.height)
    columns = (unique[name].to_list() for name in ("id", "title", "text"))
    keys = duplicates.cluster(*columns, progress=progress)
    unique = unique.with_columns(
        cluster=pl.Series(keys, dtype=pl.String),
        split=pl.Series(assign_splits(keys, seed), dtype=pl.String),
    )
    return unique.to_arrow().cast(ITEM)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _unique(ids: list[str | None]) -> list[str]:
    seen: dict[str, int] = {}
    taken = set(ids)
    unique = []
    for place, found in enumerate(ids, start=1):
        name = found or f"record-{place}"
        seen[name] = seen.get(name, 0) + 1
        candidate = name if seen[name] == 1 else f"{name}#{seen[name]}"
        while candidate != name and candidate in taken:
            seen[name] += 1
            candidate = f"{name}#{seen[name]}"
        taken.add(candidate)
        unique.append(candidate)
    return unique


def _request(source: str, seed: int, size: int, amazon: str | None, limit: int | None) -> dict:
    """Describe the work, so that the same work is recognised and any other is done anew."""
    described: dict = {"source": source, "seed": seed, "limit": limit, "code": _code_hash()}
    if source == "embedded":
        described["size"] = size
    elif source.startswith("amazon:"):
        described["amazon"] = amazon or sources.AMAZON
    else:
        files = sources.source_files(source)
        described["source"] = Path(source).name
        described["files"] = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return described


def _code_hash() -> str:
    """Hash the code that decides what curation gives: a changed rule is new work."""
    here = Path(__file__).parent
    files = [here / f"{name}.py" for name in _CODE]
    files += sorted(p for p in (here.parent / "embedded").iterdir() if p.is_file())
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


def _manifest(items: pa.Table, report: Report, origin: dict, request: dict) -> dict:
    prices = items["price"].to_numpy()
    splits = items["split"].value_counts().to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in splits}
    return {
        "fingerprint": fingerprint(items),
        **report.to_dict(),
        "splits": {name: counts.get(name, 0) for name in SPLITS},
        "clusters": len(items["cluster"].unique()),
        "price_mix": price_mix(prices),
        "price_mean": round(float(prices.mean()), 2),
        "price_median": round(float(np.median(prices)), 2),
        "origin": origin,
        "request": request,
        "versions": versions(),
    }
