"""Curation on a cluster: the step of the worker processes, called by Ray Data on many machines.

Ray is an extra (``pip install 'ray[data]'``) and is imported only here. Its workers read the
source and write the shards themselves: source and ``--out`` must be on a file system that all
machines see under the same path. Only reports travel back.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from shared.data.curation import COURSE, Rules
from shared.data.parsing import SourceError
from shared.pipeline.shards import (
    SHARD_RECORDS,
    ShardReport,
    curate_shard,
    finished_shards,
    needed,
    source_shards,
)

_READER_CPUS = 0.5
"""Unpacking takes less than a core; and Ray keeps steps apart only if they ask for different
resources: in one they would curate a file on one core."""


class RayMissing(ImportError):
    """Ray is not installed; the message says how to get it, or do without."""


def curate_on_ray(
    parts: list, work: Path, *, limit: int | None = None, records: int = SHARD_RECORDS,
    needs: Rules = COURSE,
) -> Iterator[ShardReport]:  # fmt: skip
    """Curate the parts of a source on a Ray cluster; yield the reports of the shards, in order.

    Connects to the cluster of ``RAY_ADDRESS``, or to one that runs on this machine, and else
    starts one here. Files are read side by side, one task a file; with a ``limit`` one task reads
    all. A shard whose worker dies is done again, by another. Raises RayMissing without Ray.
    """
    ray, ours = _ray()
    tasks = [(0, parts)] if limit is not None else [(i, [part]) for i, part in enumerate(parts)]
    options = {"batch_size": 1, "batch_format": "pyarrow"}
    try:
        rows = ray.data.from_items([_row(t) for t in tasks], override_num_blocks=len(tasks))
        # Fixed now: a read that Ray does again must give what it gave, and not skip by then.
        read = partial(_read, done=finished_shards(work), limit=limit, records=records)
        rows = rows.map_batches(read, num_cpus=_READER_CPUS, **options)
        curate = partial(_curate, work=work.absolute(), needs=needs)
        rows = rows.map_batches(curate, num_cpus=1, **options)
        for row in rows.iter_rows():
            found = pickle.loads(row["value"])
            if isinstance(found, SourceError):
                raise found
            yield found
    finally:
        if ours:
            ray.shutdown()


def _read(
    batch: pa.Table, done: frozenset[str], limit: int | None, records: int
) -> Iterator[pa.Table]:
    """Cut parts of the source into shards, a row each; a bad source becomes a row as well."""
    first, parts = pickle.loads(batch["value"][0].as_py())
    try:
        for shard in source_shards(parts, first=first, limit=limit, records=records):
            yield pa.Table.from_pylist([_row(needed(shard, done))], _ROW)
    except SourceError as error:  # not raised here: Ray would take it for a reason to try again
        yield pa.Table.from_pylist([_row(error)], _ROW)


def _curate(batch: pa.Table, work: Path, needs: Rules) -> pa.Table:
    found = pickle.loads(batch["value"][0].as_buffer())
    if not isinstance(found, SourceError):
        found = curate_shard(work, found, needs)
    return pa.Table.from_pylist([_row(found)], _ROW)


_ROW = pa.schema([("value", pa.large_binary())])


def _row(value: Any) -> dict[str, bytes]:
    return {"value": pickle.dumps(value, protocol=5)}


def _ray() -> tuple[Any, bool]:
    """Import Ray, connect if nobody has; return it, and whether the connection is ours to end.

    It neither reports usage nor draws bars, and sends the workers this very package.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RayMissing(
            "the engine 'ray' needs Ray, which is not installed: pip install 'ray[data]' "
            "(or use the local engine, which gives the same items)"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        package = str(Path(__file__).resolve().parents[1])
        environment = {"py_modules": [package], "env_vars": {"POLARS_MAX_THREADS": "1"}}
        ray.init(runtime_env=environment, logging_level=logging.ERROR, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.target_max_block_size = 2**20  # a shard is a block, not several to a block
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray, ours
