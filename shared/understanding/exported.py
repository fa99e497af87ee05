"""Exported classifiers: opened from a folder of data, run by ONNX Runtime alone, without PyTorch.

As for pricers, the manifest vouches for every byte, and opening a folder executes nothing that
somebody wrote: see ``compression.exported``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.compression.exported import (
    BLOCK,
    MANIFEST,
    MODEL,
    ExportError,
    read_exported,
    session,
)
from shared.compression.exported_text import TokenModel
from shared.compression.features import Reading, hashed
from shared.data.schema import Product
from shared.understanding.labels import TextClassifier

SHIPPED = Path(__file__).with_name("shipped")
"""Classifiers that are shipped, a folder each, made by ``tests/benchmarks/understanding.py``."""
EXPECTED = "expected.json"
"""In that folder: texts, and what the originals of the shipped classifiers say of them."""

ENCODER, HASHED, ORIGINAL, WORDS = "classifier", "hashed classifier", "encoder", "bag of words"
"""What the manifests call them: two kinds as ONNX, and encoders and words as they were taught."""
_OPENED_BY = {
    ENCODER: ("exported", "ExportedClassifier"),
    HASHED: ("exported", "ExportedHashed"),
    ORIGINAL: ("exporting", "load_classifier"),
    WORDS: ("words", "BagOfWords.load"),
}


class ExportedClassifier(TextClassifier):
    """Tells the category of texts, from the folder that ``export_classifier`` wrote."""

    def __init__(self, folder: Path, threads: int = 1, batch: int = 64) -> None:
        self._model = TokenModel(folder, ENCODER, threads, batch)
        self.name, self.categories = said_of(self._model.manifest, folder)
        try:
            self._model.tokenizer.enable_truncation(int(self._model.manifest["tokens"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ExportError(f"{Path(folder) / MANIFEST}: damaged ({error!r})") from error

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the outputs for n texts, float64, (n, categories)."""
        return self._model.outputs(
            texts, len(self.categories),
            lambda lengths: (np.arange(lengths.max()) < lengths).astype(np.float32),
        )  # fmt: skip


class ExportedHashed(TextClassifier):
    """Tells the category from hashed n-grams, from the folder that ``export_hashed`` wrote."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        manifest, files = read_exported(folder, HASHED)
        self.name, self.categories = said_of(manifest, folder)
        try:
            self._reading, model = Reading(**manifest["reading"]), files[MODEL]
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(f"{Path(folder) / MANIFEST}: damaged ({error!r})") from error
        self._session = session(model, folder, threads)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the outputs for n texts, float64, (n, categories)."""
        found = [np.empty((0, len(self.categories)))]
        for at in range(0, len(texts), BLOCK):
            buckets, weights = hashed(as_products(texts[at : at + BLOCK]), self._reading)
            asked = {"buckets": buckets, "weights": weights}
            found.append(self._session.run(None, asked)[0].astype(float))
        return np.concatenate(found)


def open_classifier(folder: Path, threads: int = 1) -> TextClassifier:
    """Open a classifier of any kind that was written here.

    Raises ExportError if it is not whole, or none.
    """
    manifest, _ = read_exported(folder, *_OPENED_BY)
    module, name = _OPENED_BY[manifest["kind"]]
    found: Any = importlib.import_module(f"shared.understanding.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    return found(Path(folder), threads)


def answering(folder: Path, threads: int = 1) -> Callable[[Sequence[Product]], list[str]]:
    """Open a classifier and return what tells the categories of products, from their texts."""
    classifier = open_classifier(folder, threads)
    return lambda listed: classifier.classify([product.text for product in listed])


def as_products(texts: Sequence[str]) -> list[Product]:
    """Return texts as what ``features.hashed`` reads: the first line is the title.

    They have no category. It is what is asked for, and a student that read it would look perfect.
    """
    return [Product("", text.partition("\n")[0], text, "", "") for text in texts]


def said_of(manifest: dict[str, Any], folder: Path) -> tuple[str, tuple[str, ...]]:
    """Return name and categories of a classifier. Raises ExportError if they are not there."""
    try:
        return str(manifest["name"]), tuple(map(str, manifest["categories"]))
    except (KeyError, TypeError) as error:
        raise ExportError(f"{Path(folder) / MANIFEST}: damaged ({error!r})") from error
