"""Error against what it costs: the chart on which a technique is chosen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from shared.evaluation.metrics import score
from shared.evaluation.predictions import scored
from shared.reports.figures import DOLLARS, Chart, Theme, canvas, dollars, legend, plain_text

AXES = {
    "cost": "dollars per thousand products",
    "seconds": "seconds per product, one call after the other",
}
WIDTH, HEIGHT = 440.0, 230.0
"""Printer's points between the axes of the chart, about."""

LETTER, LINE = 5.6, 12.0
"""Printer's points that a letter and a line of a name take, about."""


class Point(NamedTuple):
    """A technique on the chart: dollars per thousand products (or seconds), and its error."""

    title: str
    x: float
    error: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.title} {dollars(self.error)}{f' at {self.x:.3g}' if self.x else ', free'}"


def cost_plane(
    predictions: Sequence[Any], against: str = "cost", free: Sequence[Any] = ()
) -> Chart:
    """Mean absolute error against dollars (or ``seconds``), and the Pareto line.

    ``predictions`` and ``free``: evaluations, tables or paths, of the same items; ``free`` are
    rivals that cost no dollars, because they run on this machine. On the line is what nothing else
    beats in both at once; whatever is off it costs more, and errs more, for nothing.
    """
    points = [_point(p, against) for p in predictions]
    rivals = [_point(p, against, free=True) for p in free]
    missing = [p.title for p in points + rivals if not np.isfinite([p.x, p.error]).all()]
    points, rivals = ([p for p in ps if p.title not in missing] for ps in (points, rivals))
    if not any(p.x > 0 for p in points):
        raise ValueError(f"none of these predictions has both an error and a {against} above 0")
    whose, names = _shortened([p.title for p in points])
    names += [p.title for p in rivals]
    everybody = points + rivals
    best = pareto([(p.x, p.error) for p in everybody])
    title = f"{whose}{_finding(everybody, best, len(points), against)}"
    parts = "; ".join(map(str, sorted(everybody, key=lambda p: p.x)))
    left_out = f" Not drawn, without error or {against}: {', '.join(missing)}." if missing else ""
    line = ", ".join(everybody[i].title for i in best)
    alt = (
        f"{title}. Mean absolute error by {AXES[against]}: {parts}.{left_out} Pareto line: {line}."
    )

    def draw(theme: Theme) -> Figure:
        start = "free at the left, else " if any(p.x == 0 for p in everybody) else ""
        name = f"{AXES[against]} ({start}on a logarithmic scale)"
        figure, axes = canvas(theme, title, name, "mean absolute error, dollars", 4.8)
        _draw(axes, theme, everybody, names, best)
        _explain(axes, theme)
        return figure

    return Chart(draw, alt)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the points (x, y) that no other has both at most x and at most y; by growing x."""
    found, lowest = [], np.inf
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if points[i][1] < lowest:
            found.append(i)
            lowest = points[i][1]
    return found


class Place(NamedTuple):
    """Where a name is written: its box (left, low, right, high) and how it is aligned."""

    box: tuple[float, float, float, float]
    align: str

    @property
    def anchor(self) -> tuple[float, float]:
        """Return the point that the alignment is about."""
        left, low, right, _ = self.box
        return {"left": left, "right": right, "center": (left + right) / 2}[self.align], low


def name_places(
    bars: Sequence[tuple[float, float, float, float]],
    names: Sequence[str],
    width: float,
    height: float,
) -> list[Place]:
    """Place each name beside, above or below its bar (x, y, low, high), where there is most room.

    All lengths are printer's points, from the lower left corner of an area of that size.
    """
    places: dict[int, Place] = {}
    for i in sorted(range(len(bars)), key=lambda i: bars[i]):
        (x, y, low, high), long = bars[i], LETTER * len(names[i])
        middle = x - long / 2
        # Beside means a little above the middle: the Pareto line starts there.
        tried = [
            Place((x + 8, y + 3, x + 8 + long, y + 3 + LINE), "left"),
            Place((x - 8 - long, y + 3, x - 8, y + 3 + LINE), "right"),
            Place((middle, high + 3, middle + long, high + 3 + LINE), "center"),
            Place((middle, low - 3 - LINE, middle + long, low - 3), "center"),
        ]
        taken = [place.box for place in places.values()]
        taken += [(x - 5, low, x + 5, high) for j, (x, _, low, high) in enumerate(bars) if j != i]
        trouble = [_trouble(place.box, taken, width, height) for place in tried]
        places[i] = tried[trouble.index(min(trouble))]
    return [places[i] for i in range(len(bars))]


def _trouble(box: tuple, taken: Sequence[tuple], width: float, height: float) -> int:
    left, low, right, high = box
    outside = left < 0 or low < 0 or right > width or high > height
    return 3 * outside + sum(
        a < right and left < c and b < high and low < d for a, b, c, d in taken
    )


def _finding(points: Sequence[Point], best: Sequence[int], n: int, against: str) -> str:
    """Say how many of the first ``n`` points are on the line; the others are their rivals."""
    on = sum(i < n for i in best)
    last = points[best[-1]]
    if not on and last.x == 0:
        return f"none of {n} is worth its {against}: {last.title} is free and errs less"
    return f"{on} of {n} {'lies' if on == 1 else 'lie'} on the Pareto line"


def _draw(
    axes: Axes, theme: Theme, points: Sequence[Point], names: Sequence[str], best: Sequence[int]
) -> None:
    x, ticks = _positions(points)
    left, right = _limits(axes, points, x)
    errors = [points[i].error for i in [*best, best[-1]]]
    # The line goes on to the edge: whatever lies above it, however dear, is beaten.
    axes.step([*(x[i] for i in best), right], errors, "--", where="post", color=theme.good,
              label="Pareto line")  # fmt: skip
    for i, (at, point) in enumerate(zip(x, points, strict=True)):
        colour, marker = (theme.good, "o") if i in best else (theme.plain, "s")
        axes.vlines(at, point.low, point.high, color=colour, linewidth=1.2)
        axes.plot(at, point.error, marker, color=colour, markersize=7)
    if free := [at for at, point in zip(x, points, strict=True) if point.x == 0]:
        first = min(at for at in x if at not in free)
        axes.axvspan(left, np.sqrt(max(free) * first), color=theme.grid, alpha=0.5, linewidth=0)
    _name(axes, theme, points, x, names)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda at, _: ticks.get(at, ""))
    axes.yaxis.set_major_formatter(DOLLARS)


def _positions(points: Sequence[Point]) -> tuple[list[float], dict[float, str]]:
    """Return each point's place on a log axis, and the ticks; what is free stands at the left."""
    paid = [p.x for p in points if p.x > 0]
    low, high = min(paid), max(paid)
    marks = LogLocator(subs=(1, 2, 5)).tick_values(low, high)
    ticks = {float(m): f"{m:g}" for m in marks if low / 1.3 <= m <= high * 1.3}
    step = max(high / low, 3) ** 0.06
    free = [low / step ** (5 + 2 * i) for i in range(len(points) - len(paid))]
    if free:
        ticks[float(np.sqrt(free[0] * free[-1]))] = "free"
    places = iter(free)
    return [p.x or next(places) for p in points], ticks


