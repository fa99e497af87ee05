"""Charts of the watch: how far windows are from the reference, and sums of errors over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from shared.reports.figures import THOUSANDS, Chart, Theme, canvas, legend, plain_text
from shared.watching.drift import FOLKLORE
from shared.watching.watch import ErrorChart, Window


def drift_chart(windows: Sequence[Window], name: str = "category PSI") -> Chart:
    """One signal over the windows: its value, the threshold, and alarms as crosses.

    Of a PSI, the threshold of folklore is drawn, too. Raises ValueError for an unknown name.
    """
    known = [[signal.name for signal in window.signals] for window in windows]
    if not known or any(name not in names for names in known):
        there = ", ".join(known[0]) if known else "no windows"
        raise ValueError(f"no signal {name!r} in every window; there are: {there}")
    signals = [next(s for s in window.signals if s.name == name) for window in windows]
    value = np.array([signal.value for signal in signals])
    level = np.array([signal.threshold for signal in signals])
    alarm = np.array([signal.alarm for signal in signals])
    ends = np.array([window.end for window in windows])
    title = f"{name}: {_count(int(alarm.sum()), 'alarm')} in {_count(len(windows), 'window')}"
    alt = f"{title} of {windows[0].end - windows[0].start:,} products. "
    alt += _last(name, value, level) + (f" First alarm at product {ends[alarm][0]:,}."
                                        if alarm.any() else "")  # fmt: skip

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "products so far", name, 3.4)
        axes.plot(ends, value, "-o", color=theme.good, markersize=4, linewidth=1.6, label="value")
        axes.plot(ends, level, "--", color=theme.text, linewidth=1.3, drawstyle="steps-mid",
                  label="threshold for this window size")  # fmt: skip
        shown = [*value, *level]
        if name.endswith("PSI"):
            shown.append(FOLKLORE)
            axes.axhline(FOLKLORE, color=theme.plain, linewidth=1.1, linestyle=":",
                         label="folklore: 0.1 for any size")  # fmt: skip
        _crosses(axes, theme, ends[alarm], value[alarm], "alarm")
        _finish(axes, theme, shown)
        return figure

    return Chart(draw, alt)


def cusum_chart(chart: ErrorChart) -> Chart:
    """Both sums of an error chart over the true prices, and the threshold."""
    up, down = chart.path
    level, n = chart.cusum.threshold, len(up)
    above = np.flatnonzero(np.maximum(up, down) > level)
    when = f"alarm at true price {above[0] + 1:,} of {n:,}" if len(above) else "no alarm"
    title = f"{chart.cusum.name}: {when}"
    alt = (
        f"CUSUM, {title}. The sums end at {up[-1] if n else 0:.1f} (above usual) and "
        f"{down[-1] if n else 0:.1f} (below usual); the threshold of {level:.1f} is passed by "
        f"chance once in {chart.cusum.per:,} true prices."
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "true prices so far", "sum, standard deviations", 3.4)
        at = np.arange(1, n + 1)
        step = max(n // 4_000, 1)  # more points than that are no more to see, and megabytes
        kept = np.unique(np.append(at[::step], at[-1:])) - 1
        names = ("larger", "smaller") if "size" in chart.cusum.name else ("higher", "lower")
        for sums, colour, line, word in zip(
            (up, down), (theme.good, theme.bad), ("-", "-."), names, strict=True
        ):
            axes.plot(at[kept], sums[kept], line, color=colour, linewidth=1.5,
                      label=f"{word} than usual")  # fmt: skip
        axes.axhline(level, color=theme.text, linewidth=1.3, linestyle="--", label="threshold")
        if len(above):
            _crosses(axes, theme, at[above[:1]], np.maximum(up, down)[above[:1]], "first alarm")
        _finish(axes, theme, [level, *up[-1:], *down[-1:], up.max(initial=0), down.max(initial=0)])
        return figure

    return Chart(draw, alt)


def _crosses(axes: Axes, theme: Theme, x: np.ndarray, y: np.ndarray, label: str) -> None:
    if len(x):
        axes.plot(x, y, "X", color=theme.bad, markersize=9, label=label, linestyle="none")


def _finish(axes: Axes, theme: Theme, values: Sequence[float]) -> None:
    finite = [value for value in values if np.isfinite(value)]
    axes.set_ylim(0, 1.35 * max([*finite, 1e-3]))  # room above for the legend
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(axes, theme, loc="upper left", ncols=2)


def _last(name: str, value: np.ndarray, level: np.ndarray) -> str:
    if not np.isfinite(value[-1]):
        return "In the last window there was nothing to test."
    return plain_text(f"The last value is {value[-1]:.3f}, its threshold {level[-1]:.3f}.")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
