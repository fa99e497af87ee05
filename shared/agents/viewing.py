"""A trace as people read it: plain text, or one HTML page without anything from outside."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import Any

from shared.agents.trace import Recorded, readable

SHOWN = 200
"""Characters of a result that are shown; the trace has all of it."""

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem}"
    "h1{font-size:1.4rem}h2{font-size:1.1rem;margin:1.5rem 0 .5rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;"
    "border-bottom:1px solid #ccc;vertical-align:top;overflow-wrap:anywhere}"
    "td.n,th.n{text-align:right;white-space:nowrap}"
    "code{overflow-wrap:anywhere}.wide{overflow-x:auto}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}th,td{border-color:#444}}"
)


def to_text(trace: Recorded) -> str:
    """Return a run as text: its settings, its steps, and what became of each deal.

    Raises ValueError if the trace is not as the finder writes it.
    """
    with readable(trace):
        lines = [*_summary(trace), "", "Steps"]
        lines += [f"{step:>4}  {what:<32}  {came}" for step, what, came in _steps(trace)]
        lines += ["", "Deals"]
        lines += ["  ".join(cell for cell in deal if cell) for deal in _deals(trace)]
    return "\n".join(lines)


def to_html(trace: Recorded) -> str:
    """Return a run as a page of its own. Whatever a feed or a model said is text in it.

    Raises ValueError if the trace is not as the finder writes it.
    """
    titles = ("State", "Asked", "Estimate", "Title", "Why")
    with readable(trace):
        said = "".join(f"<p>{html.escape(line)}</p>" for line in _summary(trace))
        steps = _table(("Step", "What", "What came of it"), _steps(trace), numbers=(0,))
        deals = _table(titles, _deals(trace), numbers=(1, 2))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>A run of the deal finder</title><style>{_STYLE}</style></head><body>"
        f"<h1>A run of the deal finder</h1>{said}<h2>Steps</h2>{steps}<h2>Deals</h2>{deals}"
        "</body></html>"
    )


def _table(titles: tuple, rows: Iterator[tuple], numbers: tuple[int, ...]) -> str:
    def row(cells: tuple, tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' * (at in numbers)}>{html.escape(str(cell))}</{tag}>"
            for at, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="wide"><table><tr>{row(titles, "th")}</tr>{body}</table></div>'


def _summary(trace: Recorded) -> list[str]:
    run, end = trace.first("run"), trace.first("end")
    label = f" ({run['label']})" if run.get("label") else ""
    lines = [f"Planner: {run.get('planner')}{label}. Pricer: {run.get('pricer')}. "
             f"Rule: {_short(run.get('rule'))}. Limits: {_short(run.get('limits'))}."]  # fmt: skip
    for feed in trace.all("feed"):
        came = feed.get("error") or f"{feed.get('items')} deals"
        left_out = f", left out: {_short(feed['dropped'])}" if feed.get("dropped") else ""
        lines.append(f"Feed {feed.get('url')}: {came}{left_out}")
    if end:
        lines.append(
            f"Ended: {end.get('why')}; {end.get('steps')} steps, {_number(end.get('seconds'))} s, "
            f"${_number(end.get('dollars'), 4)}. Outbox: {_short(end.get('outbox'))}."
        )
    else:
        lines.append("The trace has no end: the run was stopped.")
    if trace.damaged:
        lines.append(f"{trace.damaged} damaged lines are left out.")
    return lines


def _steps(trace: Recorded) -> Iterator[tuple[str, str, str]]:
    for event in trace.events:
        step = str(event.get("step", ""))
        if event["event"] == "reply":
            yield step, "model", _reply(event)
        elif event["event"] == "call":
            arguments = _short(event.get("arguments"), 60)
            yield step, f"{event.get('name')}({arguments})", _short(event.get("result"))
        elif event["event"] == "alert":
            yield step, "alert", f"{event.get('id')} at an estimate of {event.get('price')}"
        elif event["event"] == "planned":
            yield step, "planner ended", str(event.get("why"))


def _reply(event: dict[str, Any]) -> str:
    if event.get("error"):
        return _short(event["error"])
    reply = event.get("reply")
    reply = reply if isinstance(reply, dict) else {}
    calls = reply.get("calls") if isinstance(reply.get("calls"), list) else []
    said = f"{len(calls)} calls" if calls else _short(reply.get("text"))
    return f"{said}; {_number(event.get('seconds'))} s, ${_number(reply.get('cost_usd'), 5)}"


def _deals(trace: Recorded) -> Iterator[tuple[str, ...]]:
    decided = trace.first("end").get("decisions")
    decided = decided if isinstance(decided, dict) else {}
    entries = trace.first("deals").get("entries")
    for entry in entries if isinstance(entries, list) else ():
        state, price, why = (*decided.get(entry.get("id"), ("unknown", None, "")), "", "", "")[:3]
        asked, worth = (f"${_number(value)}" for value in (entry.get("asked"), price))
        yield f"{state:<9}", f"{asked:>9}", f"{worth:>9}", str(entry.get("title"))[:80], str(why)


def _number(value: Any, digits: int = 2) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else "?"


def _short(value: Any, longest: int = SHOWN) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
