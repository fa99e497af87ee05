"""The commands that watch: a service's observations, and a hosted model by its canary."""

from __future__ import annotations

import contextlib
import sys
from datetime import date as Date
from pathlib import Path
from typing import Annotated

import typer

from shared.commands.options import AsJson, app, settings_for
from shared.commands.printing import print_json

# Heavy libraries are imported inside the commands: `--help` must not wait for them.

OBSERVATIONS, TRUTHS, REFERENCE, ALERTS = (
    "observations.jsonl", "truths.jsonl", "reference.json", "alerts.jsonl",
)  # fmt: skip
Addresses = Annotated[
    Path | None,
    typer.Option(help="File with Apprise addresses, one a line [default: PRICE_ALERTS]."),
]
Fail = Annotated[bool, typer.Option("--fail", help="Exit with 1 while there is an alarm.")]


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help=f"Folder with {OBSERVATIONS}, or such a file.")],
    reference: Annotated[
        Path | None,
        typer.Option(help=f"Reference [default: {REFERENCE} there, else the shipped pricer's]."),
    ] = None,
    truths: Annotated[
        Path | None, typer.Option(help=f"Late true prices [default: {TRUTHS} there, if any].")
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(help="Records (JSONL) whose prices are known now: add these true prices."),
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Write an HTML page with charts.")] = None,
    window: Annotated[int, typer.Option(min=30, help="Products in a window.")] = 500,
    windows_per_alarm: Annotated[
        int, typer.Option(min=2, max=1000, help="Windows from one false alarm to the next.")
    ] = 100,
    products_per_alarm: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="True prices from one to the next.")
    ] = 10_000,
    version: Annotated[str | None, typer.Option(help="Only what this version answered.")] = None,
    addresses: Addresses = None,
    as_json: AsJson = False,
    fail: Fail = False,
) -> None:
    """Look at what a service was asked and answered: has anything changed?

    Tells of each alarm once, until it is over; run it as often as you like.
    """
    from shared.watching import Alerts, ObservationLog, Truths, Watch, to_html
    from shared.watching.alerts import addresses as addresses_of

    file = folder / OBSERVATIONS if folder.is_dir() else folder
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file of observations; `serve` writes one")
    folder = file.parent
    if truths is not None and not truths.is_file():
        raise ValueError(f"{truths}: there is no such file of true prices")
    alerts = Alerts(addresses_of(addresses), folder / ALERTS, console=not as_json)
    log, late = ObservationLog(file), Truths(truths or folder / TRUTHS)
    if prices is not None:
        _add(prices, late)
    observed = log.table()
    known = _reference(folder, reference, observed["version"].unique().to_pylist())
    seen = Watch(
        known, window=window, windows_per_alarm=windows_per_alarm,
        products_per_alarm=products_per_alarm, version=version,
    )  # fmt: skip
    true = late if len(late) else None
    signals = seen.look(observed, true)
    if page is not None:
        from shared.data.storage import write_text

        write_text(to_html(seen, observed, true, damaged=log.damaged + late.damaged), page)
    if as_json:
        print_json({"signals": [_plain(vars(signal)) for signal in signals]})
    else:
        print(_table(signals))
    for path, count in ((log.path, log.damaged), (late.path, late.damaged)):
        if count:
            print(f"{path}: {count:,} damaged lines were left out", file=sys.stderr)
    alerts.take(signals)
    if fail and any(signal.alarm for signal in signals):
        raise typer.Exit(1)


