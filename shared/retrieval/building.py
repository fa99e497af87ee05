"""Filling an index: batch after batch, and after a kill -9 on from the last one.

The manifest is written last, so its existence means that the index is whole. Until then a note
says what is being built, and nobody can open it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from shared.data.storage import fingerprint, versions, write_json
from shared.evaluation.inputs import item_table
from shared.retrieval.embeddings import Embedding, unit
from shared.retrieval.exact import Exact, recall
from shared.retrieval.found import FACTS, IndexUnusable, Version
from shared.retrieval.leaving_out import LeftOut
from shared.retrieval.table import KINDS, NAME, Ann, Table, exists, facts, with_vectors

MANIFEST, NOTE, LOCK, EMBEDDING = "manifest.json", "building.json", ".lock", "embedding"
BATCH = 4_096
"""Items embedded and written at once: what a kill costs at most."""

ANN_FROM = 20_000
"""Rows from which an approximate index is made. With fewer, comparing a query with every row takes
some milliseconds, is exact, and needs no index."""

PER_PARTITION = 4_096
GOAL, MARGIN = 0.95, 0.02
"""Recall that a tuned index has to reach, and how much more it is tuned for: other queries than
those of the tuning may do worse."""

SAMPLE = 200
"""Looked up to tune an approximate index: two stored products in one, since what will be asked is
like what is stored, but not the same, and stored ones alone are too easy to find."""


@dataclass(frozen=True)
class Request:
    """What an index is built from: the same request finds its index done, or goes on with it."""

    items: str
    embedding: str
    ann: str
    ann_from: int
    seed: int
    format: int = 1


def build(
    items: pa.Table, embedding: Embedding, folder: Path, *, ann: str = "flat",
    ann_from: int = ANN_FROM, seed: int = 42, progress: bool = True,
) -> None:  # fmt: skip
    """Fill an index in ``folder``, see ``ProductIndex.build``."""
    if ann not in KINDS:
        raise ValueError(f"ann={ann!r} is not one of {', '.join(KINDS)}")
    items, folder = priced(items), Path(folder)
    if not len(items):
        raise ValueError("there are no items to build an index of")
    identity = fingerprint(items.select(list(FACTS)))
    request = Request(identity, embedding.fingerprint, ann, ann_from, seed)
    _refuse_foreign(folder)
    with alone(folder):
        if _done(folder, request):
            return
        table = _started(folder, request, embedding, items)
        _fill(table, items, embedding, progress)
        table.index_words()
        tuned = approximate(table, ann, ann_from, seed)
        note = f"built of {len(items):,} items"
        manifest = {
            "request": asdict(request),
            "embedding": {n: getattr(embedding, n) for n in ("name", "size", "fingerprint")},
            "libraries": versions(),
        }
        publish(folder, manifest, table, tuned, note)
        (folder / NOTE).unlink(missing_ok=True)


def priced(items: Any) -> pa.Table:
    """Return items in the ITEM schema; raise ValueError where ids repeat or prices are missing."""
    table = item_table(items)
    priced = pc.fill_null(pc.greater(table["price"], 0), False)
    bad = table["id"].filter(pc.invert(priced))
    if len(bad):
        raise ValueError(
            f"{len(bad):,} items have no price above 0, the first is {bad[0].as_py()!r}: "
            "leave them out"
        )
    return table


def publish(folder: Path, manifest: dict, table: Table, ann: Ann | None, note: str) -> dict:
    """Write the manifest that makes the table's newest state the one that is read; return it."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    how = asdict(ann) if ann else None
    state = Version(table.version, now, note, len(table), table.fingerprint(), how)
    manifest = manifest | {
        "version": state.number,
        "versions": [*manifest.get("versions", []), asdict(state)],
    }
    write_json(manifest, folder / MANIFEST)
    return manifest


def read_manifest(folder: Path) -> dict:
    """Return what vouches for an index; raise IndexUnusable if there is none, or half of one."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["version"], manifest["embedding"]["fingerprint"], manifest["versions"][-1]["rows"]
        return manifest
    except FileNotFoundError:
        if (Path(folder) / NOTE).is_file():
            rows = len(Table(folder)) if exists(folder) else 0
            raise IndexUnusable(
                f"{folder}: building this index was cut off after {rows:,} items; run the same "
                "ProductIndex.build(...) again, and it goes on there"
            ) from None
        raise IndexUnusable(
            f"{folder}: holds no index; make one with ProductIndex.build(items, embedding, folder)"
        ) from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise IndexUnusable(f"{path}: damaged ({error!r}); build the index again") from error


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time write to an index; a second one is told so at once."""
    from filelock import FileLock, Timeout

    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(Path(folder) / LOCK, timeout=0):
            yield
    except Timeout:
        raise IndexUnusable(f"another process writes to {folder}: wait for it") from None


