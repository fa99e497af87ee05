"""Labels are dear: ten checked examples a category, the same grown by a language model, or all.

In one report, ten examples that a model expanded did about as well as a fully labelled set. Here
it is measured: the test items are real ones, and nothing was grown from them or looks like them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.compression.classifying import (
    TEACHER,
    categories_of,
    examples,
    new_classifier,
    teach_classifier,
)
from shared.compression.encoder import Recipe
from shared.data.schema import ITEM
from shared.evaluation.bootstrap import mean_intervals
from shared.frontier.connection import Connection
from shared.training.data_quality import Grown, expand

EACH, ASKED = 10, 40
"""Gold examples of a category, and new ones asked for; some of these are dropped."""

MOST_EPOCHS = 40


@dataclass(frozen=True)
class Row:
    """What a set of examples is worth: ``accuracy`` on test, with its 95 % interval.

    ``written_by``: the label of the model that wrote examples, or its name; empty where none did.
    """

    setting: str
    seed: int
    examples: int
    accuracy: float
    low: float
    high: float
    written_by: str = ""


def gold_of(
    train: pa.Table, categories: Sequence[str], each: int = EACH, seed: int = 42
) -> pa.Table:
    """Return ``each`` random items of each category. ValueError if one has fewer."""
    draw, parts = np.random.default_rng(seed), []
    for name in categories:
        some = train.filter(pc.equal(train["category"], name))
        if len(some) < each:
            raise ValueError(f"{name}: {len(some)} items, and {each} are needed")
        parts.append(some.take(draw.permutation(len(some))[:each]))
    return pa.concat_tables(parts)


def grow(
    gold: pa.Table, connection: Connection, asked: int, apart_from: pa.Table, *,
    progress: bool = True,
) -> Grown:  # fmt: skip
    """Ask a model for ``asked`` new products like the gold items of each category.

    They have the category they were asked for; one that the model itself put into another of these
    is dropped, and counted. See ``data_quality.expand`` for all else that is.
    """
    names = sorted(set(gold["category"].to_pylist()))
    tables, dropped = [], Counter()
    place = ITEM.get_field_index("category")
    for name in names:
        known = gold.filter(pc.equal(gold["category"], name))
        found = expand(known, connection, asked, apart_from, progress=progress)
        said = found.items["category"].to_pylist()
        kept = found.items.filter(pa.array([one == name or one not in names for one in said]))
        dropped += found.dropped + Counter({"of another category": len(said) - len(kept)})
        column = pa.array([name] * len(kept), pa.string())
        tables.append(kept.set_column(place, ITEM.field(place), column))
    return Grown(pa.concat_tables(tables), asked * len(names), +dropped)


def study(
    train: pa.Table, test: pa.Table, connection: Connection, *, seeds: Iterable[int] = (1, 2, 3),
    recipe: Recipe = TEACHER, each: int = EACH, asked: int = ASKED, progress: bool = True,
) -> list[Row]:  # fmt: skip
    """Teach the same encoder with gold items, with grown ones too, and with all; test each.

    All are taught for about as many steps, as far as ``MOST_EPOCHS`` permit: fewer would measure
    the steps.
    """
    categories, rows = categories_of(train, each), []
    for seed in seeds:
        gold = gold_of(train, categories, each, seed)
        grown = grow(gold, connection, asked, test, progress=progress)
        author = connection.label or connection.card.name
        sets = [(f"{each} gold each", gold, ""), ("all labels", train, "")]
        sets.insert(1, ("grown", pa.concat_tables([gold, grown.items]), author))
        for setting, taught, written_by in sets:
            texts, labels = examples(taught, categories)
            epochs = round(recipe.epochs * len(train) / len(texts))
            few = replace(recipe, seed=seed, epochs=min(max(epochs, 1), MOST_EPOCHS))
            classifier = new_classifier(categories, few)
            teach_classifier(classifier, texts, labels, progress=progress)
            asked_texts, truth = examples(test, categories)
            hits = classifier.logits(asked_texts).argmax(axis=1) == truth
            rows.append(Row(setting, seed, len(texts), *share_of(hits), written_by))
    return rows


def share_of(hits: np.ndarray) -> tuple[float, float, float]:
    """Return the share of hits (n,), and its 95 % interval."""
    value, ends = mean_intervals(hits.astype(float)[:, None], lambda means: means)
    return float(value[0]), float(ends[0][0]), float(ends[0][1])
