"""The tab that runs the deal finder live: progress, log, stop, the deals found, and the trace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape

from shared.app import view
from shared.app.deals import LIMITS, OFFERS, PLAIN, RULES, Hunt, Run
from shared.app.worker import Worker

LAST = 200
"""Lines of the log that are shown, the newest."""

REDRAW = 0.2
"""Seconds between two pictures of a run: what happens between them is in the next one."""


def watched(hunt: Hunt, planner: str, rule: str, seed: float | None) -> Iterator[tuple[str, ...]]:
    """Yield progress, log and findings of a run, as HTML, several times a second."""
    try:
        number = int(seed or 0)
        last = 0.0
        for run in hunt.run(planner, rule, number):
            if run.state != "running" or time.monotonic() - last >= REDRAW:
                last = time.monotonic()
                yield progress(run), log(run), findings(run)
    except RuntimeError as error:
        yield view.note(f"Not started: {error}.", wrong=True), "", ""


def progress(run: Run) -> str:
    """Return how far a run is, in words and as a bar."""
    count = f"{run.priced} of {run.offers} offers priced"
    bar = f"<progress max='{max(run.offers, 1)}' value='{run.priced}' aria-label='Offers priced'>"
    words = {
        "running": f"At work: {count}.",
        "stopped": f"Stopped: {count}. Nothing is half done: each step is whole.",
        "failed": f"Failed: {run.error}",
        "done": "Done: " + ". ".join(str(run.outcome).split("\n")) + ".",
    }[run.state]
    return f"{view.note(words, wrong=run.state == 'failed')}{bar}</progress>"


def log(run: Run) -> str:
    """Return the newest lines of the log, the newest last."""
    lines = escape("\n".join(run.said[-LAST:]))
    return (
        "<h3>Log</h3><div class='log newest' tabindex='0' role='log' aria-live='off' "
        f"aria-label='Log of the run'><pre>{lines}</pre></div>"
    )


def findings(run: Run) -> str:
    """Return the deals that were alerted, held to what is true of them, and the trace."""
    trace = (
        "<details class='part'><summary>The trace: every step, as it can be replayed</summary>"
        "<div class='log' tabindex='0' role='region' aria-label='Trace'>"
        f"<pre>{escape(run.trace)}</pre></div></details>"
    )
    if run.outcome is None:
        return trace if run.trace else ""
    alerts = run.outcome.alerts
    good = {offer.link for offer in run.truth.values() if offer.good}
    right = sum(deal.link in good for deal in alerts)
    rows = [
        (
            deal.title[:90], view.dollars(deal.asked), view.dollars(deal.price),
            f"{view.dollars(deal.low)} to {view.dollars(deal.high)}",
            view.dollars(run.truth[deal.link].price) if deal.link in run.truth else "—",
            "yes" if deal.link in good else "no",
        )
        for deal in sorted(alerts, key=lambda deal: deal.asked / deal.price)
    ]  # fmt: skip
    titles = ("offer", "asked", "estimate", "interval", "true price", "good")
    table = view.table(f"{len(alerts)} deals found", titles, rows)
    words = (
        f"{right} of the {len(alerts)} alerts are good offers (half of the true price or less), "
        f"out of {len(good)} good ones on offer. True prices are known since the feeds are made "
        "of test items; the finder does not see them."
    )
    return table + view.muted(words) + trace


def deals_tab(worker: Worker) -> None:
    """Lay out the tab where gradio is building a page."""
    import gradio as gr

    hunt = Hunt(worker)
    gr.HTML(
        view.muted(
            f"{OFFERS} offers in three feeds, served from this machine, are read, priced and "
            "judged. One run at a time: who comes second waits. A planning model may use "
            f"{LIMITS.steps} steps, {LIMITS.seconds:.0f} seconds and {view.dollars(LIMITS.dollars)}"
            " a run. What a deal is, it does not decide."
        ),
        padding=False,
    )
    with gr.Row():
        planner = gr.Radio(hunt.planners(), value=PLAIN, label="Who plans", elem_id="planner",
                           min_width=260)  # fmt: skip
        rule = gr.Radio(list(RULES), value=next(iter(RULES)), label="What is a deal",
                        min_width=260)  # fmt: skip
        seed = gr.Number(42, label="Seed of the feeds", precision=0, minimum=0)
    with gr.Row():
        start = gr.Button("Find deals", variant="primary", elem_id="find-deals")
        stop = gr.Button("Stop", variant="stop", elem_id="stop-deals")
    said = gr.HTML(padding=False, elem_id="deals-said")
    lines = gr.HTML(padding=False, elem_id="deals-log")
    found = gr.HTML(padding=False, elem_id="deals-found")
    hidden = {"api_visibility": "private", "show_progress": "hidden"}

    def go(*asked) -> Iterator[tuple[str, ...]]:
        yield from watched(hunt, *asked)

    start.click(
        go, [planner, rule, seed], [said, lines, found],
        concurrency_id="deals", concurrency_limit=1, **hidden,
    ).then(None, said, None, js=view.ANNOUNCE)  # fmt: skip
    stop.click(hunt.stop, None, None, queue=False, **hidden)
