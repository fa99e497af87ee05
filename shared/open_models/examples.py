"""Items as examples to fine-tune on: a prompt, and the completion that the loss is computed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from shared.prompts import completion, completion_prompt

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def cut(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[str]:
    """Return the first ``tokens`` tokens of each text, as text.

    Descriptions begin with what matters, and a step costs by its longest text. It is the text that
    is cut, not the prompt: its last words, "Price is $", have to stay.
    """
    if tokens < 1:
        raise ValueError(f"{tokens} tokens of a text: at least 1 is needed")
    if not texts:
        return []
    found = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    return [
        text if len(offsets) <= tokens else text[: offsets[tokens - 1][1]]
        for text, offsets in zip(texts, found["offset_mapping"], strict=True)
    ]


def prompts_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[str]:
    """Return the prompt for each product's text, cut to ``tokens`` tokens of description."""
    return [completion_prompt(text) for text in cut(texts, tokenizer, tokens)]


def examples(
    items: pa.Table, tokenizer: PreTrainedTokenizerBase, tokens: int, replay: Sequence[str] = ()
) -> Dataset:
    """Return items (ITEM schema) as a data set with the columns ``prompt`` and ``completion``.

    ``replay``: texts of the kind that the base was trained on, to be learnt as they are, so that
    they are not forgotten; their prompt is empty. The tokenizer's sign of the end is added by the
    trainer. Raises ValueError for an item without a price above zero that can be taught.
    """
    from datasets import Dataset

    prices, ids = items["price"].to_pylist(), items["id"].to_pylist()
    for price, item in zip(prices, ids, strict=True):
        if price is None or not price > 0:
            raise ValueError(f"item {item} has no price above 0: leave it out")
    return Dataset.from_dict(
        {
            "prompt": [
                *prompts_of(items["text"].to_pylist(), tokenizer, tokens),
                *([""] * len(replay)),
            ],
            "completion": [
                *(completion(price) for price in prices),
                *cut(replay, tokenizer, tokens),
            ],
        }
    )
