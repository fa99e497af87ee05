"""A sparse neural network: hashed words in, a distribution over prices out.

An embedding bag sums a learnt vector for each word of a text; two small layers turn the sum into
probabilities of 64 price bins. From a distribution the median can be read (right for absolute
error), the mean, or an interval; a single number allows none of these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.data import Product
from shared.pricers.fitted import FittedPricer
from shared.pricers.words import TOKEN

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_matrix

BUCKETS = 2**18
"""Places for the hashed words of a field. Two words may share one; few do."""

FIELDS = ("text", "title", "category")

_BLUR = 0.25  # a price of $100 is also a little evidence for $80 and $125 (log scale)


class HashedWords:
    """TF-IDF of words and pairs of words, hashed: no vocabulary to keep, any text can come.

    Text, title and category are three blocks of length 1 each, so that a long text does not drown
    its title.
    """

    def fit(self, products: Sequence[Product]) -> HashedWords:
        """Learn which buckets occur (in two products or more), and how rare each is."""
        least = 2 if len(products) >= 50 else 1
        self.used, self.rarity = [], []
        for counts in _hashed(products):
            found = np.bincount(counts.indices, minlength=counts.shape[1])
            used = np.flatnonzero(found >= least)
            rarity = 1 + np.log((1 + len(products)) / (1 + found[used]))
            self.used.append(used)
            self.rarity.append(rarity.astype(np.float32))
        return self

    def transform(self, products: Sequence[Product]) -> csr_matrix:
        """Return the weights of n products, shape (n, buckets used), float32."""
        from scipy.sparse import diags_array, hstack
        from sklearn.preprocessing import normalize

        blocks = []
        for counts, used, rarity in zip(_hashed(products), self.used, self.rarity, strict=True):
            counts = counts[:, used]
            counts.data = 1 + np.log(counts.data)
            blocks.append(normalize(counts @ diags_array(rarity)))
        return hstack(blocks).tocsr().astype(np.float32)


def _hashed(products: Sequence[Product]) -> list[csr_matrix]:
    from sklearn.feature_extraction.text import HashingVectorizer

    words = HashingVectorizer(
        n_features=BUCKETS, ngram_range=(1, 2), token_pattern=TOKEN, norm=None,
        alternate_sign=False, dtype=np.float32,
    )  # fmt: skip
    return [words.transform(getattr(p, name) for p in products) for name in FIELDS]


class NeuralNetwork(FittedPricer):
    """Embedding bag, two layers, 64 price bins; the mean distribution of ``members`` seeds.

    ``read_out`` is "median", "mean" or "mode" (the most probable bin).
    """

    name = "neural-network"
    learnt = ("words", "bins", "weights")

    def __init__(
        self, seed: int = 42, members: int = 3, epochs: int = 5, width: int = 64,
        read_out: str = "median",
    ) -> None:  # fmt: skip
        super().__init__(seed)
        if read_out not in ("median", "mean", "mode"):
            raise ValueError(f"read_out {read_out!r} is not median, mean or mode")
        self.settings |= {"members": members, "epochs": epochs, "width": width}
        self.settings |= {"read_out": read_out}

    def _learn(self, products: list[Product], prices: np.ndarray) -> None:
        self.words = HashedWords().fit(products)
        inputs, log_prices = self.words.transform(products), np.log(prices)
        self.bins = price_bins(log_prices)
        members = range(self.settings["members"])
        networks = [self._train(inputs, log_prices, self.seed + i) for i in members]
        self.weights = [network.state_dict() for network in networks]

    def _estimate(self, products: Sequence[Product]) -> np.ndarray:
        probabilities = self.distribution(products)
        if self.settings["read_out"] == "mean":
            return probabilities @ np.exp(self.bins)
        if self.settings["read_out"] == "mode":
            return np.exp(self.bins[probabilities.argmax(axis=1)])
        return np.exp(quantile(probabilities, self.bins, 0.5))

    def distribution(self, products: Sequence[Product]) -> np.ndarray:
        """Return the probability of each price bin (``exp(bins)`` dollars), shape (n, bins)."""
        self._catch_up()
        inputs = self.words.transform(products)
        found = np.zeros((inputs.shape[0], len(self.bins)))
        for weights in self.weights:
            network = self._network(inputs.shape[1])
            network.load_state_dict(weights)
            found += _probabilities(network.eval(), inputs) / len(self.weights)
        return found

    def _network(self, words: int):
        import torch

        width = self.settings["width"]
        bag = torch.nn.EmbeddingBag(words, width, mode="sum", sparse=True)
        torch.nn.init.normal_(bag.weight, std=0.05)
        head = torch.nn.Sequential(
            torch.nn.PReLU(), torch.nn.Dropout(0.3),
            torch.nn.Linear(width, 64), torch.nn.PReLU(),
            torch.nn.Linear(64, 64), torch.nn.PReLU(),
            torch.nn.Linear(64, len(self.bins)),
        )  # fmt: skip
        return torch.nn.ModuleDict({"bag": bag, "head": head})

    def _train(self, inputs: csr_matrix, log_prices: np.ndarray, seed: int):
        import torch

        with torch.random.fork_rng(devices=[]), one_thread():
            torch.manual_seed(seed)
            network = self._network(inputs.shape[1])
            targets = torch.tensor(soft_targets(log_prices, self.bins), dtype=torch.float32)
            dollars = torch.tensor(np.exp(log_prices), dtype=torch.float32)
            _descend(network, inputs, targets, dollars, self._bin_dollars(), self.settings, seed)
        return network

    def _bin_dollars(self):
        import torch

        return torch.tensor(np.exp(self.bins), dtype=torch.float32)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute on one thread: small steps are not worth sharing, and waiting costs CPU.

    Sums keep their order, too, so that the same seed gives the same weights on any machine.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def price_bins(log_prices: np.ndarray, bins: int = 64) -> np.ndarray:
    """Return the centres of up to 64 bins with about as many prices in each, ascending (log)."""
    edges = np.quantile(log_prices, np.linspace(0, 1, bins + 1))
    return np.unique((edges[:-1] + edges[1:]) / 2)


def soft_targets(log_prices: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Return each price as a small bell over the bins, shape (n, bins), rows summing to 1.

    A plain class label would call $99 and $5 equally wrong for a product of $100.
    """
    bell = np.exp(-0.5 * ((log_prices[:, None] - bins[None]) / _BLUR) ** 2) + 1e-12
    return bell / bell.sum(axis=1, keepdims=True)


