"""The student's network: a row of a table for each n-gram, their sum, and three small layers.

It is the same for prices (one output) and for categories (one each), and so is its training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from shared.compression.features import Reading, hashed
from shared.data import Product
from shared.pricers.neural import one_thread

BLOCK = 512
"""Products that are hashed, or asked about, at once."""


@dataclass(frozen=True)
class Plan:
    """How a student is made.

    ``width``: numbers in a row of the table. ``hidden``: width of the layers. ``dropped``: share of
    the n-grams that are hidden in a step. ``balance``: a product counts as its price to this power;
    0 weighs errors by shares of the price, 1 by dollars. ``true_shares``: how much of the loss of a
    labelled item is that of its true price, the rest is that of the teacher's estimate; of several
    the one with the least error on validation is taken.
    """

    reading: Reading = field(default_factory=Reading)
    width: int = 16
    hidden: int = 64
    epochs: int = 12
    batch: int = 128
    rate: float = 1e-2
    dropped: float = 0.1
    balance: float = 0.5
    true_shares: tuple[float, ...] = (0.5, 0.8)
    seed: int = 42


class Network(nn.Module):
    """Hashed n-grams in, ``outputs`` numbers out; at first ``centre`` for every product.

    ``places`` says which row of the table each bucket has. At first each has its own; the last
    row, of the place that fills rows up, stays zero. Nothing bends between the table and the first
    layer, so a narrower table and another first layer can say the same (``pruning.narrowed``).
    """

    def __init__(
        self, reading: Reading, width: int, hidden: int, outputs: int = 1, rows: int | None = None,
        centre: float | np.ndarray = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.reading = reading
        rows = reading.buckets if rows is None else rows
        self.register_buffer("places", torch.arange(reading.buckets + 1).clamp(max=rows))
        self.table = nn.EmbeddingBag(rows + 1, width, mode="sum", padding_idx=rows)
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, outputs),
        )  # fmt: skip
        with torch.no_grad():
            self.table.weight.normal_(std=0.1)[rows] = 0
            self.layers[-1].weight.zero_()
            self.layers[-1].bias[:] = torch.as_tensor(centre, dtype=torch.float32)

    def forward(self, buckets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the outputs, (n, outputs), for buckets (n, most n-grams) and weights (n, 1)."""
        return self.layers(self.table(self.places[buckets]) * weights)


def new_network(plan: Plan, outputs: int = 1, centre: float | np.ndarray = 0.0) -> Network:
    """Return the network of a plan, with random weights by its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        return Network(plan.reading, plan.width, plan.hidden, outputs, centre=centre)


Inputs = tuple[np.ndarray, np.ndarray]
"""Buckets, int32 (n, most n-grams), and weights, float32 (n, 1), see ``features.hashed``."""


def inputs_of(products: Sequence[Product], reading: Reading) -> Inputs:
    """Return what ``hashed`` returns, for any number of products, in little memory."""
    blocks = [hashed(products[at : at + BLOCK], reading) for at in range(0, len(products), BLOCK)]
    widest = max(buckets.shape[1] for buckets, _ in blocks)
    table = np.full((len(products), widest), reading.buckets, np.int32)
    for number, (buckets, _) in enumerate(blocks):
        table[number * BLOCK :][: len(buckets), : buckets.shape[1]] = buckets
    return table, np.concatenate([weights for _, weights in blocks])


def outputs_of(network: Network, inputs: Inputs) -> np.ndarray:
    """Return the outputs of a network, float64, (n, outputs)."""
    network.eval()
    found = []
    with torch.no_grad(), one_thread():
        for at in range(0, len(inputs[0]), BLOCK):
            found.append(network(*(torch.from_numpy(a[at : at + BLOCK]) for a in inputs)))
    return torch.cat(found).double().numpy()


Loss = Callable[[np.ndarray, torch.Tensor], torch.Tensor]
"""From the rows of a batch, and the outputs for them, to a number."""


def descend(
    network: Network, inputs: Inputs, loss: Loss, judge: Callable[[], float], plan: Plan, *,
    progress: bool = True,
) -> float:  # fmt: skip
    """Teach a network in place; leave it as it was in its best epoch, and return that one's error.

    ``judge`` returns the error on validation. AdamW, up in the first tenth of the steps and down a
    cosine. The same seed gives the same weights.
    """
    buckets, weights = (torch.from_numpy(a) for a in inputs)
    steps = max(len(buckets) // plan.batch, 1)
    total, best = steps * plan.epochs, (judge(), _copy(network))
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=0.0)
    with one_thread(), torch.random.fork_rng(devices=[]), tqdm(
        total=plan.epochs, desc="epochs", unit="epoch", disable=not progress
    ) as bar:  # fmt: skip
        torch.manual_seed(plan.seed)
        for epoch in range(plan.epochs):
            order = torch.randperm(len(buckets))
            network.train()
            for step in range(steps):
                rows = order[step * plan.batch : (step + 1) * plan.batch]
                for group in optimizer.param_groups:
                    group["lr"] = plan.rate * _share_of_rate((epoch * steps + step) / total)
                shown = buckets[rows]
                hide = torch.rand(shown.shape) < plan.dropped
                shown = shown.masked_fill(hide, network.reading.buckets)
                optimizer.zero_grad()
                loss(rows.numpy(), network(shown, weights[rows])).backward()
                optimizer.step()
            error = judge()
            if error < best[0]:
                best = error, _copy(network)
            bar.set_postfix_str(f"validation {error:.3f}")
            bar.update()
    network.load_state_dict(best[1])
    network.eval()
    return best[0]


def _copy(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _share_of_rate(done: float) -> float:
    return min(1.0, (done + 1e-3) / 0.1) * 0.5 * (1 + math.cos(math.pi * done))
