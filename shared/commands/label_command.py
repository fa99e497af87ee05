"""The command of the human baseline: label."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.commands.options import OpenBrowser, PagePort, Seed, app, settings_for

# Heavy libraries are imported inside the command: `--help` must not wait for them.


@app.command()
def label(
    items: Annotated[Path, typer.Option(help="Folder of items to price (see curate).")],
    split: Annotated[str, typer.Option(help="Which split to ask about.")] = "test",
    n: Annotated[int, typer.Option(min=1, help="How many products to ask about.")] = 100,
    rater: Annotated[str, typer.Option(help="Who is answering.")] = "me",
    answers: Annotated[
        Path | None,
        typer.Option(
            "--out", "--answers", help="File of answers [default: answers.jsonl in the folder]."
        ),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write a spreadsheet (CSV) instead.")] = None,
    load: Annotated[
        Path | None, typer.Option("--import", help="Read a spreadsheet's answers instead.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Score the answers into a folder of results instead.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="With --results: stored results to score on the same products."),
    ] = None,
    port: PagePort = None,
    browser: OpenBrowser = True,
    seed: Seed = None,
) -> None:
    """Price products yourself: the human baseline.

    Opens a page on this machine alone; every answer is kept at once, so stop when you like.
    """
    from shared.data import open_items, products
    from shared.data.schema import SPLITS
    from shared.pricers.human import Answers, asked

    if split not in SPLITS:
        raise typer.BadParameter(f"{split!r} is not one of: {', '.join(SPLITS)}")
    if against and (not results or not against.is_dir() or against.resolve() == results.resolve()):
        raise typer.BadParameter(
            "needs --results, and is another folder of results", param_hint="--against"
        )
    rater = rater.strip()
    if not rater:
        raise typer.BadParameter("a rater needs a name", param_hint="--rater")
    chosen = asked(open_items(items).table(split), n, settings_for(None, seed=seed).seed)
    kept = Answers(answers or items / "answers.jsonl")
    if results:
        _score(chosen, kept, results, against)
    elif export:
        _export(products(chosen), export)
    elif load:
        _import(load, products(chosen), kept, rater)
    else:
        _serve(products(chosen), kept, rater, port, browser)


def _serve(asked: list, answers, rater: str, port: int | None, browser: bool) -> None:
    from shared.pricers.label_page import label_page

    page = label_page(asked, answers, rater)
    print(f"Answers go to {answers.path}. Stop with Ctrl-C; the same command goes on from there.")
    page.launch(
        server_name="127.0.0.1", server_port=port, inbrowser=browser, share=False, quiet=True,
        prevent_thread_lock=True, footer_links=[], ssr_mode=False,
        state_session_capacity=50,  # gradio would keep what it knows of 10,000 tabs
    )  # fmt: skip
    print(f"The page: {page.local_url}", flush=True)
    page.block_thread()


def _export(asked: list, path: Path) -> None:
    from shared.pricers.spreadsheet import export_csv

    if path.exists():  # somebody may have priced an afternoon long in it
        raise ValueError(f"{path} exists already; import or move it first, or choose another name")
    print(f"{export_csv(asked, path)}: {len(asked)} products to price")


def _import(path: Path, asked: list, answers, rater: str) -> None:
    from shared.pricers.spreadsheet import import_csv

    complaints = import_csv(path, asked, answers, rater)
    print(*complaints, sep="\n", file=sys.stderr) if complaints else None
    count = sum(p.id in answers.by_rater.get(rater, {}) for p in asked)
    print(f"{answers.path}: {rater} has answered {count} of {len(asked)} products")
    raise typer.Exit(1 if complaints else 0)


def _score(asked, answers, results: Path, against: Path | None) -> None:
    from shared.evaluation import evaluate
    from shared.pricers.human import HumanPricer, answered
    from shared.reports import leaderboard

    raters: list[str | None] = [r for r in answers.raters if answered(asked, answers, r).num_rows]
    if not raters:
        raise ValueError(f"{answers.path}: nobody has answered any of these products yet")
    for rater in raters if len(raters) == 1 else [*raters, None]:
        seen = answered(asked, answers, rater)
        evaluate(HumanPricer(answers, rater), seen, store=results, progress=False)
        if seen.num_rows < asked.num_rows and rater:
            print(f"{rater} has come to {seen.num_rows} of {asked.num_rows}, and is scored on them")
    if against:
        _score_again(asked, against, results)
    print(leaderboard.to_console(leaderboard.collect(results)))
    if len(raters) > 1:
        print(f"\n{_agreement(answers, raters)}")


def _score_again(asked, against: Path, results: Path) -> None:
    """Score stored predictions on the products that people were asked about."""
    from shared.evaluation import evaluate
    from shared.evaluation.store import load

    for path in sorted(against.glob("*.parquet")):
        found = load(path)
        if found is None or found[1]["pricer"].partition(":")[0] == "human":
            continue
        try:  # a stand-in stays one
            label = found[1].get("label", "")
            evaluate(path, asked, store=results, progress=False, label=label)
        except ValueError as error:
            print(f"Left out: {error}", file=sys.stderr)


def _agreement(answers, raters: list[str]) -> str:
    from shared.pricers.human import agreement

    try:
        found = agreement(answers, raters=raters)
    except ValueError as error:
        return f"No agreement yet: {error}."
    return (
        f"{found['raters']} raters on {found['n']} products: they differ by "
        f"{found['difference']:.2f} dollars [{found['difference_low']:.2f}, "
        f"{found['difference_high']:.2f}]; agreement (ICC of log prices) {found['icc']:.2f} "
        f"[{found['icc_low']:.2f}, {found['icc_high']:.2f}]"
    )
