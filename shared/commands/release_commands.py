"""The commands of the model registry: release add, list, promote, rollback, canary and others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.commands.options import AsJson, Seed, app, settings_for
from shared.commands.printing import print_json

if TYPE_CHECKING:
    from shared.releases import Registry, Release

# Heavy libraries are imported inside the commands: `--help` must not wait for them.

release = typer.Typer(help="Versions of models: which one answers, and how to go back.")
app.add_typer(release, name="release", no_args_is_help=True)

Folder = Annotated[
    Path | None, typer.Option("--registry", help="Its folder [default: registry, in that of runs].")
]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="Such as v3.")]
Why = Annotated[str, typer.Option(help="Kept in the history.")]
Items = Annotated[Path, typer.Option(help="Folder of items to measure with (see curate).")]
Truths = Annotated[Path, typer.Argument(metavar="TRUTHS", help="File of true prices (JSON lines).")]


@release.command()
def add(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="student, fitted, tuned, ensemble …")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the model.")],
    items: Items,
    registry: Folder = None,
    note: Annotated[str, typer.Option(help="What is new in it.")] = "",
    coverage: Annotated[float, typer.Option(help="Share that intervals are to cover.")] = 0.9,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Copy a model into the registry, calibrated and measured; it answers nothing yet."""
    from shared.data import open_items

    found = _registry(registry).add(
        kind, folder, items=open_items(items), note=note, coverage=coverage,
        seed=settings_for(None, seed=seed).seed,
    )  # fmt: skip
    print_json(_row(found)) if as_json else print(f"{found.version}: {_said(found)}")


@release.command(name="list")
def show(registry: Folder = None, as_json: AsJson = False) -> None:
    """List the versions; an asterisk is before the one that answers.

    With --json one object a line. Exit code 1 if the record of a version is damaged.
    """
    found = _registry(registry)
    current = found.current_version
    if not (versions := found.versions()) and not as_json:
        print(f"{found.folder} has no versions; see: python -m shared release add --help")
    for one in versions:
        if as_json:
            print_json(_row(one) | {"current": one.version == current})
        else:
            print(f"{'*' if one.version == current else ' '} {one.version}: {_said(one)}")
    damaged = found.damaged()
    for version, why in damaged.items():
        print_json({"version": version, "damaged": why}) if as_json else print(
            f"! {version}: {why}"
        )
    raise typer.Exit(1 if damaged else 0)


@release.command()
def promote(version: Version, why: Why = "by hand", registry: Folder = None) -> None:
    """Let a version answer from now on, after checking its files.

    A service that is running goes on with the version it was started with: restart it.
    """
    print(f"{_registry(registry).promote(version, why).version} is the current version")


@release.command()
def rollback(
    why: Annotated[str, typer.Option(help="Kept in the history.")],
    registry: Folder = None,
    expected: Annotated[
        str | None, typer.Option("--from", help="Only if this version is the current one.")
    ] = None,
) -> None:
    """Let the version before the current one answer again; restart services that are running."""
    print(f"{_registry(registry).rollback(why, expected=expected).version} is the current version")


@release.command()
def history(registry: Folder = None, as_json: AsJson = False) -> None:
    """Show who added, promoted and rolled back what, when and why."""
    for one in _registry(registry).history():
        if as_json:
            print_json(one)
        else:
            said = " ".join(str(one.get(name, "")) for name in ("time", "version", "what"))
            print(f"{said} ({one.get('by', '')}): {one.get('why', '') or '—'}")


@release.command()
def check(version: Version, registry: Folder = None) -> None:
    """Compare the files of a version with their checksums."""
    found = _registry(registry).release(version)
    found.check()
    print(f"{version}: {len(found.files)} files are as they were released")


