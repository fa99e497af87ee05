"""The page on which a person prices products: one at a time, blind, by keyboard (gradio)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from shared.data import Product
from shared.pricers.human import Answers, read_price

if TYPE_CHECKING:
    import gradio

_KEYS = """(name) => {
  document.addEventListener('keydown', (event) => {
    const press = (id) => { event.preventDefault(); document.querySelector(id).click(); };
    if (event.key === 'Escape') press('#skip');
    if (event.altKey && event.key.toLowerCase() === 'z') press('#undo');
  });
  return name;
}"""
_FOCUS = "() => document.querySelector('#price input, #price textarea')?.focus()"
_STYLE = (
    "white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; max-height: 45vh; "
    "overflow-y: auto"
)


class Session:
    """What one rater sees next; knows products and answers, and no price but the rater's own."""

    def __init__(self, products: Sequence[Product], answers: Answers) -> None:
        self.products, self.answers = list(products), answers

    def next(self, rater: str) -> Product | None:
        """Return the first product that this rater has not answered, None when done."""
        answered = self.answers.by_rater.get(rater, {})
        return next((p for p in self.products if p.id not in answered), None)

    def done(self, rater: str) -> int:
        """Return how many of the products this rater has answered or skipped."""
        answered = self.answers.by_rater.get(rater, {})
        return sum(p.id in answered for p in self.products)


def label_page(products: Sequence[Product], answers: Answers, rater: str = "me") -> gradio.Blocks:
    """Return the page; ``launch()`` it in a notebook, or let ``python -m shared label`` do it.

    The page is given products, which have no price. Enter keeps an answer, Escape skips, Alt+Z
    takes the last one back. An answer is on the disk before the next product is shown.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr

    session = Session(products, answers)

    def show(rater: str, message: str = "") -> tuple:
        return *_view(session, rater.strip(), message), "", time.monotonic()

    def keep(rater: str, text: str, since: float) -> tuple:
        product = session.next(rater.strip())
        if not rater.strip():
            return *_view(session, "", "Write your name first."), text, since
        if product is None:
            return show(rater)
        try:
            price = read_price(text)
        except ValueError as error:
            return *_view(session, rater.strip(), f"Not kept: {error}."), text, since
        answers.add(rater.strip(), product.id, price, round(time.monotonic() - since, 2))
        return show(rater, f"Kept: ${price:,.2f}.")

    def skip(rater: str, since: float) -> tuple:
        product = session.next(rater.strip())
        if product is None or not rater.strip():
            return show(rater)
        answers.add(rater.strip(), product.id, None, round(time.monotonic() - since, 2))
        return show(rater, "Skipped.")

    def undo(rater: str) -> tuple:
        taken = answers.undo(rater.strip())
        return show(rater, "Taken back." if taken else "There is nothing to take back.")

    with gr.Blocks(title="What does it cost?", analytics_enabled=False) as page:
        gr.Markdown("## What does it cost?")
        with gr.Row():
            name = gr.Textbox(rater, label="Your name", max_lines=1, scale=1)
            progress = gr.HTML()
        card = gr.HTML()
        price = gr.Textbox(label="New price in US dollars, your best guess", max_lines=1,
                           elem_id="price", autofocus=True, placeholder="24.99")  # fmt: skip
        with gr.Row():
            keep_button = gr.Button("Keep (Enter)", variant="primary")
            skip_button = gr.Button("Skip (Esc)", elem_id="skip")
            undo_button = gr.Button("Take back (Alt+Z)", elem_id="undo")
        message = gr.HTML()
        since = gr.State(0.0)
        shown = [card, progress, message, price, since]
        page.load(show, name, shown, js=_KEYS)
        name.submit(show, name, shown)
        for event in (price.submit, keep_button.click):
            event(keep, [name, price, since], shown).then(None, js=_FOCUS)
        skip_button.click(skip, [name, since], shown).then(None, js=_FOCUS)
        undo_button.click(undo, name, shown).then(None, js=_FOCUS)
    return page


def _view(session: Session, rater: str, message: str) -> tuple[str, str, str]:
    """Return product, progress and message as HTML, everything from outside escaped."""
    product, total = session.next(rater), len(session.products)
    count = f"<p role='status'>{session.done(rater)} of {total} answered</p>"
    said = f"<p role='alert'>{escape(message)}</p>" if message else ""
    if product is None:
        return "<h3>Done. Thank you!</h3><p>You can close this page.</p>", count, said
    text = product.text.removeprefix(product.title).strip()
    return (
        f"<h3>{escape(product.title)}</h3><p>{escape(product.category)}</p>"
        f"<div style='{_STYLE}' tabindex='0'>{escape(text)}</div>",
        count,
        said,
    )
