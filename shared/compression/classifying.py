"""The understanding case: an encoder of BERT's kind that says of which category a product is.

Models that understand a text, instead of writing one, shrink best: the answer is one of a few. Here
one is trained, distilled into a smaller one, pruned and quantised; any encoder of the hub can take
the teacher's place.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax
from tqdm.auto import tqdm

from shared.compression.encoder import FIRST, Encoder, Recipe, encoder_graph
from shared.compression.exported import MODEL, write_exported
from shared.compression.exported_text import CLASSIFIER, TOKENIZER
from shared.compression.exporting import as_bytes
from shared.compression.network import one_thread
from shared.data.curation import UNKNOWN
from shared.pretraining.making import TINY, BaseModelError, open_base

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FP32_TOLERANCE = 1e-4
"""By how much a probability may differ from that of PyTorch, with 32 bits."""
INT8_TOLERANCE = 0.1
"""The same with eight bits; most differ by less than a hundredth."""

ASKED = 128
"""Texts in a forward pass without gradients."""


TEACHER = Recipe()
STUDENT = Recipe(layers=1, hidden=64, heads=2, inner=128, epochs=4, rate=3e-3)


@dataclass
class Classifier:
    """An encoder, its tokenizer, and the categories it tells apart, in the order of its outputs."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    categories: tuple[str, ...]
    recipe: Recipe

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the outputs for n texts, float64, (n, categories)."""
        found = np.zeros((len(texts), len(self.categories)))
        rows = tokens_of(self.tokenizer, texts, self.recipe.tokens)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        self.model.eval()
        with torch.no_grad(), one_thread():
            for at in range(0, len(order), ASKED):
                chosen = order[at : at + ASKED]
                inputs = padded([rows[row] for row in chosen], self.tokenizer.pad_token_id)
                found[chosen] = _outputs(self.model, inputs).double().numpy()
        return found

    def accuracy(self, items: pa.Table) -> float:
        """Return the share of items whose category it tells."""
        texts, labels = examples(items, self.categories)
        return float((self.logits(texts).argmax(axis=1) == labels).mean())


def categories_of(items: pa.Table, least: int = 10) -> tuple[str, ...]:
    """Return the categories that at least so many items have, sorted; not the unknown one."""
    counts = Counter(items["category"].to_pylist())
    return tuple(sorted(n for n, c in counts.items() if n and n != UNKNOWN and c >= least))


def examples(items: pa.Table, categories: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return texts and labels (places in ``categories``) of the items that have one of these.

    Raises ValueError if none has.
    """
    some = items.filter(pc.is_in(items["category"], pa.array(categories, pa.string())))
    if not len(some):
        raise ValueError(f"none of {len(items):,} items is of: {', '.join(categories)}")
    places = {name: at for at, name in enumerate(categories)}
    return some["text"].to_pylist(), np.array([places[c] for c in some["category"].to_pylist()])


def new_classifier(categories: Sequence[str], recipe: Recipe = TEACHER) -> Classifier:
    """Return an untaught encoder that reads the tokens of the tiny base model.

    Where it is as wide as the base, it starts with that one's word embeddings: what it has read
    of words is worth a lot where labels are few.
    """
    base, tokenizer = open_base(TINY)
    words = base.model.embed_tokens.weight.detach()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = Encoder(recipe, len(words), len(categories))
    if recipe.hidden == words.shape[1]:
        model.words.weight.data.copy_(words / words.std() * FIRST)
    return Classifier(model, tokenizer, tuple(categories), recipe)


