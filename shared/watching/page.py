"""The watch as one self-contained HTML page, light or dark as the reader's system is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

import pyarrow as pa

from shared.reports.figures import DARK, LIGHT, Chart
from shared.watching.charts import cusum_chart, drift_chart
from shared.watching.observations import Observation, as_table
from shared.watching.watch import Signal, Watch, Window

SHOWN = 60
"""Windows that charts show: the newest."""

CHARTS = ("length PSI", "unknown PSI", "category PSI", "price PSI")


def to_html(
    watch: Watch,
    observations: pa.Table | Sequence[Observation],
    truths: Mapping[str, float] | None = None,
    *,
    title: str = "Price watch",
    damaged: int = 0,
) -> str:
    """Return the page: what the last look found, and charts of how it came to that.

    Styles and charts are inside, nothing is fetched, and all that sellers wrote is escaped.
    ``damaged``: lines of the log that were left out.
    """
    table = as_table(observations)
    windows = watch.windows(table, last=SHOWN)
    charts = watch.error_charts(table, truths) if truths is not None else []
    signals = watch.look(table, truths)
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        light=_variables(vars(LIGHT)),
        dark=_variables(vars(DARK)),
        lede=_lede(signals),
        what=escape(_what(watch, table, windows, truths, damaged)),
        signals="".join(_row(signal) for signal in signals),
        drift=_figures([drift_chart(windows, name) for name in CHARTS] if windows else [])
        or '<p class="note">Charts begin with the first whole window.</p>',
        errors=_figures([cusum_chart(chart) for chart in charts]) or _no_errors(truths),
        rates=escape(_rates(watch)),
    )


def _variables(theme: Mapping[str, str]) -> str:
    return " ".join(f"--{role}: {colour};" for role, colour in theme.items())


def _lede(signals: Sequence[Signal]) -> str:
    loud = [signal for signal in signals if signal.alarm]
    if loud:
        first = f"<strong>{len(loud)} of {len(signals)} signals alarm.</strong> "
        return first + escape(min(loud, key=lambda s: s.p if s.p == s.p else 0.0).said)
    if all(signal.state == "untested" for signal in signals):
        return escape(signals[0].said if signals else "Nothing was observed yet.")
    return "<strong>No alarm.</strong> What differs from the reference is within chance."


def _what(
    watch: Watch, table: pa.Table, windows: Sequence[Window],
    truths: Mapping[str, float] | None, damaged: int,
) -> str:  # fmt: skip
    parts = [f"{len(table):,} observations"]
    if windows:
        span = [_time(t) for t in (min(w.first for w in windows), max(w.last for w in windows))]
        parts.append(f"the last {len(windows):,} windows are from {span[0]} to {span[1]}")
    if watch.version is not None:
        parts.append(f"only version {watch.version} is watched")
    if truths is not None:
        parts.append(f"{len(truths):,} true prices")
    if damaged:
        parts.append(f"{damaged:,} damaged lines of the log were left out")
    return "; ".join(parts) + f". The reference has {len(watch.reference):,} products."


def _row(signal: Signal) -> str:
    p = "" if math.isnan(signal.p) else "&lt; 0.001" if signal.p < 0.001 else f"{signal.p:.3f}"
    return (
        f'<tr class="{signal.state}"><th scope="row">{escape(signal.name)}</th>'
        f'<td><span class="state">{signal.state}</span></td><td>{_number(signal.value)}</td>'
        f"<td>{_number(signal.threshold)}</td><td>{p or '—'}</td>"
        f'<td class="said">{escape(signal.said)}</td></tr>'
    )


def _figures(charts: Sequence[Chart]) -> str:
    return "".join(
        f'<figure class="card" tabindex="0">{chart.svg(None)}</figure>' for chart in charts
    )


def _no_errors(truths: Mapping[str, float] | None) -> str:
    why = (
        "No true prices were given. Until some are, nothing here can notice that the market has "
        "moved: neither what is asked nor what is answered would change."
    )
    few = "The reference has too few errors to tell what is usual."
    return f'<p class="note">{why if truths is None else few}</p>'


def _rates(watch: Watch) -> str:
    return (
        f"Thresholds are set so that unchanged products cause one false alarm in "
        f"{1 / watch.alpha:,.0f} windows of {watch.window:,} products, over all tests of a window "
        f"together (Holm), and one in {watch.per:,} true prices, over both error charts."
    )


def _number(value: float) -> str:
    return "—" if not math.isfinite(value) else f"{value:,.3f}" if value < 10 else f"{value:,.1f}"


def _time(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return "a time that no calendar has"
