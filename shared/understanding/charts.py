"""Misclassified products against size: the chart on which a compressed classifier is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter

from shared.compression.charts import Errors, Point, against_size
from shared.reports.figures import Chart
from shared.understanding.measuring import Measured

MISCLASSIFIED = Errors(
    "share of products misclassified", "products misclassified", "linear",
    lambda share: f"{share:.1%}", FuncFormatter(lambda share, _: f"{100 * share:.10g} %"),
)  # fmt: skip


def accuracy_chart(rows: Sequence[Measured]) -> Chart:
    """Share of products misclassified against bytes on disk (logarithmic), and the Pareto line.

    The first row is the original. Raises ValueError if there is nothing to compare it with.
    """
    if len(rows) < 2:
        raise ValueError("an original and at least one other classifier are needed")
    points = [
        Point(row.name, row.spent.bytes, 1 - row.accuracy, 1 - row.high, 1 - row.low)
        for row in rows
    ]
    return against_size(finding(rows), points, MISCLASSIFIED)


def finding(rows: Sequence[Measured]) -> str:
    """Say of the smallest classifier that is not measurably worse than the original what it saves.

    Not measurably: at the 5 % level, by the paired test. If there is none, say what the best costs.
    """
    others = rows[1:]
    good = [row for row in others if row.difference >= 0 or row.p >= 0.05]
    if good:
        one = max(good, key=lambda row: row.smaller)
        worth = "not measurably worse" if one.p >= 0.05 else "measurably better"
    else:
        one, worth = max(others, key=lambda row: row.accuracy), "measurably worse"
    points = f"{100 * one.difference:+.1f} points"
    return (
        f"{one.name}: {one.smaller:.3g} times smaller, {one.faster:.3g} times faster, "
        f"{worth} ({points})"
    )
