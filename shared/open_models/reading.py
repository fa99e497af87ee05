"""Reading a price out of a language model: not the likeliest number, but the whole distribution.

A model that was asked "Price is $" gives every next token a probability, so it gives one to every
price. The likeliest price is what ``generate`` writes; the median is what errs least in dollars;
quantiles bound an interval (Lukasik et al., 2024, "Regression aware inference with LLMs"). One
forward pass reads all of it, for many products at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.prompts import PRICE_IS, completion

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PRICES = tuple(range(1_000))
"""Whole dollars that are read out by default: all that curation keeps."""

LOGITS_BYTES = 2**28
"""Most memory for the logits of a batch."""


@dataclass(frozen=True)
class Distribution:
    """How likely each price is for each of n products.

    ``prices``: (k,), ascending dollars. ``probabilities``: (n, k), each row sums to 1. ``mass``:
    (n,), the probability of all those prices together among all that the model might have said.
    """

    prices: np.ndarray
    probabilities: np.ndarray
    mass: np.ndarray

    def quantile(self, share: float) -> np.ndarray:
        """Return for each product the least price that is not exceeded with this probability."""
        if not 0 < share < 1:
            raise ValueError(f"quantile {share} is not between 0 and 1")
        below = self.probabilities.cumsum(1) < share
        return self.prices[below.sum(1).clip(max=len(self.prices) - 1)]

    def losses(self, dollars: np.ndarray) -> np.ndarray:
        """Return the loss (nats) of what each product costs, to the nearest price there is."""
        taught = np.floor(np.asarray(dollars) + 0.5)  # as completion() rounds
        place = np.abs(self.prices[None, :] - taught[:, None]).argmin(1)
        likely = self.probabilities[np.arange(len(place)), place] * self.mass
        return -np.log(likely.clip(min=1e-12))

    @property
    def median(self) -> np.ndarray:
        """The price that is as likely too low as too high: it errs least in dollars."""
        return self.quantile(0.5)

    @property
    def mean(self) -> np.ndarray:
        """The expected price: it errs least in squared dollars."""
        return self.probabilities @ self.prices

    @property
    def mode(self) -> np.ndarray:
        """The likeliest price: what greedy decoding writes."""
        return self.prices[self.probabilities.argmax(1)]


class NumberTree:
    """How a tokenizer writes prices: as a tree, in which each price is a path.

    Llama 3 writes 0 to 999 as one token each: then the tree is one node, and nothing is added to
    the prompt. Where a price is several tokens (Qwen has a token a digit), each prefix that goes
    on is a node; all nodes are appended to the prompt and read in the same forward pass, each
    seeing the prompt and its own ancestors only.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prices: Sequence[int] = PRICES) -> None:
        self.prices = np.array(sorted(set(prices)))
        if len(self.prices) < 2 or self.prices[0] < 0:
            raise ValueError("at least two prices of 0 dollars or more are needed")
        paths = [price_tokens_of(tokenizer, int(price)) for price in self.prices]
        prefixes = {path[:cut] for path in paths for cut in range(1, len(path))}
        self.nodes: list[tuple[int, ...]] = [(), *sorted(prefixes, key=lambda p: (len(p), p))]
        place = {node: at for at, node in enumerate(self.nodes)}
        self.parents = [place[node[:-1]] if node else 0 for node in self.nodes]
        depth = max(map(len, paths))
        self.steps = np.full((len(paths), depth, 2), -1)  # (node, token), -1: the path has ended
        for row, path in enumerate(paths):
            for at, token in enumerate(path):
                self.steps[row, at] = place[path[:at]], token
        # A price that others go on from ("12", of "129") ends only where no digit follows it.
        self.stops = np.array([place.get(path, -1) for path in paths])
        self.digits = _digit_tokens(tokenizer) if (self.stops >= 0).any() else []

    def inputs(self, prompts: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
        """Return the model's inputs for token ids of n prompts: padded on the left, nodes last."""
        import torch

        width, extra = max(map(len, prompts)), len(self.nodes) - 1
        ids = torch.full((len(prompts), width + extra), pad)
        real = torch.zeros(ids.shape, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) : width] = torch.tensor(prompt)
            real[row, width - len(prompt) :] = True
        positions = (real[:, :width].cumsum(1) - 1).clamp(min=0)
        if not extra:
            return {"input_ids": ids, "attention_mask": real.long(), "position_ids": positions}
        ids[:, width:] = torch.tensor([node[-1] for node in self.nodes[1:]])
        depths = torch.tensor([len(node) for node in self.nodes[1:]])
        positions = torch.cat([positions, positions[:, -1:] + depths], dim=1)
        seen = torch.ones(width + extra, width + extra, dtype=torch.bool).tril()
        seen[width:, width:] = self._ancestry()
        return {
            "input_ids": ids, "position_ids": positions,
            "attention_mask": seen[None, None] & real[:, None, None, :]
            | torch.eye(width + extra, dtype=torch.bool),  # padding sees itself: no row is empty
        }  # fmt: skip

    def _ancestry(self) -> torch.Tensor:
        import torch

        sees = torch.eye(len(self.nodes), dtype=torch.bool)
        for at in range(1, len(self.nodes)):  # parents come first
            sees[at] |= sees[self.parents[at]]
        return sees[1:, 1:]

    def read(self, logits: torch.Tensor) -> torch.Tensor:
        """Return log probabilities (n, prices) from the logits (n, nodes, vocabulary)."""
        import torch

        logs = torch.log_softmax(logits.float(), -1)
        found = torch.zeros(len(logits), len(self.prices), device=logits.device)
        for at in range(self.steps.shape[1]):
            nodes, tokens = torch.from_numpy(self.steps[:, at].T).to(logits.device)
            there = nodes >= 0
            found[:, there] += logs[:, nodes[there], tokens[there]]
        if self.digits:
            stops = torch.from_numpy(self.stops).to(logits.device)
            going_on = logs[:, :, self.digits].exp().sum(-1)[:, stops.clamp(min=0)]
            ends = torch.log1p(-going_on.clamp(max=1 - 1e-6))
            found += torch.where(stops >= 0, ends, torch.zeros_like(ends))
        return found


