"""Error against size: the chart on which a compressed pricer is chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from shared.compression.measuring import Measured, in_bytes
from shared.reports.figures import DOLLARS, Chart, Theme, canvas, dollars, legend, plain_text
from shared.reports.plane import HEIGHT, WIDTH, name_places, pareto


def size_chart(rows: Sequence[Measured]) -> Chart:
    """Mean absolute error against bytes on disk, both on logarithmic scales, and the Pareto line.

    The first row is the teacher. Raises ValueError if there is nothing to compare it with.
    """
    if len(rows) < 2:
        raise ValueError("a teacher and at least one compressed pricer are needed")
    points = [(row.spent.bytes, row.mae, row.mae_low, row.mae_high) for row in rows]
    best = pareto([point[:2] for point in points])
    title = finding(rows)
    parts = "; ".join(
        f"{row.name} {in_bytes(row.spent.bytes)}, {dollars(row.mae)} ({dollars(row.mae_low)} to "
        f"{dollars(row.mae_high)})"
        for row in sorted(rows, key=lambda row: row.spent.bytes)
    )
    line = ", ".join(rows[i].name for i in best)
    alt = f"{title}. Size and mean absolute error: {parts}. Pareto line: {line}."

    def draw(theme: Theme) -> Figure:
        names = "size on disk (logarithmic)", "error, dollars (logarithmic)"
        figure, axes = canvas(theme, title, *names, 4.8)
        _draw(axes, theme, points, best)
        _name(axes, theme, points, [_short(row.name, rows[0].name) for row in rows])
        return figure

    return Chart(draw, alt)


def finding(rows: Sequence[Measured]) -> str:
    """Say of the smallest pricer within a twentieth of the teacher's error what it saves.

    If none is within, say what the best one costs.
    """
    teacher, others = rows[0], rows[1:]
    good = [row for row in others if row.mae <= 1.05 * teacher.mae]
    if good:
        one = max(good, key=lambda row: row.smaller)
        much = f"{one.mae / teacher.mae - 1:+.1%} error".replace("+-", "-")
    else:
        one = min(others, key=lambda row: row.mae)
        much = f"{one.mae / teacher.mae - 1:+.0%} error, and none errs less"
    return f"{one.name}: {one.smaller:.3g} times smaller, {one.faster:.3g} times faster, {much}"


def _short(name: str, teacher: str) -> str:
    return name.replace(f" of {teacher}", "")


def _draw(
    axes: Axes, theme: Theme, points: Sequence[tuple[float, ...]], best: Sequence[int]
) -> None:
    sizes, lows, highs = ([point[at] for point in points] for at in (0, 2, 3))
    left, right = min(sizes) / 1.5, max(sizes) * 1.8
    axes.set(xscale="log", yscale="log", xlim=(left, right),
             ylim=(min(lows) / 1.04, max(highs) * 1.04))  # fmt: skip
    x, y = ([points[i][at] for i in best] for at in (0, 1))
    axes.step([*x, right], [*y, y[-1]], "--", where="post", color=theme.good, label="Pareto line")
    for i, (size, error, low, high) in enumerate(points):
        colour, marker = (theme.good, "o") if i in best else (theme.plain, "s")
        axes.vlines(size, low, high, color=colour, linewidth=1.2)
        axes.plot(size, error, marker, color=colour, markersize=7)
    axes.plot([], [], color=theme.plain, linewidth=1.2, label="95 % interval of the error")
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: in_bytes(size)))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(DOLLARS)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    legend(axes, theme, loc="upper right")


def _name(
    axes: Axes, theme: Theme, points: Sequence[tuple[float, ...]], names: Sequence[str]
) -> None:
    """Write each name where there is room, as on the chart of costs."""
    (left, right), (low, high) = np.log(axes.get_xlim()), np.log(axes.get_ylim())
    logs = np.log(np.array(points))
    across = WIDTH * (logs[:, 0] - left) / (right - left)
    up = HEIGHT * (logs[:, 1:] - low) / (high - low)
    bars = np.column_stack([across, up]).tolist()
    for name, place in zip(names, name_places(bars, names, WIDTH, HEIGHT), strict=True):
        where = np.divide(place.anchor, (WIDTH, HEIGHT))
        axes.annotate(plain_text(name), where, ha=place.align, xycoords="axes fraction",
                      fontsize=9, color=theme.text)  # fmt: skip
