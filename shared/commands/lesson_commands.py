"""The commands about lessons and set-up: run, check, badges, notebooks."""

from __future__ import annotations

from typing import Annotated

import typer

from shared.commands.options import AsJson, Profile, Seed, Source, app, settings_for
from shared.commands.printing import print_json
from shared.settings import repository_root

# Heavy libraries are imported inside the commands: `--help` must not wait for them.


@app.command()
def run(source: Source = None, profile: Profile = None, seed: Seed = None) -> None:
    """Execute the lessons and print the leaderboard.

    Executed copies, results and the page go to runs/; an interrupted run goes on from there.
    """
    from shared.course.notebooks import find_lessons
    from shared.course.run import publish_leaderboard, run_lessons

    settings = settings_for(source=source, profile=profile, seed=seed)
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
