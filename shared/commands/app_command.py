"""The command of the page in a browser: app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shared.commands.options import OpenBrowser, PagePort, Seed, app, settings_for

# Heavy libraries are imported inside the command: `--help` must not wait for them.


@app.command(name="app")
def open_app(
    items: Annotated[
        Path | None,
        typer.Option(help="Folder of items to look alike in and to label [default: the course's]."),
    ] = None,
    registry: Annotated[
        Path | None, typer.Option(help="Registry of releases [default: the shipped student].")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --registry: a version [default: the promoted one].")
    ] = None,
    observations: Annotated[
        Path | None, typer.Option(help="Folder, or file, of a service's observations to watch.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address; any but loopback demands COURSE_APP_PASSWORD.")
    ] = "127.0.0.1",
    port: PagePort = None,
    browser: OpenBrowser = True,
    seed: Seed = None,
) -> None:
    """Open the page: price a product, compare models, label, watch drift, find deals.

    It runs on this machine alone, without a key. Stop it with Ctrl-C.
    """
    if model and not registry:
        raise typer.BadParameter("a version is one of a --registry", param_hint="--model")
    from shared.app import Knowledge, Worker, serve_page
    from shared.app.worker import released

    settings = settings_for(None, seed=seed)
    print("Opening …", flush=True)
    knowledge = Knowledge.open(items, settings)
    worker = Worker(released(registry, model), knowledge, settings, observations)
    with serve_page(worker, host=host, port=port, browser=browser) as address:
        print(f"Prices: {worker.model.name}. Known products: {knowledge.about}.")
        print(f"The page: {address} (stop with Ctrl-C)", flush=True)
        _wait()


def _wait() -> None:
    """Wait for Ctrl-C, or for whoever runs this to say stop (SIGTERM)."""
    import signal
    import threading

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    while not stopped.wait(0.5):  # Windows hears of Ctrl-C between two waits only
        pass
