"""The commands that ask language models: models, ask, stand-in."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from shared.commands.options import SOURCES, AsJson, Profile, Seed, app, settings_for
from shared.commands.printing import print_json, print_priced

TECHNIQUES = ("zero-shot", "multi-shot", "similar", "chain", "tools", "self-consistency")


@app.command()
def models(as_json: AsJson = False) -> None:
    """Compare the models that can be asked: price, context, licence, end of life."""
    from shared.frontier.models import all_models, table, warnings

    today = date.today()
    for warning in warnings(today):
        print(f"Warning: {warning}", file=sys.stderr)
    if as_json:
        for card in all_models():
            print_json({k: str(v) if isinstance(v, date) else v for k, v in vars(card).items()})
    else:
        print(table(today=today))


@app.command()
def ask(
    records: Annotated[str, typer.Argument(metavar="INPUT", help=f"Records: {SOURCES}.")],
    out: Annotated[Path, typer.Option(help="Parquet file for the predictions.")],
    model: Annotated[str, typer.Option(help="Name of a model (see models).")],
    technique: Annotated[
        str, typer.Option(metavar="|".join(TECHNIQUES), help="How to ask.")
    ] = "zero-shot",
    train: Annotated[
        Path | None, typer.Option(help="Folder of items for examples and tools.")
    ] = None,
    cap: Annotated[float, typer.Option(min=0, help="Dollars that are not exceeded.")] = 1.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="At half the price, within a day. Can be stopped.")
    ] = False,
    stand_in: Annotated[
        bool | None,
        typer.Option("--stand-in/--vendor", help="Which [default: the vendor, if a key is set]."),
    ] = None,
    seed: Seed = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Price records by asking a language model. Says what it will cost first.

    Answers are kept: what was paid for once is not asked again.
    """
    settings = settings_for(source=records, profile=profile, seed=seed)
    how = _technique(technique, train, settings.seed)
    import pyarrow.parquet as pq

    from shared.data import products
    from shared.frontier.batches import buy_batch
    from shared.frontier.connection import connect
    from shared.frontier.models import warnings
    from shared.pipeline import read_products
    from shared.pricers import price_records
    from shared.prompting.pricer import FrontierPricer

    source = {"size": settings.size, "seed": settings.seed, "amazon": settings.amazon}
    cache = settings.runs / "frontier" / "replies.sqlite"
    with connect(model, cap=cap, cache=cache, stand_in=stand_in) as connection:
        pricer = FrontierPricer(connection, how, progress=sys.stderr.isatty())
        for warning in warnings(date.today(), [model]):
            print(f"Warning: {warning}", file=sys.stderr)
        wanted = products(read_products(records, limit=limit, **source)[0])
        print(pricer.estimate(wanted), file=sys.stderr)
        if batch:
            if how.calls > 1:
                raise typer.BadParameter(
                    f"{technique} takes several calls that build on each other"
                )
            first = [how.first(connection.card.name, product) for product in wanted]
            report = buy_batch(connection, first, cache.parent, progress=sys.stderr.isatty())
            print(report, file=sys.stderr)
        manifest = price_records(records, pricer, train, out, limit=limit, progress=False, **source)
        print(connection.summary(), file=sys.stderr)
        failures = Counter(pq.read_table(out, columns=["error"])["error"].drop_null().to_pylist())
        for why, count in failures.most_common(3):
            print(f"{count:,} failed: {why}", file=sys.stderr)
        if pricer.flagged:
            some = ", ".join(pricer.flagged[:5])
            print(
                f"{len(pricer.flagged)} texts give orders to their reader: {some}", file=sys.stderr
            )
    print_priced(manifest, as_json, out)
    if failures.total() == len(wanted):
        raise typer.Exit(1)


@app.command(name="stand-in")
def stand_in(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8808,
) -> None:
    """Start the local server that speaks OpenAI's and Anthropic's protocols, until Ctrl-C."""
    from shared.standin import serve

    serve(port)


def _technique(name: str, train: Path | None, seed: int):
    if name not in TECHNIQUES:
        raise typer.BadParameter(
            f"{name!r} is not one of: {', '.join(TECHNIQUES)}", param_hint="--technique"
        )
    if name in ("multi-shot", "similar", "tools") and train is None:
        raise typer.BadParameter(f"{name} needs --train DIR, a folder of items (see curate)")
    from shared.data import open_items
    from shared.prompting.techniques import Chain, MultiShot, SelfConsistency, ZeroShot
    from shared.prompting.tools import ToolUse

    if name == "zero-shot":
        return ZeroShot()
    if name == "chain":
        return Chain()
    if name == "self-consistency":
        return SelfConsistency(ZeroShot())
    items = open_items(train).table("train")
    return ToolUse(items) if name == "tools" else MultiShot(items, 8, name == "similar", seed)
