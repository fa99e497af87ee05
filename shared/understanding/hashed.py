"""A student of another kind: hashed n-grams instead of tokens and attention.

It is the network of the smallest pricers, with one output for each category. It has no tokenizer,
and what it does is a sum of rows and three small products: that is where ten to a hundred times
are won. What it cannot do is what it never reads: the order of words beyond its n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from shared.compression.features import Reading
from shared.compression.network import Network, Plan, descend, inputs_of, new_network, outputs_of
from shared.understanding.classifying import taught_loss
from shared.understanding.encoder import Recipe
from shared.understanding.exported import as_products
from shared.understanding.labels import TextClassifier

HASHED = Plan(Reading(buckets=2**14), width=8, hidden=32, epochs=20)
"""About 140 kB in eight bits, and 45 with ``SMALLEST``."""
SMALLEST = Plan(Reading(buckets=2**12), width=8, hidden=32, epochs=20)

HELD_OUT = 10
"""One text of so many is not learnt from: by these the best epoch is chosen."""


@dataclass
class HashedClassifier(TextClassifier):
    """A network on hashed n-grams, in PyTorch, the categories of its outputs, and its plan."""

    network: Network
    categories: tuple[str, ...]
    plan: Plan
    name: str = "hashed n-grams"

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the outputs for n texts, float64, (n, categories)."""
        if not len(texts):
            return np.empty((0, len(self.categories)))
        return outputs_of(self.network, inputs_of(as_products(texts), self.network.reading))


def new_hashed(categories: Sequence[str], plan: Plan = HASHED) -> HashedClassifier:
    """Return an untaught network of a plan: for it, each category is as likely as the others."""
    return HashedClassifier(new_network(plan, outputs=len(categories)), tuple(categories), plan)


def teach_hashed(
    student: HashedClassifier, texts: Sequence[str], labels: np.ndarray, *,
    teacher: TextClassifier | None = None, recipe: Recipe | None = None, progress: bool = True,
) -> HashedClassifier:  # fmt: skip
    """Teach a student in place with n texts and labels, and return it.

    ``teacher``: one of the same categories, whose probabilities are learnt as well. A text of the
    label -1 has none: the teacher alone says what it is. ``recipe`` says how much the teacher
    counts (``soft``, ``temperature``); nothing else of it is used. The epoch that is best on a
    tenth of the texts, by the same measure, is kept. Raises ValueError for fewer than ``HELD_OUT``
    texts.
    """
    if len(texts) < HELD_OUT:
        raise ValueError(f"{len(texts)} texts to learn from: at least {HELD_OUT} are needed")
    network = student.network
    loss = taught_loss(teacher, texts, labels, student.categories, recipe or Recipe())
    inputs = inputs_of(as_products(texts), network.reading)
    order = np.random.default_rng(student.plan.seed).permutation(len(texts))
    judged, taught = np.split(order, [len(texts) // HELD_OUT])

    def judge() -> float:
        found = outputs_of(network, tuple(part[judged] for part in inputs))
        return float(loss(judged, torch.from_numpy(found).float()))

    learnt = tuple(part[taught] for part in inputs)
    descend(
        network, learnt, lambda rows, found: loss(taught[rows], found), judge, student.plan,
        progress=progress,
    )  # fmt: skip
    return student
