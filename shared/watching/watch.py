"""The watch: a window of observations and the late true prices, held to a reference.

Windows follow each other without overlap, so that one false alarm in so many of them means what
it says: to look twice at the same products gives no second chance of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.evaluation import holm
from shared.watching import saying
from shared.watching.cusum import Cusum
from shared.watching.drift import Test
from shared.watching.features import features_of, numbers_of
from shared.watching.observations import Observation, as_table
from shared.watching.reference import Reference

WINDOW, WINDOWS, PRODUCTS, SHIFT = 500, 100, 10_000, 0.08
"""By default: products in a window, windows and true prices from one false alarm to the next, and
the change of the price level that the error chart is made for."""

GROWTH = 0.10
"""The growth of the absolute log error that the other error chart is made for."""

LEAST_ERRORS = 30
"""Known errors of a reference with fewer say too little about what is usual."""


@dataclass(frozen=True)
class Signal:
    """One thing that was looked at: ``alarm`` if chance would hardly explain its ``value``.

    ``threshold``: the value above which it alarms, given what else was looked at. ``p`` is
    corrected for that (Holm), and NaN for sums over time. NaN values could not be tested.
    """

    name: str
    value: float
    threshold: float
    p: float
    alarm: bool
    said: str

    @property
    def state(self) -> str:
        """In a word: alarm, quiet, or untested where there was nothing to test."""
        untested = math.isnan(self.value) or math.isnan(self.threshold)
        return "alarm" if self.alarm else "untested" if untested else "quiet"


@dataclass(frozen=True)
class Window:
    """So many products in a row: which (from ``start`` up to ``end``), when, and its signals."""

    start: int
    end: int
    first: float
    last: float
    signals: list[Signal]


@dataclass(frozen=True)
class ErrorChart:
    """A CUSUM over the true prices so far, and its sums: see ``Cusum.path``."""

    cusum: Cusum
    path: np.ndarray
    signal: Signal


class Watch:
    """Compares observations with a reference; alarms falsely as often as was agreed.

    That is once in ``windows_per_alarm`` windows of ``window`` products, and once in
    ``products_per_alarm`` true prices, on average. ``shift``: the lasting change of the level of
    prices that the errors are watched for, 0.08 for 8 %. ``version``: watch only what this
    version answered. ``like``: a watch of a similar reference, whose thresholds are taken
    over. Raises ValueError for rates that no test can have.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        window: int = WINDOW,
        windows_per_alarm: int = WINDOWS,
        products_per_alarm: int = PRODUCTS,
        shift: float = SHIFT,
        version: str | None = None,
        seed: int = 42,
        like: Watch | None = None,
    ) -> None:
        if window < 30:
            raise ValueError(f"a window of {window} products says too little: at least 30")
        if not 2 <= windows_per_alarm <= 1_000 or not 100 <= products_per_alarm <= 1_000_000:
            raise ValueError(
                "a false alarm in 2 to 1,000 windows, and in 100 to 1,000,000 products, can be "
                f"agreed on; asked for: {windows_per_alarm:,} and {products_per_alarm:,}"
            )
        if not 0 < abs(shift) < 10:
            raise ValueError(f"a shift of {shift:g}: 0.08 is 8 %")
        self.reference, self.window, self.version = reference, window, version
        self.alpha, self.per, self.shift, self.seed = (
            1 / windows_per_alarm, products_per_alarm, shift, seed,
        )  # fmt: skip
        self._like = like
        self._features = features_of(reference, seed, like and like._features)

    def look(
        self,
        observations: pa.Table | Sequence[Observation],
        truths: Mapping[str, float] | None = None,
    ) -> list[Signal]:
        """Return what the last whole window and all true prices say, in a fixed order.

        ``observations`` in the order in which they were made, whatever their clocks said;
        ``truths``: item -> dollars, in the order in which they arrived.
        """
        table = self._mine(observations)
        whole = self.windows(table, last=1)
        found = whole[-1].signals if whole else [self._not_yet(len(table))]
        charts = self.error_charts(table, truths) if truths is not None else []
        return found + [chart.signal for chart in charts]

    def windows(
        self, observations: pa.Table | Sequence[Observation], last: int | None = None
    ) -> list[Window]:
        """Return the whole windows, the oldest first; ``last``: only so many of the newest."""
        table = self._mine(observations)
        starts = range(0, len(table) - self.window + 1, self.window)
        return [self._window(table, at) for at in (starts if last is None else starts[-last:])]

    def error_charts(
        self, observations: pa.Table | Sequence[Observation], truths: Mapping[str, float]
    ) -> list[ErrorChart]:
        """Return the charts of level and size of the errors; none without a reference of errors."""
        errors = self.errors(observations, truths)
        values = {"error level": errors, "error size": np.abs(errors)}
        charts = []
        for cusum in self.cusums:
            path = cusum.path(values[cusum.name])
            now = float(path[:, -1].max()) if path.size else math.nan
            alarm = now > cusum.threshold
            said = saying.errors(cusum, path, values[cusum.name], alarm)
            signal = Signal(cusum.name, now, cusum.threshold, math.nan, alarm, said)
            charts.append(ErrorChart(cusum, path, signal))
        return charts

    def errors(
        self, observations: pa.Table | Sequence[Observation], truths: Mapping[str, float]
    ) -> np.ndarray:
        """Return ln(estimate / true price) of each item with both, as its true price arrived.

        Of an item that was priced several times, the last estimate counts.
        """
        table = self._mine(observations)
        table = table.filter(pc.greater(table["price"], 0))
        items = table["item"].to_pylist()
        estimates = dict(zip(items, table["price"].to_pylist(), strict=True))
        pairs = [(estimates[item], true) for item, true in truths.items() if item in estimates]
        found = np.array(pairs, float).reshape(-1, 2)
        return np.log(found[:, 0] / found[:, 1])

    @cached_property
    def cusums(self) -> list[Cusum]:
        """The charts of the errors; both together alarm falsely at the agreed rate."""
        known, per = self.reference.known_errors, 2 * self.per
        if len(known) < LEAST_ERRORS:
            return []
        size = np.abs(known)
        if self._like is not None:
            pairs = zip(self._like.cusums, (known, size), strict=True)
            return [chart.like(values) for chart, values in pairs]
        return [
            Cusum.calibrated("error level", known, math.log1p(self.shift), per, self.seed),
            Cusum.calibrated("error size", size, GROWTH * size.mean(), per, self.seed),
        ]

    def _mine(self, observations: pa.Table | Sequence[Observation]) -> pa.Table:
        table = as_table(observations)
        return table if self.version is None else table.filter(
            pc.equal(table["version"], self.version)
        )  # fmt: skip

    def _window(self, table: pa.Table, start: int) -> Window:
        rows = table.slice(start, self.window)
        values = numbers_of(rows)
        tests = self.tests(values)
        times = rows["time"].to_numpy()
        signals = self._signals(tests, values)
        return Window(start, start + len(rows), times.min(), times.max(), signals)

    def tests(self, values: Mapping[str, np.ndarray]) -> dict[str, Test]:
        """Return the uncorrected tests of a window's columns, by name."""
        return {
            name: test
            for feature in self._features
            for name, test in feature.tests(values[feature.column]).items()
        }

    def _signals(self, tests: Mapping[str, Test], values: Mapping[str, np.ndarray]) -> list[Signal]:
        corrected, levels = corrected_levels([test.p for test in tests.values()], self.alpha)
        found = zip(tests.items(), corrected, levels, strict=True)
        return [
            Signal(
                name, test.value, test.threshold(level), p, p < self.alpha,
                saying.drift(name, self.reference, values, p < self.alpha, test.value),
            )
            for (name, test), p, level in found
        ]  # fmt: skip

    def _not_yet(self, count: int) -> Signal:
        said = f"{count:,} of {self.window:,} products so far: no whole window yet."
        return Signal("window", float(count), math.nan, math.nan, False, said)


def corrected_levels(p_values: Sequence[float], alpha: float) -> tuple[list[float], list[float]]:
    """Return p-values after Holm, and the level to which each of them was held; NaN stay NaN.

    The smallest is held to alpha / n, the next to alpha / (n - 1), and so on, up to the first
    that fails; with that one, all further ones do.
    """
    p = np.array(p_values, float)
    known = np.flatnonzero(np.isfinite(p))
    corrected, levels = np.full(len(p), np.nan), np.full(len(p), np.nan)
    corrected[known] = holm(p[known])
    order = known[np.argsort(p[known])]
    failed = min(int((corrected[known] < alpha).sum()), len(known) - 1)
    levels[order] = [alpha / (len(known) - min(rank, failed)) for rank in range(len(known))]
    return corrected.tolist(), levels.tolist()
