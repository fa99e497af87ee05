"""The tab that prices a product: the estimate with its interval, neighbours, and what mattered."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shared.app import view
from shared.app.asking import CATEGORIES, EXAMPLES, MOST_TITLE, asked_product
from shared.app.knowledge import ALIKE
from shared.app.mattered import what_mattered
from shared.app.worker import Worker
from shared.data import Product
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.evaluation.protocol import Estimates

_SEEN = f"""(html) => {{
  ({view.ANNOUNCE})(html);
  document.querySelector('#estimate')?.scrollIntoView({{block: 'nearest'}});
}}"""
"""On a phone the answer comes below the questions: go there."""

WAIT, STEP = 120, 0.5
"""Seconds that neighbours are waited for while their index is built, and between two looks."""


def estimate(worker: Worker, title: str, text: str, category: str) -> tuple[str, str]:
    """Return the estimate and what mattered, as HTML; what is wrong with the input, in words."""
    try:
        product = asked_product(title, text, category)
    except ValueError as error:
        return view.note(str(error), wrong=True), ""
    try:
        found = worker.price([product])
        if np.isnan(found.price[0]):
            return view.note(f"No estimate: {found.error[0]}", wrong=True), ""
        return shown(worker, found), view.mattered(product, what_mattered(worker.model, product))
    except Exception as error:  # whatever a model raises must not end the page
        return view.note(f"No estimate: {view.failure(error)}", wrong=True), ""


def shown(worker: Worker, found: Estimates) -> str:
    """Return the first of some estimates in large type, and what its interval means."""
    price, low, high = found.price[0], found.low[0], found.high[0]
    release = worker.release
    measured = release.metrics.get("test", {})
    off = f", off by {view.dollars(measured['mae'])} on average on test" if measured else ""
    label = f" ({release.label})" if release.label else ""
    edge = (
        f" It knows prices of {view.dollars(MIN_PRICE)} to {view.dollars(MAX_PRICE)} alone."
        if price <= MIN_PRICE * 1.01 or price >= MAX_PRICE * 0.99 else ""
    )  # fmt: skip
    return (
        f"<section class='estimate' aria-label='Estimate'><p class='price'>{view.dollars(price)}"
        f"</p><p class='range'>probably {view.dollars(low)} to {view.dollars(high)}</p>"
        + view.muted(
            f"About {100 * release.coverage:.0f} of 100 new products like those it was calibrated "
            f"on cost what lies between the two (a factor of {release.factor:.2f} down and up). Of "
            "other products it promises nothing."
        )
        + view.muted(
            f"Model: {release.name}{label}, version {release.version}{off}. "
            f"It took {1000 * float(found.seconds[0]):.1f} ms.{edge}"
        )
        + "</section>"
    )


def neighbours(worker: Worker, title: str, text: str, category: str) -> Iterator[str]:
    """Yield HTML: how far the index of known products is, then those most like this one."""
    try:
        product = asked_product(title, text, category)
    except ValueError:
        yield ""
        return
    for _ in range(int(WAIT / STEP)):
        if worker.knowledge.wait(STEP) or worker.knowledge.error:
            break
        yield view.part("Known products like it", view.note(worker.knowledge.said))
    try:
        yield view.part("Known products like it", _cards(worker, product))
    except Exception as error:
        yield view.part("Known products like it", view.note(view.failure(error), wrong=True))


def _cards(worker: Worker, product: Product) -> str:
    from shared.retrieval.pictures import neighbour_cards

    found = worker.knowledge.neighbours(product)
    if not found:
        said = "No known product shares a word with this one: the estimate has little to go by."
        return view.note(said, wrong=True) + view.muted(worker.knowledge.said)
    far = (
        "Even the nearest known product is little like this one: take the estimate with care."
        if found[0].similarity < ALIKE else ""
    )  # fmt: skip
    cards = neighbour_cards(product, found)._repr_html_()
    return view.note(far, wrong=True) + cards + view.muted(worker.knowledge.said)


def price_tab(worker: Worker) -> None:
    """Lay out the tab where gradio is building a page."""
    import gradio as gr

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            title = gr.Textbox(
                label="Title", max_lines=2, max_length=MOST_TITLE, elem_id="ask-title",
                placeholder="What a shop would write above it",
            )  # fmt: skip
            text = gr.Textbox(
                label="Description (optional)", lines=5, max_lines=12, elem_id="ask-text",
                placeholder="Brand, material, size, what is in the box",
            )  # fmt: skip
            kind = gr.Dropdown(
                list(CATEGORIES), value=CATEGORIES[0], label="Category", elem_id="ask-category"
            )
            button = gr.Button("Estimate the price", variant="primary", elem_id="ask-price")
            gr.HTML("<h3>Or try one of these</h3>", padding=False)
            with gr.Column(elem_classes="examples"):
                examples = [gr.Button(name, size="sm") for name, *_ in EXAMPLES]
        with gr.Column(scale=3, min_width=300):
            price = gr.HTML(
                view.note("Write what it is, or choose an example: the estimate appears here."),
                padding=False, elem_id="estimate",
            )  # fmt: skip
            words = gr.HTML(padding=False, elem_id="mattered")
    near = gr.HTML(padding=False, elem_id="neighbours")
    asked = [title, text, kind]
    hidden = {"api_visibility": "private", "show_progress": "hidden"}

    def priced(*asked: str) -> tuple[str, str]:
        return estimate(worker, *asked)

    def looked_up(*asked: str) -> Iterator[str]:
        yield from neighbours(worker, *asked)

    def answer(event) -> None:
        event.then(priced, asked, [price, words], **hidden).then(None, price, None, js=_SEEN).then(
            looked_up, asked, near, concurrency_id="neighbours", concurrency_limit=4, **hidden
        )

    for event in (button.click, title.submit, text.submit):
        answer(event(None, None, None, js="() => {}"))
    for example, row in zip(examples, EXAMPLES, strict=True):
        answer(example.click(lambda row=row: row, None, asked, **hidden))