def approximate(table: Table, kind: str, at_least: int, seed: int) -> Ann | None:
    """Make the approximate index and tune it, or return None where the table needs none."""
    if len(table) < at_least:
        return None
    ann = Ann(kind, max(round(len(table) / PER_PARTITION), 1))
    table.index_vectors(ann)
    exact, draw = Exact(table), np.random.default_rng(seed)
    drawn = draw.choice(len(exact.ids), min(SAMPLE, len(exact.ids)), replace=False)
    queries = unit(exact.vectors[drawn] + exact.vectors[draw.permutation(drawn)])
    return tuned(table, ann, exact, queries, LeftOut(len(drawn), ids=list(exact.ids[drawn])))


def tuned(
    table: Table, ann: Ann, exact: Exact, queries: np.ndarray, out: LeftOut, *,
    k: int = 5, goal: float = GOAL + MARGIN,
) -> Ann:  # fmt: skip
    """Return the cheapest way to search that finds ``goal`` of the k true neighbours, or the best.

    ``queries`` are m vectors, shape (m, size), and ``out`` what they must not find.
    """
    true = [[s for _, s in pairs] for pairs in exact.nearest(queries, k, out)]
    tries = []
    for refine, probes in product(_refines(ann.kind), _probes(ann.partitions)):
        how = replace(ann, nprobes=probes, refine=refine)
        rows = out.search(lambda i, k, where, how=how: table.nearest(queries[i], k, how, where), k)
        found = [[row["similarity"] for row in near] for near in rows]
        tries.append(replace(how, recall=recall(found, true)))
        if tries[-1].recall >= goal:
            break
    return max(tries, key=lambda tried: tried.recall)


def _refines(kind: str) -> tuple[int | None, ...]:
    # Distances of compressed vectors are guesses: unless they are refined, similarities are, too.
    return (None,) if kind == "flat" else (1, 4, 16, 64)


def _probes(partitions: int) -> list[int]:
    return [2**n for n in range(partitions.bit_length()) if 2**n < partitions] + [partitions]


def _done(folder: Path, request: Request) -> bool:
    """Tell whether the folder holds just this index, not changed since it was built."""
    try:
        manifest = read_manifest(folder)
    except IndexUnusable:
        return False
    return manifest.get("request") == asdict(request) and len(manifest["versions"]) == 1


def _started(folder: Path, request: Request, embedding: Embedding, items: pa.Table) -> Table:
    """Return the table to go on with: one that was cut off, or a new one, empty."""
    note = folder / NOTE
    if not (folder / MANIFEST).exists() and note.is_file() and exists(folder):
        with contextlib.suppress(ValueError, TypeError):  # a note that cannot be read is no note
            if json.loads(note.read_text(encoding="utf-8")) == asdict(request):
                table = Table(folder)
                stored, expected = table.scan(["id"])["id"], items["id"][: len(table)]
                if set(stored.to_pylist()) == set(expected.to_pylist()):
                    return table
    (folder / MANIFEST).unlink(missing_ok=True)
    note.unlink(missing_ok=True)
    shutil.rmtree(folder / EMBEDDING, ignore_errors=True)
    (folder / EMBEDDING).mkdir()
    if hasattr(embedding, "save"):
        embedding.save(folder / EMBEDDING)
    table = Table.create(folder, embedding.size)
    write_json(asdict(request), note)
    return table


def _fill(table: Table, items: pa.Table, embedding: Embedding, progress: bool) -> None:
    done = len(table)
    with tqdm(
        total=len(items), initial=done, desc="index", unit="item", disable=not progress
    ) as bar:
        for start in range(done, len(items), BATCH):
            batch = facts(items.slice(start, BATCH))
            table.add(with_vectors(batch, embedding.embed(batch["text"].to_pylist())))
            bar.update(len(batch))
    table.optimize()  # one file instead of one a batch


def _refuse_foreign(folder: Path) -> None:
    ours = {MANIFEST, NOTE, EMBEDDING, f"{NAME}.lance"}
    if not folder.is_dir():
        return
    other = sorted(p.name for p in folder.iterdir() if p.name not in ours and p.name[0] != ".")
    if other:
        raise FileExistsError(f"{folder} holds {other[0]}, which is no index: choose another")
