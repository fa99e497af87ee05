"""A tokenizer like that of Llama 3, trained here: byte pairs for words, one token a number.

The digits of a text are cut into groups of at most three, and every such group is a token of its
own, so that a price of up to 999 whole dollars is one token, and one distribution says all about
it. Llama 3 does just that; others (Qwen) have a token a digit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BEGIN, END, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"

NUMBERS = [f"{n:0{width}d}" for width in (2, 3) for n in range(10**width)]
"""All groups of two and three digits; single digits are bytes, which every tokenizer has."""

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Llama 3 cuts a text before byte pairs are merged: contractions, words with the space or
sign before them, up to three digits, signs, line ends, spaces."""


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train byte pairs on texts and return a tokenizer of ``size`` tokens.

    The same texts give the same tokens. Raises ValueError if ``size`` has no room for the bytes,
    the numbers and a few words.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = size - len(NUMBERS)
    if words < 400:
        raise ValueError(f"{size} tokens: {len(NUMBERS)} are numbers, and 400 are needed for words")
    learner = Tokenizer(models.BPE())
    # No pair of digits is merged: which digits often meet is no matter of their frequency.
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), _cut(Regex(_WORDS))]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    vocabulary = learnt["vocab"]
    for number in NUMBERS:
        vocabulary[number] = len(vocabulary)
    merges = [tuple(pair) for pair in learnt["merges"]]
    # A word that is a token needs no merges: so numbers are found without any.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = _cut(Regex(_WORDS))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, vocabulary[BEGIN])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=PAD
    )


def _cut(pattern: Any) -> Any:
    """Cut by a pattern, and write what is between the cuts in bytes."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
