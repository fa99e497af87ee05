"""From a source to a folder of items: read, curate, cluster, split, store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from shared.data import sources
from shared.data.curation import COURSE, Report, Rules, assemble
from shared.data.items import Items, open_items, price_mix
from shared.data.parsing import Malformed, SourceError, SourceInterrupted, parse_block
from shared.data.schema import SPLITS
from shared.data.storage import versions, write_json, write_text
from shared.pipeline import card, merge
from shared.pipeline.shards import (
    SHARD_RECORDS,
    ShardReport,
    curate_shard,
    finished_shards,
    needed,
    source_shards,
)
from shared.pipeline.workers import run
from shared.settings import Settings

_RULES = "curation duplicates items parsing schema sources splits storage text".split()
_STEPS = "card merge shards steps".split()
ENGINES = ("local", "ray")


def prepare(
    source: str,
    out: Path,
    *,
    seed: int = 42,
    size: int = 24_000,
    amazon: str | None = None,
    limit: int | None = None,
    progress: bool = True,
    engine: str = "local",
    workers: int | None = None,
    shard_records: int = SHARD_RECORDS,
    needs: Rules = COURSE,
    groups: Mapping[str, str] | None = None,
) -> Items:
    """Curate a source into the folder ``out``, or open it if that very work is already there.

    ``size`` is the number of records the embedded catalogue makes; ``limit`` stops after so many
    records of any source. A source of more than two shards (of ``shard_records``) is curated by
    ``workers`` processes, by default one a core, or with ``engine="ray"`` on a cluster; the
    items are the same. Finished shards are kept in ``out/.work``: a run that was killed goes on
    from there. ``needs``: what a record must have. ``groups`` (id -> name): items of one group
    go into one split, as near-duplicates do. Raises SourceError, and then leaves ``out`` as it
    was, but for the finished shards of a stream that broke off.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is not one of: {', '.join(ENGINES)}")
    out = Path(out)
    request = _request(source, seed, size, amazon, limit) | _special(needs, groups)
    if found := _done(out, request):
        return found
    parts = sources.source_parts(source, size=size, seed=seed, amazon=amazon)
    with _work_folder(out, [request, shard_records]) as work:
        if found := _done(out, request):  # another process was at it, and we have waited for it
            return found
        reports = _reports(parts, work, engine, workers, limit, shard_records, needs)
        names, report, origin = _collect(reports, progress)
        order, duplicates = merge.order_items(work, names)
        report.drop("duplicate", duplicates)
        if not report.kept:
            raise SourceError(f"{source}: no record survived curation: {report.to_dict()}")
        firsts = merge.cluster_items(
            order, titles=needs.same_title, workers=workers, progress=progress
        )
        firsts = merge.with_groups(order, firsts, groups) if groups else firsts
        items = work / "items.parquet"
        written = merge.write_items(order, firsts, seed, items, progress=progress)
        facts = card.make_card(source, report, written, firsts)
        manifest = _manifest(written, report, firsts, origin, request)
        return _publish(out, items, facts, manifest)


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
    source: str,
    *,
    size: int = 24_000,
    seed: int = 42,
    amazon: str | None = None,
    limit: int | None = None,
) -> tuple[pa.Table, Malformed]:
    """Read the records of a source, or the first ``limit``, as items to be priced.

    Nothing is curated away.

    Returns a table in the ITEM schema (``price`` null where unknown, ``split`` and ``cluster``
    null) and what was malformed. Ids are unique: a record without one is named after its
    place, and a repeated id gets a suffix ``#2``, ``#3``…
    """
    tables, malformed = [], Malformed()
    for table, found in _parsed(source, size, seed, amazon, limit):
        malformed += found
        tables.append(assemble(table))
    items = pa.concat_tables(tables)
    ids = pa.array(_unique(items["id"].to_pylist()), pa.string())
    return items.set_column(items.column_names.index("id"), "id", ids), malformed


def _parsed(
    source: str, size: int, seed: int, amazon: str | None, limit: int | None
) -> Iterator[tuple[pa.Table, Malformed]]:
    """Parse block after block, and refuse the source when too much of it is malformed."""
    lines, malformed = 0, Malformed()
    blocks = sources.source_blocks(source, size=size, seed=seed, amazon=amazon)
    for block in sources.first_lines(blocks, limit):
        table, found = parse_block(block)
        lines += table.num_rows + found.count
        malformed += found
        if lines > 1000:  # early, so that a large file of another kind fails at once
            malformed.check(lines)
        yield table, found
    malformed.check(lines)


