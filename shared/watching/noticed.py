"""What simulated watches noticed, and when: a row a change and a way to watch, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, binomtest, chi2

from shared.evaluation.bootstrap import mean_intervals
from shared.reports.tables import aligned, pipes

Outcome = tuple[float, float, float]
"""Of one run: products until the change was noticed, false alarms before it, and out of how many
windows, true prices or comparisons."""


@dataclass(frozen=True)
class Noticed:
    """What one way to watch noticed of one change, over all runs.

    ``share`` of the runs in which it alarmed after the change, before the stream ended (95 %
    Wilson interval). ``delay``: products until then, as median and as what 9 of 10 runs stayed
    within, with the interval of the median (order statistics); infinite where fewer noticed.
    ``false_alarms`` per window before the change (inputs, outputs), per true price (errors), or
    per comparison (canary), with a 95 % interval.
    """

    change: str
    by: str
    runs: int
    window: int
    share: float
    share_interval: tuple[float, float]
    delay: float
    delay_interval: tuple[float, float]
    delay_90: float
    false_alarms: float
    false_interval: tuple[float, float]


def to_markdown(rows: Sequence[Noticed]) -> str:
    """Return the outcome as a Markdown table."""
    return pipes(TITLES, [_cells(row) for row in rows], WORDS)


def to_console(rows: Sequence[Noticed]) -> str:
    """Return the outcome as a table for a console."""
    return aligned(TITLES, [_cells(row) for row in rows], WORDS)


TITLES = (
    "what changes", "watched", "noticed [95 %]", "median delay [95 %], products",
    "in windows", "9 of 10 within", "false alarms [95 %]",
)  # fmt: skip
WORDS = TITLES[:2]


def summed(name: str, by: str, outcomes: Sequence[Outcome], window: int) -> Noticed:
    """Sum up the outcomes of all runs."""
    delays, wrong, exposed = (np.array(column, float) for column in zip(*outcomes, strict=True))
    runs, ranked = len(delays), np.sort(delays)
    noticed = int(np.isfinite(delays).sum())
    ends = binomtest(noticed, runs).proportion_ci(method="wilson")
    places = binom.ppf([0.025, 0.975], runs, 0.5).astype(int) - [1, 0]
    median = tuple(float(ranked[min(max(at, 0), runs - 1)]) for at in places)
    return Noticed(
        name, by, runs, window, noticed / runs, (ends.low, ends.high),
        float(ranked[(runs - 1) // 2]), median, float(ranked[math.ceil(0.9 * runs) - 1]),
        *_rate(wrong, exposed, by),
    )  # fmt: skip


def _rate(wrong: np.ndarray, exposed: np.ndarray, by: str) -> tuple[float, tuple[float, float]]:
    """Return false alarms per window, comparison or true price, with a 95 % interval.

    Windows of a run share its reference, and comparisons its first day, so runs are resampled;
    true prices until an alarm are counted as events in time (exact Poisson).
    """
    count, total = wrong.sum(), exposed.sum()
    if by != "errors" and wrong.std() > 0:
        _, ((low, high),) = mean_intervals(wrong[:, None], lambda m: m)
        return count / total, (float(low) / exposed[0], float(high) / exposed[0])
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return count / total, (low / total, chi2.ppf(0.975, 2 * count + 2) / 2 / total)


def _cells(row: Noticed) -> list[str]:
    low, high = row.share_interval
    ends = " to ".join(_products(value) for value in row.delay_interval)
    unit = {"errors": "10,000 true prices", "canary": "100 comparisons"}.get(row.by, "100 windows")
    times = 10_000 if row.by == "errors" else 100
    false = [value * times for value in (row.false_alarms, *row.false_interval)]
    windows = row.delay / row.window
    return [
        row.change, row.by, f"{row.share:.0%} [{low:.0%} to {high:.0%}]",
        f"{_products(row.delay)} [{ends}]", f"{windows:.1f}" if math.isfinite(windows) else "—",
        _products(row.delay_90), f"{false[0]:.1f} [{false[1]:.1f} to {false[2]:.1f}] in {unit}",
    ]  # fmt: skip


def _products(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "never"
