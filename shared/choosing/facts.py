"""The facts of ``facts.toml``: what is true of a technique whatever it scores, with reasons."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("facts.toml")

SETUPS = ("hours", "days", "weeks")
WHO = ("vendor", "own")


@dataclass(frozen=True)
class Fact:
    """A value, and in a sentence why."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Technique:
    """A way to price, and what is known about it; ``facts.toml`` says what each fact means."""

    id: str
    title: str
    pricers: tuple[str, ...]
    setup: Fact
    examples: Fact
    freshness: Fact
    privacy: Fact
    drift: Fact
    gpu: Fact
    sources: Fact

    @property
    def hosted(self) -> bool:
        """Whether a vendor reads the descriptions."""
        return self.privacy.value == "vendor"

    def has(self, pricer: str) -> bool:
        """Whether a stored result of this name is of this technique."""
        return any(fnmatchcase(pricer.lower(), pattern.lower()) for pattern in self.pricers)


_FACTS = tuple(f.name for f in fields(Technique) if f.name not in ("id", "title", "pricers"))
_CHECKS = {
    "setup": (lambda v: v in SETUPS, f"one of {', '.join(SETUPS)}"),
    "examples": (lambda v: type(v) is int and v >= 0, "a whole number of 0 or more"),
    "freshness": (lambda v: type(v) in (int, float) and v > 0, "days above 0, or inf"),
    "privacy": (lambda v: v in WHO, f"one of {', '.join(WHO)}"),
    "drift": (lambda v: v in WHO, f"one of {', '.join(WHO)}"),
    "gpu": (lambda v: type(v) is bool, "true or false"),
    "sources": (lambda v: type(v) is bool, "true or false"),
}


def techniques(path: Path = FILE) -> list[Technique]:
    """Return all techniques, in the order of the file.

    Raises ValueError naming technique and field if a fact is missing, unknown or impossible.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    found = [_technique(row, path.name) for row in content.get("technique", [])]
    if not found:
        raise ValueError(f"{path.name}: there is no [[technique]] in it")
    names = [technique.id for technique in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path.name}: two techniques have the id {', '.join(sorted(twice))}")
    return found


def as_of(path: Path = FILE) -> date:
    """Return the day on which the facts were last gone through."""
    return tomllib.loads(path.read_text(encoding="utf-8"))["as_of"]


def technique_of(pricer: str, known: Sequence[Technique]) -> Technique | None:
    """Return the first technique that a stored result of this name is of, or None."""
    return next((technique for technique in known if technique.has(pricer)), None)


def _technique(row: dict[str, Any], file: str) -> Technique:
    where = f"{file}, technique {row.get('id', '(without an id)')!r}"
    if absent := {"id", "title", "pricers", *_FACTS} - set(row):
        raise ValueError(f"{where}: lacks {', '.join(sorted(absent))}")
    if unknown := set(row) - {"id", "title", "pricers", *_FACTS}:
        raise ValueError(f"{where}: there is no fact {', '.join(sorted(unknown))}")
    facts = {name: _fact(row[name], name, where) for name in _FACTS}
    return Technique(row["id"], row["title"], tuple(row["pricers"]), **facts)


def _fact(content: Any, name: str, where: str) -> Fact:
    if not isinstance(content, dict) or set(content) != {"value", "reason"}:
        raise ValueError(f"{where}: {name} needs a value and a reason, and has {content!r}")
    right, meant = _CHECKS[name]
    if not right(content["value"]):
        raise ValueError(f"{where}: {name} is {content['value']!r}, and not {meant}")
    if not str(content["reason"]).strip():
        raise ValueError(f"{where}: {name} has an empty reason")
    return Fact(content["value"], content["reason"])
