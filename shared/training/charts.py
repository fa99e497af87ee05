"""Charts of training and of what was trained: curves in dollars, price distributions, trials.

Each returns a ``Chart``, a picture whose alt text says the finding in numbers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from shared.open_models.reading import Distribution
from shared.reports.figures import Chart, Theme, canvas, dollars, legend, log_dollars, plain_text

LEAST_DRAWN = 0.5
"""Dollars: 0 has no place on a log axis."""


def dollars_curve(
    history: Sequence[Mapping[str, Any]], levels: Mapping[str, float] | None = None
) -> Chart:
    """Validation error by training step, of the median and of the likeliest price.

    ``history``: entries of a manifest's ``curve`` or of the log. ``levels``: name -> dollars of
    others to compare with, drawn as lines. Raises ValueError if nothing was measured yet.
    """
    points = {e["step"]: e for e in history if "eval_dollars" in e}
    if not points:
        raise ValueError("nothing was measured yet: wait for the first evaluation")
    steps = sorted(points)
    median = [points[step]["eval_dollars"] for step in steps]
    greedy = [points[step].get("eval_greedy_dollars", np.nan) for step in steps]
    best = int(np.argmin(median))
    title = (
        f"Off by {dollars(median[0])} at step {steps[0]:,}, by {dollars(median[best])} at step "
        f"{steps[best]:,}"
    )
    others = "; ".join(f"{name} {dollars(value)}" for name, value in (levels or {}).items())
    alt = (
        f"{title}. Validation error by step, median of the distribution: "
        + ", ".join(f"{dollars(y)} at {x:,}" for x, y in zip(steps, median, strict=True))
        + (f". To compare with: {others}." if others else ".")
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "training step", "validation error, dollars", 3.8)
        axes.plot(steps, greedy, "--", marker="s", color=theme.bad, linewidth=1.5, markersize=4,
                  label="likeliest price")  # fmt: skip
        axes.plot(steps, median, marker="o", color=theme.good, linewidth=2, label="median price")
        for name, value in (levels or {}).items():
            axes.axhline(value, color=theme.plain, linewidth=1, linestyle=":")
            axes.annotate(
                plain_text(f"{name} {dollars(value)}"), (1, value), color=theme.muted,
                xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9,
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        legend(axes, theme, loc="best")
        return figure

    return Chart(draw, alt)


class LiveCurve:
    """Draws the dollar curve anew while somebody watches: hand it to ``fine_tune`` as ``watch``.

    In a notebook the chart is redrawn in place, once in ``every`` seconds at most, with the
    latest training loss in words; elsewhere nothing is shown.
    """

    def __init__(self, levels: Mapping[str, float] | None = None, every: float = 1.0) -> None:
        self._levels, self._every = levels, every
        self._chart: Any = None
        self._words: Any = None
        self._drawn, self._measured = -every, 0

    def __call__(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show a history that has grown."""
        from IPython import get_ipython
        from IPython.display import display

        if get_ipython() is None:
            return
        measured = sum("eval_dollars" in entry for entry in history)
        if measured > self._measured:
            self._measured, chart = measured, dollars_curve(history, self._levels)
            if self._chart is None:
                self._chart = display(chart, display_id=True)
            else:
                self._chart.update(chart)
        if time.monotonic() - self._drawn >= self._every:
            self._drawn, words = time.monotonic(), _Words(history)
            if self._words is None:
                self._words = display(words, display_id=True)
            else:
                self._words.update(words)


class _Words:
    def __init__(self, history: Sequence[Mapping[str, Any]]) -> None:
        losses = [entry for entry in history if "loss" in entry]
        self._text = "waiting for the first step …"
        if losses:
            self._text = f"step {losses[-1]['step']:,}: training loss {losses[-1]['loss']:.3f}"

    def __repr__(self) -> str:
        return self._text


