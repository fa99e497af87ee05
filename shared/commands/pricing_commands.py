"""The commands that fit pricers and price records: fit, price, ladder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.commands.options import SOURCES, AsJson, Profile, Seed, app, settings_for
from shared.commands.printing import print_json, print_priced

# Heavy libraries are imported inside the commands: `--help` must not wait for them.

Train = Annotated[Path, typer.Option(help="Folder of items to learn from (see curate).")]


@app.command()
def fit(
    pricer: Annotated[str, typer.Option(help="Name of the pricer, as on the leaderboard.")],
    train: Train,
    out: Annotated[Path, typer.Option(help="Folder for the fitted pricer.")],
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Fit one pricer and keep it.

    It learns from the training split alone. `price --model` then needs no training.
    """
    from shared.data import open_items
    from shared.pricers import make_pricer, save_pricer

    _refuse_unknown(pricer)
    model = make_pricer(pricer, settings_for(None, seed=seed).seed)
    save_pricer(model.fit(open_items(train).table("train")), out)
    if as_json:
        print_json({"pricer": pricer, "model": str(out), "settings": model.settings})
    else:
        print(f"{out}: {pricer}, fitted on items {model.settings['fitted_on']}")


@app.command()
def price(
    records: Annotated[str, typer.Argument(metavar="INPUT", help=f"Records: {SOURCES}.")],
    out: Annotated[Path, typer.Option(help="Parquet file for the predictions.")],
    pricer: Annotated[str | None, typer.Option(help="Name of a pricer, to fit now.")] = None,
    train: Annotated[Path | None, typer.Option(help="Folder of items it learns from.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Instead: a pricer kept by fit, or by tune.")
    ] = None,
    seed: Seed = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Price every record with one pricer.

    Known prices are kept for scoring, and shown to no pricer. No record is dropped.
    """
    if model is None and (pricer is None or train is None):
        raise typer.BadParameter("say which: --pricer NAME --train DIR, or --model DIR")
    if model is not None and (pricer, train) != (None, None):
        raise typer.BadParameter("a --model is fitted already: leave out --pricer and --train")
    if pricer:
        _refuse_unknown(pricer)
    settings = settings_for(source=records, profile=profile, seed=seed)
    from shared.pricers import price_records

    manifest = price_records(
        records,
        _open(model) if model else pricer,
        train,
        out,
        seed=settings.seed,
        size=settings.size,
        amazon=settings.amazon,
        progress=sys.stderr.isatty(),
    )
    print_priced(manifest, as_json, out)


@app.command()
def ladder(
    train: Train,
    out: Annotated[Path, typer.Option(help="Folder for predictions, one file a pricer.")],
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Fit every pricer and score it on the test split.

    An interrupted run goes on where it was. Prints the table, with the seconds each fit took.
    """
    from shared.data import open_items
    from shared.pricers.ladder import climb, to_console

    chosen = settings_for(None, seed=seed).seed
    rows = climb(open_items(train), out, seed=chosen, progress=sys.stderr.isatty())
    if as_json:
        for row in rows:
            print_json(row)
    else:
        print(to_console(rows))


def _open(folder: Path) -> Any:
    """Open a folder that fit or tune wrote."""
    if (folder / "adapter_config.json").exists():
        from shared.open_models.pricer import tuned_pricer

        return tuned_pricer(folder)
    from shared.pricers import load_pricer

    return load_pricer(folder)


def _refuse_unknown(pricer: str) -> None:
    from shared.pricers import PRICERS

    if pricer not in PRICERS:
        raise typer.BadParameter(
            f"{pricer!r} is not one of: {', '.join(PRICERS)}", param_hint="--pricer"
        )
