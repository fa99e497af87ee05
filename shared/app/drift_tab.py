"""The tab that watches drift: of a service's observations, and of a change that is simulated."""

from __future__ import annotations

from shared.app import view
from shared.app.drift import CHANGES, Seen, Simulated, look, simulate
from shared.app.worker import Worker
from shared.evaluation.metrics import number


def watched(worker: Worker) -> str:
    """Return what the service's observations say, as HTML; in words what is missing."""
    try:
        seen = look(worker)
    except ValueError as error:
        return view.note(str(error))
    except Exception as error:
        return view.note(f"The observations cannot be read: {view.failure(error)}", wrong=True)
    damaged = f" {seen.damaged} damaged lines were left out." if seen.damaged else ""
    against = f"held to the reference of version {worker.release.version}"
    said = f"{seen.count:,} observations, {against}.{damaged} "
    return view.note(said + _verdict(seen)) + _signals(seen) + _charts(seen) + _windows(seen)


def simulated(worker: Worker, change: str, seed: float | None) -> str:
    """Return what a watch sees of a known change, as HTML."""
    if change not in CHANGES:
        return view.note("Choose what is to change.", wrong=True)
    try:
        found = simulate(worker, change, int(seed or 0))
    except Exception as error:
        return view.note(f"No simulation: {view.failure(error)}", wrong=True)
    seen = found.seen
    story = view.note(_story(found)) + _signals(seen)
    return story + _charts(seen) + _windows(seen, found.change)


def _story(found: Simulated) -> str:
    windows = "No window of inputs and estimates alarms"
    if found.noticed is not None:
        windows = f"A window of inputs and estimates alarms {found.noticed:,} products later"
    truths = "".join(
        f" The true prices tell of it after {count:,} of changed products ({name})."
        for name, count in found.told.items()
    )
    return (
        f"After product {found.change:,}: {found.said}. {windows}; before the change "
        f"{found.false_alarms} did, falsely.{truths}"
    )


def _verdict(seen: Seen) -> str:
    alarms = [signal for signal in seen.signals if signal.alarm]
    if alarms:
        return f"ALARM: {', '.join(signal.name for signal in alarms)}."
    if not seen.windows:
        return seen.signals[0].said
    return "No alarm: what is asked and answered is as it was."


def _signals(seen: Seen) -> str:
    rows = [
        (
            signal.name, "ALARM" if signal.alarm else signal.state, number(signal.value, "{:.3f}"),
            number(signal.threshold, "{:.3f}"), signal.said,
        )
        for signal in seen.signals
    ]  # fmt: skip
    titles = ("what", "state", "value", "alarms above", "in words")
    return view.table(
        "The last window, and all true prices", titles, rows, ("state", "in words")
    ) + view.muted(
        "Thresholds follow from agreed rates of false alarms, corrected for how much is looked at. "
        "No text of a product is kept in an observation."
    )


def _charts(seen: Seen) -> str:
    """Return the chart of what alarms (or of the categories), and those of the errors."""
    from shared.watching import cusum_chart, drift_chart

    charts = [cusum_chart(chart) for chart in seen.charts]
    if seen.windows:
        alarms = [s.name for w in seen.windows for s in w.signals if s.alarm]
        charts.insert(0, drift_chart(seen.windows, alarms[0] if alarms else "category PSI"))
    return "".join(
        f"<figure class='figure' tabindex='0'>{chart.svg(None)}</figure>" for chart in charts
    )


def _windows(seen: Seen, change: int | None = None) -> str:
    if not seen.windows:
        return ""
    rows = []
    for window in seen.windows:
        alarms = [signal.name for signal in window.signals if signal.alarm]
        when = () if change is None else ("before" if window.end <= change else "after",)
        state = f"ALARM: {', '.join(alarms)}" if alarms else "quiet"
        rows.append((f"{window.start + 1:,} to {window.end:,}", *when, state))
    titles = ("products", *(() if change is None else ("the change",)), "state")
    return view.table(f"The newest {len(rows)} windows", titles, rows, titles)


def drift_tab(worker: Worker, tab) -> None:
    """Lay out the tab where gradio is building a page; opening ``tab`` reads the observations."""
    import gradio as gr

    gr.HTML("<h2>A service, watched</h2>", padding=False)
    again = gr.Button("Look again", elem_id="look-again")
    service = gr.HTML(padding=False, elem_id="service")
    gr.HTML("<h2>A change, simulated</h2>", padding=False)
    with gr.Row():
        change = gr.Radio(list(CHANGES), value=next(iter(CHANGES)), label="What changes",
                          elem_id="change", scale=3, min_width=280)  # fmt: skip
        seed = gr.Number(42, label="Seed", precision=0, minimum=0, scale=1, min_width=120)
    start = gr.Button("Simulate it", variant="primary", elem_id="simulate")
    outcome = gr.HTML(padding=False, elem_id="simulated")

    def see() -> str:
        return watched(worker)

    def run(*asked) -> str:
        return simulated(worker, *asked)

    # Charts are drawn one at a time: matplotlib's settings are the process's, not the figure's.
    shown = {
        "api_visibility": "private", "show_progress": "minimal",
        "concurrency_id": "drift", "concurrency_limit": 1,
    }  # fmt: skip
    for event in (tab.select, again.click):
        event(see, None, service, **shown)
    start.click(run, [change, seed], outcome, **shown)
    for html in (service, outcome):
        html.change(None, html, None, js=view.ANNOUNCE)