def _limits(axes: Axes, points: Sequence[Point], x: Sequence[float]) -> tuple[float, float]:
    """Set the ends of both axes, with room for names; return those of the x axis."""
    span = np.log(max(x) / min(x)) or 1.0
    left, right = min(x) * np.exp(-0.08 * span), max(x) * np.exp(0.15 * span)
    low, high = min(p.low for p in points), max(p.high for p in points)
    low, high = max(low - 0.15 * (high - low), 0), high + 0.12 * (high - low)
    axes.set(xscale="log", xlim=(left, right), ylim=(low, high))
    return left, right


def _name(
    axes: Axes, theme: Theme, points: Sequence[Point], x: Sequence[float], names: Sequence[str]
) -> None:
    (left, right), (low, high) = np.log(axes.get_xlim()), axes.get_ylim()
    across = WIDTH * (np.log(x) - left) / (right - left)
    up = HEIGHT * (np.array([(p.error, p.low, p.high) for p in points]) - low) / (high - low)
    bars = np.column_stack([across, up]).tolist()
    for name, place in zip(names, name_places(bars, names, WIDTH, HEIGHT), strict=True):
        where = np.divide(place.anchor, (WIDTH, HEIGHT))
        axes.annotate(plain_text(name), where, ha=place.align, xycoords="axes fraction",
                      fontsize=9, color=theme.text)  # fmt: skip


def _explain(axes: Axes, theme: Theme) -> None:
    """Add the legend: what the line and the marks mean."""
    marks = {"marker": "o", "color": theme.good, "linestyle": ""}
    axes.plot([], [], label="on it: none errs less for as little", **marks)
    marks = {"marker": "s", "color": theme.plain, "linestyle": ""}
    axes.plot([], [], label="off it: one errs less for as little", **marks)
    axes.plot([], [], color=theme.plain, linewidth=1.2, label="95 % interval of the error")
    legend(axes, theme, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _point(predictions: Any, against: str, free: bool = False) -> Point:
    rows, s = scored(predictions), score(predictions)
    spent = rows.seconds if against == "seconds" else 1000 * rows.cost_usd
    spent = spent[np.isfinite(spent)]
    x = float(spent.mean()) if len(spent) else np.nan
    error = [np.nan if s[name] is None else s[name] for name in ("mae", "mae_low", "mae_high")]
    return Point(rows.title, 0.0 if free and against == "cost" else x, *error)


def _shortened(titles: Sequence[str]) -> tuple[str, list[str]]:
    """Split "model, technique (stand-in)" into what all have in common, and the rest of each."""
    parts = [re.fullmatch(r"(?:(.*?), )?(.*?)( \(.*\))?", title) for title in titles]
    models, labels = {p[1] for p in parts}, {p[3] for p in parts}
    if len(models) > 1 or len(labels) > 1 or None in models:
        return "", list(titles)
    return f"{models.pop()}{labels.pop() or ''}: ", [p[2] for p in parts]
