"""Latency as it is felt: not its mean, but what the unlucky ones wait. And the recorded run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from shared.operating.load import Load
from shared.reports.figures import Chart, Theme, canvas, legend
from shared.reports.tables import pipes

FILE = Path(__file__).with_name("recorded") / "serving.json"
TICKS = (0.5, 0.9, 0.95, 0.99, 0.999)
_STYLES = (("good", "-"), ("bad", "--"), ("plain", ":"), ("good", "-."), ("bad", "-"))


def recorded() -> dict[str, Any]:
    """Return the recorded benchmark of serving (``tests/benchmarks/serving.py --write``)."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def batching_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the recorded comparison of batch sizes as Markdown; times in milliseconds.

    "p95" is at 70 % of what each one can do itself, "same load" at 70 % of what one by one can do.
    """
    titles = ["pricer", "batches of", "products a second", "faster", "p95", "times as long",
              "p95, same load", "times as long", "wrong"]  # fmt: skip
    cells = []
    for row in rows:
        own, equal = row["own_load"], row["equal_load"]
        wrong = sum(row[load]["wrong"] for load in ("capacity", "own_load", "equal_load"))
        cells.append([
            row["pricer"], f"{row['max_batch']}", f"{row['capacity']['products_a_second']:,.0f}",
            f"{row['faster']:.1f}", f"{own['p95_ms']:,.0f}", f"{row['p95_ratio_own_load']:.1f}",
            f"{equal['p95_ms']:,.0f}", f"{row['p95_ratio_equal_load']:.1f}", f"{wrong}",
        ])  # fmt: skip
    return pipes(titles, cells, titles[:1])


def latency_chart(loads: Mapping[str, Load], *, from_sent: tuple[str, ...] = ()) -> Chart:
    """Latency against the share of requests that were answered in that time, for each load.

    The axis stretches towards 1: there, each step to the right is half as many requests. Loads
    named in ``from_sent`` are drawn a second time as a client would see them that waits for its
    turn before it looks at the clock. Raises ValueError if no load has an answer.
    """
    curves = {name: sorted(load.latency) for name, load in loads.items() if load.latency}
    curves |= {f"{name}, from sending": sorted(loads[name].service) for name in from_sent}
    if not curves:
        raise ValueError("no request was answered: there is no latency to draw")
    said = "; ".join(
        f"{name}: " + ", ".join(
            f"p{share * 100:g} {np.quantile(values, share) * 1000:.0f} ms" for share in TICKS[:4]
        )
        for name, values in curves.items()
    )  # fmt: skip
    worst = max(curves, key=lambda name: np.quantile(curves[name], 0.95))
    p95 = np.quantile(curves[worst], 0.95) * 1000
    title = f"1 request in 20 waits longer than {p95:,.0f} ms: {worst}"
    alt = f"{title}. Latency by share of requests. {said}."

    def draw(theme: Theme) -> Figure:
        figure, axes = canvas(theme, title, "share of requests answered", "latency, ms", 4.2)
        styles = itertools.cycle(_STYLES)
        for (name, values), (role, line) in zip(curves.items(), styles, strict=False):
            shares = (np.arange(len(values)) + 0.5) / len(values)
            axes.plot(_stretched(shares), np.array(values) * 1000, line, label=name, linewidth=1.8,
                      color=getattr(theme, role))  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xticks(_stretched(np.array(TICKS)), [f"{share * 100:g} %" for share in TICKS])
        axes.set_xlim(0, _stretched(np.array([TICKS[-1]]))[0])
        legend(axes, theme, loc="upper left")
        return figure

    return Chart(draw, alt)


def _stretched(shares: np.ndarray) -> np.ndarray:
    return -np.log10(1 - shares)
