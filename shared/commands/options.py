"""What the commands share: the app they register with, their common options, the settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from shared.settings import PROFILES, Settings

app = typer.Typer(
    name="shared",
    epilog="Exit codes: 0 done, 1 it did not work, 2 wrong usage, 130 stopped with Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

SOURCES = "JSONL or JSONL.gz file, a folder of them, 'embedded', or 'amazon:CATEGORY[,CATEGORY…]'"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of all that is random [default: 42].")]
Source = Annotated[str | None, typer.Option(help=f"Records: {SOURCES} [default: embedded].")]
PagePort = Annotated[
    int | None, typer.Option(help="Port of the page [default: the first free from 7860].")
]
OpenBrowser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")]
Profile = Annotated[
    str | None, typer.Option(metavar="|".join(PROFILES), help="Size of the run [default: tiny].")
]


def settings_for(
    source: str | None, profile: str | None = None, seed: int | None = None
) -> Settings:
    """Settings of the environment, with what the command line says instead."""
    said = {"source": source, "profile": profile, "seed": seed}
    try:
        settings = replace(
            Settings.from_environment(), **{k: v for k, v in said.items() if v is not None}
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    _refuse_missing(settings.source)
    return settings


def _refuse_missing(source: str) -> None:
    if not (source == "embedded" or source.startswith("amazon:") or Path(source).exists()):
        raise typer.BadParameter(
            f"there is no {source!r} here; records are a {SOURCES}", param_hint="SOURCE"
        )
