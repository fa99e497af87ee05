"""The page on which a person prices products: one at a time, blind, by keyboard (gradio)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from shared.data import Product
from shared.pricers.human import Answers, read_price

if TYPE_CHECKING:
    import gradio

_KEYS = """(name) => {
  if (window.labelKeys) return name;  // a page with tabs comes here whenever this one is opened
  window.labelKeys = true;
  document.addEventListener('keydown', (event) => {
    if (event.repeat || event.isComposing) return;  // a key held down is one answer, not twenty
    if (!document.querySelector('#sheet')?.offsetParent) return;  // another tab is in front
    const press = (id) => { event.preventDefault(); document.querySelector(id).click(); };
    if (event.key === 'Escape') press('#skip');
    const z = event.key.toLowerCase() === 'z' || event.code === 'KeyZ';  // Option+Z types an omega
    if (event.altKey && z) press('#undo');
  });
  return name;
}"""
_FOCUS = """() => {
  const box = document.querySelector('#price input, #price textarea');
  if (box) Object.assign(box, {inputMode: 'decimal', autocomplete: 'off'});
  box?.focus();
  box?.select();
}"""
_STYLE = """<style>
#sheet {max-width: 46rem; margin: 0 auto; gap: .75rem}
#sheet h2, #sheet h3, #sheet p {margin: 0}
#sheet .html-container, #sheet .prose {padding: 0}
#sheet button {white-space: normal}
#sheet :focus-visible {outline: 2px solid #f97316 !important}
#sheet .head {align-items: end}
#sheet .bar {height: .5rem; margin-top: .5rem; border-radius: 4px; overflow: hidden;
  background: var(--border-color-primary)}
#sheet .bar div {height: 100%; background: #c2410c}
#sheet .card {border: 1px solid var(--border-color-primary); border-radius: 8px;
  padding: .75rem 1rem; background: var(--background-fill-secondary)}
#sheet .kind {opacity: .8}
#sheet .card h3, #sheet .text {overflow-wrap: anywhere; line-height: 1.4}
#sheet .text {white-space: pre-wrap; margin-top: .75rem; min-height: 6rem; max-height: 40vh;
  overflow-y: auto}
