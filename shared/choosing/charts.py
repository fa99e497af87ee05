"""Charts on which a technique is chosen: what it costs by volume, and error against cost."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from shared.choosing.break_even import BreakEven
from shared.choosing.measured import Row, best_of_each
from shared.reports.figures import DOLLARS, THOUSANDS, Chart, Theme, canvas, legend, plain_text
from shared.reports.plane import cost_plane


def break_even_chart(found: BreakEven) -> Chart:
    """Dollars a day against products a day, both logarithmic: the API's line, the GPU's stairs."""
    low, high = found.volumes[0], found.volumes[-1]
    alt = (
        f"{found.finding}. Dollars a day by products a day: {found.api_name} "
        f"${found.api[0]:,.2f} at {low:,.0f} and ${found.api[-1]:,.2f} at {high:,.0f}; "
        f"{found.gpu_name} ${found.gpu[0]:,.2f} and ${found.gpu[-1]:,.2f}. "
        f"Assumed: {'; '.join(found.assumptions)}."
    )

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, found.finding, "products a day", "dollars a day", 4.6)
        axes.plot(found.volumes, found.api, color=theme.bad, linewidth=2,
                  label=plain_text(f"{found.api_name}, paid by the token"))  # fmt: skip
        axes.plot(found.volumes, found.gpu, "--", color=theme.good, linewidth=2,
                  label=plain_text(f"{found.gpu_name}, paid by the hour"))  # fmt: skip
        if found.per_day is not None and low <= found.per_day <= high:
            cost = found.usd_per_thousand * found.per_day / 1000
            axes.plot(found.per_day, cost, "o", color=theme.text, label="break-even")
        axes.set(xscale="log", yscale="log", xlim=(low, high))
        axes.xaxis.set_major_formatter(THOUSANDS)
        axes.yaxis.set_major_formatter(DOLLARS)
        legend(axes, theme, loc="upper left")
        return figure

    return Chart(draw, alt)


def pareto_chart(rows: Sequence[Row], against: str = "cost", *, best_only: bool = True) -> Chart:
    """Error against dollars per thousand products, or ``seconds`` a product, and the Pareto line.

    ``rows`` are what ``measured`` returned; with ``best_only``, of each technique the one that
    errs the least. What reports no cost runs on a machine of one's own, and is drawn as free: the
    machine is not counted. Raises ValueError if no row has what is drawn.
    """
    if against not in ("cost", "seconds"):
        raise ValueError(f"against is {against!r}: 'cost' or 'seconds'")
    drawn = list(best_of_each(rows).values()) if best_only else [r for r in rows if r.ranked]
    if without := [row.pricer for row in drawn if row.predictions is None]:
        raise ValueError(f"no predictions of {', '.join(without)}: take the rows of measured(…)")
    paid = [r.predictions for r in drawn if against == "seconds" or r.usd_per_thousand]
    free = [r.predictions for r in drawn if against == "cost" and not r.usd_per_thousand]
    return cost_plane(paid, against, free)
