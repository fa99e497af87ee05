"""The command that starts a project of your own: new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shared.commands.options import app

# Heavy libraries are imported inside the command: `--help` must not wait for them.


@app.command()
def new(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A new folder.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Your table (CSV, JSONL, Parquet), to guess its columns."),
    ] = None,
    example: Annotated[
        str | None, typer.Option(metavar="rents", help="A table that a generator makes.")
    ] = None,
) -> None:
    """Start a project of your own: your columns in, a tuned model and a service out.

    Writes project.toml, run.py, tests and a README. With --from, columns are guessed, and each
    guess is printed with its reason; what cannot be guessed is a TODO, and nothing runs with it.
    """
    from shared.template.writing import new_project

    found = new_project(path, source=source, example=example)
    print(f"{path}: a project, to be run with: python {path / 'run.py'}")
    for setting, why in found.why.items():
        if why and setting not in found.todo:
            print(f"  guessed: {setting} = {found.values[setting]!r} ({why})")
    for said in found.check:
        print(f"  check: {said}")
    for setting in found.todo:
        print(f"  TODO in project.toml: {setting}. {found.why[setting]}".rstrip(". "))
