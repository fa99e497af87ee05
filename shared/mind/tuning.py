"""Fine-tuning that really learns: a correction of the stand-in's own estimates, by hashed words."""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from shared.mind.conversation import count_tokens
from shared.mind.pricing import NUMBER, PRODUCT, off_the_cuff, words

SLOTS = 2**15
LEAST = 10
"""Examples a job needs."""


class LessonError(ValueError):
    """A file that cannot be learnt from; ``code`` is the API's word for why."""

    def __init__(self, message: str, code: str = "invalid_training_file"):
        super().__init__(message)
        self.message, self.code = message, code


@dataclass(frozen=True)
class Lessons:
    """Training or validation examples: the products' texts, their log prices, all tokens."""

    products: list[str]
    targets: np.ndarray
    tokens: int


@dataclass
class Learnt:
    """Weights after each epoch, and the losses on the way: dicts of step, train_loss, valid_loss.

    Losses are mean squared errors of the log price.
    """

    weights: list[np.ndarray] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def correction(self, product: str, epoch: int = -1) -> float:
        """Return what the log price of a product is corrected by."""
        slots, value = _features(product)
        return float(self.weights[epoch][slots].sum() * value)


def read_lessons(data: bytes, least: int = LEAST) -> Lessons:
    """Read chat JSONL; raise LessonError naming the first line that cannot be learnt from."""
    products, targets = [], []
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            turns = {m["role"]: m["content"] for m in json.loads(line)["messages"]}
            user, said = turns["user"], turns["assistant"]
            found = PRODUCT.findall(user)
            products.append((found[-1][0] if found else user).strip())
        except (ValueError, KeyError, TypeError) as error:
            raise LessonError(
                f"Invalid file format. Line {number} is not a chat example with messages of roles "
                f"user and assistant: {error!r}"
            ) from None
        price = NUMBER.search(re.sub(r'"(?!price)\w+":\s*[\d.]+,?', "", said))
        if price is None or float(price[0].replace(",", "")) <= 0:
            message = f"Line {number}: the assistant's message holds no price: {said[:40]!r}"
            raise LessonError(message)
        targets.append(math.log(float(price[0].replace(",", ""))))
    if len(products) < least:
        message = f"Training file has {len(products)} example(s), but must have at least {least}."
        raise LessonError(message, "invalid_n_examples")
    return Lessons(products, np.array(targets), count_tokens(data.decode("utf-8", "replace")))


def learn(
    lessons: Lessons, valid: Lessons | None, epochs: int, batch: int, rate: float, seed: int
) -> Learnt:
    """Fit by AdaGrad on mini-batches: few examples move little, thousands a lot."""
    inputs = [_features(product) for product in lessons.products]
    left = lessons.targets - [off_the_cuff(product) for product in lessons.products]
    weights, squares, learnt = np.zeros(SLOTS), np.full(SLOTS, 0.5), Learnt()
    order, step = np.random.default_rng(seed), 0
    for _ in range(epochs):
        shuffled = order.permutation(len(inputs))
        for start in range(0, len(inputs), batch):
            chosen, loss, gradient = shuffled[start : start + batch], 0.0, np.zeros(SLOTS)
            for at in chosen:
                slots, value = inputs[at]
                miss = weights[slots].sum() * value - left[at]
                loss += miss * miss / len(chosen)
                gradient[slots] += np.clip(miss, -2, 2) * value
            touched = np.flatnonzero(gradient)
            squares[touched] += gradient[touched] ** 2
            weights[touched] -= rate * gradient[touched] / np.sqrt(squares[touched])
            step += 1
            learnt.steps.append({"step": step, "train_loss": round(float(loss), 4)})
        learnt.weights.append(weights.copy())
        learnt.ends.append(step)
        if valid is not None:
            guesses = [off_the_cuff(p) + learnt.correction(p) for p in valid.products]
            learnt.steps[-1]["valid_loss"] = float(np.mean((valid.targets - guesses) ** 2).round(4))
    return learnt


def _features(product: str) -> tuple[np.ndarray, float]:
    """Return the slots of a product's words, pairs and a constant, and their common value."""
    found = words(product[:1200])
    grams = {*found, *map(" ".join, pairwise(found)), ""}
    slots = np.unique([zlib.crc32(gram.encode()) % SLOTS for gram in grams])
    return slots, 1.0 / math.sqrt(len(slots))