def hub_classifier(name: str, categories: Sequence[str], recipe: Recipe = TEACHER) -> Classifier:
    """Return an encoder of the hub, or of a folder, with a new output for these categories.

    "distilbert-base-uncased" or "microsoft/MiniLM-L12-H384-uncased", say, to be taught with a rate
    of about 5e-5, and then to teach. Raises BaseModelError if it cannot be had.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = AutoModelForSequenceClassification.from_pretrained(
                name, num_labels=len(categories), dtype=torch.float32,
                ignore_mismatched_sizes=True,  # it may tell other things apart so far
            )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"{name}: cannot be opened ({(str(error) or repr(error)).splitlines()[0][:200]}): a "
            "misspelt name, or no connection; new_classifier() needs none"
        ) from error
    return Classifier(model, tokenizer, tuple(categories), recipe)


def teach_classifier(
    classifier: Classifier, texts: Sequence[str], labels: np.ndarray, *,
    teacher: Classifier | None = None, progress: bool = True,
) -> Classifier:  # fmt: skip
    """Teach a classifier in place with n texts and labels, and return it.

    ``teacher``: one of the same categories, whose probabilities are learnt as well. A text of the
    label -1 has none: the teacher alone says what it is.
    """
    if teacher is not None and teacher.categories != classifier.categories:
        raise ValueError("teacher and student tell other categories apart")
    if teacher is None and (labels < 0).any():
        raise ValueError("texts without a label need a teacher")
    recipe, model = classifier.recipe, classifier.model
    nothing = np.zeros((len(texts), len(classifier.categories)))
    said = torch.from_numpy(nothing if teacher is None else teacher.logits(texts)).float()
    soft = 0.0 if teacher is None else recipe.soft
    rows = tokens_of(classifier.tokenizer, texts, recipe.tokens)
    wanted = torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.01)
    batches = max(len(rows) // recipe.batch, 1)
    total = batches * recipe.epochs
    with one_thread(), torch.random.fork_rng(devices=[]), tqdm(
        total=total, desc="teach", unit="step", disable=not progress
    ) as bar:  # fmt: skip
        torch.manual_seed(recipe.seed)
        model.train()
        for step in range(total):
            if step % batches == 0:
                order = torch.randperm(len(rows))
            chosen = order[step % batches * recipe.batch :][: recipe.batch]
            share = min(1.0, (step + 1) / (0.1 * total)) * (1 - step / total)
            optimizer.param_groups[0]["lr"] = recipe.rate * share
            inputs = padded([rows[row] for row in chosen], classifier.tokenizer.pad_token_id)
            optimizer.zero_grad()
            found = _outputs(model, inputs)
            loss = (1 - soft) * _missed(found, wanted[chosen])
            loss += soft * _unlike(found, said[chosen], recipe.temperature)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.update()
    model.eval()
    return classifier


def _outputs(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    found = model(**inputs)
    return getattr(found, "logits", found)  # those of the hub return more than that


def _missed(found: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    known = labels >= 0
    return cross_entropy(found[known], labels[known]) if known.any() else found.sum() * 0


def _unlike(found: torch.Tensor, said: torch.Tensor, flat: float) -> torch.Tensor:
    likely = torch.softmax(said / flat, dim=1)
    return -(likely * log_softmax(found / flat, dim=1)).sum(dim=1).mean() * flat**2


def without_neurons(classifier: Classifier, share: float) -> Classifier:
    """Return a classifier without a ``share`` of the neurons in each feed-forward part.

    Those go whose weights, in and out, are smallest: whole rows and columns, so that what is left
    is a smaller model, and a faster one (structured pruning). Teach it on for an epoch.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share {share}: from 0 to below 1")
    if not isinstance(classifier.model, Encoder):
        raise ValueError("only encoders made here can be pruned: distil this one into one")
    found = copy.deepcopy(classifier.model)
    for first, second in ((layer.linear1, layer.linear2) for layer in found.layers):
        weights = first.weight.norm(dim=1) * second.weight.norm(dim=0)
        first.out_features = second.in_features = max(round((1 - share) * len(weights)), 1)
        kept = weights.argsort(descending=True, stable=True)[: first.out_features].sort().values
        first.weight = nn.Parameter(first.weight.detach()[kept])
        first.bias = nn.Parameter(first.bias.detach()[kept])
        second.weight = nn.Parameter(second.weight.detach()[:, kept].contiguous())
    return replace(classifier, model=found)


def export_classifier(classifier: Classifier, folder: Path, precision: str = "int8") -> Path:
    """Write a classifier as a folder that ``ExportedClassifier`` opens; return the folder.

    Raises ValueError for an encoder of the hub: distil it into one that was made here.
    """
    if not isinstance(classifier.model, Encoder):
        raise ValueError("only encoders made here are written as ONNX: distil this one into one")
    tokenizer, recipe = classifier.tokenizer, classifier.recipe
    facts = {
        "kind": CLASSIFIER, "precision": precision, "categories": list(classifier.categories),
        "tokens": recipe.tokens, "pad": tokenizer.pad_token_id,
    }  # fmt: skip
    files = {
        MODEL: as_bytes(encoder_graph(classifier.model), precision, ("Gather", "MatMul")),
        TOKENIZER: tokenizer.backend_tokenizer.to_str().encode(),
    }
    return write_exported(folder, files, facts)


def tokens_of(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], tokens: int
) -> list[list[int]]:
    """Return the first ``tokens`` tokens of each text, the one that begins it included."""
    if not len(texts):
        return []
    return tokenizer(list(texts), truncation=True, max_length=tokens).input_ids


def padded(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Any]:
    """Return token ids as the inputs of an encoder, padded on the right."""
    ids = torch.full((len(rows), max(map(len, rows))), pad)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
