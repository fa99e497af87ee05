"""What a model still knows of what it knew: perplexity of general text, and small old tasks.

Catastrophic forgetting (McCloskey and Cohen, 1989): weights that learn one thing are the weights
that knew another. Nobody sees it in the error on the new task, so it is measured apart, on
documents that were neither trained nor evaluated on, before and after, with the same code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from shared.embedded.vocabulary import product_types
from shared.open_models.reading import LOGITS_BYTES, read_prices
from shared.pretraining.base_model import DOLLARS
from shared.pretraining.corpus import PAGE_CHARS, YEARS, other_products, price_then

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SEED, RECORDS, TEXTS = 5_150, 1_000, 200
"""Of the catalogue that is measured on, of which half become items; and texts of prose of it."""

LONGEST = 512
"""Tokens of prose that are read."""

CLEARLY = 1.5
"""How many times as much the dearer one of two things costs, at least."""


@dataclass(frozen=True)
class Documents:
    """What is measured on. Any model can be asked about ``prose``; the rest may be empty.

    ``prose``: texts without prices. ``lists``: lines like "2009: title - $", with what the thing
    did cost then in ``dollars``. ``completions``: task -> pairs of a text and how it goes on.
    """

    prose: Sequence[str]
    lists: Sequence[str] = ()
    dollars: Sequence[float] = ()
    completions: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


def other_documents(folder: Path, known: pa.Table) -> Documents:
    """Return documents of products that are not among ``known`` (ITEM schema), nor like them.

    They are of a catalogue that neither the tiny base nor a replay has read. What was curated for
    them stays in ``folder``: a second call opens it.
    """
    return documents_of(other_products(RECORDS, folder, known, seed=SEED))


def documents_of(items: pa.Table, seed: int = SEED) -> Documents:
    """Return documents about items (ITEM schema), as the tiny base has read of others."""
    rows = items.select(["title", "text", "price", "category"]).to_pylist()
    years = np.random.default_rng(seed).integers(YEARS[0], YEARS[1] + 1, len(rows)).tolist()
    dated = list(zip(years, rows, strict=True))
    then = [price_then(row["price"], row["category"], year) for year, row in dated]
    return Documents(
        prose=[row["text"][len(row["title"]) + 1 :][: PAGE_CHARS[1]] for row in rows][:TEXTS],
        lists=[_line(year, row) for year, row in dated],
        dollars=[min(max(round(price), 1), DOLLARS - 1) for price in then],
        completions={"noun": _nouns(rows), "unit": _units(rows)},
    )


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Documents, *,
    batch: int = 32,
) -> dict[str, float]:  # fmt: skip
    """Return what a causal language model knows of documents, each number with ``_error``.

    ``perplexity``: of a token of the prose; it guesses as if among so many equally likely ones.
    ``old_dollars``: mean error in dollars of the median price of a list. ``order``: share of pairs
    of lists, one clearly dearer than the other, that it puts in the right order. And the name of
    each completion task: share of its texts after which the right token is the likeliest.
    ``_error`` is the standard error, from the differences between documents. ``tokens`` of the
    prose were scored.
    """
    found = _perplexity(_score(model, tokenizer, documents.prose, batch, LONGEST))
    if documents.lists:
        read = read_prices(model, tokenizer, documents.lists, batch=batch)
        dollars = np.asarray(documents.dollars)
        found |= _mean("old_dollars", np.abs(read.median - dollars))
        found |= _order(read.probabilities @ np.log(read.prices + 0.5), dollars)
    for task, pairs in documents.completions.items():
        found |= _mean(task, _right(model, tokenizer, pairs, batch))
    return found


def _line(year: int, row: Mapping[str, Any]) -> str:
    return f"{year}: {row['title']} - $"


def _nouns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return titles up to the last word of a product's name, and that word."""
    kinds = {kind.name for kinds in product_types().values() for kind in kinds if " " in kind.name}
    names = re.compile("|".join(sorted(map(re.escape, kinds), key=lambda k: (-len(k), k))), re.I)
    found = [(row["title"], names.search(row["title"])) for row in rows]
    cuts = [(title, m.end() - len(m[0].split()[-1]) - 1, m.end()) for title, m in found if m]
    return [(title[:start], title[start:end]) for title, start, end in cuts]


