"""The command line: ``python -m shared COMMAND``. Every command's work lives in another module.

Exit codes: 0 done, 1 it did not work, 2 wrong usage, 130 stopped with Ctrl-C. With ``--json``,
standard output carries JSON and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from shared.course.printing import print_json, print_manifest, print_priced
from shared.settings import PROFILES, Settings, repository_root

# Heavy libraries are imported inside the commands: `--help` must not wait for them.

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
Profile = Annotated[
    str | None, typer.Option(metavar="|".join(PROFILES), help="Size of the run [default: tiny].")
]

# click's own base of all "you typed it wrong" errors; typer carries a private copy of click.
UsageError = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error becomes one line, not a traceback."""
    try:
        code = app(arguments, prog_name="python -m shared", standalone_mode=False)
        if code == 130:  # typer turns Ctrl-C into this, without a word
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UsageError as error:
        error.show()
        return 2
    except (typer.Abort, KeyboardInterrupt):
        print(
            "\nStopped. What is done is kept: the same command goes on from there.", file=sys.stderr
        )
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("COURSE_DEBUG"):
            raise
        print(f"Error: {_explain(error)}", file=sys.stderr)
        return 1


def _explain(error: Exception) -> str:
    """Our own errors are written for the reader; any other needs its type and a way to more."""
    if isinstance(error, ValueError | OSError) or type(error).__module__.startswith("shared."):
        return str(error)
    return f"{type(error).__name__}: {error}   (--debug shows where)"


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Estimate what a product costs from its description: the course's command line."""
    if debug:
        os.environ["COURSE_DEBUG"] = "1"


@app.command()
def run(source: Source = None, profile: Profile = None, seed: Seed = None) -> None:
    """Execute the lessons and print the leaderboard.

    Executed copies, results and the page go to runs/; an interrupted run goes on from there.
    """
    from shared.course.notebooks import find_lessons
    from shared.course.run import publish_leaderboard, run_lessons

    settings = _settings(source=source, profile=profile, seed=seed)
    lessons = find_lessons(repository_root())
    if not lessons:
        raise FileNotFoundError(f"no lessons (week6/1_topic.ipynb …) in {repository_root()}")
    run_lessons(lessons, settings)
    print(f"\n{publish_leaderboard(settings)}")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Is everything here that the course needs?

    Python, each requirement, torch's device, the disk, and which keys are set.
    """
    from shared.course.check import all_checks

    checks = all_checks(repository_root())
    failed = any(check.status == "FAIL" for check in checks)
    if as_json:
        print_json({"ok": not failed, "checks": [vars(check) for check in checks]})
    else:
        print(*checks, sep="\n")
    raise typer.Exit(1 if failed else 0)


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
    settings = _settings(source=source, profile=profile, seed=seed)
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
    settings = _settings(source=records, profile=profile, seed=seed)
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


@app.command()
def badges(
    repository: Annotated[
        str | None, typer.Option(help="New address: https://github.com/NAME/REPOSITORY.")
    ] = None,
) -> None:
    """Rewrite badges and setup cells.

    For the address in pyproject.toml, or for a new one that is then entered there.
    """
    from shared.course.badges import move, refresh

    root = repository_root()
    changed = move(root, repository) if repository else refresh(root)
    print(
        *[f"rewritten: {path.relative_to(root)}" for path in changed] or ["all up to date"],
        sep="\n",
    )


@app.command()
def notebooks() -> None:
    """Execute the lessons in place (for authors).

    On the embedded data and from nothing; records time, hardware and cost in each.
    """
    from shared.course.notebooks import find_lessons
    from shared.course.record import record_lessons

    root = repository_root()
    record_lessons(root, find_lessons(root), print)


def _settings(source: str | None, profile: str | None = None, seed: int | None = None) -> Settings:
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
