"""Charts of what models learn: learning curves, the coverage of intervals, a threshold's price.

Each returns a ``Chart``, a picture whose alt text says the finding in numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    MultipleLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from shared.evaluation.metrics import by_category, by_price_band, score
from shared.reports.figures import (
    DOLLARS,
    THOUSANDS,
    Chart,
    Theme,
    canvas,
    dollars,
    legend,
    plain_text,
)

_STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"))


def learning_curves(curve: pa.Table) -> Chart:
    """Error against the number of training items, a line a pricer, both axes logarithmic.

    ``curve`` is what ``learning_curve`` returns: pricer, size, mae, mae_low, mae_high.
    """
    lines = _by_pricer(curve)
    slopes = {name: power_law(rows)[1] for name, rows in lines.items() if len(rows) > 1}
    parts = [
        f"{name} " + ", ".join(f"{dollars(r['mae'])} from {r['size']:,}" for r in rows)
        for name, rows in lines.items()
    ]
    steepest = min(slopes, key=slopes.get, default=None)
    title = "Error against the number of training items"
    if steepest is not None:
        title = f"{steepest}: ten times the items, {1 - 10 ** slopes[steepest]:.0%} less error"
    alt = f"{title}. Mean absolute error by training items. {'; '.join(parts)}."

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "training items", "mean absolute error, dollars", 4.6)
        colours = [theme.good, theme.bad, theme.plain]
        for i, (name, rows) in enumerate(lines.items()):
            marker, dash = _STYLES[i % len(_STYLES)]
            sizes, colour = [r["size"] for r in rows], colours[i % 3]
            axes.fill_between(sizes, [r["mae_low"] for r in rows], [r["mae_high"] for r in rows],
                              color=colour, alpha=0.12, linewidth=0)  # fmt: skip
            axes.plot(sizes, [r["mae"] for r in rows], dash, marker=marker, color=colour,
                      label=plain_text(name), linewidth=1.8, markersize=5)  # fmt: skip
        _log_axes(axes, curve)
        legend(axes, theme, loc="best")
        return figure

    return Chart(draw, alt)


def power_law(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Fit ``mae = a * size ** b`` to rows with size and mae; return (a, b).

    A straight line on log axes. It says what more data would buy if nothing changed, which holds
    for a little more than was measured, and not for ever: no error falls below the noise.
    """
    slope, start = np.polyfit(
        np.log([r["size"] for r in rows]), np.log([r["mae"] for r in rows]), 1
    )
    return float(np.exp(start)), float(slope)