def _units(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return texts up to the number of a weight, and the unit: who knows the thing, knows it."""
    found = [
        (row["text"], re.search(r"^Item Weight: [\d.]+( \w+)", row["text"], re.M)) for row in rows
    ]
    return [(text[: match.start(1)], match[1]) for text, match in found if match]


def _score(
    model: Any, tokenizer: Any, texts: Sequence[str], batch: int, longest: int | None = None
) -> list[np.ndarray]:
    """Return for each text (2, tokens - 1): log probabilities, and 1 where it was the likeliest.

    The first token is not guessed. Texts are padded on the right, where nothing reads the padding.
    """
    import torch

    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    rows = [ids[:longest] for ids in tokenizer(list(texts)).input_ids] if texts else []
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    width = max(map(len, rows), default=1)
    fitting = LOGITS_BYTES // (4 * max(width, 1) * model.config.get_text_config().vocab_size)
    batch = max(min(batch, fitting), 1)
    found: list[np.ndarray] = [np.zeros((2, 0))] * len(rows)
    training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            chosen = [row for row in order[start : start + batch] if len(rows[row]) > 1]
            tokens = [torch.tensor(rows[row]) for row in chosen]
            if not tokens:
                continue
            ids = torch.nn.utils.rnn.pad_sequence(tokens, True, pad).to(model.device)
            ends = torch.tensor([[len(row)] for row in tokens])
            mask = (torch.arange(ids.shape[1])[None, :] < ends).long().to(model.device)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            logs = torch.log_softmax(logits.float(), -1)
            of_wanted = logs.gather(-1, ids[:, 1:, None])[..., 0]
            pair = torch.stack([of_wanted, (logs.argmax(-1) == ids[:, 1:]).float()], 1)
            for row, scores in zip(chosen, pair.double().cpu().numpy(), strict=True):
                found[row] = scores[:, : len(rows[row]) - 1]
    model.train(training)
    return found


def _perplexity(scores: Sequence[np.ndarray]) -> dict[str, float]:
    """Return exp of the mean loss of a token; its error is that of a ratio of two sums."""
    losses = np.array([-logs.sum() for logs, _ in scores])
    tokens = np.array([logs.size for logs, _ in scores])
    if not tokens.sum():
        raise ValueError("no text of two tokens or more: there is nothing to measure on")
    loss = losses.sum() / tokens.sum()
    spread = math.sqrt(
        ((losses - loss * tokens) ** 2).sum() * len(tokens) / max(len(tokens) - 1, 1)
    )
    value = math.exp(loss)
    error = value * spread / float(tokens.sum())
    return {"perplexity": value, "perplexity_error": error, "tokens": float(tokens.sum())}


def _order(guesses: np.ndarray, dollars: np.ndarray) -> dict[str, float]:
    """Return the share of pairs in the right order; a thing's pairs go together in its error."""
    apart = np.abs(np.subtract.outer(np.log(dollars), np.log(dollars))) > math.log(CLEARLY)
    dearer, guessed = (np.subtract.outer(values, values) > 0 for values in (dollars, guesses))
    right = (dearer == guessed)[apart].mean() if apart.any() else math.nan
    shares = ((dearer == guessed) & apart).sum(1)[apart.any(1)] / apart.sum(1)[apart.any(1)]
    error = 2 * shares.std(ddof=1) / math.sqrt(len(shares)) if len(shares) > 1 else math.nan
    return {"order": float(right), "order_error": float(error)}


def _right(model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], batch: int) -> np.ndarray:
    """Return 1 for each pair whose text goes on, by the likeliest token, as the pair says."""
    before = tokenizer([text for text, _ in pairs]).input_ids
    scores = _score(model, tokenizer, [text + rest for text, rest in pairs], batch)
    return np.array([s[1, len(ids) - 1] for s, ids in zip(scores, before, strict=True)])


def _mean(name: str, values: np.ndarray) -> dict[str, float]:
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {name: float(values.mean()), f"{name}_error": float(error)}