#sheet .said {min-height: 1.5em}
#sheet .wrong {border-left: 4px solid #f97316; padding-left: .5rem}
#keep {background: #c2410c; color: #fff}
@media (max-width: 600px) {#sheet .text {max-height: 25vh}}
</style>"""


class Session:
    """What one rater sees next; knows products and answers, and no price but the rater's own."""

    def __init__(self, products: Sequence[Product], answers: Answers) -> None:
        self.products, self.answers = list(products), answers
        self._ids = [product.id for product in self.products]
        self._one_at_a_time = threading.Lock()

    def next(self, rater: str) -> Product | None:
        """Return the first product that this rater has not answered, None when done."""
        self.answers.refresh()
        given = self.answers.by_rater.get(rater, {})
        return next((p for p in self.products if p.id not in given), None)

    def done(self, rater: str) -> int:
        """Return how many of the products this rater has answered or skipped."""
        given = self.answers.by_rater.get(rater, {})
        return sum(i in given for i in self._ids)

    def ticket(self, rater: str) -> dict:
        """Return what the browser hands back with an answer: who was shown what, and since when."""
        product = self.next(rater) if rater else None
        return {"rater": rater, "item": product.id if product else None, "since": time.time()}

    def answer(self, rater: str, ticket: dict | None, text: str | None) -> str:
        """Keep a price, or a skip (None), of the product on the ticket; return what to tell.

        Nothing is kept for a product that the rater was not looking at: the name was changed
        meanwhile, a key hit twice, the product answered in another tab. Raises ValueError if the
        text is not a price or there is no name.
        """
        if not rater:
            raise ValueError("write your name first")
        with self._one_at_a_time:
            if not ticket or ticket["rater"] != rater:
                return f"Nothing kept: this is the next product of {rater}."
            product = self.next(rater)
            if product is None or product.id != ticket["item"]:
                return "Nothing kept: that product has been answered. This is the next one."
            price = None if text is None else read_price(text)
            seconds = round(max(0.0, time.time() - ticket["since"]), 2)
            self.answers.add(rater, product.id, price, seconds)
            return "Skipped." if price is None else f"Kept: ${price:,.2f}."

    def undo(self, rater: str) -> str:
        """Take back the rater's last answer to one of these products; return what to tell."""
        with self._one_at_a_time:
            taken = self.answers.undo(rater, among=self._ids)
        return "Taken back: price it again." if taken else "There is nothing to take back."


def label_page(products: Sequence[Product], answers: Answers, rater: str = "me") -> gradio.Blocks:
    """Return the page; ``launch()`` it in a notebook, or let ``python -m shared label`` do it.

    The page is given products, which have no price. Enter keeps an answer, Escape skips, Alt+Z
    takes the last one back. An answer is on the disk before the next product is shown. Pass
    ``launch(share=False)`` in Colab: gradio would make the page public there.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    with gr.Blocks(title="What does it cost?", analytics_enabled=False) as page:
        label_sheet(products, answers, rater, page.load)
    return page


def label_sheet(
    products: Sequence[Product], answers: Answers, rater: str, opened: Callable[..., Any]
) -> None:
    """Lay out the page's content where gradio is building one, such as in a tab.

    ``opened`` is the event that shows it: ``page.load``, or ``tab.select``.
    """
    import gradio as gr

    handle = _handlers(Session(products, answers))
    with gr.Column(elem_id="sheet"):
        with gr.Row(elem_classes="head"):
            progress = gr.HTML(padding=False, scale=2, min_width=120)
            name = gr.Textbox(rater, label="Your name", max_lines=1, scale=1, min_width=120,
                              elem_id="rater")  # fmt: skip
        card = gr.HTML(padding=False)
        price = gr.Textbox(label="Your guess for a new one, in US dollars", max_lines=1,
                           elem_id="price", placeholder="24.99")  # fmt: skip
        said = gr.HTML(padding=False)
        with gr.Row(equal_height=True):
            keep = gr.Button("Keep (Enter)", variant="primary", elem_id="keep", min_width=90)
            skip = gr.Button("Skip (Esc)", elem_id="skip", min_width=90)
            undo = gr.Button("Take back (Alt+Z)", elem_id="undo", min_width=90)
    # The browser holds it, not the server: it names what was on the screen, restart or not.
    ticket = gr.JSON(visible=False)
    shown = [progress, card, said, ticket, price]
    opened(handle["show"], name, shown, js=_KEYS).then(None, js=_FOCUS)
    for event in (name.submit, name.blur):
        event(handle["rename"], [name, ticket], shown)
    for event in (price.submit, keep.click):
        event(handle["keep"], [name, ticket, price], shown).then(None, js=_FOCUS)
    skip.click(handle["skip"], [name, ticket], shown).then(None, js=_FOCUS)
    undo.click(handle["undo"], name, shown).then(None, js=_FOCUS)


def _handlers(session: Session) -> dict:
    """Return what the page's events call; each returns progress, card, message, ticket, price."""
    import gradio as gr

    def show(name: str, message: str = "") -> tuple:
        rater = name.strip()
        return *_view(session, rater, message), session.ticket(rater), ""

    def keep(name: str, ticket: dict, text: str | None) -> tuple:
        try:
            return show(name, session.answer(name.strip(), ticket, text))
        except ValueError as error:  # what was typed stays, to be mended
            return gr.skip(), gr.skip(), _said(f"Nothing kept: {error}."), gr.skip(), gr.skip()

    def skip(name: str, ticket: dict) -> tuple:
        return keep(name, ticket, None)

    def undo(name: str) -> tuple:
        return show(name, session.undo(name.strip()))

    def rename(name: str, ticket: dict) -> tuple:
        same = ticket and ticket["rater"] == name.strip()
        return (gr.skip(),) * 5 if same else show(name)

    return {"show": show, "keep": keep, "skip": skip, "undo": undo, "rename": rename}


def _said(message: str) -> str:
    kind = "said wrong" if message.startswith("Nothing") else "said"
    return f"<p class='{kind}' role='alert'>{escape(message)}</p>"


def _view(session: Session, rater: str, message: str) -> tuple[str, str, str]:
    """Return progress, product and message as HTML, everything from outside escaped."""
    product, done, total = session.next(rater), session.done(rater), len(session.products)
    count = (
        f"{_STYLE}<h2>What does it cost?</h2><p role='status'>{done} of {total} done</p>"
        f"<div class='bar'><div style='width: {100 * done / max(total, 1):.0f}%'></div></div>"
    )
    if not rater:
        card = "<h3>Write your name to begin</h3>"
    elif product is None:
        card = "<h3>Done, thank you</h3><p>Your answers are kept; you can close this page.</p>"
    else:
        text = product.text.removeprefix(product.title).strip()
        card = (
            f"<h3>{escape(product.title)}</h3><p class='kind'>{escape(product.category)}</p>"
            f"<div class='text' tabindex='0'>{escape(text)}</div>"
        )
    return count, f"<div class='card'>{card}</div>", _said(message)
