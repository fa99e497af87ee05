"""An open model that reads its neighbours' prices in the prompt, and was trained so.

A model that was never shown neighbours does not know what to make of them. Here each training item
comes with those that a shop would find for it: others, and no near-duplicates. So the weights learn
how far to trust them, and the prices stay in the store, where they can change. (Training with what
is retrieved: Guu et al., 2020, "REALM"; Zhang et al., 2024, "RAFT".)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from shared.data import Product, products
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.data.schema import ITEM
from shared.data.storage import write_json
from shared.open_models.adapters import ADAPTER, AdapterError, read_tuned
from shared.open_models.examples import cut, prompts_of
from shared.open_models.pricer import OpenModelPricer, tuned_pricer
from shared.prompts import completion
from shared.retrieval.found import Neighbour, clusters_of
from shared.retrieval.looking_up import LookUp, Searcher
from shared.training.fine_tuning import Plan, fine_tune

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORDED = Path(__file__).with_name("recorded")
SHIPPED = RECORDED / "open_model"
"""The tiny base's adapter that is shipped, of the run that ``RECORDED`` tells of."""

SHOWN = "neighbours.json"
HEADING = "Similar products:"
SLACK = 8
"""Tokens that a price and its line may take beyond the title, and the heading beyond its own."""


def recorded() -> dict[str, Any]:
    """Return what was measured of it: ``tests/benchmarks/retrieval_open_model.py`` wrote it."""
    return json.loads((RECORDED / "open_model.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Layout:
    """What a prompt holds: ``own_tokens`` of a product's text, then ``k`` neighbours, best last.

    A neighbour is a line of a price list: ``title_tokens`` of its title, and its whole dollars.
    """

    k: int = 4
    own_tokens: int = 100
    title_tokens: int = 16

    @property
    def tokens(self) -> int:
        """The most tokens of such a text: with fewer the neighbours, who come last, would go."""
        return self.own_tokens + 2 * SLACK + self.k * (self.title_tokens + SLACK)

    def texts(
        self, texts: Sequence[str], neighbours: Sequence[Sequence[Neighbour]],
        tokenizer: PreTrainedTokenizerBase, factors: Sequence[float] | None = None,
    ) -> list[str]:  # fmt: skip
        """Return n products' texts with their neighbours, whose prices are taken ``factors`` times.

        A product without neighbours keeps its own text.
        """
        own = cut(texts, tokenizer, self.own_tokens)
        titles = [" ".join(one.title.split()) for near in neighbours for one in near]
        short = iter(cut(titles, tokenizer, self.title_tokens))
        found = []
        for text, near, factor in zip(own, neighbours, factors or [1.0] * len(own), strict=True):
            lines = [f"{next(short)} - ${completion(one.price * factor)}" for one in near]
            found.append("\n".join([text, "", HEADING, *reversed(lines)]) if lines else text)
        return found


def shown_items(
    items: pa.Table, neighbours: Sequence[Sequence[Neighbour]], tokenizer: PreTrainedTokenizerBase,
    layout: Layout, moved: float = 1.0, seed: int = 42,
) -> pa.Table:  # fmt: skip
    """Return items (ITEM schema) whose texts show their ``neighbours``, the best one first there.

    With ``moved`` above 1 each item and its neighbours cost more or less, all by the same factor
    between ``1 / moved`` and ``moved``, so that the item still has a price that curation keeps.
    """
    if not 1 <= moved < math.inf:
        raise ValueError(f"moved={moved}: prices are moved by a factor of at least 1")
    prices = items["price"].to_numpy()
    low = np.maximum(np.log(1 / moved), np.log(MIN_PRICE) - np.log(prices))
    high = np.minimum(np.log(moved), np.log(MAX_PRICE) - np.log(prices))
    factors = np.exp(np.random.default_rng(seed).uniform(low, np.maximum(low, high)))
    texts = layout.texts(items["text"].to_pylist(), neighbours, tokenizer, factors.tolist())
    columns = {"text": pa.array(texts), "price": pa.array(prices * factors)}
    return pa.table([columns.get(name, items[name]) for name in ITEM.names], schema=ITEM)


def tune_with_neighbours(
    train: pa.Table, validation: pa.Table, index: Searcher, out: Path, plan: Plan | None = None, *,
    layout: Layout | None = None, moved: float = 1.0, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Tune a base on items that show their neighbours, as ``fine_tune`` does; return its manifest.

    No item is shown itself or a near-duplicate: that would teach to copy. ``index`` is to hold
    training items only. ``moved``: see ``shown_items``; a factor is drawn anew in each epoch, and
    validation stays as it is. The plan's ``text_tokens`` are the layout's; ``options`` as in
    ``fine_tune``, and so are the errors.
    """
    from transformers import AutoTokenizer

    from shared.pretraining.making import TINY

    plan, layout = plan or Plan(), layout or Layout()
    look_up = LookUp(index, layout.k, clusters_of(train, validation))
    tokenizer = AutoTokenizer.from_pretrained(TINY if plan.base == "tiny" else plan.base)
    copies = math.ceil(plan.epochs) if moved > 1 else 1
    known, asked = (look_up.neighbours(products(items)) for items in (train, validation))
    shown = pa.concat_tables(
        shown_items(train, known, tokenizer, layout, moved, seed=plan.seed + copy)
        for copy in range(copies)
    )
    plan = replace(
        plan, text_tokens=layout.tokens, epochs=plan.epochs / copies,
        limit=plan.limit and plan.limit * copies,
    )  # fmt: skip
    held_out = shown_items(validation, asked, tokenizer, layout)
    manifest = fine_tune(shown, held_out, Path(out), plan, **options)
    about = {"adapter": manifest["sha256"][ADAPTER], "layout": asdict(layout), "moved": moved}
    write_json(about | {"look_up": look_up.settings}, Path(out) / SHOWN)
    return manifest


class NeighbourModelPricer(OpenModelPricer):
    """A model of one's own that is shown a product's neighbours with their prices, to be asked."""

    def __init__(self, tuned: OpenModelPricer, look_up: LookUp, layout: Layout, name: str) -> None:
        self.look_up, self.layout = look_up, layout
        reading = tuned.settings["reading"]
        super().__init__(tuned.model, tuned.tokenizer, tuned.settings, name=name, reading=reading)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the estimates: the weights, what is known at the moment, how it is shown."""
        return self._own | {"layout": asdict(self.layout)} | self.look_up.settings

    @settings.setter
    def settings(self, settings: dict[str, Any]) -> None:
        self._own = settings

    def neighbours(self, products: Sequence[Product]) -> list[list[Neighbour]]:
        """Return what the model is shown of each product, the most similar first."""
        return self.look_up.neighbours(products)

    def prompts(self, products: Sequence[Product]) -> list[str]:
        """Return what the model is asked about each product."""
        texts = [product.text for product in products]
        shown = self.layout.texts(texts, self.neighbours(products), self.tokenizer)
        return prompts_of(shown, self.tokenizer, self.layout.tokens)


def neighbour_model_pricer(
    index: Searcher, folder: Path = SHIPPED, *, clusters: Mapping[str, str] | None = None,
    reading: str = "median", name: str | None = None,
) -> NeighbourModelPricer:  # fmt: skip
    """Return the model that ``tune_with_neighbours`` left in a folder, as a pricer.

    It looks up in ``index``, which need not be that of its training; ``clusters`` as in ``LookUp``.
    Raises AdapterError for a folder of a model that was not shown neighbours, or that is damaged.
    """
    tuned, found = read_tuned(folder)["sha256"][ADAPTER], Path(folder) / SHOWN
    try:
        about = json.loads(found.read_text(encoding="utf-8"))
        layout = Layout(**about["layout"])
        if about["adapter"] != tuned:
            raise AdapterError(f"{found} is of another adapter: tune again")
    except FileNotFoundError:
        raise AdapterError(
            f"{folder}: this model was not shown neighbours ({SHOWN} is missing); open it with "
            "tuned_pricer, or tune one with tune_with_neighbours"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{found} is damaged ({error!r}): tune again") from error
    pricer = tuned_pricer(folder, reading=reading)
    name = name or f"{pricer.name}, {layout.k} neighbours"
    return NeighbourModelPricer(pricer, LookUp(index, layout.k, clusters), layout, name)
