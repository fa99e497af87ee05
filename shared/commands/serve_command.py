"""The command that serves prices over HTTP: serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shared.commands.options import app

# Heavy libraries are imported inside the command: `--help` must not wait for them.


@app.command()
def serve(
    pricer: Annotated[
        str | None,
        typer.Option(help="small, smallest, tuned, or a folder [default: the shipped release]."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Version of the registry [default: the current one].")
    ] = None,
    registry: Annotated[Path | None, typer.Option(help="Folder of releases.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's need a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
    max_batch: Annotated[int, typer.Option(min=1, help="Products priced at once.")] = 32,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, help="Milliseconds the first of a batch waits for others.")
    ] = 5.0,
    queue: Annotated[int, typer.Option(min=1, help="Products that may wait.")] = 1024,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Products a second for each key, or address.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request.")] = 30.0,
    patience: Annotated[
        float, typer.Option(min=0.1, help="Seconds until a pricer counts as hanging.")
    ] = 8.0,
    keys_file: Annotated[
        Path | None,
        typer.Option(help="File of keys, one a line; or COURSE_SERVE_KEYS in the environment."),
    ] = None,
    observations: Annotated[
        Path | None, typer.Option(help="File for observations, to watch for drift; no texts.")
    ] = None,
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Put titles of products into the log.")
    ] = False,
) -> None:
    """Serve prices over HTTP, with an address for OpenAI's clients too.

    Without options: the shipped release, for this machine alone, without a key. The log goes to
    standard error, a line of JSON for each request. Stop with Ctrl-C; what was taken is answered.
    It goes on with the version it was started with: restart it after release promote or rollback.
    """
    from shared.operating.running import Plan, serve
    from shared.serving.limits import Limits

    limits = Limits(
        max_batch=max_batch, max_wait=max_wait_ms / 1000, queue=max(queue, max_batch), rate=rate,
        timeout=timeout, patience=patience,
    )  # fmt: skip
    serve(Plan(
        pricer, registry and str(registry), model, host, port, workers,
        keys_file and str(keys_file), observations and str(observations), log_texts, limits,
    ))  # fmt: skip
