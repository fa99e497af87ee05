"""Distillation: a small network learns to say what a large model would say (Hinton et al., 2015).

The teacher prices texts whose prices nobody knows, so there are as many examples as there are
texts. The student sums a learnt row for each hashed n-gram and turns the sum into a log price: it
is nearly as good as its teacher, and a tenth or a hundredth of its size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from shared.compression.features import Reading
from shared.compression.lessons import Lesson, known_prices, prepare, targets_of
from shared.compression.network import (
    Inputs,
    Loss,
    Network,
    Plan,
    descend,
    inputs_of,
    new_network,
    outputs_of,
)
from shared.data import Product, products
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.data.storage import fingerprint
from shared.evaluation import Estimates

PRESETS = {"small": Plan(), "smallest": Plan(Reading(buckets=2**13), width=5, hidden=32)}
"""Name -> plan: about a tenth, and about a hundredth, of the size of the tuned tiny model."""


class Student:
    """A pricer made of a network on hashed n-grams; one of full precision, in PyTorch."""

    label = ""

    def __init__(self, network: Network, settings: dict[str, Any], name: str = "student") -> None:
        self.network, self.settings, self.name = network, settings, name

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product in dollars, within the window curation keeps."""
        if not products:
            return Estimates(np.empty(0))
        start = time.perf_counter()
        logs = outputs_of(self.network, inputs_of(products, self.network.reading))[:, 0]
        seconds = (time.perf_counter() - start) / len(products)
        return Estimates(in_dollars(logs), seconds=np.full(len(products), seconds))


def in_dollars(logs: np.ndarray) -> np.ndarray:
    """Return log prices as dollars, within the window curation keeps."""
    return np.exp(logs).clip(MIN_PRICE, MAX_PRICE)


def distil(
    teacher: Any, train: pa.Table, validation: pa.Table, plan: Plan | str = "small", *,
    texts: pa.Table | None = None, cache: Path | None = None, progress: bool = True,
) -> Student:  # fmt: skip
    """Teach a student what ``teacher`` (a Pricer) says about items and unlabelled texts.

    ``train`` and ``validation`` (ITEM schema) have prices; ``texts`` (ITEM schema) need none, see
    ``lessons.unpriced``. ``cache``: a folder that keeps the teacher's estimates; a run that was
    killed goes on there. Raises ValueError if the teacher fails on more than half of the products.
    """
    if isinstance(plan, str) and plan not in PRESETS:
        raise ValueError(f"plan {plan!r} is not one of: {', '.join(PRESETS)}")
    known_prices(validation, "judge by")  # before the teacher is asked, which may take hours
    name = f"{plan} student" if isinstance(plan, str) else "student"
    plan = PRESETS[plan] if isinstance(plan, str) else plan
    lesson = prepare(teacher, train, texts, cache=cache, progress=progress)
    tried = []
    for share in plan.true_shares:
        network = new_network(plan, centre=lesson.middle)
        dollars = teach(network, lesson, validation, plan, share, progress=progress)
        tried.append((dollars, share, network))
    dollars, share, network = min(tried, key=lambda one: one[0])
    settings = {
        "plan": asdict(plan), "true_share": share, "validation_dollars": round(dollars, 3),
        "tried": {f"{share:g}": round(dollars, 3) for dollars, share, _ in tried},
        "teacher": {"name": teacher.name, "settings": getattr(teacher, "settings", None)},
        "fitted_on": fingerprint(train), "texts": None if texts is None else fingerprint(texts),
    }  # fmt: skip
    return Student(network, settings, f"{name} of {teacher.name}")


def teach(
    network: Network, lesson: Lesson, validation: pa.Table, plan: Plan, true_share: float, *,
    progress: bool = True,
) -> float:  # fmt: skip
    """Teach a network in place; return its error on validation, in dollars, in its best epoch."""
    targets, counts = targets_of(lesson, true_share, plan.balance)
    known = counts.sum(axis=1) > 0
    taught = [lesson.products[row] for row in np.flatnonzero(known)]
    inputs = inputs_of(taught, network.reading)
    judged = inputs_of(products(validation), network.reading)
    prices = known_prices(validation, "judge by")
    loss = absolute_loss(targets[known], counts[known])
    judge = lambda: dollars_off(network, judged, prices)  # noqa: E731
    return descend(network, inputs, loss, judge, plan, progress=progress)


def dollars_off(network: Network, inputs: Inputs, prices: np.ndarray) -> float:
    """Return the mean absolute error of a network in dollars, for products with these prices."""
    return float(np.abs(in_dollars(outputs_of(network, inputs)[:, 0]) - prices).mean())


def absolute_loss(targets: np.ndarray, counts: np.ndarray) -> Loss:
    """Return the mean absolute difference from log prices, each as much as it counts."""
    wanted = torch.from_numpy(np.nan_to_num(targets)).float()
    weights = torch.from_numpy(counts).float()
    return lambda rows, found: ((found - wanted[rows]).abs() * weights[rows]).sum(dim=1).mean()