def coverage_chart(predictions: Any, nominal: float = 0.9) -> Chart:
    """Share of true prices inside their intervals: overall, by category, by price band."""
    rows = [("all", score(predictions))]
    rows += [(f"${r['price_band']}", r) for r in by_price_band(predictions).to_pylist()]
    rows += [(r["category"], r) for r in by_category(predictions).to_pylist()[:8]]
    rows = [(name, r) for name, r in rows if r["coverage"] is not None]
    if not rows:
        raise ValueError("these predictions have no intervals: give the pricer some first")
    worst = min(rows, key=lambda pair: pair[1]["coverage"])
    title = (
        f"{rows[0][1]['coverage']:.0%} of prices are inside, {nominal:.0%} were promised; "
        f"fewest for {worst[0]}: {worst[1]['coverage']:.0%}"
    )
    lowest = min(r["coverage_low"] for _, r in rows)
    parts = [f"{name} {r['coverage']:.1%} (n = {r['n']:,})" for name, r in rows]
    alt = f"Share of true prices inside the intervals; {nominal:.0%} promised. {'; '.join(parts)}."

    def draw(theme: Theme) -> Figure:
        height = 1.5 + 0.3 * len(rows)
        figure, axes = canvas(theme, title, "share inside the interval, 95 % interval", "", height)
        axes.axvline(nominal, color=theme.bad, linewidth=1.6, linestyle="--",
                     label=f"promised: {nominal:.0%}")  # fmt: skip
        for place, (_, r) in enumerate(rows):
            axes.hlines(place, r["coverage_low"], r["coverage_high"], color=theme.plain)
        axes.plot([r["coverage"] for _, r in rows], range(len(rows)), "o", color=theme.good,
                  label="measured")  # fmt: skip
        axes.set_yticks(range(len(rows)), [plain_text(n) for n, _ in rows], color=theme.text)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MultipleLocator(0.05 if lowest > 0.6 else 0.1))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        legend(axes, theme, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        return figure

    return Chart(draw, alt)


def line_chart(
    x: Sequence[float], y: Sequence[float], title: str, x_name: str, y_name: str
) -> Chart:
    """One line over a logarithmic x axis; the names of the axes say their units."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    top = int(y.argmax())
    alt = (
        f"{title}. {y_name} against {x_name}: {y[0]:,.3g} at {x[0]:,.3g}, {y[-1]:,.3g} at "
        f"{x[-1]:,.3g}; highest, {y[top]:,.3g}, at {x[top]:,.3g}."
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, x_name, y_name, 3.4)
        axes.plot(x, y, color=theme.good, linewidth=2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(THOUSANDS)
        return figure

    return Chart(draw, alt)


AVERAGED = 25
"""Steps whose mean is drawn over the losses of single batches, which jump."""


def loss_curve(steps: Sequence[Any], unit: str = "loss") -> Chart:
    """Training and validation loss by step; ``steps`` have step, train_loss, validation_loss.

    ``unit`` is what the losses are measured in, for the axis. A training loss is of one batch, and
    says as much about the batch as about the model; so their running mean is drawn over them.
    """
    train = [(s.step, s.train_loss) for s in steps if s.train_loss is not None]
    held = [(s.step, s.validation_loss) for s in steps if s.validation_loss is not None]
    if not train:
        raise ValueError("no step has a loss yet: wait for the first one")
    window = min(AVERAGED, max(len(train) // 4, 1))
    losses = np.convolve([loss for _, loss in train], np.ones(window) / window, "valid")
    first = window // 2  # a mean is drawn in the middle of its steps
    middle = [step for step, _ in train[first : first + len(losses)]]
    mean = list(zip(middle, losses.tolist(), strict=True))
    best = min(held, key=lambda point: point[1], default=None)
    smooth = f"mean of {window} steps" if window > 1 else "each step"
    alt = title = f"Training loss, {smooth}: {_course(mean, train[-1][0])}"
    if best:
        title = f"Validation loss {_course(held, train[-1][0])}"
        alt = f"{title}; lowest, {best[1]:.4g}, at step {best[0]:,}. {alt}"

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "step", unit, 3.6)
        axes.plot(*zip(*train, strict=True), color=theme.plain, linewidth=1, alpha=0.45,
                  label="training, each step")  # fmt: skip
        if window > 1:
            axes.plot(*zip(*mean, strict=True), color=theme.plain, linewidth=2,
                      label=f"training, {smooth}")  # fmt: skip
        if best:
            axes.plot(*zip(*held, strict=True), "--", color=theme.good, linewidth=2,
                      label="validation")  # fmt: skip
            axes.plot(*best, "o", color=theme.bad, label=f"lowest, at step {best[0]:,}")
        legend(axes, theme, loc="upper right")
        return figure

    return Chart(draw, f"{alt}.")


def _course(points: Sequence[tuple[int, float]], step: int) -> str:
    """Say from where to where the loss went in all steps so far; ``points`` are (step, loss)."""
    steps = f"{step:,} step{'' if step == 1 else 's'}"
    if len(points) == 1:
        return f"{points[0][1]:.3g} after {steps}"
    return f"{points[0][1]:.3g} to {points[-1][1]:.3g} over {steps}"


def _by_pricer(curve: pa.Table) -> dict[str, list[dict]]:
    lines: dict[str, list[dict]] = {}
    for row in curve.to_pylist():
        lines.setdefault(row["pricer"], []).append(row)
    return {name: sorted(rows, key=lambda r: r["size"]) for name, rows in lines.items()}


def _log_axes(axes: Axes, curve: pa.Table) -> None:
    """Mark the sizes that were measured, and errors at round dollars."""
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(curve["size"].to_pylist()))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(THOUSANDS)
    low, high = min(curve["mae_low"].to_pylist()), max(curve["mae_high"].to_pylist())
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if (high - low) / s <= 8)
    axes.yaxis.set_major_locator(FixedLocator(np.arange(0, high + step, step)[1:]))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(DOLLARS)
