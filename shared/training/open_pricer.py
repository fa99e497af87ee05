"""Pricers that are language models of one's own: a base as it is, or with an adapter."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from shared.data import Product
from shared.data.storage import fingerprint
from shared.evaluation import Estimates
from shared.pricers.conformal import conformal_quantile
from shared.prompts import PRICE_IS, NotAPrice, parse_price
from shared.training.building import in_32_bits
from shared.training.examples import prompts_of
from shared.training.failures import TrainingError
from shared.training.fine_tuning import ADAPTER, CONFIG, MANIFEST
from shared.training.making import file_hash
from shared.training.opening import about, fingerprint_of, open_model, without_old_names
from shared.training.reading import Distribution, read_prices

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TUNED = Path(__file__).with_name("tuned")
"""The tiny base's adapter that is shipped: `python -m shared tune` on the embedded data."""

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

    Raises TrainingError if there is none, if it was changed, or belongs to another base.
    """
    manifest = read_tuned(folder)
    plan = manifest["plan"]
    model, tokenizer, _ = open_model(plan["base"], plan["bits"])
    wanted, found = manifest["base"]["fingerprint"], fingerprint_of(plan["base"], model)
    if wanted != found:
        raise TrainingError(
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
    return kind(add_adapter(model, folder), tokenizer, settings, name=name, reading=reading)


def add_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put the adapter of a folder beside the weights of its base."""
    from peft import PeftModel

    with without_old_names():
        return in_32_bits(PeftModel.from_pretrained(model, str(folder))).eval()


def read_tuned(folder: Path) -> dict[str, Any]:
    """Return the manifest of a tuned model, after comparing its files with what that says."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = [(name, manifest["sha256"][name]) for name in (ADAPTER, CONFIG)]
        manifest["plan"]["base"], manifest["base"]["fingerprint"]
    except FileNotFoundError:
        raise TrainingError(
            f"{folder}: holds no tuned model ({MANIFEST} is missing); make it with: "
            f"python -m shared tune --train DIR --out {folder}"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder / MANIFEST} is damaged ({error!r}): tune again") from error
    for name, wanted in files:
        if not (folder / name).is_file() or file_hash(folder / name) != wanted:
            raise TrainingError(f"{folder / name} is missing or was changed: tune again")
    return manifest


def merge(folder: Path, out: Path) -> Path:
    """Write base and adapter as one model of full precision to ``out``: it needs no peft then.

    The adapter was trained beside four-bit weights and is added to the exact ones: prices differ
    a little from those of the two apart. Measure before you ship it.
    """
    from shared.data.storage import write_json

    manifest = read_tuned(folder)
    model, tokenizer, opened = open_model(manifest["plan"]["base"], 16)
    merged = add_adapter(model, folder).merge_and_unload()
    out = Path(out)
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    files = sorted(path for path in out.iterdir() if path.is_file())
    write_json(
        {
            "merged_from": manifest["sha256"][ADAPTER], "base": about(opened),
            "sha256": {path.name: file_hash(path) for path in files if path.name != MANIFEST},
        },
        out / MANIFEST,
    )  # fmt: skip
    return out


def push(folder: Path, repository: str) -> str:
    """Upload the adapter of a folder to a private repository of the hub; return its address.

    Only the adapter, its settings and its manifest are sent. Raises TrainingError if the hub
    refuses, without a token (`hf auth login`) for instance.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    read_tuned(folder)
    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=str(folder), allow_patterns=[ADAPTER, CONFIG, MANIFEST],
            commit_message="Adapter of the price course",
        )  # fmt: skip
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise TrainingError(
            f"{repository}: the hub did not take it ({str(error).splitlines()[0][:200]}); "
            f"log in with `hf auth login`, and write OWNER/NAME. The adapter is in {folder}"
        ) from error
    return str(address)


def _products_of(items: pa.Table) -> list[dict]:
    return items.select(list(Product.__slots__)).to_pylist()
