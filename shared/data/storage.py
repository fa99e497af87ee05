"""Files that are either whole or absent: atomic writes, fingerprints, versions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 16_384
PARQUET = {"compression": "zstd"}
"""How every Parquet file is written, in groups of so many rows."""

LIBRARIES = (
    *("numpy", "pyarrow", "polars", "scikit-learn", "scipy", "datasets", "datasketch"),
    *("torch", "lightgbm", "lancedb"),
)


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


@contextlib.contextmanager
def replacing_folder(folder: Path, mark: str, what: str) -> Iterator[Path]:
    """Yield a new folder beside ``folder``; give it that name if the block succeeds.

    A folder of this name is replaced if it is empty or holds ``mark``, the file by which ours are
    known. Raises FileExistsError if it holds anything else: it is not ``what`` was written before.

    At every moment there is a whole folder, the old one or the new one; a process killed between
    two renames leaves both beside it, under names that begin with a point.
    """
    folder = Path(folder).resolve()  # what a link leads to is replaced; "." has a name, too
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, and no folder for {what}: choose another")
    if folder.exists() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise FileExistsError(f"{folder} holds files that are no {what}: choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    old = building.with_name(f"{building.name}.old")
    try:
        yield building
        building.chmod(0o755)  # mkdtemp makes it private; results are meant to be shared
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
        building.rename(folder)
    finally:
        if old.exists() and not folder.exists():  # stopped between the two
            old.rename(folder)
        for rest in (building, old):
            shutil.rmtree(rest, ignore_errors=True)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table so that equal tables give byte-identical files, however they are chunked."""
    with replacing(path) as temporary:
        pq.write_table(table.combine_chunks(), temporary, row_group_size=ROW_GROUP, **PARQUET)


def write_json(value: Any, path: Path) -> None:
    """Write JSON a person can read; NaN is refused, since it is not JSON."""
    write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, which may be larger than memory."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(table: pa.Table) -> str:
    """Return a hash (16 hex digits) of a table's names, types and values.

    It does not depend on how the table is chunked, nor on the Arrow version: what is hashed are
    the values themselves, with nulls told apart from empty ones.
    """
    whole = Fingerprint(table.schema)
    whole.update(table)
    return whole.digest()


class Fingerprint:
    """The ``fingerprint`` of a table that is never in memory as a whole."""

    def __init__(self, schema: pa.Schema) -> None:
        # Validity, lengths and values in separate streams, so that chunk borders vanish.
        self._columns = {field: [hashlib.sha256() for _ in range(3)] for field in schema}

    def update(self, table: pa.Table) -> None:
        """Add the rows of a table in the schema."""
        for column, hashes in self._columns.items():
            for chunk in table[column.name].chunks:
                for digest, values in zip(hashes, _hashed(chunk), strict=True):
                    digest.update(values)

    def digest(self) -> str:
        """Return the hash of the rows added so far, 16 hex digits."""
        whole = hashlib.sha256()
        for column, hashes in self._columns.items():
            whole.update(f"{column.name}:{column.type}".encode())
            for part in hashes:
                whole.update(part.digest())
        return whole.hexdigest()[:16]


def _hashed(chunk: pa.Array) -> tuple[np.ndarray | bytes, ...]:
    """Return what is hashed of an array: validity, lengths of texts, values."""
    valid = np.asarray(chunk.is_valid()).astype(np.uint8)
    if pa.types.is_floating(chunk.type) or pa.types.is_integer(chunk.type):
        return valid, b"", chunk.fill_null(0).to_numpy(zero_copy_only=False)
    present = chunk.drop_null()
    if not pa.types.is_string(chunk.type):
        present = pa.array([str(value) for value in present.to_pylist()], pa.string())
    if not len(present):
        return valid, b"", b""
    _, offsets, values = present.buffers()
    ends = np.frombuffer(offsets, np.int32)[present.offset : present.offset + len(present) + 1]
    texts = memoryview(values or b"")[ends[0] : ends[-1]]
    return valid, np.diff(ends.astype(np.int64)), texts


def versions() -> dict[str, str]:
    """Return the versions a result depends on: Python and the libraries that compute."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
