"""From which volume on is a GPU of one's own cheaper than an API? Arithmetic in plain sight.

An API is paid by the token, a GPU by the hour, busy or not. So the API costs a straight line, the
GPU a staircase with a step for each further machine, and the question is where they cross.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from shared.evaluation.metrics import number
from shared.frontier.models import ModelCard, as_of, dollars, find_model

VOLUMES = np.geomspace(100, 10_000_000, 501)
"""Products a day: what the curves are drawn over, unless told otherwise."""


@dataclass(frozen=True)
class Gpu:
    """What a GPU costs an hour, who says so, and on which day it was looked up."""

    name: str
    usd_per_hour: float
    source: str
    as_of: date

    def __post_init__(self) -> None:
        """Refuse a price that is none, or of which nobody knows where it is from."""
        if not 0 < self.usd_per_hour < math.inf:
            raise ValueError(f"{self.name}: {self.usd_per_hour} dollars an hour: give more than 0")
        if not self.source.strip():
            raise ValueError(f"{self.name}: say where the price is from, and of which day it is")


@dataclass(frozen=True)
class Tokens:
    """Tokens a product, on average: ``cached`` are part of ``input``, reasoning of ``output``."""

    input: float
    output: float
    cached: float = 0.0


@dataclass(frozen=True)
class BreakEven:
    """Dollars a day by products a day, at an API and on GPUs, and where they cross.

    ``volumes``, ``api`` and ``gpu`` have the shape (n,). ``per_day``: the first volume at which the
    GPU costs no more; ``for_good``: that from which on it never costs more again, however many
    machines are added. Both None: no number of full machines saves anything. ``capacity``: the
    products a day that one machine takes.
    """

    api_name: str
    gpu_name: str
    volumes: np.ndarray
    api: np.ndarray
    gpu: np.ndarray
    per_day: float | None
    for_good: float | None
    capacity: float
    usd_per_thousand: float
    assumptions: tuple[str, ...]

    @property
    def finding(self) -> str:
        """Say where they cross, in one sentence."""
        if self.per_day is None:
            return f"{self.api_name} is cheaper than {self.gpu_name} at any volume"
        cheaper = f"{self.gpu_name} is cheaper than {self.api_name}"
        found = f"{cheaper} from {_volume(self.per_day)} products a day"
        if self.for_good > self.per_day * 1.001:
            found += f", and always from {_volume(self.for_good)}"
        return found

    def __repr__(self) -> str:
        step = max(len(self.volumes) // 10, 1)
        lines = [f"{'products a day':>16}{'API, $ a day':>16}{'GPU, $ a day':>16}"]
        for row in zip(self.volumes[::step], self.api[::step], self.gpu[::step], strict=True):
            lines.append(
                "".join(f"{value:>16}" for value in (_volume(row[0]), *map(_usd, row[1:])))
            )
        return "\n".join([f"{self.finding}.", *lines, "Assumed:", *(
            f"- {assumption}" for assumption in self.assumptions)])  # fmt: skip


def break_even(
    model: str | ModelCard,
    tokens: Tokens,
    gpu: Gpu,
    *,
    products_per_second: float,
    utilisation: float = 0.5,
    hours_per_day: float = 24.0,
    upkeep_usd_per_day: float = 0.0,
    batch: bool = False,
    volumes: Sequence[float] = VOLUMES,
) -> BreakEven:
    """Compare what products cost at an API and on GPUs of one's own, by volume.

    Args:
        model: a name of the price list (``shared/frontier/models.toml``), or a card of it.
        tokens: of one product, as stored predictions say (``Row.input_tokens``).
        gpu: its price, with source and day: prices of GPUs fall, so none is written down here.
        products_per_second: what one GPU does when it is busy, measured with batches as large as
            the latency allows.
        utilisation: share of the hours it is paid for in which there is that much to do.
        hours_per_day: hours a day that it is paid for, whether busy or not.
        upkeep_usd_per_day: what else it costs to run machines of one's own, such as people.
        batch: at the price of the API's batches, which answer within a day.
        volumes: products a day to draw the curves over.

    Raises ValueError for numbers that are impossible, and if the model's price is not known.
    """
    rates = {"products_per_second": products_per_second, "hours_per_day": hours_per_day}
    for name, value in rates.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}: give more than 0")
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation is {utilisation}: a share above 0, at most 1")
    if hours_per_day > 24 or not 0 <= upkeep_usd_per_day < math.inf:
        raise ValueError(
            f"{hours_per_day} hours and {upkeep_usd_per_day} dollars a day: impossible"
        )
    grid = np.asarray(volumes, dtype=float)
    if not len(grid) or not (np.isfinite(grid) & (grid > 0)).all():
        raise ValueError("volumes are products a day, above 0")
    card = find_model(model) if isinstance(model, str) else model
    each = dollars(card, tokens, batch=batch)
    capacity = products_per_second * 3600 * hours_per_day * utilisation
    machine = gpu.usd_per_hour * hours_per_day
    first, for_good = _crossings(each, machine, upkeep_usd_per_day, capacity)
    price = f"${card.input:g} in, ${card.output:g} out per million tokens"
    assumptions = (
        f"{card.name}: {price}{', batch price' if batch else ''} (price list of {as_of()}; "
        f"{card.source})",
        f"{tokens.input:,.0f} tokens in ({tokens.cached:,.0f} cached) and {tokens.output:,.0f} out "
        f"a product, {number(1000 * each, '${:,.4f}')} per thousand products",
        f"{gpu.name}: {_usd(gpu.usd_per_hour)} an hour, paid {hours_per_day:g} hours a day "
        f"({gpu.source}, {gpu.as_of})",
        f"one GPU does {products_per_second:,.3g} products a second when busy, and is busy "
        f"{utilisation:.0%} of the time: {_volume(capacity)} products a day",
        f"upkeep of machines of one's own: {_usd(upkeep_usd_per_day)} a day",
        "both answer equally well: compare their errors before their prices",
    )
    return BreakEven(
        api_name=card.name,
        gpu_name=gpu.name,
        volumes=grid,
        api=each * grid,
        gpu=np.maximum(np.ceil(grid / capacity), 1) * machine + upkeep_usd_per_day,
        per_day=first,
        for_good=for_good,
        capacity=capacity,
        usd_per_thousand=1000 * each,
        assumptions=assumptions,
    )


def _crossings(
    each: float, machine: float, upkeep: float, capacity: float
) -> tuple[float | None, float | None]:
    """Return the first volume at which machines cost no more, and that from which they never do.

    k machines cost ``k * machine + upkeep`` and take ``k * capacity`` products. A full machine has
    to save something, or no number of them ever will.
    """
    saved = each * capacity - machine  # by a full machine, a day
    if saved <= 0:
        return None, None

    def crossing(machines: int) -> float:
        paid = (machines * machine + upkeep) / each
        return max(paid, (machines - 1) * capacity)

    first = max(math.ceil(upkeep / saved), 1)
    # Where k machines are full, one more must pay for itself at once.
    for_good = max(math.ceil((machine + upkeep) / saved), 1)
    return crossing(first), crossing(for_good)


def _volume(value: float) -> str:
    """Return a volume with three digits, as people say it."""
    if value >= 1000:
        digits = 2 - math.floor(math.log10(value))
        return f"{round(value, digits):,.0f}"
    return f"{value:.3g}"


def _usd(value: float) -> str:
    return number(value, "${:,.2f}" if value < 1000 else "${:,.0f}")