def price_tokens_of(tokenizer: PreTrainedTokenizerBase, price: int) -> tuple[int, ...]:
    """Return the tokens of a price after the words that lead to it.

    Raises ValueError for a tokenizer that joins those words and the price.
    """
    before, after = (
        tokenizer(text, add_special_tokens=False).input_ids
        for text in (PRICE_IS, PRICE_IS + completion(price))
    )
    if after[: len(before)] != before:
        raise ValueError(f"this tokenizer writes {PRICE_IS!r} and the price {price} as one piece")
    return tuple(after[len(before) :])


def _digit_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of all tokens that are digits and nothing else."""
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [at for at, name in enumerate(names) if name and name.isascii() and name.isdigit()]


def read_prices(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str],
    prices: Sequence[int] = PRICES, *, batch: int = 32, tell: Any = None,
) -> Distribution:  # fmt: skip
    """Return how likely each price is after each prompt, ``batch`` prompts in a forward pass.

    Prompts end with ``PRICE_IS``; they are sorted by length, so that little is padding. ``tell``
    is called with the number of prompts done after each batch.
    """
    import torch

    tree = NumberTree(tokenizer, prices)
    rows = tokenizer(list(prompts)).input_ids if prompts else []
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    found = np.zeros((len(rows), len(tree.prices)))
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    fitting = LOGITS_BYTES // (4 * len(tree.nodes) * model.config.get_text_config().vocab_size)
    batch = max(min(batch, fitting), 1)
    training = model.training
    model.eval()
    with torch.no_grad():  # inference mode: a model that FSDP shards could not be trained after it
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs = tree.inputs([rows[row] for row in chosen], pad)
            inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
            logits = model(**inputs, use_cache=False, logits_to_keep=len(tree.nodes)).logits
            found[chosen] = tree.read(logits).double().exp().cpu().numpy()
            if tell:
                tell(len(chosen))
    model.train(training)
    mass = found.sum(1)
    # A model that gives these prices no chance at all knows nothing of them: all are alike to it.
    known = np.divide(found, mass[:, None], where=mass[:, None] > 0, out=np.ones_like(found))
    return Distribution(tree.prices, known / known.sum(1, keepdims=True), mass)
