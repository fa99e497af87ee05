"""A tiny base model, made here: the architecture of Llama, a million weights, minutes on two cores.

The same as in a real base model: tokens, attention, the loss of the next token over plain text, and
four-bit weights afterwards. Not the same: what it has read (``corpus``), and that a price in it is
taught as a neighbourhood (``price_targets``): who reads millions of pages learns by itself that 19
and 20 are neighbours, who reads a hundred thousand does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Document = tuple[str, int | None]
"""A text, and the whole dollars that come after it, if any do."""

DOLLARS = 1_000
"""Prices that are one token: 0 to 999 whole dollars."""


@dataclass(frozen=True)
class Recipe:
    """How the base model is made.

    ``records``: of the other catalogue; ``batch``: documents a step; ``rate``: of AdamW, for
    embeddings and norms; ``matrix_rate``: of Muon, for all other matrices.
    ``words``: the share of the tokens, prices aside, whose loss is computed, drawn anew in each
    step; that saves a quarter of the time, and changes the expected gradient by nothing.
    ``width``: of the price targets, on the log scale.
    """

    records: int = 200_000
    vocabulary: int = 3_072
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 384
    steps: int = 3_800
    batch: int = 48
    rate: float = 6e-3
    matrix_rate: float = 5e-3
    warm_up: int = 100
    words: float = 0.25
    width: float = 0.15
    seed: int = 42


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a Llama with random weights, in 32 bits."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads // 2,
        max_position_embeddings=1_024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config).float()


def price_targets(width: float) -> torch.Tensor:
    """Return what each price teaches, (1000, 1000): a bell around it on the log scale."""
    import torch

    logs = torch.log(torch.arange(DOLLARS) + 2.0)
    return torch.softmax(-(((logs[:, None] - logs[None, :]) / width) ** 2) / 2, dim=1)


def price_tokens(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Return the ids of the tokens "0" to "999", (1000,). ValueError if they are no single ones."""
    import torch

    ids = tokenizer([str(n) for n in range(DOLLARS)], add_special_tokens=False).input_ids
    if any(len(number) != 1 for number in ids):
        raise ValueError("this tokenizer has no single token for each number up to 999")
    return torch.tensor(ids)[:, 0]


@dataclass(frozen=True)
class Batch:
    """Documents of about equal length.

    ``tokens``: (n, length), padded on the right. ``ends``: (n,), where the last token lies.
    ``prices``: (n,), what follows it in whole dollars, -1 where nothing does.
    """

    tokens: torch.Tensor
    ends: torch.Tensor
    prices: torch.Tensor


class Shelf:
    """Documents as tokens, in batches of about equal length; what a step reads depends on no other.

    What does not fill a batch is left out of an epoch.
    """

    def __init__(
        self, documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, size: int,
        seed: int,
    ) -> None:  # fmt: skip
        texts = tokenizer([text for text, _ in documents], add_special_tokens=False).input_ids
        self._rows = [[tokenizer.bos_token_id, *ids] for ids in texts]
        self._prices = np.array([-1 if price is None else price for _, price in documents])
        self._pad, self._size, self._seed = tokenizer.pad_token_id, size, seed
        self._lengths = np.array([len(row) for row in self._rows])
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0))
        if len(documents) < size:
            raise ValueError(f"{len(documents)} documents make no batch of {size}")

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return len(self._rows) // self._size

    def at(self, step: int) -> Batch:
        """Return the batch of a step, from 0; every epoch shuffles anew."""
        epoch, place = divmod(step, len(self))
        if self._epoch[0] != epoch:
            draw = np.random.default_rng([self._seed, epoch])
            order = draw.permutation(len(self._rows))[: len(self) * self._size]
            order = order[np.argsort(self._lengths[order], kind="stable")]
            self._epoch = epoch, draw.permutation(order.reshape(len(self), self._size))
        return self.batch(self._epoch[1][place])

    def batch(self, places: np.ndarray) -> Batch:
        """Return these documents as one batch."""
        import torch

        rows = [self._rows[place] for place in places]
        tokens = torch.full((len(rows), max(map(len, rows))), self._pad)
        for at, row in enumerate(rows):
            tokens[at, : len(row)] = torch.tensor(row)
        ends = torch.tensor([len(row) - 1 for row in rows])
        return Batch(tokens, ends, torch.from_numpy(self._prices[places]))


