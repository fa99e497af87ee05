"""Files that are either whole or absent: atomic writes, fingerprints, versions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LIBRARIES = ("numpy", "pyarrow", "polars", "scikit-learn", "scipy", "datasets", "datasketch")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it to ``path`` if the block succeeds.

    A killed process leaves the old file, or none, but never half of one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it private; results are meant to be shared
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table so that equal tables give byte-identical files, however they are chunked."""
    with replacing(path) as temporary:
        pq.write_table(table.combine_chunks(), temporary, compression="zstd", row_group_size=65_536)


def write_json(value: Any, path: Path) -> None:
    """Write JSON a person can read; NaN is refused, since it is not JSON."""
    with replacing(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def fingerprint(table: pa.Table) -> str:
    """Return a hash (16 hex digits) of a table's names, types and values.

    It does not depend on how the table is chunked, nor on the Arrow version: what is hashed are
    the values themselves, with nulls told apart from empty ones.
    """
    digest = hashlib.sha256()
    for column_name in table.column_names:
        column = table[column_name]
        digest.update(f"{column_name}:{column.type}".encode())
        for part in _column_digests(column):
            digest.update(part)
    return digest.hexdigest()[:16]


def _column_digests(column: pa.ChunkedArray) -> list[bytes]:
    """Hash validity, lengths and values in separate streams, so that chunk borders vanish."""
    valid, lengths, values = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for chunk in column.chunks:
        valid.update(np.asarray(chunk.is_valid()).astype(np.uint8).tobytes())
        if pa.types.is_floating(chunk.type) or pa.types.is_integer(chunk.type):
            values.update(chunk.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
            continue
        texts = [str(v).encode("utf-8") for v in chunk.to_pylist() if v is not None]
        lengths.update(np.array([len(t) for t in texts], dtype=np.int64).tobytes())
        values.update(b"".join(texts))
    return [valid.digest(), lengths.digest(), values.digest()]


def versions() -> dict[str, str]:
    """Return the versions a result depends on: Python and the libraries that compute."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
