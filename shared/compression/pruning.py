"""Pruning: what of a student can be left out, and what that costs in dollars.

Nearly all of a student is its table, so that is where it pays. Rows that no text uses, or that
weigh little, go as a whole; all rows can be made narrower at once. Single small weights can be set
to zero as well (Han et al., 2015), but a zero takes as many bytes as any other number: the sweep
shows it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from tqdm.auto import tqdm

from shared.compression.exporting import as_bytes, bag_graph
from shared.compression.lessons import Lesson, known_prices
from shared.compression.network import Inputs, Network, Plan, inputs_of
from shared.compression.student import Student, dollars_off, teach
from shared.data import products

ROW_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
WEIGHT_SHARES = (0.25, 0.5, 0.75, 0.9)
RANKS = (12, 8, 4, 2)


@dataclass(frozen=True)
class Pruned:
    """A row of the sweep: what was left out, what is left, and what it costs.

    ``rows`` and ``width`` of the table; ``bytes`` of the ONNX file with eight bits; ``dollars`` off
    on validation; ``retrained``: whether it learnt on after pruning.
    """

    method: str
    setting: str
    rows: int
    width: int
    bytes: int
    dollars: float
    retrained: bool


def uses(network: Network, inputs: Inputs) -> np.ndarray:
    """Return how often these texts use each row of the table; 0 for the one that fills up."""
    buckets, _ = inputs
    rows = network.places.numpy()[buckets]
    counts = np.bincount(rows.ravel(), minlength=len(network.table.weight))
    counts[-1] = 0
    return counts


def without_rows(network: Network, kept: np.ndarray) -> Network:
    """Return a network with only these rows of the table (boolean, one for each row).

    What is left out counts as zero, as if a text did not have its words. The row that fills up
    always stays.
    """
    kept = np.append(kept[:-1], False)
    rows = int(kept.sum())
    new_row = np.full(len(kept), rows)
    new_row[kept] = np.arange(rows)
    found = _like(network, rows, network.table.embedding_dim)
    with torch.no_grad():
        found.places.copy_(torch.from_numpy(new_row[network.places.numpy()]))
        found.table.weight[:rows] = network.table.weight[torch.from_numpy(np.flatnonzero(kept))]
        found.table.weight[rows] = 0
    found.layers.load_state_dict(network.layers.state_dict())
    return found


def lightest_rows(network: Network, inputs: Inputs, share: float) -> Network:
    """Leave out rows that no text uses, and a ``share`` of the others: those that weigh least.

    A row weighs its length times the root of how often it is used.
    """
    _between(share)
    counts = uses(network, inputs)
    weights = network.table.weight.detach().norm(dim=1).numpy() * np.sqrt(counts)
    order = np.argsort(-weights, kind="stable")
    kept = np.zeros(len(counts), bool)
    kept[order[: max(round((1 - share) * np.count_nonzero(weights)), 1)]] = True
    return without_rows(network, kept)


def lightest_weights(network: Network, share: float) -> Network:
    """Set the ``share`` of the table's weights that are nearest to zero to zero."""
    _between(share)
    found = copy.deepcopy(network)
    with torch.no_grad():
        sizes = found.table.weight[:-1].abs().numpy()
        found.table.weight[:-1][torch.from_numpy(sizes <= np.quantile(sizes, share))] = 0
    return found


def narrowed(network: Network, inputs: Inputs, rank: int) -> Network:
    """Return a network with rows of ``rank`` numbers that says as nearly as possible the same.

    The table is replaced by its best factors (a singular value decomposition in which a row counts
    as often as it is used); the second one goes into the first layer, so it costs nothing.
    """
    if not 1 <= rank <= network.table.embedding_dim:
        raise ValueError(f"rank {rank}: 1 to {network.table.embedding_dim}, the width of the table")
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    table, first = state["table.weight"], state["layers.0.weight"]
    often = torch.from_numpy(np.sqrt(uses(network, inputs)))
    directions = torch.linalg.svd(often[:, None] * table, full_matrices=False)[2][:rank].T
    changed = {"table.weight": table @ directions, "layers.0.weight": first @ directions}
    found = _like(network, len(table) - 1, rank)
    found.load_state_dict(state | changed)  # which rounds to 32 bits
    return found


def _like(network: Network, rows: int, width: int) -> Network:
    hidden, outputs = network.layers[0].out_features, network.layers[-1].out_features
    return Network(network.reading, width, hidden, outputs, rows).eval()


def _between(share: float) -> None:
    if not 0 <= share < 1:
        raise ValueError(f"share {share}: from 0 to below 1")


def sweep(
    student: Student, lesson: Lesson, validation: pa.Table, retrain: Plan | None = None, *,
    row_shares: Sequence[float] = ROW_SHARES, weight_shares: Sequence[float] = WEIGHT_SHARES,
    ranks: Sequence[int] = RANKS, progress: bool = True,
) -> list[tuple[Pruned, Network]]:  # fmt: skip
    """Prune a student in all these ways; return what each costs, with the networks.

    ``retrain``: a plan (few epochs, a low rate) by which each one learns on afterwards, with what
    is left of it; weights that were set to zero stay as they are, so these are not retrained.
    ``ranks`` that are no less than the width of the table are left out.
    """
    network = student.network
    inputs = inputs_of(lesson.products, network.reading)
    ways: list[tuple[str, str, Callable[[], Network]]] = [
        ("none", "as it is", lambda: network),
        *(("rows", f"{s:.0%} of used rows", lambda s=s: lightest_rows(network, inputs, s))
          for s in row_shares),
        *(("weights", f"{s:.0%} of weights", lambda s=s: lightest_weights(network, s))
          for s in weight_shares),
        *(("rank", f"rank {r}", lambda r=r: narrowed(network, inputs, r)) for r in ranks
          if r < network.table.embedding_dim),
    ]  # fmt: skip
    judged = inputs_of(products(validation), network.reading)
    prices = known_prices(validation, "judge by")
    share, found = student.settings["true_share"], []
    for method, setting, prune in tqdm(ways, desc="prune", disable=not progress):
        pruned, again = prune(), retrain is not None and method in ("rows", "rank")
        if again:
            teach(pruned, lesson, validation, retrain, share, progress=False)
        dollars = dollars_off(pruned, judged, prices)
        found.append((_row(method, setting, pruned, dollars, again), pruned))
    return found


def _row(method: str, setting: str, network: Network, dollars: float, retrained: bool) -> Pruned:
    rows, width = len(network.table.weight) - 1, network.table.embedding_dim
    size = len(as_bytes(bag_graph(network), "int8"))
    return Pruned(method, setting, rows, width, size, round(dollars, 3), retrained)