def distribution_chart(
    found: Distribution, row: int, name: str, price: float | None = None
) -> Chart:
    """How likely each price is for one product; median and likeliest price marked.

    ``row``: which product of the distribution; ``name``: what it is; ``price``: what it costs.
    """
    prices = found.prices.astype(float)
    likely = found.probabilities[row]
    median, mode = float(found.median[row]), float(found.mode[row])
    low, high = (float(found.quantile(share)[row]) for share in (0.05, 0.95))
    title = f"{name}: {dollars(median)} is the median, {dollars(mode)} the likeliest price"
    truth = "" if price is None else f" It costs {dollars(price)}."
    alt = (
        f"{title}. Nine tenths of the probability lie between {dollars(low)} and {dollars(high)}."
        f"{truth}"
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "price, dollars", "probability", 3.4)
        x = np.maximum(prices, LEAST_DRAWN)
        axes.fill_between(x, likely, color=theme.good, alpha=0.25, linewidth=0, step="mid")
        axes.plot(x, likely, color=theme.good, linewidth=1.2, drawstyle="steps-mid")
        axes.axvline(max(median, LEAST_DRAWN), color=theme.good, linewidth=2, label="median")
        axes.axvline(max(mode, LEAST_DRAWN), color=theme.bad, linewidth=1.5, linestyle="--",
                     label="likeliest")  # fmt: skip
        if price is not None:
            axes.axvline(price, color=theme.text, linewidth=1.5, linestyle=":", label="true price")
        log_dollars(axes, "x")
        axes.set_ylim(bottom=0)
        legend(axes, theme, loc="upper left")
        return figure

    return Chart(draw, alt)


def trials_chart(rows: Sequence[Mapping[str, Any]], title: str, y_name: str = "dollars") -> Chart:
    """Errors of trials, a dot a seed, settings side by side in the order they come.

    ``rows`` have ``setting`` and the field ``y_name``. The title is followed by the finding.
    """
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    values = {s: [row[y_name] for row in rows if row["setting"] == s] for s in settings}
    middles = {s: float(np.median(found)) for s, found in values.items()}
    best = min(middles, key=middles.get)
    whole = f"{title}: {best} is best, {dollars(middles[best])}"
    alt = f"{whole}. Medians: " + "; ".join(
        f"{s} {dollars(m)} ({len(values[s])} seeds, {dollars(min(values[s]))} to "
        f"{dollars(max(values[s]))})"
        for s, m in middles.items()
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, whole, "", "error, dollars", 3.2)
        for at, setting in enumerate(settings):
            axes.plot(
                [at] * len(values[setting]), values[setting], "o", color=theme.good, alpha=0.6
            )
            axes.plot([at - 0.22, at + 0.22], [middles[setting]] * 2, color=theme.bad, linewidth=2)
        axes.set_xticks(range(len(settings)), [plain_text(s) for s in settings])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(-0.6, len(settings) - 0.4)
        return figure

    return Chart(draw, alt)


def settings_chart(rows: Sequence[Mapping[str, Any]], usual: float, title: str) -> Chart:
    """Errors of several studies in one picture: a line a setting, a dot a seed, a bar the median.

    ``rows`` have ``study``, ``setting`` and ``dollars``, a study's lines stay together; ``usual``
    is the error of the plan that all of them change in one place, drawn from top to bottom.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        values.setdefault(row["study"], {}).setdefault(row["setting"], []).append(row["dollars"])
    alt = f"{title}. The plan as it is: {dollars(usual)}. " + " ".join(
        f"{study}: "
        + ", ".join(
            f"{setting} {dollars(float(np.median(found)))} ({dollars(min(found))} to "
            f"{dollars(max(found))})"
            for setting, found in settings.items()
        )
        + "."
        for study, settings in values.items()
    )
    names: list[str] = []
    for study, settings in values.items():
        names += [study, *settings]

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "error, dollars", "", 1.0 + 0.25 * len(names))
        axes.axvline(usual, color=theme.plain, linewidth=1.2, linestyle=":")
        at = 0
        for settings in values.values():
            for place, found in enumerate(settings.values(), at + 1):
                axes.plot(found, [place] * len(found), "o", color=theme.good, alpha=0.6)
                middle = float(np.median(found))
                axes.plot([middle] * 2, [place - 0.3, place + 0.3], color=theme.bad, linewidth=2.2)
            at += 1 + len(settings)
        axes.set_yticks(range(len(names)), [plain_text(name) for name in names])
        for label in axes.get_yticklabels():
            if label.get_text() in values:
                label.set(fontweight="bold", color=theme.text)
        axes.set_ylim(len(names) - 0.4, -0.6)
        return figure

    return Chart(draw, alt)