class Pretraining:
    """A model on its way: weights, optimizers and losses; ``step`` after ``step`` it reads on."""

    def __init__(
        self, recipe: Recipe, documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast
    ) -> None:
        import torch

        self.recipe, self.model = recipe, new_model(recipe, tokenizer)
        self.shelf = Shelf(documents, tokenizer, recipe.batch, recipe.seed)
        self.targets, self.prices = price_targets(recipe.width), price_tokens(tokenizer)
        self.losses: list[tuple[float, float]] = []
        named = list(self.model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in named if p.ndim != 2 or "embed" in name]
        # Muon (Jordan et al., 2024) needs about half of the steps that AdamW alone needs here.
        self.optimizers = [
            torch.optim.Muon(
                matrices, lr=recipe.matrix_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01),
        ]

    def step(self) -> tuple[float, float]:
        """Read a batch; return the loss of its words and that of its prices (nats a token)."""
        import torch

        recipe, number = self.recipe, len(self.losses)
        for optimizer, rate in zip(self.optimizers, (recipe.matrix_rate, recipe.rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share_of_rate(number, recipe)
        batch = self.shelf.at(number)
        draw = torch.Generator().manual_seed(recipe.seed * 1_000_003 + number)
        chosen = torch.rand(batch.tokens[:, 1:].shape, generator=draw) < recipe.words
        of_words, of_prices = self._loss(batch, chosen)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        (of_words + of_prices).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.losses.append((of_words.item(), of_prices.item()))
        return self.losses[-1]

    def _loss(self, batch: Batch, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss of the words marked by ``chosen`` (n, length - 1), and of prices."""
        import torch
        from torch.nn.functional import cross_entropy

        hidden = self.model.model(input_ids=batch.tokens).last_hidden_state
        wanted = batch.tokens[:, 1:]
        words = chosen & (torch.arange(wanted.shape[1])[None, :] < batch.ends[:, None])
        of_words = cross_entropy(self.model.lm_head(hidden[:, :-1][words]), wanted[words])
        priced = batch.prices >= 0
        last = hidden[torch.arange(len(batch.ends)), batch.ends][priced]
        logs = torch.log_softmax(self.model.lm_head(last), -1)[:, self.prices]
        return of_words, -(self.targets[batch.prices[priced]] * logs).sum(1).mean()

    def state(self) -> dict[str, Any]:
        """Return all that going on needs, as tensors and numbers."""
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        weights = self.model.state_dict()
        return {"weights": weights, "optimizers": optimizers, "losses": self.losses}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.model.load_state_dict(state["weights"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.losses = [tuple(pair) for pair in state["losses"]]


def share_of_rate(step: int, recipe: Recipe) -> float:
    """Return the share of the learning rate: up in ``warm_up`` steps, then down a cosine."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(recipe.steps - recipe.warm_up, 1)
    return 0.5 * (1 + math.cos(math.pi * done))


def median_error(
    model: LlamaForCausalLM, documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast
) -> float:
    """Return the mean absolute error in dollars of the median price after each priced document."""
    import torch

    priced = [one for one in documents if one[1] is not None]
    shelf, prices, misses = Shelf(priced, tokenizer, 1, 0), price_tokens(tokenizer), []
    order = np.argsort([len(text) for text, _ in priced])
    with torch.no_grad():
        for at in range(0, len(order), 64):
            batch = shelf.batch(order[at : at + 64])
            hidden = model.model(input_ids=batch.tokens).last_hidden_state
            last = hidden[torch.arange(len(batch.ends)), batch.ends]
            below = torch.softmax(model.lm_head(last)[:, prices], -1).cumsum(1) < 0.5
            misses.append((below.sum(1).clamp(max=DOLLARS - 1) - batch.prices).abs())
    return float(torch.cat(misses).float().mean())
