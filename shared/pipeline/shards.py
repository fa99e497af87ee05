"""Shards: a source cut into pieces, each curated on its own and stored whole or not at all.

``curate_shard`` is the step that every engine calls: this process, worker processes, or a cluster.
A shard is finished when its report is there, which is written last; a second run takes it as it is.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from shared.data.curation import COURSE, Report, Rules, curate
from shared.data.parsing import Block, Malformed, parse_lines, records_table
from shared.data.schema import ITEM
from shared.data.sources import first_lines
from shared.data.storage import replacing, write_json

SHARD_RECORDS = 16_384
"""Records in a shard: about 30 MB of JSON and half a second of work."""

_BATCH_ROWS = 256
_KEYS = ["id", "same", "order"]
STORED = pa.schema(
    [
        *(column for column in ITEM if column.name not in ("cluster", "split")),
        ("same", pa.uint64()),
        ("order", pa.uint64()),
    ]
)
"""A stored item: without cluster and split, which are not known yet. ``same`` is a hash of title
and text, ``order`` one of the whole item: of duplicates the one of lower order stays."""


@dataclass
class Shard:
    """Consecutive records of one part of a source (a file, say), both numbered from 0."""

    part: int
    number: int
    blocks: Iterable[Block]

    @property
    def name(self) -> str:
        """Name of the shard's files; sorted by it, shards are in the order of the source."""
        return f"{self.part:05d}-{self.number:06d}"


@dataclass
class ShardReport:
    """What happened to the records of a shard. ``digest`` is a hash of its lines."""

    name: str
    lines: int = 0
    report: Report = field(default_factory=Report)
    malformed: Malformed = field(default_factory=Malformed)
    digest: str = ""


def source_shards(
    parts: Sequence[Callable[[], Iterator[Block]]],
    *,
    first: int = 0,
    limit: int | None = None,
    records: int = SHARD_RECORDS,
) -> Iterator[Shard]:
    """Cut the parts of a source (see ``source_parts``), numbered from ``first``, into shards.

    A shard closes with the block that brings it to ``records`` lines. ``limit`` stops after so
    many lines in all.
    """
    for number, part in enumerate(parts, start=first):
        for shard in _cut(number, first_lines(part(), limit), records):
            if limit is not None:
                limit -= sum(bool(line.strip()) for block in shard.blocks for line in block.lines)
            yield shard
        if limit == 0:
            return


def _cut(part: int, blocks: Iterator[Block], records: int) -> Iterator[Shard]:
    shard, held = Shard(part, 0, []), 0
    for block in blocks:
        shard.blocks.append(block)
        held += len(block)
        if held >= records:
            yield shard
            shard, held = Shard(part, shard.number + 1, []), 0
    if shard.blocks:
        yield shard


def curate_shard(folder: Path, shard: Shard, needs: Rules = COURSE) -> ShardReport:
    """Curate a shard into ``folder`` (items, then the report), or return the report found there.

    Items are in the STORED schema, sorted by id. Safe to run twice, even at the same time.
    """
    if _report_path(folder, shard.name).exists():
        return read_report(folder, shard.name)
    digest = xxhash.xxh3_128()
    with _no_garbage_collection():
        items, report, malformed = curate_blocks(_hashed(shard.blocks, digest), needs)
    found = ShardReport(shard.name, report.rows_in, report, malformed, digest.hexdigest())
    stored = _stored(items)
    _write(stored.select(_KEYS), _path(folder, shard.name, "keys"))
    _write(stored, _path(folder, shard.name, "items"))
    _write_report(found, folder)
    return found


def curate_blocks(
    blocks: Iterable[Block], needs: Rules = COURSE
) -> tuple[pa.Table, Report, Malformed]:
    """Parse and curate blocks of JSON lines; malformed lines count as dropped records.

    Records without a price never become columns: half of a real shop has none, and no other
    reason to drop a record is asked before this one.
    """
    tables, rows, malformed = [], 0, Malformed()
    for block in blocks:
        records, found = parse_lines(block)
        rows += len(records) + found.count
        malformed += found
        priced = [record for record in records if record.get("price") is not None]
        tables.append(records_table(priced))
    priced = pa.concat_tables(tables)
    items, report = curate(priced, needs)
    without_price = rows - malformed.count - priced.num_rows
    for reason, count in (("malformed", malformed.count), ("no_price", without_price)):
        report.rows_in += count
        report.kept += count
        report.drop(reason, count)
    return items, report, malformed


