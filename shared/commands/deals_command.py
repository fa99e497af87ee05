"""The command of the deal finder: deals."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from shared.commands.options import AsJson, app, settings_for
from shared.commands.printing import print_json

ADDRESSES = "DEALS_ALERT"
"""The environment variable with the addresses to alert: they hold passwords, and the command line
is seen by everybody on a machine, and kept."""

# Heavy libraries are imported inside the command: `--help` must not wait for them.


@app.command()
def deals(
    feeds: Annotated[
        list[str] | None, typer.Argument(metavar="[FEED_URL]…", help="RSS or Atom feeds.")
    ] = None,
    practice: Annotated[
        bool, typer.Option("--practice", help="Use feeds made from the test items, served here.")
    ] = False,
    planner: Annotated[
        str | None, typer.Option(help="A model that plans (see models) [default: none].")
    ] = None,
    stand_in: Annotated[
        bool | None,
        typer.Option("--stand-in/--vendor", help="Which [default: the vendor, if a key is set]."),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share below the interval that is a deal.")
    ] = 0.1,
    by_estimate: Annotated[
        bool, typer.Option("--by-estimate", help="Believe the estimate, not its interval.")
    ] = False,
    steps: Annotated[int, typer.Option(min=0, help="Most requests to the planner.")] = 40,
    seconds: Annotated[float, typer.Option(min=1, help="Most seconds of the planner.")] = 60,
    dollars: Annotated[float, typer.Option(min=0, help="Most dollars of the run.")] = 0.05,
    out: Annotated[
        Path | None, typer.Option(help="Folder of memory, alerts and traces [default: in runs].")
    ] = None,
    show: Annotated[
        Path | None, typer.Option(help="Show a trace instead; with --html as a page.")
    ] = None,
    replay_of: Annotated[
        Path | None, typer.Option("--replay", help="Run a trace again, offline, instead.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the trace as one HTML page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look for good offers in feeds, and alert each once.

    Alerts go to alerts.jsonl in the folder, or to the addresses (of apprise) in DEALS_ALERT.
    """
    if show or replay_of:
        _again(show, replay_of, html, as_json)
        return
    if bool(feeds) == practice:
        raise typer.BadParameter("give addresses of feeds, or --practice", param_hint="FEED_URL")
    from shared.agents import Limits, Rule

    folder = out or settings_for(None).runs / "deals" / ("practice" if practice else "feeds")
    rule = Rule("estimate" if by_estimate else "interval", margin)
    limits = Limits(steps, seconds, dollars)
    run = _practice if practice else _real
    outcome, trace = run(feeds or [], folder, planner, stand_in, rule=rule, limits=limits)
    _write_page(trace, html)
    if as_json:
        from shared.agents import read_trace

        print_json({**read_trace(trace).first("end"), "trace": trace})
    else:
        for deal in outcome.alerts:
            print(f"${deal.asked:,.2f} (worth about ${deal.price:,.2f})  {deal.title[:70]}")
        print(f"{outcome}\nTrace: {trace}")
    if all(feed.error for feed in outcome.feeds):
        raise typer.Exit(1)


def _real(feeds: list[str], folder: Path, planner: str | None, stand_in: bool | None, **how):
    from shared.agents import Fetcher

    fetcher = Fetcher(folder / "feeds")
    return _run(feeds, folder, planner, stand_in, fetcher=fetcher, **how)


def _practice(_: list[str], folder: Path, planner: str | None, stand_in: bool | None, **how):
    """Run on feeds of test items, which are the same each time, in a new folder each time."""
    from shared.agents import FeedServer, Fetcher, make_feeds
    from shared.pipeline import course_items

    settings = settings_for(None)
    items = course_items(settings, progress=sys.stderr.isatty()).table("test")
    made = make_feeds(items, settings.seed, offers=min(60, items.num_rows))
    with FeedServer(made.documents) as server:
        fetcher = Fetcher(allow=(server.url,))
        folder /= _now()
        return _run(server.feeds, folder, planner, stand_in, fetcher=fetcher, **how)


def _run(feeds: list[str], folder: Path, planner: str | None, stand_in: bool | None, **how):
    from contextlib import ExitStack

    from shared.agents import AppriseMessenger, LogMessenger, find_deals
    from shared.releases import shipped_release
    from shared.watching.alerts import addresses as addresses_of

    addresses = addresses_of(variable=ADDRESSES)
    messenger = AppriseMessenger(addresses) if addresses else LogMessenger(folder / "alerts.jsonl")
    trace = folder / "traces" / f"{_now()}.jsonl"
    with ExitStack() as stack:
        if planner:
            from shared.frontier.connection import connect

            connection = connect(planner, cap=how["limits"].dollars, stand_in=stand_in)
            how["connection"] = stack.enter_context(connection)
        pricer, memory = shipped_release().open(), folder / "memory.sqlite"
        return find_deals(feeds, pricer, messenger, memory, trace=trace, **how), trace


def _now() -> str:
    return f"{datetime.now():%Y%m%d-%H%M%S-%f}"


def _again(show: Path | None, replay_of: Path | None, html: Path | None, as_json: bool) -> None:
    from shared.agents import read_trace, replay, to_text

    if show:
        _write_page(show, html)
        print(to_text(read_trace(show)))
    if not replay_of:
        return
    found = replay(replay_of)
    if as_json:
        print_json({**vars(found), "same": found.same})
    elif found.same:
        print(f"{len(found.decisions)} deals, every decision as before")
    else:
        whole = [] if found.whole else ["the trace is not whole"]
        print(*whole, *found.differences, sep="\n")
    raise typer.Exit(0 if found.same else 1)


def _write_page(trace: Path, html: Path | None) -> None:
    if html:
        from shared.agents import read_trace, to_html
        from shared.data.storage import write_text

        write_text(to_html(read_trace(trace)), html)
