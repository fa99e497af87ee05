"""Exported models that read tokens, run by ONNX Runtime, without PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.compression.exported import MANIFEST, MODEL, ExportError, read_exported, session
from shared.data.schema import Product
from shared.evaluation.protocol import Estimates
from shared.open_models.reading import Distribution
from shared.prompts import completion_prompt

LANGUAGE_MODEL = "language model"
"""What the manifests call it."""
TOKENIZER = "tokenizer.json"
READINGS_OF = {"greedy": "mode", "median": "median", "mean": "mean"}
"""Reading -> what of a ``Distribution`` it is."""


class TokenModel:
    """A model and its tokenizer, from an exported folder. Raises ExportError, see there."""

    def __init__(self, folder: Path, kind: str, threads: int, batch: int) -> None:
        from tokenizers import Tokenizer

        self.manifest, files = read_exported(folder, kind)
        try:
            self._pad, model = int(self.manifest["pad"]), files[MODEL]
            self.tokenizer = Tokenizer.from_str(files[TOKENIZER].decode())
        except Exception as error:  # the tokenizer's errors have no class of their own
            raise ExportError(f"{Path(folder) / MANIFEST}: damaged ({error!r})") from error
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self._session, self._batch = session(model, folder, threads), batch

    def outputs(
        self, texts: Sequence[str], width: int, second: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Return the outputs for n texts, float64, (n, width).

        Texts of about the same length go through together. ``second`` makes the second input out
        of the lengths of a batch, (texts, 1).
        """
        rows = [one.ids for one in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        found = np.zeros((len(rows), width))
        name = self._session.get_inputs()[1].name
        for at in range(0, len(order), self._batch):
            chosen = order[at : at + self._batch]
            lengths = np.array([[len(rows[row])] for row in chosen])
            ids = np.full((len(chosen), lengths.max()), self._pad, np.int64)
            for place, row in enumerate(chosen):
                ids[place, : len(rows[row])] = rows[row]
            found[chosen] = self._session.run(None, {"ids": ids, name: second(lengths)})[0]
        return found


class OnnxLanguagePricer:
    """Reads prices as ``tuned_pricer`` does, from the folder that ``export_language_model`` wrote.

    ``batch``: products in a forward pass.
    """

    label = ""

    def __init__(self, folder: Path, threads: int = 1, batch: int = 32) -> None:
        self._model = TokenModel(folder, LANGUAGE_MODEL, threads, batch)
        manifest: dict[str, Any] = self._model.manifest
        try:
            self.name, self._tokens = str(manifest["name"]), int(manifest["text_tokens"])
            self._prices = np.array(manifest["prices"], dtype=float)
            self._reading = READINGS_OF[manifest["reading"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(f"{Path(folder) / MANIFEST}: damaged ({error!r})") from error
        self.settings = {
            "sha256": manifest["sha256"], "settings": manifest.get("settings"),
            "reading": manifest["reading"],
        }  # fmt: skip

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product in dollars."""
        if not products:
            return Estimates(np.empty(0))
        start = time.perf_counter()
        found = self.distribution(products)
        prices = getattr(found, self._reading)
        seconds = (time.perf_counter() - start) / len(products)
        return Estimates(prices.astype(float), seconds=np.full(len(products), seconds))

    def distribution(self, products: Sequence[Product]) -> Distribution:
        """Return how likely each price is for each of n products."""
        prompts = [completion_prompt(text) for text in self.cut(products)]
        logs = self._model.outputs(prompts, len(self._prices), lambda lengths: lengths - 1)
        found, mass = np.exp(logs), np.exp(logs).sum(axis=1)
        return Distribution(self._prices, found / mass[:, None], mass)

    def cut(self, products: Sequence[Product]) -> list[str]:
        """Return the first tokens of each text, as text, as many as the model was taught with."""
        texts = [product.text for product in products]
        read = self._model.tokenizer.encode_batch(texts, add_special_tokens=False)
        ends = [one.offsets[: self._tokens] for one in read]
        return [
            text[: offsets[-1][1]] if len(offsets) == self._tokens else text
            for text, offsets in zip(texts, ends, strict=True)
        ]