def _reports(
    parts: list, work: Path, engine: str, workers: int | None, limit: int | None, records: int,
    needs: Rules,
) -> Iterator[ShardReport]:  # fmt: skip
    """Curate every shard that is not finished, and yield the reports of all, in order."""
    if engine == "ray":
        from shared.pipeline.cluster_engine import curate_on_ray

        return curate_on_ray(parts, work, limit=limit, records=records, needs=needs)
    shards = source_shards(parts, limit=limit, records=records)
    done = finished_shards(work)
    tasks = (needed(shard, done) for shard in shards)
    return run(partial(curate_shard, work, needs=needs), tasks, workers=workers)


def _collect(reports: Iterator[ShardReport], progress: bool) -> tuple[list[str], Report, dict]:
    """Add up the reports of the shards; refuse the source when too much of it is malformed."""
    names, lines, report, malformed = [], 0, Report(), Malformed()
    raw = hashlib.sha256()
    with (
        contextlib.closing(reports),
        tqdm(desc="curate", unit=" records", disable=not progress) as bar,
    ):
        for found in reports:
            names.append(found.name)
            raw.update(found.digest.encode())
            lines += found.lines
            report += found.report
            malformed += found.malformed
            if lines > 1000:  # early, so that a large file of another kind fails at once
                malformed.check(lines)
            bar.update(found.lines)
    malformed.check(lines)
    origin = {"records_fingerprint": raw.hexdigest()[:16], "malformed": malformed.examples}
    return names, report, origin


@contextlib.contextmanager
def _work_folder(out: Path, request: list) -> Iterator[Path]:
    """Yield the folder of unfinished work for this request, ours alone; clean up after failures.

    It stays after a crash, a Ctrl-C or a connection that broke, and goes when a source is refused.
    """
    from filelock import FileLock

    new = not out.exists()
    name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
    work = out / ".work" / name
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".work" / "lock"):
        try:
            yield work
        except SourceError as error:
            kept = isinstance(error, SourceInterrupted) and any(work.glob("*.json"))
            if not kept:
                shutil.rmtree(out if new else out / ".work", ignore_errors=True)
            raise


def _publish(out: Path, items: Path, facts: dict, manifest: dict) -> Items:
    """Put the results where they are looked for; the manifest comes last and vouches for all."""
    (out / "manifest.json").unlink(missing_ok=True)
    items.replace(out / "items.parquet")
    write_json(facts, out / "card.json")
    write_text(card.to_markdown(facts), out / "card.md")
    write_json(manifest, out / "manifest.json")
    shutil.rmtree(out / ".work", ignore_errors=True)
    return Items(out, manifest)


def _done(out: Path, request: dict) -> Items | None:
    """Return the items in ``out`` if they are the ones of this request."""
    if not (out / "manifest.json").is_file():
        return None
    found = open_items(out)
    return found if found.manifest.get("request") == request else None


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


def _special(needs: Rules, groups: Mapping[str, str] | None) -> dict:
    """Describe what is not as in the course; nothing for the course's own items."""
    described: dict = {} if needs == COURSE else {"needs": vars(needs)}
    if groups:
        text = json.dumps(sorted(groups.items()))
        described["groups"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return described


def _code_hash() -> str:
    """Hash the code that decides what curation gives: a changed rule is new work."""
    package = Path(__file__).parents[1]
    files = [package / "data" / f"{name}.py" for name in _RULES]
    files += [package / "pipeline" / f"{name}.py" for name in _STEPS]
    files += sorted(p for p in (package / "embedded").iterdir() if p.is_file())
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


def _manifest(
    written: merge.Written, report: Report, firsts: np.ndarray, origin: dict, request: dict
) -> dict:
    prices = written.prices
    return {
        "fingerprint": written.fingerprint,
        **report.to_dict(),
        "splits": {name: written.splits[name] for name in SPLITS},
        "clusters": len(np.unique(firsts)),
        "price_mix": price_mix(prices),
        "price_mean": round(float(prices.mean()), 2),
        "price_median": round(float(np.median(prices)), 2),
        "origin": origin,
        "request": request,
        "versions": versions(),
    }
