"""The commands about items and scores: curate, evaluate, leaderboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.commands.options import SOURCES, AsJson, Profile, Seed, app, settings_for
from shared.commands.printing import print_json, print_manifest

# Heavy libraries are imported inside the commands: `--help` must not wait for them.


@app.command()
def curate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"Records: {SOURCES}.")],
    out: Annotated[Path, typer.Option(help="Folder for items.parquet and manifest.json.")],
    seed: Seed = None,
    profile: Profile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many records.")] = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where: on this machine, or a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Local processes [default: one a core].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn raw records into items.

    Cleaned, near-duplicates grouped, split into train, validation and test; card.md describes
    them. After a kill, the same command goes on with the shards that are not finished.
    """
    settings = settings_for(source=source, profile=profile, seed=seed)
    from shared.pipeline import ENGINES, prepare

    if engine not in ENGINES:
        raise typer.BadParameter(
            f"{engine!r} is not one of: {', '.join(ENGINES)}", param_hint="--engine"
        )
    items = prepare(
        source,
        out,
        seed=settings.seed,
        size=settings.size,
        amazon=settings.amazon,
        limit=limit,
        engine=engine,
        workers=workers,
        progress=sys.stderr.isatty(),
    )
    print_manifest(items.manifest, as_json, f"{out}: items {items.manifest['fingerprint']}")


@app.command()
def evaluate(
    predictions: Annotated[
        list[Path], typer.Argument(metavar="PREDICTIONS", help="Parquet files of predictions.")
    ],
    as_json: AsJson = False,
) -> None:
    """Score stored predictions.

    Prints a table, or with --json one object a line, one a pricer.
    """
    from shared.evaluation import score
    from shared.reports import leaderboard

    scores = [score(path) for path in predictions]
    if as_json:
        for row in scores:
            print_json(row)
    else:
        print(leaderboard.to_console(scores))


@app.command(name="leaderboard")
def show_leaderboard(
    results: Annotated[Path, typer.Argument(metavar="RESULTS_DIR", help="Stored results.")],
    html: Annotated[Path | None, typer.Option(help="Also write it as one HTML page.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build the leaderboard from stored results."""
    from shared.reports import leaderboard

    if not results.is_dir():
        raise typer.BadParameter(f"{results} is not a folder", param_hint="RESULTS_DIR")
    rows = leaderboard.collect(results)
    if html:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(leaderboard.to_html(rows), encoding="utf-8")
    if as_json:
        for row in rows:
            print_json(row)
    else:
        print(leaderboard.to_markdown(rows) if markdown else leaderboard.to_console(rows))
