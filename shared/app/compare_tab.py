"""The tab that asks several models about one product, and shows the leaderboard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from shared.app import view
from shared.app.asking import CATEGORIES, EXAMPLES, MOST_TITLE, asked_product
from shared.app.worker import CAP, Model, Worker
from shared.data import Product
from shared.evaluation.metrics import number

TITLES = ("model", "price", "interval", "time", "cost, dollars", "note")


def compare(
    worker: Worker, title: str, text: str, category: str, chosen: Sequence[str]
) -> Iterator[str]:
    """Yield the table of what the chosen models say, as HTML, each time another has answered."""
    try:
        product = asked_product(title, text, category)
    except ValueError as error:
        yield view.note(str(error), wrong=True)
        return
    models = [worker.models[name] for name in chosen or () if name in worker.models]
    if not models:
        yield view.note("Choose at least one model.", wrong=True)
        return
    rows: list[tuple[str, ...]] = []
    for model in models:
        waiting = f"{len(rows)} of {len(models)} have answered; asking {model.name} …"
        yield view.note(waiting) + (_table(rows) if rows else "")
        rows.append(ask(model, product))
    yield view.note(f"{len(rows)} of {len(models)} have answered.") + _table(rows)


def ask(model: Model, product: Product) -> tuple[str, ...]:
    """Return a row of the table: what a model says of a product, or why it says nothing."""
    began = time.perf_counter()
    try:
        found = model.price([product])
        prices, why = np.asarray(found.price, dtype=float), found.error[0] or ""
    except Exception as error:
        return model.name, "—", "—", "—", "—", view.failure(error)
    took = time.perf_counter() - began
    if found.seconds is not None and np.isfinite(found.seconds[0]):  # not reported by all
        took = float(found.seconds[0])
    bounds = [None if b is None else float(b[0]) for b in (found.low, found.high)]
    known = None not in bounds and np.isfinite(bounds).all()
    between = " to ".join(map(view.dollars, bounds)) if known else "—"
    cost = "—" if found.cost_usd is None else number(float(found.cost_usd[0]), "{:.6f}")
    label = "stand-in: no real money, no real model" if model.label else ""
    return (
        model.name, view.dollars(prices[0]), between,
        f"{1000 * took:,.1f} ms" if took < 1 else f"{took:,.1f} s", cost, why or label,
    )  # fmt: skip


def stated_cost(worker: Worker, title: str, text: str, category: str, chosen: Sequence[str]) -> str:
    """Return, as HTML, what asking the hosted models among the chosen ones will cost at most."""
    hosted = [worker.models[n] for n in chosen or () if n in worker.models]
    hosted = [model for model in hosted if model.hosted]
    if not hosted:
        return ""
    try:
        product = asked_product(title or EXAMPLES[0][0], text, category)
        said = [model.pricer().estimate([product]) for model in hosted]
    except Exception as error:
        return view.note(f"The cost is not known: {view.failure(error)}", wrong=True)
    real = "" if any(not model.label for model in hosted) else " No real money: a stand-in answers."
    whole = f"This page spends at most {view.dollars(CAP)} a model until it is started again."
    return view.note(f"Before you press the button: {'; '.join(said)}. {whole}{real}")


def board(worker: Worker) -> str:
    """Return the leaderboard of the stored results as HTML, or how to get one."""
    from shared.reports import columns as c
    from shared.reports.leaderboard import collect

    folder = worker.settings.results
    try:
        rows = collect(folder)
    except FileNotFoundError:
        rows = []
    except Exception as error:
        return view.note(f"The stored results cannot be read: {view.failure(error)}", wrong=True)
    if not rows:
        return view.note(
            "No stored results yet. The lessons leave some behind, and so does: python -m shared "
            "ladder --train DIR --out DIR"
        )
    tables = []
    for group in c.groups(rows).values():
        wanted = sorted(c.columns(group), key=lambda column: column.title != "pricer")
        cells = [[column.text(row) for column in wanted] for row in group]
        titles = [column.title for column in wanted]
        tables.append(view.table(c.heading(group), titles, cells, ("against best",)))
    return "".join(tables) + view.muted(c.HOW_TO_READ)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return view.table("What each model says", TITLES, rows, ("note",))


def compare_tab(worker: Worker) -> None:
    """Lay out the tab where gradio is building a page."""
    import gradio as gr

    names = [(f"{model.name}: {model.takes}" if model.takes else model.name, name)
             for name, model in worker.models.items()]  # fmt: skip
    ready = [worker.model.name, "smallest student"]
    title = gr.Textbox(EXAMPLES[0][0], label="Title", max_lines=2, max_length=MOST_TITLE,
                       elem_id="compare-title")  # fmt: skip
    text = gr.Textbox(EXAMPLES[0][1], label="Description (optional)", lines=2, max_lines=8)
    kind = gr.Dropdown(list(CATEGORIES), value=EXAMPLES[0][2], label="Category")
    chosen = gr.CheckboxGroup(names, value=ready, label="Models to ask", elem_id="compare-models")
    cost = gr.HTML(padding=False, elem_id="compare-cost")
    button = gr.Button("Ask them all", variant="primary", elem_id="compare-ask")
    said = gr.HTML(padding=False, elem_id="compared")
    show = gr.Button("Show the leaderboard of stored results", elem_id="show-board")
    results = gr.HTML(padding=False, elem_id="board")
    hidden = {"api_visibility": "private", "show_progress": "hidden"}

    def compared(*asked) -> Iterator[str]:
        yield from compare(worker, *asked)

    def costs(*asked) -> str:
        return stated_cost(worker, *asked)

    def scored() -> str:
        return board(worker)

    asked = [title, text, kind, chosen]
    for event in (button.click, title.submit):
        event(compared, asked, said, concurrency_id="compare", concurrency_limit=1, **hidden)
    said.change(None, said, None, js=view.ANNOUNCE)
    chosen.change(costs, asked, cost, **hidden)
    cost.change(None, cost, None, js=view.ANNOUNCE)
    show.click(scored, None, results, api_visibility="private", show_progress="minimal")