@app.command()
def canary(
    items: Annotated[Path, typer.Option(help="Folder of items (see curate).")],
    runs: Annotated[Path, typer.Option(help="Folder of this model's runs.")],
    model: Annotated[str, typer.Option(help="Name of a model (see models).")],
    n: Annotated[int, typer.Option(min=2, help="Products to ask about: always the same.")] = 200,
    every: Annotated[int, typer.Option(min=1, help="Days from one run to the next.")] = 1,
    date: Annotated[str | None, typer.Option(help="Date of the run [default: today].")] = None,
    cap: Annotated[float, typer.Option(min=0, help="Dollars that are not exceeded.")] = 1.0,
    accept: Annotated[
        bool, typer.Option("--accept", help="Hold later runs to that date's: its change is known.")
    ] = False,
    schedule: Annotated[
        str | None, typer.Option(metavar="cron|github", help="Print how to run it every day.")
    ] = None,
    stand_in: Annotated[
        bool | None,
        typer.Option("--stand-in/--vendor", help="Which [default: the vendor, if a key is set]."),
    ] = None,
    addresses: Addresses = None,
    fail: Fail = False,
) -> None:
    """Ask a hosted model the same questions again: does it still answer as it did?

    Run it every day: it does nothing before it is due, and tells of a change once.
    """
    if schedule is not None:
        asks = ["--model", model, "--n", str(n), "--every", str(every), "--cap", f"{cap:g}"]
        mine = ["--addresses", str(addresses.resolve())] if addresses else []
        mine += [] if stand_in is None else ["--stand-in" if stand_in else "--vendor"]
        _print_schedule(schedule, items, runs, asks, mine)
        return
    from shared.data import open_items
    from shared.frontier_uses.canary import Canary
    from shared.pricers.human import asked
    from shared.watching import Alerts, CanaryJob
    from shared.watching.alerts import addresses as addresses_of

    day = _day(date)
    watched = asked(open_items(items).table("test"), n, settings_for(None).seed)
    job = CanaryJob(Canary(watched, runs), lambda: _reach(model, cap, stand_in), every=every)
    if accept:
        print(f"Later runs are held to {', '.join(map(str, job.accept(day)))}")
        return
    if not job.made(day) and not job.due(day):
        print(f"Not due on {day}: every {every} days, and the last run was {job.last()}.")
        return
    alerts = Alerts(addresses_of(addresses), runs / ALERTS)
    found = job.run(day, alerts)
    print(f"{found.date}, {found.signal.name}: {found.signal.said}")
    if fail and found.signal.alarm:
        raise typer.Exit(1)


@contextlib.contextmanager
def _reach(model: str, cap: float, stand_in: bool | None):
    from shared.frontier.connection import connect
    from shared.prompting.pricer import FrontierPricer
    from shared.prompting.techniques import ZeroShot

    with connect(model, cap=cap, stand_in=stand_in, cache=None) as connection:
        yield FrontierPricer(connection, ZeroShot(), progress=False)
        print(connection.summary(), file=sys.stderr)


def _print_schedule(kind: str, items: Path, runs: Path, asks: list[str], mine: list[str]) -> None:
    from shlex import join, quote

    from shared.watching.scheduled import CRON, WORKFLOW

    if kind not in ("cron", "github"):
        raise typer.BadParameter(f"{kind!r} is not one of: cron, github", param_hint="--schedule")
    words = [sys.executable, "-m", "shared", "canary", "--items", str(items.resolve())]
    words += ["--runs", str(runs.resolve()), *asks, *mine]
    line = CRON.format(folder=quote(str(Path.cwd())), command=join(words)).replace("%", r"\%")
    workflow = WORKFLOW.read_text(encoding="utf-8").replace("--model gpt-6-luna", join(asks))
    print(line if kind == "cron" else workflow.rstrip())


def _add(records: Path, late) -> None:
    """Add the prices of records to the true prices, by the text that the service saw of each."""
    from shared.pipeline import read_products
    from shared.watching import item_key

    if not records.is_file():
        raise ValueError(f"{records}: there is no such file of records")
    items, malformed = read_products(str(records))
    pairs = zip(items["text"].to_pylist(), items["price"].to_pylist(), strict=True)
    found = [(item_key(text), price) for text, price in pairs if text and price]
    late.add({item: price for item, price in dict(found).items() if late.get(item) != price})
    lacking = len(items) - len(found) + malformed.count
    print(f"{records}: {len(found):,} true prices, {lacking:,} records without", file=sys.stderr)


def _reference(folder: Path, path: Path | None, versions: list[str]):
    from shared.releases import shipped_release
    from shared.watching import Reference

    if path is not None or (folder / REFERENCE).exists():
        return Reference.open(path or folder / REFERENCE)
    shipped = shipped_release()
    found = shipped.reference()
    if found is None:
        raise ValueError("the shipped pricer has no reference here: name one with --reference")
    if versions and shipped.version not in versions:
        print(
            f"Held to the reference of the shipped pricer, though {', '.join(versions[:3])} "
            f"answered. A registry keeps {REFERENCE} with each version: name it with --reference",
            file=sys.stderr,
        )
    return found


def _day(text: str | None) -> str:
    if text is None:
        return Date.today().isoformat()
    try:
        return Date.fromisoformat(text).isoformat()
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no date such as 2026-11-21", param_hint="--date"
        ) from None


def _table(signals: list) -> str:
    from shared.reports.tables import aligned

    titles = ("signal", "state", "value", "threshold", "p (Holm)", "what it says")
    cells = [
        [s.name, "ALARM" if s.alarm else s.state,
         *(f"{v:.3f}" if v == v else "-" for v in (s.value, s.threshold, s.p)), s.said]
        for s in signals
    ]  # fmt: skip
    return aligned(titles, cells, ("signal", "state", "what it says"))


def _plain(row: dict) -> dict:
    """Return a signal as JSON has it: null where there is no number."""
    return {k: None if isinstance(v, float) and v != v else v for k, v in row.items()}
