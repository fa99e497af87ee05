"""Error against size: the chart on which a compressed model is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from shared.compression.measuring import Measured, in_bytes
from shared.reports.figures import DOLLARS, Chart, Theme, canvas, dollars, legend, plain_text
from shared.reports.plane import HEIGHT, WIDTH, name_places, pareto


class Point(NamedTuple):
    """A model on the chart: bytes on disk, its error, and the ends of that one's interval."""

    name: str
    bytes: int
    error: float
    low: float
    high: float


class Errors(NamedTuple):
    """What the error is: for the alt text, for its axis, in a sentence, and at a tick."""

    measure: str
    axis: str
    scale: str
    said: Callable[[float], str]
    ticks: Formatter


MEAN_ABSOLUTE = Errors(
    "mean absolute error", "error, dollars (logarithmic)", "log", dollars, DOLLARS
)


def size_chart(rows: Sequence[Measured]) -> Chart:
    """Mean absolute error against bytes on disk, both on logarithmic scales, and the Pareto line.

    The first row is the teacher. Raises ValueError if there is nothing to compare it with.
    """
    if len(rows) < 2:
        raise ValueError("a teacher and at least one compressed pricer are needed")
    points = [Point(row.name, row.spent.bytes, row.mae, row.mae_low, row.mae_high) for row in rows]
    return against_size(finding(rows), points, MEAN_ABSOLUTE)


def against_size(title: str, points: Sequence[Point], errors: Errors) -> Chart:
    """Error against bytes on disk, on a logarithmic scale, and the Pareto line.

    In the picture the names lack what they say of the first point: "student of …".
    """
    best = pareto([(point.bytes, point.error) for point in points])
    said = errors.said
    parts = "; ".join(
        f"{point.name} {in_bytes(point.bytes)}, {said(point.error)} ({said(point.low)} to "
        f"{said(point.high)})"
        for point in sorted(points, key=lambda point: point.bytes)
    )
    line = ", ".join(points[i].name for i in best)
    alt = f"{title}. Size and {errors.measure}: {parts}. Pareto line: {line}."

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "size on disk (logarithmic)", errors.axis, 4.8)
        _draw(axes, theme, points, best, errors)
        _name(axes, theme, points)
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


def _draw(
    axes: Axes, theme: Theme, points: Sequence[Point], best: Sequence[int], errors: Errors
) -> None:
    sizes, lows, highs = ([point[at] for point in points] for at in (1, 3, 4))
    left, right = min(sizes) / 1.5, max(sizes) * 1.8
    bottom = min(lows) / 1.04 if errors.scale == "log" else 0.0
    axes.set(
        xscale="log", yscale=errors.scale, xlim=(left, right), ylim=(bottom, max(highs) * 1.04)
    )
    x, y = ([points[i][at] for i in best] for at in (1, 2))
    axes.step([*x, right], [*y, y[-1]], "--", where="post", color=theme.good, label="Pareto line")
    for i, (_, size, error, low, high) in enumerate(points):
        colour, marker = (theme.good, "o") if i in best else (theme.plain, "s")
        axes.vlines(size, low, high, color=colour, linewidth=1.2)
        axes.plot(size, error, marker, color=colour, markersize=7)
    axes.plot([], [], color=theme.plain, linewidth=1.2, label="95 % interval of the error")
    # Over three powers of ten, the names of three ticks in each would meet.
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if right < 1000 * left else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: in_bytes(size)))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(errors.ticks)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    legend(axes, theme, loc="upper right")


def _name(axes: Axes, theme: Theme, points: Sequence[Point]) -> None:
    """Write each name where there is room, as on the chart of costs."""
    names = [point.name.replace(f" of {points[0].name}", "") for point in points]
    across = WIDTH * _share(axes, "x", [[point.bytes] for point in points])
    up = HEIGHT * _share(axes, "y", [point[2:] for point in points])
    bars = np.column_stack([across, up]).tolist()
    for name, place in zip(names, name_places(bars, names, WIDTH, HEIGHT), strict=True):
        where = np.divide(place.anchor, (WIDTH, HEIGHT))
        axes.annotate(plain_text(name), where, ha=place.align, xycoords="axes fraction",
                      fontsize=9, color=theme.text)  # fmt: skip


def _share(axes: Axes, which: str, values: Sequence[Sequence[float]]) -> np.ndarray:
    """Return how far along an axis values are, 0 to 1, on its own scale."""
    turned = getattr(axes, f"{which}axis").get_transform().transform
    first, last = turned(np.array(getattr(axes, f"get_{which}lim")()))
    table = np.array(values, float)
    return (turned(table.ravel()).reshape(table.shape) - first) / (last - first)
