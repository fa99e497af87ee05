"""The commands that train open models: base."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.course.options import AsJson, app
from shared.course.printing import print_json


@app.command()
def base(
    out: Annotated[Path, typer.Option(help="Folder for the model, its tokenizer and manifest.")],
    records: Annotated[
        int | None, typer.Option(min=1_000, help="Of the other catalogue [default: 200000].")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of training [default: 3800].")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the tiny base model of week 7, in about a quarter of an hour on two cores.

    After a kill, the same command goes on behind the last checkpoint.
    """
    from dataclasses import replace

    from shared.training.base_model import Recipe
    from shared.training.making import make_base

    said = {name: v for name, v in (("records", records), ("steps", steps)) if v is not None}
    manifest = make_base(out, replace(Recipe(), **said), progress=sys.stderr.isatty())
    if as_json:
        print_json(manifest)
    else:
        print(
            f"{manifest['parameters']:,} parameters, {manifest['corpus']['documents']:,} documents "
            f"of other products, {manifest['seconds']:,} s. Median price after documents that "
            f"were not read: off by ${manifest['held_out_dollars']:.2f}. In {out}"
        )
