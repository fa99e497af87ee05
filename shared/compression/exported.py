"""Exported models: opened from a folder of data, run by ONNX Runtime alone, without PyTorch.

A folder is opened only if its manifest, written last, vouches for every byte in it. The file is
a list of ONNX's own operations and of numbers: opening it executes nothing that somebody wrote.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.compression.features import Reading, hashed
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.data.schema import Product
from shared.data.storage import replacing_folder, versions, write_json
from shared.evaluation.protocol import Estimates

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MANIFEST, MODEL = "manifest.json", "model.onnx"

FACTS = "facts_sha256"
"""In the manifest: a hash of all that it says itself, such as what the model reads of a text."""

_WEIGHTS_FROM = "session.model_external_initializers_file_folder_path"

BLOCK = 512
"""Products that go through a student at once."""


class ExportError(ValueError):
    """An exported model cannot be opened; the message names the file and the remedy."""


def write_exported(folder: Path, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> Path:
    """Write files and a manifest with these facts to a folder; an older export is replaced.

    Raises FileExistsError if the folder holds anything else.
    """
    _refuse_others(Path(folder), {MANIFEST, *files})
    with replacing_folder(folder, MANIFEST, "exported model") as building:
        for name, content in files.items():
            (building / name).write_bytes(content)
        hashes = {name: _digest(content) for name, content in files.items()}
        own = {"versions": versions(), "sha256": hashes, FACTS: _digest_of(facts)}
        write_json({**facts, **own}, building / MANIFEST)
    return Path(folder)


def _refuse_others(folder: Path, known: set[str]) -> None:
    """Raise FileExistsError unless a folder holds an export and nothing else.

    Tuned models, indexes and curated items have a manifest of the same name, but no kind in it.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known = known | set(manifest["sha256"]) if isinstance(manifest["kind"], str) else known
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if others := [name for name in there if name not in known]:
        raise FileExistsError(
            f"{folder} holds {others[0]!r}, which is no exported model: choose another folder"
        )


def read_exported(folder: Path, *kinds: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return manifest and files of an exported model, after comparing each file with its hash.

    Raises ExportError if something is missing, damaged, changed or of none of these kinds.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found, hashes = manifest["kind"], dict(manifest["sha256"])
    except (FileNotFoundError, NotADirectoryError):
        raise ExportError(
            f"{folder}: holds no {MANIFEST}, so no whole exported model; export it again"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExportError(f"{path}: damaged ({error!r}); export it again") from error
    if found not in kinds:
        raise ExportError(f"{folder}: holds a {found}, and a {' or '.join(kinds)} is needed")
    own = ("versions", "sha256", FACTS)
    if manifest.get(FACTS) != _digest_of({k: v for k, v in manifest.items() if k not in own}):
        raise ExportError(f"{path}: changed since the export; export it again")
    files = {}
    for name, wanted in hashes.items():
        if Path(name).name != name:
            raise ExportError(f"{path}: names {name!r}, which is outside of this folder")
        file = Path(folder) / name
        # Read once: what is checked is what will be used.
        files[name] = file.read_bytes() if file.is_file() else b""
        if _digest(files[name]) != wanted:
            raise ExportError(f"{file}: missing or changed since the export; export it again")
    return manifest, files


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder, manifests included."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def session(model: bytes, folder: Path, threads: int = 1) -> InferenceSession:
    """Return a model ready to run on the CPU. Raises ExportError if ONNX Runtime refuses it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        # A model may name files for its weights, by default in the current folder. Here is none.
        with tempfile.TemporaryDirectory() as empty:
            options.add_session_config_entry(_WEIGHTS_FROM, empty)
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no class of their own
        said = str(error).splitlines()[0][:200]
        raise ExportError(f"{Path(folder) / MODEL}: ONNX Runtime refuses it ({said})") from error


class StudentPricer:
    """A distilled pricer, from the folder that ``exporting.export_student`` wrote."""

    label = ""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        manifest, files = read_exported(folder, "student")
        try:
            self.name, self._reading = str(manifest["name"]), Reading(**manifest["reading"])
            model = files[MODEL]
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(f"{Path(folder) / MANIFEST}: damaged ({error!r})") from error
        self._session = session(model, folder, threads)
        self.settings = {"sha256": manifest["sha256"], "settings": manifest.get("settings")}

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product in dollars, within the window curation keeps."""
        start, logs = time.perf_counter(), [np.empty(0)]
        for at in range(0, len(products), BLOCK):
            buckets, weights = hashed(products[at : at + BLOCK], self._reading)
            found = self._session.run(None, {"buckets": buckets, "weights": weights})[0]
            logs.append(found[:, 0].astype(float))
        prices = np.exp(np.concatenate(logs)).clip(MIN_PRICE, MAX_PRICE)
        seconds = (time.perf_counter() - start) / max(len(products), 1)
        return Estimates(prices, seconds=np.full(len(products), seconds))


def _digest_of(facts: Mapping[str, Any]) -> str:
    return _digest(json.dumps(facts, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
