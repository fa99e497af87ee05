"""The understanding case: an encoder of BERT's kind that says of which category a product is.

Models that understand a text, instead of writing one, shrink best: the answer is one of a few. Here
one is trained, distilled into a smaller one, pruned and quantised; any encoder of the hub can take
the teacher's place.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax
from tqdm.auto import tqdm

from shared.compression.network import Loss
from shared.open_models.opening import no_bar_for_a_blink
from shared.pretraining.making import TINY, BaseModelError, open_base
from shared.pricers.neural import one_thread
from shared.understanding.encoder import FIRST, Encoder, Recipe
from shared.understanding.labels import TextClassifier

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASKED = 128
"""Texts in a forward pass without gradients."""

TEACHER = Recipe(epochs=4, rate=2e-3)
NARROW = Recipe(layers=1, hidden=64, heads=2, inner=128, epochs=4, rate=3e-3)
"""Half as wide and half as deep: a student of the same kind."""


@dataclass
class Classifier(TextClassifier):
    """An encoder, its tokenizer, and the categories it tells apart, in the order of its outputs."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    categories: tuple[str, ...]
    recipe: Recipe
    name: str = "encoder"

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


def new_classifier(categories: Sequence[str], recipe: Recipe = TEACHER) -> Classifier:
    """Return an untaught encoder that reads the tokens of the tiny base model.

    Where it is as wide as the base, it starts with that one's word embeddings: what it has read
    of words is worth a lot where labels are few.
    """
    with no_bar_for_a_blink(str(TINY)):
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
    teacher: TextClassifier | None = None, progress: bool = True,
) -> Classifier:  # fmt: skip
    """Teach a classifier in place with n texts and labels, and return it.

    ``teacher``: one of the same categories, whose probabilities are learnt as well. A text of the
    label -1 has none: the teacher alone says what it is.
    """
    recipe, model = classifier.recipe, classifier.model
    loss = taught_loss(teacher, texts, labels, classifier.categories, recipe)
    rows = tokens_of(classifier.tokenizer, texts, recipe.tokens)
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
            optimizer.param_groups[0]["lr"] = recipe.rate * share_of_rate(step, total)
            inputs = padded([rows[row] for row in chosen], classifier.tokenizer.pad_token_id)
            optimizer.zero_grad()
            loss(chosen.numpy(), _outputs(model, inputs)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.update()
    model.eval()
    return classifier


def _outputs(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    found = model(**inputs)
    return getattr(found, "logits", found)  # those of the hub return more than that


def share_of_rate(step: int, total: int) -> float:
    """Return the share of the learning rate in a step: up in a tenth of them, then down a line."""
    return min(1.0, (step + 1) / (0.1 * total)) * (1 - step / total)


def own_encoder(classifier: Classifier) -> Encoder:
    """Return the encoder of a classifier. Raises ValueError if it is one of the hub."""
    if not isinstance(classifier.model, Encoder):
        raise ValueError("only encoders made here can do that: distil this one into one")
    return classifier.model


def taught_loss(
    teacher: TextClassifier | None, texts: Sequence[str], labels: np.ndarray,
    categories: Sequence[str], recipe: Recipe,
) -> Loss:  # fmt: skip
    """Return how far outputs are from the labels of texts, and from what a teacher says of them.

    The recipe says how much each counts. Raises ValueError if teacher and student tell other
    categories apart, or nobody says what a text is.
    """
    if teacher is not None and teacher.categories != tuple(categories):
        raise ValueError("teacher and student tell other categories apart")
    if teacher is None and (labels < 0).any():
        raise ValueError("texts without a label need a teacher")
    wanted, soft, flat = torch.from_numpy(labels), recipe.soft, recipe.temperature
    if teacher is None:
        return lambda rows, found: _missed(found, wanted[rows])
    said = torch.from_numpy(teacher.logits(texts)).float()
    return lambda rows, found: (
        (1 - soft) * _missed(found, wanted[rows]) + soft * _unlike(found, said[rows], flat)
    )


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
    found = copy.deepcopy(own_encoder(classifier))
    for first, second in ((layer.linear1, layer.linear2) for layer in found.layers):
        weights = first.weight.norm(dim=1) * second.weight.norm(dim=0)
        first.out_features = second.in_features = max(round((1 - share) * len(weights)), 1)
        kept = weights.argsort(descending=True, stable=True)[: first.out_features].sort().values
        first.weight = nn.Parameter(first.weight.detach()[kept])
        first.bias = nn.Parameter(first.bias.detach()[kept])
        second.weight = nn.Parameter(second.weight.detach()[:, kept].contiguous())
    inner = found.layers[0].linear1.out_features
    recipe = replace(classifier.recipe, inner=inner)
    return replace(classifier, model=found, recipe=recipe, name=f"pruned {classifier.name}")


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
