"""Error against what it costs: the chart on which a technique is chosen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from shared.evaluation.metrics import score
from shared.evaluation.predictions import scored
from shared.reports.figures import DOLLARS, Chart, Theme, canvas, dollars, legend, plain_text

AXES = {
    "cost": ("dollars per thousand products", lambda rows: 1000 * float(np.mean(rows.cost_usd))),
    "seconds": ("seconds per product, one call after the other", lambda rows: _mean_seconds(rows)),
}


def cost_plane(predictions: Sequence[Any], against: str = "cost") -> Chart:
    """Mean absolute error against dollars (or ``seconds``), and the Pareto line.

    ``predictions``: evaluations, tables or paths, of the same items. On the line is what nothing
    else beats in both at once; whatever is off it costs more, or errs more, for nothing.
    """
    name, value = AXES[against]
    rows = [(scored(p).title, value(scored(p)), score(p)) for p in predictions]
    rows = [row for row in rows if row[1] > 0 and row[2]["mae"] is not None]
    if not rows:
        raise ValueError(f"none of these predictions has both an error and {against}")
    best = pareto([(x, s["mae"]) for _, x, s in rows])
    parts = [f"{t} {dollars(s['mae'])} at {x:.3g}" for t, x, s in sorted(rows, key=lambda r: r[1])]
    whose, names = _shortened([title for title, _, _ in rows])
    title = f"{whose}{len(best)} of {len(rows)} are worth their {against}"
    named = ", ".join(rows[i][0] for i in best)
    alt = f"{title}. Mean absolute error by {name}: {'; '.join(parts)}. Pareto line: {named}."

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, name, "mean absolute error, dollars", 4.6)
        line = ([rows[i][1] for i in best], [rows[i][2]["mae"] for i in best])
        axes.step(*line, "--", where="post", color=theme.good, label="nothing beats these")
        middle = np.sqrt(min(r[1] for r in rows) * max(r[1] for r in rows))
        for i, (_, x, s) in enumerate(rows):
            colour = theme.good if i in best else theme.plain
            axes.vlines(x, s["mae_low"], s["mae_high"], color=colour, linewidth=1.2)
            axes.plot(x, s["mae"], "o" if i in best else "s", color=colour, markersize=7)
            left = x > middle  # names point inwards, where there is room
            axes.annotate(plain_text(names[i]), (x, s["mae"]), xytext=(-7 if left else 7, 6),
                          ha="right" if left else "left", textcoords="offset points",
                          fontsize=9, color=theme.text)  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.margins(x=0.12, y=0.12)
        axes.yaxis.set_major_formatter(DOLLARS)
        legend(axes, theme, loc="upper right")
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


def _shortened(titles: Sequence[str]) -> tuple[str, list[str]]:
    """Split "model, technique (stand-in)" into what all have in common, and the rest of each."""
    parts = [re.fullmatch(r"(?:(.*?), )?(.*?)( \(.*\))?", title) for title in titles]
    models, labels = {p[1] for p in parts}, {p[3] for p in parts}
    if len(models) > 1 or len(labels) > 1 or None in models:
        return "", list(titles)
    return f"{models.pop()}{labels.pop() or ''}: ", [p[2] for p in parts]


def _mean_seconds(rows: Any) -> float:
    return float(np.nanmean(rows.seconds)) if np.isfinite(rows.seconds).any() else float("nan")
