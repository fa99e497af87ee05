"""Labels are dear: ten checked examples a category, the same grown by a language model, or all.

In one report, ten examples that a model expanded did about as well as a fully labelled set. Here
it is measured: the test items are real ones, and nothing was grown from them or looks like them.
What is wrong with grown examples is counted, as far as it can be seen.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.data.schema import ITEM
from shared.evaluation.bootstrap import mean_intervals
from shared.frontier.connection import Connection
from shared.training.data_quality import Grown, expand
from shared.understanding.classifying import Classifier, teach_classifier
from shared.understanding.labels import TextClassifier, categories_of, examples, of_these
from shared.understanding.words import BagOfWords

EACH, ASKED = 10, 40
"""Gold examples of a category, and new ones asked for; some of these are dropped."""

MOST_EPOCHS = 20

Learner = Callable[[Sequence[str], np.ndarray, tuple[str, ...], int], TextClassifier]
"""From texts, labels, categories and a seed to a classifier."""


@dataclass(frozen=True)
class Row:
    """What a set of examples is worth to a learner: ``accuracy`` on test, and its 95 % interval.

    ``written_by``: the label of the model that wrote examples, or its name; empty where none did.
    Then ``asked`` new ones were asked for, ``usable`` were learnt from, ``dropped`` says why others
    were not. ``doubtful`` of the usable have another category for a bag of words that learnt from
    all labels: either the label is wrong, or they are like nothing that this shop sells.
    """

    learner: str
    setting: str
    seed: int
    examples: int
    accuracy: float
    low: float
    high: float
    written_by: str = ""
    asked: int = 0
    usable: int = 0
    doubtful: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


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


def words_learner(
    texts: Sequence[str], labels: np.ndarray, categories: tuple[str, ...], seed: int
) -> TextClassifier:
    """Return a logistic regression on words; it has nothing random."""
    return BagOfWords.fit(texts, labels, categories)


def encoder_learner(start: Classifier, steps: int) -> Learner:
    """Return a learner that goes on from ``start`` for about so many steps.

    No example is seen more than ``MOST_EPOCHS`` times. Fewer steps would measure the steps.
    """

    def learn(
        texts: Sequence[str], labels: np.ndarray, categories: tuple[str, ...], seed: int
    ) -> TextClassifier:
        if start.categories != categories:
            raise ValueError(f"the encoder tells other categories apart: {start.categories}")
        batches = max(len(texts) // start.recipe.batch, 1)
        epochs = min(max(round(steps / batches), 1), MOST_EPOCHS)
        found = copy.deepcopy(start)
        found.recipe = replace(start.recipe, seed=seed, epochs=epochs)
        return teach_classifier(found, texts, labels, progress=False)

    return learn


def study(
    train: pa.Table, test: pa.Table, connection: Connection, learners: Mapping[str, Learner], *,
    seeds: Iterable[int] = (1, 2, 3), each: int = EACH, asked: int = ASKED, progress: bool = True,
) -> list[Row]:  # fmt: skip
    """Teach each learner with gold items, with grown ones too, and with all labels; test each.

    Of each seed are the gold items, what was grown from them, and the order they are learnt in.
    """
    categories = categories_of(train, each)
    judge = BagOfWords.fit(*examples(train, categories), categories)
    rows = []
    for seed in seeds:
        gold = gold_of(train, categories, each, seed)
        grown = grow(gold, connection, asked, test, progress=progress)
        facts = {
            "written_by": connection.label or connection.card.name, "asked": grown.asked,
            "usable": len(grown.items), "dropped": dict(grown.dropped),
            "doubtful": int((~judge.hits(grown.items)).sum()) if len(grown.items) else 0,
        }  # fmt: skip
        sets = {
            f"{each} gold each": (gold, {}),
            "grown": (pa.concat_tables([gold, grown.items]), facts),
            "all labels": (of_these(train, categories), {}),
        }
        for setting, (taught, more) in sets.items():
            texts, labels = examples(taught, categories)
            for name, learn in learners.items():
                hits = learn(texts, labels, categories, seed).hits(test)
                rows.append(Row(name, setting, seed, len(texts), *share_of(hits), **more))
    return rows


def share_of(hits: np.ndarray) -> tuple[float, float, float]:
    """Return the share of hits (n,), and its 95 % interval."""
    value, ends = mean_intervals(hits.astype(float)[:, None], lambda means: means)
    return float(value[0]), float(ends[0][0]), float(ends[0][1])
