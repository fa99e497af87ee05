"""A model tidies up product texts: the same facts in five fields, before a pricer reads them.

A model that has seen the product elsewhere may write down what it costs. So every sum of money in
what it wrote is masked, as curation masks those of the shop; and because a summary forgets, what
became of the numbers with units is counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa

from shared import prompts
from shared.data import Product
from shared.data.text import HINTED_PRICES, MASK, PRICES
from shared.frontier.connection import Connection
from shared.frontier.messages import Request, Turn
from shared.frontier_uses import DATA_ONLY, FAILURES, NoAnswer, ask_fields
from shared.pricers.attributes import ATTRIBUTES, QUANTITIES, attributes
from shared.prompting.techniques import MOST_CHARS

SYSTEM = f"You turn the texts of shops into clean product data. {DATA_ONLY}"
TASK = (
    "Rewrite this product's text. Give its title, its category, its brand (empty if none is "
    "named), a description of two or three plain sentences, and its details as 'name: value' "
    "pairs with '; ' between them. Keep every number with its unit: weight, size, power, "
    "capacity, pieces in the pack. Add no fact that is not in the text, and name no price."
)
FIELDS = ("title", "category", "brand", "description", "details")
SCHEMA = {
    "title": "listing",
    "type": "object",
    "properties": {name: {"type": "string"} for name in FIELDS},
    "required": list(FIELDS),
    "additionalProperties": False,
}
LONGEST = 800  # tokens of an answer: four times what most need

_NUMBER = r"\d(?:[\d,]*\d)?(?:\.\d+)?"
_BESIDE_MONEY = re.compile(
    rf"\b(?:cost|pric|sell|sold|retail|worth|valu|pay|paid)\w*\W{{1,3}}(?:[a-z]+\W+){{0,4}}"
    rf"(?P<told>{_NUMBER})|(?<![\d.,])(?P<cents>\d(?:[\d,]*\d)?\.\d\d)(?![\d.]| ?[a-z\"″%]| x )",
    re.IGNORECASE,
)
_WORDS = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|"
    rf"eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|and|{_NUMBER}"
)
_IN_WORDS = re.compile(rf"\b(?:(?:{_WORDS})[ -]){{1,8}}(?:US )?(?:dollars?|bucks)\b", re.IGNORECASE)
_END_OF_RANGE = re.compile(rf"{re.escape(MASK)}\s*(?:-|–|to|and|or)\s*{_NUMBER}(?! ?[a-z])", re.I)


@dataclass(frozen=True)
class Lost:
    """What became of the numbers with units: ``items`` is how many rewritten items named any.

    ``share``: of these, those of which a quantity is not mentioned any more; ``altered``: those
    of which a quantity's largest number is another now. ``by_quantity``: name -> (had, gone).
    """

    items: int
    share: float
    altered: float
    by_quantity: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        most = sorted(self.by_quantity.items(), key=lambda pair: -pair[1][1])[:4]
        parts = ", ".join(f"{name} {gone} of {had}" for name, (had, gone) in most if gone)
        return (
            f"of {self.items:,} items with quantities {self.share:.0%} lost one"
            f"{f' ({parts})' if parts else ''}, {self.altered:.0%} have another number"
        )


@dataclass(frozen=True)
class Rewritten:
    """Items in their order, ``text`` rewritten. ``failed``: id -> why its text is the old one.

    ``changed`` is the share of items whose text is new, from 0 to 1.
    """

    items: pa.Table
    changed: float
    lost: Lost
    failed: dict[str, str] = field(default_factory=dict)


class Rewriter:
    """Rewrites the texts of items through a connection; it is shown nothing but the text."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def requests(self, items: pa.Table) -> list[Request]:
        """Return the first request for each item; bought in a batch, ``rewrite`` finds them."""
        return [self._request(text) for text in _texts(items) if text.strip()]

    def rewrite(self, items: pa.Table, progress: bool = True) -> Rewritten:
        """Rewrite the ``text`` of items (columns ``id`` and ``text``); all else stays as it is.

        Equal texts are asked about once. Where the model failed the old text stays.
        """
        before = _texts(items)
        unlike = list(dict.fromkeys(before))
        answers = self.connection.map(self._one, unlike, desc="rewrite", progress=progress)
        found = dict(zip(unlike, answers, strict=True))
        after = [found[text][0] or text for text in before]
        named = zip(items["id"].to_pylist(), before, strict=True)
        failed = {name: found[text][1] for name, text in named if found[text][0] is None}
        pairs = [(old, new) for old, new in zip(before, after, strict=True) if found[old][0]]
        changed = sum(old != new for old, new in pairs) / max(len(before), 1)
        at = items.schema.get_field_index("text")
        items = items.set_column(at, items.schema.field(at), pa.array(after, pa.string()))
        return Rewritten(items, changed, lost(pairs), failed)

    def _request(self, text: str) -> Request:
        turn = Turn("user", f"{TASK}\n\n{prompts.quoted(text[:MOST_CHARS])}")
        return Request(self.connection.card.name, (turn,), SYSTEM, SCHEMA, max_tokens=LONGEST)

    def _one(self, text: str) -> tuple[str | None, str]:
        """Return the new text, or None and the reason."""
        if not text.strip():
            return None, "there is no text to rewrite"  # a model would invent a product
        try:
            return listing(ask_fields(self.connection, self._request(text)), text), ""
        except FAILURES as error:
            return None, str(error)