def _hashed(blocks: Iterable[Block], digest: xxhash.xxh3_128) -> Iterator[Block]:
    for block in blocks:
        digest.update(block.text)
        yield block


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Records are a million small objects without a cycle; to look for one doubles the parsing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def finished_shards(folder: Path) -> frozenset[str]:
    """Return the names of the shards that are finished."""
    return frozenset(path.stem for path in folder.glob("*.json"))


def needed(shard: Shard, done: frozenset[str]) -> Shard:
    """Take the lines off a shard that is among the finished ones: nobody will read them."""
    return Shard(shard.part, shard.number, []) if shard.name in done else shard


def read_report(folder: Path, name: str) -> ShardReport:
    """Return the report of a finished shard."""
    value = json.loads(_report_path(folder, name).read_text(encoding="utf-8"))
    return ShardReport(
        name,
        value["lines"],
        Report.from_dict(value["report"]),
        Malformed(**value["malformed"]),
        value["digest"],
    )


def read_keys(folder: Path, name: str) -> pa.Table:
    """Return ``id``, ``same`` and ``order`` of a shard's items: some 40 bytes an item."""
    with pa.OSFile(str(_path(folder, name, "keys"))) as file:
        return pa.ipc.open_file(file).read_all()


def read_rows(folder: Path, name: str, rows: np.ndarray) -> pa.Table:
    """Return some items of a shard, by number, ascending; only batches that hold one are read."""
    batches, inside = np.unique(rows // _BATCH_ROWS, return_inverse=True)
    with pa.OSFile(str(_path(folder, name, "items"))) as file:
        reader = pa.ipc.open_file(file)
        table = pa.Table.from_batches([reader.get_batch(int(b)) for b in batches], STORED)
    return table.take(inside * _BATCH_ROWS + rows % _BATCH_ROWS)


def _stored(items: pa.Table) -> pa.Table:
    """Name items that have no id after their text, add the keys, sort by id."""
    raw = [items[name].cast(pa.binary()).to_pylist() for name in ("title", "text", "details")]
    ids, same, order = [], [], []
    for found, title, text, details, category, price in zip(
        items["id"].to_pylist(), *raw, items["category"].to_pylist(), items["price"].to_pylist(),
        strict=True,
    ):  # fmt: skip
        ids.append(found or f"text-{hashlib.sha256(text).hexdigest()[:12]}")
        same.append(xxhash.xxh3_64_intdigest(title + b"\0" + text))
        rest = f"{same[-1]} {price!r} {category} ".encode() + details
        order.append(xxhash.xxh3_64_intdigest(rest))
    keys = [pa.array(ids, pa.string()), pa.array(same, pa.uint64()), pa.array(order, pa.uint64())]
    columns = [items[name] for name in STORED.names[1:-2]]
    stored = pa.table([keys[0], *columns, *keys[1:]], schema=STORED)
    return stored.sort_by([("id", "ascending"), ("order", "ascending")])


def _write(items: pa.Table, path: Path) -> None:
    with replacing(path) as temporary, pa.ipc.new_file(temporary, items.schema) as file:
        file.write_table(items.combine_chunks(), max_chunksize=_BATCH_ROWS)


def _write_report(found: ShardReport, folder: Path) -> None:
    value = {
        "lines": found.lines,
        "report": found.report.to_dict(),
        "malformed": vars(found.malformed),
        "digest": found.digest,
    }
    write_json(value, _report_path(folder, found.name))


def _path(folder: Path, name: str, kind: str) -> Path:
    return folder / f"{name}.{kind}.arrow"


def _report_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
