"""Results that survive a kill: finished batches while running, then predictions and a manifest.

``<store>/<pricer>.parquet`` and ``<store>/<pricer>.manifest.json``; the manifest is written last,
so its existence means that the run completed. A folder holds one result a pricer: give each set
of items a folder of its own. To price again what is stored, delete its manifest.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pyarrow as pa

from shared.data.storage import fingerprint, write_json, write_parquet
from shared.evaluation.predictions import CONTRACT, read_predictions

SUFFIX = ".manifest.json"


def file_stem(name: str) -> str:
    """Return ``name`` as a file name that cannot leave its folder; a changed one gets a hash."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-")[:60] or "pricer"
    return safe if safe == name else f"{safe}-{_digest(name)[:8]}"


def save(store: Path, table: pa.Table, manifest: dict) -> dict:
    """Store a finished run in a folder of results and return its manifest as written."""
    return save_as(store / f"{file_stem(manifest['pricer'])}.parquet", table, manifest)


def save_as(path: Path, table: pa.Table, manifest: dict) -> dict:
    """Write predictions to ``path`` and their manifest beside it; return the manifest as written.

    The old manifest goes first and the new one comes last, so the two always fit together.
    """
    beside = manifest_path(path)
    beside.unlink(missing_ok=True)
    write_parquet(table, path)
    manifest = manifest | {"predictions": fingerprint(table)}
    write_json(manifest, beside)
    return manifest


def manifest_path(predictions: Path) -> Path:
    """Return where the manifest of a predictions file is."""
    return predictions.with_name(predictions.name.removesuffix(".parquet") + SUFFIX)


def load(path: Path) -> tuple[pa.Table, dict] | None:
    """Return the predictions of a file and their manifest, or None if they are no finished run."""
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        table = read_predictions(path)
        finished = manifest["predictions"] == fingerprint(table)
        finished = finished and bool(manifest["items"]["fingerprint"]) and "key" in manifest
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (table, manifest) if finished else None


def read_batches(folder: Path) -> pa.Table:
    """Return all predictions in a folder of finished batches; an unreadable one is deleted."""
    tables = [CONTRACT.empty_table()]
    for path in sorted(folder.glob("*.parquet")):
        try:
            tables.append(read_predictions(path).replace_schema_metadata(None))
        except ValueError:
            path.unlink()
    return pa.concat_tables(tables)


def write_batch(table: pa.Table, folder: Path) -> None:
    """Add a finished batch to a folder, under the next free number."""
    last = max((int(path.stem) for path in folder.glob("[0-9]*.parquet")), default=-1)
    write_parquet(table, folder / f"{last + 1:05d}.parquet")


def remove_batches(folder: Path) -> None:
    """Delete a folder of finished batches, and the folder around it once that is empty."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def run_key(pricer: Any, items_fingerprint: str, seed: int) -> str:
    """Return a hash of all that decides a result: the pricer's name, settings and code, the items.

    A function counts with the functions and values it refers to, but not those it changes (a
    counter, a log). A pricer counts with its module's source and ``pricer.settings``: what it was
    fitted on belongs there.
    """
    function = getattr(pricer, "function", None)
    code = _function_identity(function) if function is not None else _class_source(type(pricer))
    settings = json.dumps(getattr(pricer, "settings", None), sort_keys=True, default=str)
    return _digest(pricer.name, settings, code, items_fingerprint, str(seed))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]


def _class_source(kind: type) -> str:
    module = inspect.getmodule(kind)
    if module is not None and getattr(module, "__file__", None):
        return Path(module.__file__).read_text(encoding="utf-8")
    methods = [m for m in vars(kind).values() if isinstance(m, FunctionType)]  # in a notebook
    return "".join(_source(m) for m in methods)


def _source(function: Callable) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return repr((code.co_code, code.co_consts)) if code else repr(type(function))


def _function_identity(function: Callable) -> str:
    """Hash a function's source, and with ``datasets``' hasher all that it refers to.

    The hasher pickles what is defined in a notebook by value but what can be imported by name,
    hence the source as well.
    """
    from datasets.fingerprint import Hasher

    try:
        referred = Hasher.hash(function)
    except Exception:  # a client or a lock it refers to cannot be pickled: the source has to do
        referred = ""
    return _digest(_source(function), referred)
