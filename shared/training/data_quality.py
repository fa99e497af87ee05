"""How good is data? Judged by the output of the model that was trained on it.

Two questions of everybody who has to gather examples: what does curation buy, and can a language
model write the examples that are missing?
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from shared.data.curation import assemble, curate
from shared.data.duplicates import Sketches, clusters
from shared.data.schema import ITEM, RECORD
from shared.frontier.connection import Connection
from shared.frontier.messages import Request, Turn
from shared.frontier_uses import DATA_ONLY, FAILURES, ask_fields
from shared.prompts import answer, parse_price, quoted
from shared.training import studies
from shared.training.fine_tuning import Plan

NAME = "data_quality"
"""Under which the study is recorded, see ``studies.recorded``."""

GOLD, WANTED, ASKED = 10, 200, 340
"""Examples checked by hand; what they are grown to; new ones asked for, since some are dropped."""
SIZES, MOST_EPOCHS = (GOLD, 50, WANTED, 1_000, studies.SIZE), 20
SHOWN, REMINDED, LONGEST = 600, 300, 800
"""Characters of an example, and of the one that is to be varied; tokens of an answer."""
SYSTEM = f"You write listings of products for a shop's test data. {DATA_ONLY}"
TASK = (
    "Above are products and their prices. Write a new one that such a shop could sell, like the "
    "one below, but {twist}; none of those above in other words. Give its title, category, brand "
    "(empty if it has none), a description of two or three plain sentences that names no price, "
    "its details as 'name: value' pairs with '; ' between them, and its price, as in $34.50."
)
TWISTS = ("another size", "cheaper", "dearer", "another thing of its category", "another brand")
FIELDS = ("title", "category", "brand", "description", "details", "price")
SCHEMA = {
    "title": "new_product", "type": "object", "required": list(FIELDS),
    "properties": {name: {"type": "string"} for name in FIELDS}, "additionalProperties": False,
}  # fmt: skip


def uncurated(items: pa.Table, records: pa.Table) -> pa.Table:
    """Return items (ITEM schema) with title and text as the shop lists them; all else stays.

    ``records``: the raw records that the items were curated from (RECORD schema). A text is title,
    features, description and details, one after the other: HTML, boilerplate and sums of money
    stand as they came. Raises ValueError if an item is not among the records.
    """
    records = records.filter(pc.is_in(records["parent_asin"], items["id"].combine_chunks()))
    # An id may be listed twice: the record that was kept is the one that gives the item's text.
    place = {key: at for at, key in enumerate(_keys(assemble(records)))}
    rows = [place.get(key) for key in _keys(items)]
    if missing := rows.count(None):
        raise ValueError(f"{missing:,} of {len(items):,} items are not made of these records")
    found = records.take(rows)
    texts = [_listed(record) for record in found.to_pylist()]
    raw = {"title": pc.fill_null(found["title"], ""), "text": pa.array(texts, pa.string())}
    return pa.table({name: raw.get(name, items[name]) for name in ITEM.names}, schema=ITEM)


def _keys(items: pa.Table) -> list[tuple[str, str]]:
    return list(zip(items["id"].to_pylist(), items["text"].to_pylist(), strict=True))


def _listed(record: dict[str, Any]) -> str:
    parts = [record["title"], *(record["features"] or ()), *(record["description"] or ())]
    return "\n".join(part for part in (*parts, record["details"]) if part)


@dataclass(frozen=True)
class Grown:
    """New items that a model wrote (ITEM schema), of ``asked``; ``dropped``: reason -> how many."""

    items: pa.Table
    asked: int
    dropped: Counter[str]

    def __str__(self) -> str:
        lost = ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common())
        return f"{len(self.items):,} of {self.asked:,} are new items; dropped: {lost or 'none'}"


def requests(gold: pa.Table, model: str, count: int) -> list[Request]:
    """Return requests for ``count`` new products like the gold items, each after another one."""
    pairs = list(zip(gold["text"].to_pylist(), gold["price"].to_pylist(), strict=True))
    shown = [f"{quoted(text[:SHOWN])}\n<price>{answer(price)}</price>" for text, price in pairs]
    found = []
    for number in range(count):
        again, at = divmod(number, len(pairs))
        task = TASK.format(twist=TWISTS[again % len(TWISTS)])
        turn = Turn("user", "\n\n".join([*shown, task, quoted(pairs[at][0][:REMINDED])]))
        found.append(Request(model, (turn,), SYSTEM, SCHEMA, max_tokens=LONGEST, sample=again))
    return found


def expand(
    gold: pa.Table, connection: Connection, count: int, apart_from: pa.Table, *,
    progress: bool = True,
) -> Grown:  # fmt: skip
    """Ask a model for ``count`` new products like the gold items, with prices; return the usable.

    What it wrote goes through the curation of all records. Near-duplicates of a gold item, of each
    other and of an item of ``apart_from`` (ITEM schema; the items to evaluate on) are dropped.
    """

    def one(request: Request) -> dict[str, Any] | str:
        try:
            return _record(ask_fields(connection, request))
        except FAILURES as error:  # an answer without a price is among them
            return type(error).__name__

    asked = requests(gold, connection.card.name, count)
    answers = connection.map(one, asked, desc="new products", progress=progress)
    dropped = Counter(f"failed ({found})" for found in answers if isinstance(found, str))
    records = [found for found in answers if not isinstance(found, str)]
    records = [found | {"parent_asin": f"grown-{n}"} for n, found in enumerate(records)]
    items, report = curate(pa.Table.from_pylist(records, RECORD))
    everything = pa.concat_tables([apart_from, gold, items])
    first = clusters(Sketches.of(*(everything[name].to_pylist() for name in ("title", "text"))))
    new = (first == np.arange(len(first)))[len(first) - len(items) :]
    dropped += report.dropped + Counter({"near-duplicate": int((~new).sum())})
    return Grown(items.filter(pa.array(new)), count, dropped)


def _record(fields: dict[str, str]) -> dict[str, Any]:
    """Return what a model wrote as a record of a shop. Raises NotAPrice."""
    pairs = (part.partition(":") for part in fields["details"].split(";"))
    details = {name.strip(): value.strip() for name, _, value in pairs if value.strip()}
    if brand := fields["brand"].strip():
        details = {"Brand": brand} | details
    price = f"{parse_price(fields['price']):.2f}"
    found = {"title": fields["title"], "main_category": fields["category"], "price": price}
    return found | {"description": [fields["description"]], "details": json.dumps(details)}


def plan_of(count: int, seed: int, **changes: Any) -> Plan:
    """Return how so many examples are learnt: in the steps that ``studies.SIZE`` items take once.

    None is seen more than ``MOST_EPOCHS`` times. Fewer steps would measure the steps.
    """
    epochs = min(studies.SIZE / count, MOST_EPOCHS)
    return Plan(limit=count, epochs=epochs, evaluations=4, seed=seed, **changes)


def gold_items(train: pa.Table, seed: int) -> pa.Table:
    """Return ten items, one from each tenth of the prices: so would anybody who picks by hand."""
    tenths = np.array_split(np.argsort(train["price"].to_numpy(), kind="stable"), GOLD)
    draw = np.random.default_rng(seed)
    return train.take([int(draw.choice(tenth)) for tenth in tenths])


def study(
    splits: dict[str, pa.Table], records: pa.Table, connection: Connection, folder: Path, *,
    seeds: Iterable[int] = studies.SEEDS, progress: bool = True,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train on few and many real examples, on 10 grown to 200, on curated and on raw texts.

    ``splits``: name -> items. Rows as in ``studies.run``; what is finished in ``folder`` is not
    redone. A row of "curation" has on which texts its checkpoint was chosen and judged: ``judged``.
    """
    train, validation = splits["train"], splits["validation"]
    evaluated = pa.concat_tables([validation, splits["test"]])
    pairs = {"curated": (train, validation)}  # items to learn from, and to measure on
    pairs["uncurated"] = uncurated(train, records), uncurated(validation, records)
    rows = []
    for seed in seeds:  # outermost, so that a study that was cut off has all settings
        gold = gold_items(train, seed)
        grown = expand(gold, connection, ASKED, evaluated, progress=progress)
        taught = pa.concat_tables([gold, grown.items.slice(0, WANTED - GOLD)])
        facts = {
            "written_by": connection.label or connection.card.name,
            "asked": grown.asked, "usable": len(grown.items), "dropped": dict(grown.dropped),
        }  # fmt: skip
        name, plan = f"{GOLD} grown to {WANTED}", plan_of(len(taught), seed)
        work = [("expanded", f"{GOLD} gold", plan_of(GOLD, seed), gold, validation, {})]
        work += [("expanded", name, plan, taught, validation, facts)]
        work += [("repeated", f"{n:,}", plan_of(n, seed), train, validation, {}) for n in SIZES]
        work += [
            ("curation", name, plan_of(studies.SIZE, seed), taught, measured, {"judged": judged})
            for name, (taught, _) in pairs.items()
            for judged, (_, measured) in pairs.items()
        ]
        for group, setting, plan, taught, measured, more in tqdm(work, disable=not progress):
            trial = studies.Trial(group, setting, plan)
            row = studies.run([trial], taught, measured, folder, progress=False)[0]
            rows.append(row | more)
    return rows
