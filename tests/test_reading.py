"""Prices read out of a language model: the whole distribution, by one forward pass."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from shared.open_models.reading import (  # noqa: E402
    Distribution,
    NumberTree,
    price_tokens_of,
    read_prices,
)
from shared.pretraining.tokenizer import train_tokenizer  # noqa: E402
from shared.prompts import completion_prompt  # noqa: E402

TEXTS = ["Kettle\n1.7 litres", "A very long description of a lamp " * 4, "Oil"]


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer that writes 0 to 999 as one token ("numbers"), or a token a digit."""
    if kind == "numbers":
        return train_tokenizer(TEXTS * 20, 1_700)
    letters = {chr(n): n for n in range(256)}
    raw = Tokenizer(models.BPE(vocab=letters, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=chr(0), pad_token=chr(1))


def model_for(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def one_by_one(model, tokenizer, prompt: str, prices: list[int]) -> np.ndarray:
    """Score each price on its own, token by token, as one would by hand."""
    digits = {at for at in range(len(tokenizer)) if tokenizer.decode([at]).isdecimal()}
    paths = [price_tokens_of(tokenizer, price) for price in prices]
    found = []
    for path in paths:
        start = tokenizer(prompt).input_ids
        ids = torch.tensor([[*start, *path]])
        with torch.no_grad():
            logs = torch.log_softmax(model(ids).logits[0].float(), -1)
        total = sum(logs[len(start) - 1 + at, token].item() for at, token in enumerate(path))
        if any(other[: len(path)] == path and other != path for other in paths):
            total += np.log1p(-sum(logs[-1, token].exp().item() for token in digits))
        found.append(np.exp(total))
    return np.array(found)


@pytest.mark.parametrize(
    ("kind", "prices"),
    [
        ("numbers", [0, 1, 12, 129, 999]),
        ("numbers", [12, 129, 1_290, 1_299, 12_999]),
        ("digits", list(range(130))),
        ("digits", [5, 50, 55, 555, 1_000, 10_000]),
    ],
)
def test_all_prices_at_once_are_as_likely_as_one_by_one(kind: str, prices: list[int]) -> None:
    tokenizer = tokenizer_of(kind)
    model = model_for(tokenizer)
    prompts = [completion_prompt(text) for text in TEXTS]
    found = read_prices(model, tokenizer, prompts, prices, batch=2)
    for row, prompt in enumerate(prompts):
        wanted = one_by_one(model, tokenizer, prompt, prices)
        assert found.mass[row] == pytest.approx(wanted.sum(), rel=1e-4)
        np.testing.assert_allclose(found.probabilities[row], wanted / wanted.sum(), rtol=2e-3)


def test_a_tree_of_single_tokens_adds_nothing_to_the_prompt() -> None:
    assert len(NumberTree(tokenizer_of("numbers")).nodes) == 1
    assert len(NumberTree(tokenizer_of("digits")).nodes) == 1 + 9 + 90


def test_digits_of_all_prices_make_a_whole() -> None:
    """What a digit model says is a number up to 999 or not: the masses never exceed 1."""
    tokenizer = tokenizer_of("digits")
    found = read_prices(model_for(tokenizer), tokenizer, [completion_prompt("Oil")])
    assert 0 < found.mass[0] <= 1


def test_the_order_of_prompts_and_the_batch_do_not_matter() -> None:
    tokenizer = tokenizer_of("numbers")
    model = model_for(tokenizer)
    prompts = [completion_prompt(text) for text in TEXTS]
    apart = [read_prices(model, tokenizer, [p]).probabilities[0] for p in prompts]
    told: list[int] = []
    together = read_prices(model, tokenizer, prompts, batch=3, tell=told.append)
    np.testing.assert_allclose(together.probabilities, apart, rtol=1e-3)
    assert sum(told) == 3
    assert read_prices(model, tokenizer, []).probabilities.shape == (0, 1_000)


def test_median_mean_mode_and_quantiles() -> None:
    found = Distribution(
        np.array([10, 20, 90]), np.array([[0.3, 0.4, 0.3], [0.5, 0.1, 0.4]]), np.ones(2)
    )
    assert found.median.tolist() == [20, 10]
    assert found.mode.tolist() == [20, 10]
    assert found.mean.tolist() == pytest.approx([38, 43])
    assert found.quantile(0.95).tolist() == [90, 90]
    with pytest.raises(ValueError, match="quantile"):
        found.quantile(1.0)


def test_a_tokenizer_that_joins_words_and_price_is_refused() -> None:
    tokenizer = tokenizer_of("digits")
    joined = Tokenizer(
        models.WordLevel({"Price": 0, "is": 1, "$": 2, "$5": 3, "?": 4}, unk_token="?")
    )
    joined.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(ValueError, match="one piece"):
        NumberTree(PreTrainedTokenizerFast(tokenizer_object=joined), [5, 6])
    with pytest.raises(ValueError, match="two prices"):
        NumberTree(tokenizer, [5])
    with pytest.raises(ValueError, match="cannot be taught"):
        NumberTree(tokenizer, [5, 1_000_000])


def test_a_model_that_gives_no_price_a_chance_knows_nothing() -> None:
    tokenizer = tokenizer_of("numbers")
    model = model_for(tokenizer)
    with torch.no_grad():
        model.lm_head.weight[price_tokens_of(tokenizer, 7)[0]] *= 0
        found = read_prices(model, tokenizer, [completion_prompt("Oil")], [7, 8])
    assert np.isfinite(found.probabilities).all()
