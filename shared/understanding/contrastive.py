"""Reading before learning: which title belongs to which description, without a single label.

BERT guesses hidden words of millions of pages. A small encoder learns more from a harder question:
of a batch of descriptions, find the one that belongs to a title (contrastive pairs, as in E5; Wang
et al., 2022). Texts are free where labels are dear, and it is what few labels can then build on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize
from tqdm.auto import tqdm

from shared.pricers.neural import one_thread
from shared.understanding.classifying import (
    Classifier,
    own_encoder,
    padded,
    share_of_rate,
    tokens_of,
)

LONGEST = 400
"""Tokens of a description that the piece to read is taken from."""


@dataclass(frozen=True)
class Pairs:
    """How pairs are read: ``batch`` titles and descriptions in each of ``steps``.

    ``dropped``: share of the tokens that are left out, so that it is not one word that gives a pair
    away. ``temperature`` sharpens the similarities.
    """

    steps: int = 600
    batch: int = 64
    rate: float = 1e-3
    dropped: float = 0.15
    temperature: float = 0.05
    seed: int = 42


def pretrain(
    classifier: Classifier, texts: Sequence[str], pairs: Pairs | None = None, *,
    progress: bool = True,
) -> Classifier:  # fmt: skip
    """Let an encoder read n texts in place, titles in their first lines, and return it.

    Its outputs stay as they are: ``teach_classifier`` comes next. Raises ValueError for an encoder
    of the hub, which has read enough, and for fewer than two texts of more than one line.
    """
    pairs, model = pairs or Pairs(), own_encoder(classifier)
    split = [text.partition("\n") for text in texts if "\n" in text]
    if len(split) < 2:
        raise ValueError(f"{len(split)} of {len(texts)} texts have a title and a description")
    tokens, pad = classifier.recipe.tokens, classifier.tokenizer.pad_token_id
    titles = tokens_of(classifier.tokenizer, [title for title, _, _ in split], tokens)
    others = tokens_of(classifier.tokenizer, [rest for _, _, rest in split], LONGEST)
    draw, size = np.random.default_rng(pairs.seed), min(pairs.batch, len(split))
    optimizer = torch.optim.AdamW(model.parameters(), lr=pairs.rate, weight_decay=0.01)
    model.train()
    with one_thread(), tqdm(
        total=pairs.steps, desc="read", unit="step", disable=not progress
    ) as bar:  # fmt: skip
        for step in range(pairs.steps):
            optimizer.param_groups[0]["lr"] = pairs.rate * share_of_rate(step, pairs.steps)
            chosen = draw.permutation(len(split))[:size]
            sides = [
                padded([_some(rows[at], tokens, pairs.dropped, draw) for at in chosen], pad)
                for rows in (titles, others)
            ]
            first, second = (normalize(model.pooled(**side), dim=1) for side in sides)
            alike, own = first @ second.T / pairs.temperature, torch.arange(size)
            optimizer.zero_grad()
            (cross_entropy(alike, own) + cross_entropy(alike.T, own)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.update()
    model.eval()
    return classifier


def _some(row: list[int], tokens: int, dropped: float, draw: np.random.Generator) -> list[int]:
    """Return a stretch of a row, without a few of its tokens, never without all of them."""
    start = int(draw.integers(max(len(row) - tokens, 0) + 1))
    piece = row[start : start + tokens]
    kept = draw.random(len(piece)) >= dropped
    return [token for token, stays in zip(piece, kept, strict=True) if stays] or piece
