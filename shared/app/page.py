"""The tabs put together to one page, and the page served: one process, one set of models."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shared.app import view
from shared.app.guard import LOOPBACK, middleware
from shared.app.worker import Worker
from shared.frontier.secrets import get_secret

if TYPE_CHECKING:
    import gradio

WAITING = 64
"""Requests that wait at most; who comes later is told that the page is busy."""

SESSIONS = 50
"""Tabs that gradio remembers the state of: 160 kB each, which it would keep of 10,000 of them. The
page's own state is in the browser, so a tab that is forgotten goes on as if nothing had been."""

PASSWORD = "COURSE_APP_PASSWORD"
"""Environment variable with the password that any address but loopback demands."""


def app_page(worker: Worker) -> gradio.Blocks:
    """Return the page with all its tabs over one worker; ``serve_page`` serves it.

    What visitors label is kept; whatever else they type is forgotten, see ``SESSIONS``.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    from shared.app.compare_tab import compare_tab
    from shared.app.deals_tab import deals_tab
    from shared.app.drift_tab import drift_tab
    from shared.app.label_tab import label_tab
    from shared.app.price_tab import price_tab

    with gr.Blocks(title="Price estimator", analytics_enabled=False) as page:
        gr.HTML(view.style(), padding=False)
        with gr.Column(elem_classes="course-app"):
            gr.HTML("<h1>Price estimator</h1>", padding=False)
            with gr.Tabs():
                with gr.Tab("Price", id="price"):
                    price_tab(worker)
                with gr.Tab("Compare", id="compare"):
                    compare_tab(worker)
                with gr.Tab("Label", id="label") as label:
                    label_tab(worker, label)
                with gr.Tab("Drift", id="drift") as drift:
                    drift_tab(worker, drift)
                with gr.Tab("Deals", id="deals"):
                    deals_tab(worker)
    # One request at a time is the rule; a tab that needs more says so. Nothing is called by name.
    return page.queue(default_concurrency_limit=1, max_size=WAITING, api_open=False)


@contextlib.contextmanager
def serve_page(
    worker: Worker, *, host: str = "127.0.0.1", port: int | None = None, browser: bool = False
) -> Iterator[str]:
    """Serve the page while the context lasts, and yield its address; never through a tunnel.

    The index of known products is built meanwhile. Raises ValueError if another address than
    loopback is asked for without a password, OSError if the port is taken.
    """
    page, auth = app_page(worker), _auth(host)
    try:
        worker.knowledge.start()
        try:
            page.launch(
                server_name=host, server_port=port, inbrowser=browser, share=False, quiet=True,
                prevent_thread_lock=True, footer_links=[], ssr_mode=False, auth=auth,
                allowed_paths=[], max_file_size=1, enable_monitoring=False, mcp_server=False,
                pwa=False, show_error=False, state_session_capacity=SESSIONS,
                app_kwargs={"middleware": middleware(host)},
            )  # fmt: skip
        except OSError as error:
            taken = f"{host}, port {port or '7860 and those after it'}: cannot be opened"
            raise OSError(f"{taken}; choose another with --port") from error
        yield page.local_url
    finally:
        page.close(verbose=False)
        worker.close()


def _auth(host: str) -> tuple[str, str] | None:
    """Return the name and password that visitors have to give, None on this machine alone."""
    if host in LOOPBACK:
        return None
    password = get_secret(PASSWORD)
    if password is None:
        raise ValueError(
            f"--host {host} opens the page to others: set {PASSWORD} to a password first (the "
            "name is 'course'), or leave --host out"
        )
    return "course", password.reveal()