def quantile(probabilities: np.ndarray, bins: np.ndarray, share: float) -> np.ndarray:
    """Return the log price below which ``share`` of each distribution lies, shape (n,)."""
    middle = (bins[:-1] + bins[1:]) / 2
    edges = np.concatenate([bins[:1], middle, bins[-1:]])
    below = np.pad(probabilities.cumsum(axis=1), ((0, 0), (1, 0)))
    k = np.clip((below < share).sum(axis=1) - 1, 0, len(bins) - 1)
    each = np.arange(len(k))
    inside = (share - below[each, k]) / np.maximum(probabilities[each, k], 1e-12)
    return edges[k] + inside.clip(0, 1) * (edges[k + 1] - edges[k])


def _descend(network, inputs, targets, dollars, bin_dollars, settings: dict, seed: int) -> None:
    """Adam over shuffled batches. The loss: cross-entropy, and the expected error in dollars."""
    import torch

    rng, rate, batch = np.random.default_rng(seed), 1e-2, 256
    bag = torch.optim.SparseAdam(network["bag"].parameters(), lr=rate)
    head = torch.optim.AdamW(network["head"].parameters(), lr=rate)
    total = settings["epochs"] * -(-len(targets) // batch)
    for step in range(total):
        if step % -(-len(targets) // batch) == 0:
            order = rng.permutation(len(targets))
        rows = np.take(order, np.arange(step * batch, (step + 1) * batch), mode="wrap")
        likely = torch.log_softmax(_forward(network, inputs[rows]), dim=1)
        off = (likely.exp() * (bin_dollars - dollars[rows, None]).abs()).sum(dim=1)
        loss = (-(targets[rows] * likely).sum(dim=1) + 0.5 * off / 100).mean()
        for optimiser in (bag, head):
            optimiser.param_groups[0]["lr"] = rate * _schedule(step / total)
            optimiser.zero_grad()
        loss.backward()
        bag.step()
        head.step()


def _schedule(progress: float) -> float:
    """Warm up over the first 15 %, then fall in a line to almost nothing."""
    return min(1.0, (progress + 1e-3) / 0.15) * max(0.02, 1 - progress)


def _forward(network, rows: csr_matrix) -> torch.Tensor:
    import torch

    words = torch.from_numpy(rows.indices.astype(np.int64))
    starts = torch.from_numpy(rows.indptr[:-1].astype(np.int64))
    weights = torch.from_numpy(rows.data)
    return network["head"](network["bag"](words, starts, per_sample_weights=weights))


def _probabilities(network, inputs: csr_matrix) -> np.ndarray:
    import torch

    blocks = [inputs[i : i + 1024] for i in range(0, inputs.shape[0], 1024)]
    with torch.no_grad():
        parts = [torch.softmax(_forward(network, block), dim=1).numpy() for block in blocks]
    return np.concatenate(parts)
