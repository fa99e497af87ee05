"""Drift as the page shows it: a service's observations looked at, and a change that is made here.

The simulation is one stream, to see how an alarm comes about. How late and how often wrongly
alarms come is a matter of many streams: ``shared.watching.simulate``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from shared.app.worker import Worker
from shared.data import Product, products
from shared.watching import ObservationLog, Reference, Signal, Truths, Watch, item_key, observe
from shared.watching.watch import ErrorChart, Window

OBSERVATIONS, TRUTHS = "observations.jsonl", "truths.jsonl"
"""In a service's folder: what it was asked and answered, and true prices that arrived later."""

LAST = 30
"""Windows that are shown, the newest. All observations are read: windows count from the first."""

WINDOW, LEAST, RISE = 100, 600, 0.25
"""Products in a simulated window; items that a simulation needs; how much true prices rise."""

Change = Callable[[list[Product], np.ndarray], tuple[list[Product], np.ndarray]]


@dataclass(frozen=True)
class Seen:
    """What a watch saw: its newest windows, charts of the errors, ``damaged`` lines left out.

    ``signals``: those of the last window, and of the errors so far.
    """

    count: int
    windows: Sequence[Window]
    charts: Sequence[ErrorChart]
    signals: Sequence[Signal]
    damaged: int = 0


def look(worker: Worker) -> Seen:
    """Read the observations of a service, and hold them to the release's reference.

    Raises ValueError, with the remedy, if there are none, or nothing to hold them to.
    """
    if worker.observations is None:
        raise ValueError(
            "No service is watched yet. Start one with: python -m shared serve --observations "
            f"DIR/{OBSERVATIONS}. Then open this page with: python -m shared app --observations DIR"
        )
    path = Path(worker.observations)
    file = path / OBSERVATIONS if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"There is no {file.name} yet where --observations points: has the service been asked "
            "for a price?"
        )
    reference = worker.release.reference()
    if reference is None:
        raise ValueError(
            f"Version {worker.release.version} was released without a reference, so there is "
            "nothing to hold its observations to: release it again with its items."
        )
    log, truths = ObservationLog(file), Truths(file.with_name(TRUTHS))
    table = log.table()
    return _seen(Watch(reference), table, truths, log.damaged + truths.damaged)


@dataclass(frozen=True)
class Simulated:
    """A stream whose change is known: after ``change`` products. ``said``: what changed."""

    said: str
    change: int
    seen: Seen

    @property
    def noticed(self) -> int | None:
        """Products after the change until a window alarmed, None if none did."""
        later = [w.end - self.change for w in self.seen.windows if w.end > self.change]
        alarms = [_alarmed(w) for w in self.seen.windows if w.end > self.change]
        return next((n for n, alarm in zip(later, alarms, strict=True) if alarm), None)

    @property
    def told(self) -> dict[str, int]:
        """Charts of the errors that alarm -> after how many true prices of changed products."""
        found = {}
        for chart in self.seen.charts:
            above = chart.path.max(axis=0) > chart.cusum.threshold
            if above[self.change :].any() and not above[: self.change].any():
                found[chart.signal.name] = int(np.argmax(above)) + 1 - self.change
        return found

    @property
    def false_alarms(self) -> int:
        """Windows before the change that alarmed all the same."""
        return sum(_alarmed(w) for w in self.seen.windows if w.end <= self.change)


def simulate(worker: Worker, change: str, seed: int = 42) -> Simulated:
    """Watch a stream of items that changes in the middle; ``change`` is a key of CHANGES.

    Half of the items make the reference, the other half the stream: no product is in both. The
    released model prices them. Raises ValueError if there are too few items.
    """
    items = worker.knowledge.items
    table = pa.concat_tables(items.table(split) for split in ("test", "validation"))
    if len(table) < 2 * LEAST:
        table = pa.concat_tables([table, items.table("train")])
    if len(table) < LEAST:
        raise ValueError(f"{len(table)} items are too few for a simulation: {LEAST} are needed")
    rows = np.random.default_rng(seed).permutation(len(table))
    known, asked = (table.take(np.sort(half)) for half in np.array_split(rows[: 4 * LEAST], 2))
    reference = Reference.fit(known, worker.price(products(known)).price)
    asked = asked.take(np.random.default_rng(seed).permutation(len(asked)))
    middle = len(asked) // WINDOW // 2 * WINDOW
    listed, true = products(asked), asked["price"].to_numpy()
    changed, dearer = CHANGES[change](listed[middle:], true[middle:])
    stream, true = [*listed[:middle], *changed], np.concatenate([true[:middle], dearer])
    seen = observe(
        stream, worker.price(stream), vocabulary=reference.vocabulary,
        version=worker.release.version, time=0.0,
    )  # fmt: skip
    truths = Truths()
    truths.add({item_key(p.text): float(price) for p, price in zip(stream, true, strict=True)})
    watch = Watch(reference, window=WINDOW, shift=RISE)
    return Simulated(change, middle, _seen(watch, seen, truths))


def _seen(watch: Watch, observations, truths: Truths, damaged: int = 0) -> Seen:
    return Seen(
        len(observations), watch.windows(observations, last=LAST),
        watch.error_charts(observations, truths), watch.look(observations, truths), damaged,
    )  # fmt: skip


def _alarmed(window: Window) -> bool:
    return any(signal.alarm for signal in window.signals)


def _nothing(asked: list[Product], true: np.ndarray) -> tuple[list[Product], np.ndarray]:
    return asked, true


def _cut(asked: list[Product], true: np.ndarray) -> tuple[list[Product], np.ndarray]:
    return [replace(p, text=p.text[:150]) for p in asked], true


def _relabelled(asked: list[Product], true: np.ndarray) -> tuple[list[Product], np.ndarray]:
    return [
        replace(p, category="Garden Robots") if n % 5 == 0 else p for n, p in enumerate(asked)
    ], true


def _dearer(asked: list[Product], true: np.ndarray) -> tuple[list[Product], np.ndarray]:
    return asked, true * (1 + RISE)


CHANGES: dict[str, Change] = {
    "a fifth of the products is of a category never seen": _relabelled,
    "texts arrive cut to 150 characters": _cut,
    f"true prices rise by {RISE:.0%}, and estimates do not": _dearer,
    "nothing changes": _nothing,
}
