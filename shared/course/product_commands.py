"""The commands about records, items and predictions: curate, price, evaluate, leaderboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.course.options import SOURCES, AsJson, Profile, Seed, app, settings_for
from shared.course.printing import print_json, print_manifest, print_priced

# Heavy libraries are imported inside the commands: `--help` must not wait for them.


@app.command()
def curate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"Records: {SOURCES}.")],
    out: Annotated[Path, typer.Option(help="Folder for items.parquet and manifest.json.")],
    seed: Seed = None,
    profile: Profile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many records.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn raw records into items.

    Cleaned, near-duplicates grouped, split into train, validation and test.
    """
    settings = settings_for(source=source, profile=profile, seed=seed)
    from shared.data import prepare

    items = prepare(
        source,
        out,
        seed=settings.seed,
        size=settings.size,
        amazon=settings.amazon,
        limit=limit,
        progress=sys.stderr.isatty(),
    )
    print_manifest(items.manifest, as_json, f"{out}: items {items.manifest['fingerprint']}")


@app.command()
def price(
    records: Annotated[str, typer.Argument(metavar="INPUT", help=f"Records: {SOURCES}.")],
    pricer: Annotated[str, typer.Option(help="Name of the pricer, as on the leaderboard.")],
    train: Annotated[Path, typer.Option(help="Folder of items it learns from (see curate).")],
    out: Annotated[Path, typer.Option(help="Parquet file for the predictions.")],
    seed: Seed = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Price every record with one pricer.

    Known prices are kept for scoring, and shown to no pricer. No record is dropped.
    """
    settings = settings_for(source=records, profile=profile, seed=seed)
    from shared.pricers import PRICERS, price_records

    if pricer not in PRICERS:
        raise typer.BadParameter(
            f"{pricer!r} is not one of: {', '.join(PRICERS)}", param_hint="--pricer"
        )
    manifest = price_records(
        records,
        pricer,
        train,
        out,
        seed=settings.seed,
        size=settings.size,
        amazon=settings.amazon,
        progress=sys.stderr.isatty(),
    )
    print_priced(manifest, as_json, out)


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
    from shared.evaluation import leaderboard, score

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
    from shared.evaluation import leaderboard

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
