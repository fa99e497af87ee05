"""The cards of ``models.toml``: what a model costs, what it can hold, and until when it lives.

The file is dated. ``warnings`` says when it is old, and which models are about to go.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("models.toml")
SOON = 90
"""Days: an older file is old, and a model with fewer left is about to go."""
WIDTH = 100
"""Most characters of a line of the table."""

_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
_TITLES = ("model", "$ in/out", "context", "licence", "t/s", "cut-off", "end of life")
_ALIGN = "<>><><<"
_LEGEND = "$: US dollars per million tokens. t/s: output tokens per second. ?: not known."


@dataclass(frozen=True)
class ModelCard:
    """One model. Prices are US dollars per million tokens; None is a figure that is not known."""

    name: str
    vendor: str
    protocol: str  # responses, messages or chat
    base_url: str  # "" is the vendor's own address
    key: str  # environment variable; "" is a local server that asks for none
    licence: str
    batch_discount: float
    knowledge_cutoff: str  # YYYY-MM, or "" if not known
    speed: float  # output tokens per second as reported, 0 if not known
    fine_tuning: bool
    source: str
    context: int | None = None
    max_output: int | None = None
    input: float | None = None
    cached_input: float | None = None
    output: float | None = None
    fine_tuned: tuple[float, float, float] | None = None  # the three prices of a fine-tune of it
    shutdown_date: date | None = None
    note: str = ""


def as_of() -> date:
    """Return the day on which the figures were gathered."""
    return _read()["as_of"]


def all_models() -> list[ModelCard]:
    """Return all cards, in the order of the file."""
    return [
        ModelCard(**{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()})
        for row in _read()["model"]
    ]


def find_model(name: str) -> ModelCard:
    """Return the card of a model; ValueError names the close ones if there is none.

    A dated snapshot (``gpt-4o-mini-2024-07-18``) has the card of its undated name. A fine-tune
    (``ft:gpt-4o-mini-2024-07-18:shop::abc``) has the card of its base, with its own name and the
    prices of fine-tunes, which are higher.
    """
    known = {card.name: card for card in all_models()}
    tuned = name.startswith("ft:")
    wanted = name.split(":")[1] if tuned else name
    card = known.get(wanted) or known.get(_SNAPSHOT.sub("", wanted))
    if card is None:
        close = get_close_matches(wanted, known, n=3, cutoff=0.5)
        hint = f"Close to it: {', '.join(close)}" if close else f"There are: {', '.join(known)}"
        raise ValueError(f"no model {name!r} in {FILE.name}. {hint}")
    if not tuned:
        return card
    free = (0, 0, 0) if card.input == card.output == 0 else None  # on hardware of one's own
    price, cached, output = card.fine_tuned or free or (None, None, None)
    return replace(card, name=name, input=price, cached_input=cached, output=output)


def dollars(card: ModelCard, usage: Any, batch: bool = False) -> float:
    """Return what a use of the model costs, in US dollars; ValueError if its price is not known.

    ``usage`` has the token counts ``input``, ``cached`` and ``output``. Cached tokens are part of
    the input, reasoning tokens part of the output. ``batch`` is the price of the batch API. The
    prices are those of short prompts: the notes of the cards say where long ones cost more.
    """
    if not 0 <= usage.cached <= usage.input or usage.output < 0:
        raise ValueError(f"not a use of a model: {usage}. Cached tokens are part of the input")
    if None in (card.input, card.output) or (usage.cached and card.cached_input is None):
        raise ValueError(f"the price of {card.name} is not known: add it to {FILE.name}")
    cost = (usage.input - usage.cached) * card.input + usage.output * card.output
    cost += usage.cached * (card.cached_input or 0)
    return cost / 1e6 * (1 - card.batch_discount if batch else 1)


def warnings(today: date, names: Iterable[str] | None = None) -> list[str]:
    """Return warnings: the file is old; a model (of ``names``, or of all) is gone or soon is."""
    found = []
    age = (today - as_of()).days
    if age > SOON:
        found.append(f"{FILE.name} is {age} days old ({as_of()}): check its prices and dates.")
    for card in _chosen(names):
        left = _days_left(card, today)
        if left is not None and left <= SOON:
            when = f"is shut down on {card.shutdown_date} (days left: {left})"
            when = when if left >= 0 else f"is gone since {card.shutdown_date}"
            found.append(f"{card.name} {when}: move to another model. {card.note}".rstrip())
    return found


def table(names: Iterable[str] | None = None, today: date | None = None) -> str:
    """Return the models side by side, at most ``WIDTH`` characters wide; "?" is not known.

    With ``today``, models that are shut down within ``SOON`` days have a "!", others say "gone".
    """
    rows = [_TITLES, *(_row(card, today) for card in _chosen(names))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))
    lines = ["  ".join(map(_cell, row, widths, _ALIGN)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*lines, f"{_LEGEND} As of {as_of()}."])


def _read() -> dict:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def _chosen(names: Iterable[str] | None) -> list[ModelCard]:
    return all_models() if names is None else [find_model(name) for name in names]


def _days_left(card: ModelCard, today: date) -> int | None:
    return (card.shutdown_date - today).days if card.shutdown_date else None


def _row(card: ModelCard, today: date | None) -> tuple[str, ...]:
    price = "?" if None in (card.input, card.output) else f"{card.input:g}/{card.output:g}"
    speed = f"{card.speed:.0f}" if card.speed else "?"
    end = str(card.shutdown_date or "-")
    if today and (left := _days_left(card, today)) is not None and left <= SOON:
        end = f"{end} !" if left >= 0 else "gone"
    context = "?" if card.context is None else f"{card.context // 1000}k"
    if card.context and card.context >= 1_000_000:
        context = f"{card.context / 1e6:.3g}M"
    return card.name, price, context, card.licence, speed, card.knowledge_cutoff or "?", end


def _cell(text: str, width: int, align: str) -> str:
    return f"{text if len(text) <= width else text[: width - 1] + '…':{align}{width}}"
