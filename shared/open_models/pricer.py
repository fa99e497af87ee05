"""Pricers that are language models of one's own: a base as it is, or with an adapter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from shared.data import Product
from shared.data.storage import fingerprint
from shared.evaluation import Estimates
from shared.open_models.adapters import ADAPTER, TUNED, AdapterError, add_adapter, fused, read_tuned
from shared.open_models.examples import prompts_of
from shared.open_models.opening import about, fingerprint_of, open_model
from shared.open_models.reading import Distribution, read_prices
from shared.pricers.conformal import conformal_quantile
from shared.prompts import PRICE_IS, NotAPrice, parse_price

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

READINGS = ("median", "mean", "greedy")


class OpenModelPricer:
    """Prices with a language model: reads the distribution over prices, many products at once.

    ``reading``: "median", "mean" or "greedy" (the likeliest price).
    """

    label = ""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any],
        *, name: str, reading: str = "median", batch: int = 32,
    ) -> None:  # fmt: skip
        if reading not in READINGS:
            raise ValueError(f"reading {reading!r} is not one of {', '.join(READINGS)}")
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.settings = settings | {"reading": reading}
        self._batch, self._factor = batch, None
        tokenizer.padding_side = "left"

    def prompts(self, products: Sequence[Product]) -> list[str]:
        """Return what the model is asked about each product."""
        texts = [product.text for product in products]
        return prompts_of(texts, self.tokenizer, self.settings["text_tokens"])

    def distribution(self, products: Sequence[Product]) -> Distribution:
        """Return how likely each price is for each product."""
        return read_prices(self.model, self.tokenizer, self.prompts(products), batch=self._batch)

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product in dollars; with an interval, once calibrated."""
        start = time.perf_counter()
        found = self.distribution(products)
        reading = self.settings["reading"]
        prices = found.mode if reading == "greedy" else getattr(found, reading)
        seconds = np.full(len(products), (time.perf_counter() - start) / max(len(products), 1))
        estimates = Estimates(prices.astype(float), seconds=seconds)
        if self._factor is not None:
            low, high = self._interval(found, self.settings["coverage"])
            estimates.low = np.minimum(low / self._factor, estimates.price)
            estimates.high = np.maximum(high * self._factor, estimates.price)
        return estimates

    def calibrate(self, items: pa.Table, coverage: float = 0.9) -> OpenModelPricer:
        """Make intervals that cover a share ``coverage`` of new products, and return self.

        Conformalised quantile regression (Romano et al., 2019): the model's own quantiles, which
        are wide where it is unsure, widened by what they lacked on ``items`` (ITEM schema) that
        it has not learnt from. The correction is a factor; below 1 it narrows.
        """
        found = self.distribution([Product.from_item(item) for item in _products_of(items)])
        low, high = self._interval(found, coverage)
        prices = np.log(np.maximum(np.asarray(items["price"], dtype=float), 0.5))
        missed = np.maximum(np.log(low) - prices, prices - np.log(high))
        self._factor = float(np.exp(conformal_quantile(missed, coverage)))
        self.settings |= {"coverage": coverage, "calibrated_on": fingerprint(items)}
        return self

    @staticmethod
    def _interval(found: Distribution, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        edges = (found.quantile((1 - coverage) / 2), found.quantile((1 + coverage) / 2))
        low, high = (np.maximum(edge, 0.5) for edge in edges)  # 0 dollars has no log
        return low, high


class GeneratingPricer(OpenModelPricer):
    """Prices as one usually asks a model: it writes, one product at a time, and the text is read.

    What is no price is a failed estimate, with what it wrote as the reason.
    """

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product in dollars; NaN with the reason where none is read."""
        prices, errors, seconds = [], [], []
        for prompt in self.prompts(products):
            start = time.perf_counter()
            said = self.write(prompt)
            try:
                # A comma or words may follow; the amount is the first line's.
                prices.append(parse_price(PRICE_IS + said.partition("\n")[0]))
                errors.append(None)
            except NotAPrice as error:
                prices.append(np.nan)
                errors.append(f"{error}: {said[:60]!r}")
            seconds.append(time.perf_counter() - start)
        return Estimates(np.array(prices, dtype=float), errors, seconds=np.array(seconds))

    def write(self, prompt: str, tokens: int = 8) -> str:
        """Return what the model goes on with, the likeliest token each time."""
        import torch

        inputs = self.tokenizer(prompt, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            written = self.model.generate(
                **inputs, max_new_tokens=tokens, do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )  # fmt: skip
        new = written[0, inputs["input_ids"].shape[1] :]
        return self.tokenizer.decode(new, skip_special_tokens=True)


def base_pricer(
    base: str = "tiny", bits: int = 4, *, reading: str = "median", text_tokens: int = 100,
    generate: bool = False,
) -> OpenModelPricer:  # fmt: skip
    """Return a base as a pricer, untuned. ``generate``: let it write, instead of reading it."""
    model, tokenizer, opened = open_model(base, bits)
    kind = GeneratingPricer if generate else OpenModelPricer
    settings = {"base": about(opened), "text_tokens": text_tokens, "generate": generate}
    name = f"{Path(base).name}, {bits} bits, untuned"
    return kind(model, tokenizer, settings, name=name, reading=reading)


def tuned_pricer(
    folder: Path = TUNED, *, reading: str = "median", generate: bool = False,
    name: str | None = None,
) -> OpenModelPricer:  # fmt: skip
    """Return the model that ``fine_tune`` left in a folder, as a pricer.

    On a GPU, where memory is short, the base stays quantised and the adapter beside it; on a CPU,
    where time is, both are fused. Raises AdapterError if there is none, if it was changed, or
    belongs to another base.
    """
    manifest = read_tuned(folder)
    plan = manifest["plan"]
    model, tokenizer, opened = open_model(plan["base"], plan["bits"])
    wanted, found = manifest["base"]["fingerprint"], fingerprint_of(plan["base"], model)
    if wanted != found:
        raise AdapterError(
            f"{folder}: tuned on another base ({plan['base']} was {wanted}, here it is {found}): "
            "an adapter fits the weights it was trained beside only; tune again, or fetch that base"
        )
    kind = GeneratingPricer if generate else OpenModelPricer
    settings = {
        "adapter": manifest["sha256"][ADAPTER], "base": manifest["base"],
        "fitted_on": manifest["train"], "text_tokens": plan["text_tokens"], "generate": generate,
        "seed": plan["seed"],
    }  # fmt: skip
    name = name or f"{Path(plan['base']).name}, QLoRA"
    # Eight-bit layers round what goes into them, too: no full weights give the same prices.
    fast = opened.device == "cpu" and opened.bits != 8
    model = fused(model, folder) if fast else add_adapter(model, folder)
    return kind(model, tokenizer, settings, name=name, reading=reading)


def _products_of(items: pa.Table) -> list[dict]:
    return items.select(list(Product.__slots__)).to_pylist()