@release.command()
def prune(
    keep: Annotated[int, typer.Option(min=0, help="So many of the newest stay.")] = 3,
    registry: Folder = None,
) -> None:
    """Delete the models of old versions; never the current one's, nor that of the one before."""
    from shared.releases import Rollout

    found = _registry(registry)
    trial = Rollout.under_way(found)
    gone = found.prune(keep, spare=trial and trial.summary()["candidate"])
    print(f"pruned: {', '.join(gone) or 'nothing'}")


@release.command()
def canary(
    version: Version,
    share: Annotated[float, typer.Option(help="Of the requests that it answers.")] = 0.1,
    margin_usd: Annotated[float, typer.Option(min=0, help="Its error may be higher by this.")] = 0,
    margin_share: Annotated[float, typer.Option(min=0, help="And by this share of it.")] = 0,
    looks: Annotated[
        str | None, typer.Option(help="Numbers of true prices, as 200,400 [default: of 4 looks].")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="A call may take so long; below --patience of serve.")
    ] = 1.0,
    days: Annotated[float, typer.Option(help="True prices may take so long.")] = 14.0,
    registry: Folder = None,
) -> None:
    """Begin a canary release: a version answers a share of the requests until it proves itself.

    A service that is started from this registry afterwards takes part; `release look` decides.
    """
    from shared.releases import Plan, Rollout

    said: dict[str, Any] = {}
    if looks:
        try:
            said["looks"] = tuple(int(one) for one in looks.split(","))
        except ValueError:
            raise typer.BadParameter(f"{looks!r} are no numbers as 200,400") from None
    plan = Plan(margin_usd=margin_usd, margin_share=margin_share, **said)
    begun = Rollout(_registry(registry), version, share, plan=plan, seconds=seconds, days=days)
    print(f"{version} answers {share:.0%} of the requests; looks at {begun.plan.looks} true prices")


@release.command()
def look(truths: Truths, registry: Folder = None, as_json: AsJson = False) -> None:
    """Decide about a canary release, if true prices have come for the next planned look."""
    from shared.watching import Truths as Prices

    if not truths.is_file():
        raise typer.BadParameter(f"{truths} is no file", param_hint="TRUTHS")
    trial = _trial(registry)
    found = trial.look(Prices(truths))
    if as_json:
        print_json(trial.summary())
    else:
        print(found or "no look is due", f"{trial.status}. {trial.why}".strip(), sep="\n")


@release.command()
def stop(why: Annotated[str, typer.Option(help="Kept.")], registry: Folder = None) -> None:
    """End a canary release; the version that was there before it stays."""
    trial = _trial(registry)
    trial.stop(why)
    print(f"{trial.summary()['candidate']}: {trial.status}")


@release.command(hidden=True)
def shipped(items: Items) -> None:
    """Measure the shipped student again, and write the record that comes with the course."""
    from shared.data import open_items
    from shared.releases.shipped import record_shipped

    print(_said(record_shipped(open_items(items))))


def _registry(folder: Path | None) -> Registry:
    from shared.releases import Registry

    return Registry(folder or settings_for(None).runs / "registry")


def _trial(folder: Path | None) -> Any:
    from shared.releases import Rollout

    found = Rollout.under_way(_registry(folder))
    if found is None:
        raise ValueError("no canary release is under way; begin one with: release canary VERSION")
    return found


def _row(one: Release) -> dict[str, Any]:
    names = ("version", "name", "kind", "label", "factor", "coverage", "created", "note", "metrics")
    return {name: getattr(one, name) for name in names}


def _said(one: Release) -> str:
    from shared.evaluation.metrics import number

    test = one.metrics.get("test") or one.metrics["validation"]
    ends = f"[{number(test.get('mae_low'))} to {number(test.get('mae_high'))}]"
    label = f" ({one.label})" if one.label else ""
    note = f". {one.note}" if one.note else ""
    return (
        f"{one.name}{label}, error {number(test.get('mae'))} {ends}, "
        f"interval × {one.factor:.2f} covers {number(test.get('coverage'), '{:.1%}')}, "
        f"{one.created[:10]}{note}"
    )