def listing(fields: dict[str, str], original: str) -> str:
    """Return the fields as lines ``Title: …``, empty ones left out, sums of money masked.

    Raises NoAnswer if there is neither a title nor a description.
    """
    settled = {name: " ".join(fields[name].split()) for name in FIELDS}
    settled = {name: text.encode("utf-8", "replace").decode() for name, text in settled.items()}
    if not settled["title"] and not settled["description"]:
        raise NoAnswer("the rewritten text is empty")
    lines = [f"{name.capitalize()}: {settled[name]}" for name in FIELDS if settled[name]]
    return masked("\n".join(lines), original)


def masked(text: str, original: str) -> str:
    """Mask every sum of money in a text that a model made of ``original``.

    By the rules of curation, and beyond them: sums in words, and numbers that the original does
    not have where they look like money (cents, "sells for about 30").
    """
    series = pl.Series([text], dtype=pl.String).str.replace_all(PRICES, MASK)
    text = series.str.replace_all(HINTED_PRICES, f"${{1}} {MASK}${{2}}")[0]
    known = set(re.findall(_NUMBER, original))

    def hide(match: re.Match) -> str:
        number = match["told"] or match["cents"]
        return match[0] if number in known else match[0].removesuffix(number) + MASK

    text = _BESIDE_MONEY.sub(hide, _IN_WORDS.sub(MASK, text))
    return _END_OF_RANGE.sub(MASK, text)


def lost(pairs: Sequence[tuple[str, str]]) -> Lost:
    """Compare the quantities of texts (before, after), as ``shared.pricers.attributes`` reads them.

    A pricer reads the largest number of a quantity; that is what is looked for here, too.
    """
    before, after = (_quantities([pair[i] for pair in pairs]) for i in (0, 1))
    had = np.isfinite(before)
    gone = had & np.isnan(after)
    altered = had & ~gone & ~np.isclose(before, after, equal_nan=True)
    some = max(int(had.any(axis=1).sum()), 1)
    counts = zip(had.sum(axis=0).tolist(), gone.sum(axis=0).tolist(), strict=True)
    return Lost(
        int(had.any(axis=1).sum()),
        float(gone.any(axis=1).sum() / some),
        float(altered.any(axis=1).sum() / some),
        {name: pair for name, pair in zip(_NAMES, counts, strict=True) if pair[0]},
    )


_NAMES = ("weight", "size", *(name for name in QUANTITIES if name != "year"))


def _quantities(texts: Sequence[str]) -> np.ndarray:
    """Return numbers (n, names) on the scale of ``attributes``, NaN where none is mentioned."""
    table = attributes([Product("", "", text, "", "{}") for text in texts])
    column = {name: table[:, i] for i, name in enumerate(ATTRIBUTES)}
    weight = np.where(column["weight known"] == 1, column["log pounds"], np.nan)
    size = np.where(column["size known"] == 1, column["log cubic inches"], np.nan)
    return np.column_stack([weight, size, *(column[f"log {name}"] for name in _NAMES[2:])])


def _texts(items: pa.Table) -> list[str]:
    return [text or "" for text in items["text"].to_pylist()]
