"""The tab on which a person prices products, blind: the labelling page, as it is, in a tab."""

from __future__ import annotations

from shared.app import view
from shared.app.worker import Worker
from shared.pricers.label_page import label_sheet


def label_tab(worker: Worker, tab) -> None:
    """Lay out the tab where gradio is building a page; ``tab`` is the one that it is laid in."""
    import gradio as gr

    products, answers = worker.knowledge.questions(), worker.knowledge.answers()
    gr.HTML(
        view.muted(
            "How good are you? Each price is kept at once, beside the items, for you to be scored "
            "like any model: python -m shared label --items DIR --results DIR. Raters with other "
            "names do not see yours."
        ),
        padding=False,
    )
    label_sheet(products, answers, "me", tab.select)
