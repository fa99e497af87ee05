"""The five steps from a business problem to production, as a list that can be ticked off."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

FILE = Path(__file__).with_name("checklist.toml")


@dataclass(frozen=True)
class Item:
    """A question to be answered with yes, and by what one knows that it is."""

    id: str
    ask: str
    done: str


@dataclass(frozen=True)
class Step:
    """One of the five steps, and its items."""

    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Checklist:
    """The steps, and the ids of the items that are done."""

    steps: tuple[Step, ...]
    done: frozenset[str] = frozenset()

    def tick(self, *ids: str) -> Checklist:
        """Return the list with these items done; ValueError names an id there is not."""
        known = [item.id for step in self.steps for item in step.items]
        for wrong in (name for name in ids if name not in known):
            close = get_close_matches(wrong, known, n=2) or known
            raise ValueError(f"there is no item {wrong!r}: is it {' or '.join(close)}?")
        return Checklist(self.steps, self.done | set(ids))

    def left(self, step: str | None = None) -> list[Item]:
        """Return what is not done, of one step or of all; ValueError if there is no such step."""
        titles = [s.title for s in self.steps]
        if step is not None and step not in titles:
            raise ValueError(f"there is no step {step!r}: it is one of {', '.join(titles)}")
        chosen = [s for s in self.steps if step in (None, s.title)]
        return [item for s in chosen for item in s.items if item.id not in self.done]

    def to_markdown(self) -> str:
        """Return the list as Markdown, with a box for each item."""
        blocks = []
        for step in self.steps:
            lines = [f"### {step.title}", ""]
            for item in step.items:
                box = "x" if item.id in self.done else " "
                lines.append(f"- [{box}] `{item.id}` {item.ask} Done: {item.done}.")
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks) + "\n"

    def __repr__(self) -> str:
        lines = []
        for step in self.steps:
            done = len(step.items) - len(self.left(step.title))
            lines.append(f"{step.title}: {done} of {len(step.items)}")
            for item in step.items:
                lines.append(f"  [{'x' if item.id in self.done else ' '}] {item.id}: {item.ask}")
        return "\n".join(lines)


def open_checklist(path: Path = FILE, done: Iterable[str] = ()) -> Checklist:
    """Return the checklist of ``checklist.toml``, with some items done.

    Raises ValueError if two items have the same id, or if an id of ``done`` does not exist.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        steps = tuple(
            Step(step["title"], tuple(Item(**item) for item in step["items"]))
            for step in content["step"]
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path.name}: a step needs title and items (id, ask, done): {error}"
        ) from (error)
    ids = [item.id for step in steps for item in step.items]
    if twice := {name for name in ids if ids.count(name) > 1}:
        raise ValueError(f"{path.name}: two items have the id {', '.join(sorted(twice))}")
    return Checklist(steps).tick(*done)
