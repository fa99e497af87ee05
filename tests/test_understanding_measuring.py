"""What a classifier takes and how often it is right, the chart, the study, and what is shipped."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shared.compression.exported import MANIFEST, MODEL, ExportError, size_of
from shared.compression.features import Reading
from shared.compression.measuring import Spent
from shared.compression.network import Plan
from shared.data import ITEM
from shared.frontier.connection import connect
from shared.pipeline import prepare as curated
from shared.understanding import (
    NARROW,
    SHIPPED,
    BagOfWords,
    Measured,
    accuracy_chart,
    categories_of,
    examples,
    export_classifier,
    measure_classifiers,
    new_classifier,
    new_hashed,
    open_classifier,
    recorded,
    table_of,
)
from shared.understanding.charts import finding
from shared.understanding.exported import EXPECTED, answering
from shared.understanding.exporting import INT8_TOLERANCE
from shared.understanding.gold import (
    encoder_learner,
    gold_of,
    grow,
    share_of,
    study,
    words_learner,
)
from shared.understanding.measuring import as_json, mcnemar

RELEASED = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return curated("embedded", tmp_path_factory.mktemp("items"), size=3_000, progress=False)


@pytest.fixture(scope="module")
def categories(made):
    found = ("Automotive", "Musical Instruments")
    assert set(found) < set(categories_of(made.table("train")))
    return found


# Measured beside its original


def test_classifiers_are_measured_beside_their_original(made, categories, tmp_path):
    test = made.table("test")
    words = BagOfWords.fit(*examples(made.table("train"), categories), categories)
    untaught = new_hashed(categories, Plan(Reading(buckets=2**10), width=2, hidden=4))
    folders = [words.save(tmp_path / "a"), export_classifier(untaught, tmp_path / "b")]
    first, other = measure_classifiers(folders, test, single=20, progress=False)
    assert (first.name, other.name) == ("bag of words", "hashed n-grams, int8")
    assert (first.smaller, first.faster, first.difference, first.p) == (1.0, 1.0, 0.0, 1.0)
    assert first.accuracy == words.accuracy(test)
    # Untaught, it says the first category of everything.
    asked = pc.is_in(test["category"], pa.array(categories))
    share = np.mean([name == categories[0] for name in test.filter(asked)["category"].to_pylist()])
    assert other.accuracy == share
    assert other.difference == pytest.approx(other.accuracy - first.accuracy)
    assert other.difference_low < other.difference < other.difference_high < 0
    assert other.p < 0.001
    assert other.low < other.accuracy < other.high
    assert other.smaller == size_of(folders[0]) / size_of(folders[1]) > 1
    assert other.faster == other.spent.per_second / first.spent.per_second
    assert 0 < other.spent.p50_ms <= other.spent.p99_ms
    table = table_of([first, other]).splitlines()
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    (stored,) = json.loads(json.dumps(as_json([other])))
    assert Measured.of(stored).spent.bytes == other.spent.bytes
    assert Measured.of(stored).accuracy == pytest.approx(other.accuracy, rel=1e-5)


def test_what_is_timed_tells_categories(made, categories, tmp_path):
    folder = export_classifier(new_hashed(categories), tmp_path / "a")
    from shared.data import products

    answer = answering(folder)
    assert answer(products(made.table("test").slice(0, 3))) == [categories[0]] * 3


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 22 / 1024), (10, 0, 2 / 1024)]
)
def test_only_texts_that_one_alone_tells_count(gained, lost, p):
    both = np.ones(50, bool)
    one = np.concatenate([both, np.ones(gained, bool), np.zeros(lost, bool)])
    other = np.concatenate([both, np.zeros(gained, bool), np.ones(lost, bool)])
    assert mcnemar(one, other) == pytest.approx(p)


def test_answers_to_other_texts_are_not_compared():
    with pytest.raises(ValueError, match="3 and 4 answers"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


# The chart


def row(name: str, size: int, accuracy: float, p: float = 1.0) -> Measured:
    spent = Spent(size, 1.0, 100.0, 1.0, 2.0, 1_000.0)
    difference = accuracy - 0.95
    ends = accuracy - 0.02, accuracy + 0.02, difference, difference - 0.01, difference + 0.01
    return Measured(name, accuracy, *ends, p, 3_000_000 / size, 1_000_000 / size, spent)


ROWS = [
    row("encoder", 3_000_000, 0.95),
    row("encoder, int8", 800_000, 0.948),
    row("hashed student of encoder, int8", 140_000, 0.94, 0.3),
    row("smallest student of encoder, int8", 25_000, 0.90, 0.001),
    row("pruned encoder", 900_000, 0.93),
    row("bag of words", 5_000_000, 0.98, 0.001),
]


def test_the_chart_states_the_finding_and_every_number():
    chart = accuracy_chart(ROWS)
    assert chart.alt.startswith(
        "hashed student of encoder, int8: 21.4 times smaller, 7.14 times faster, not measurably "
        "worse (-1.0 points). Size and share of products misclassified: smallest student of "
        "encoder, int8 25 kB, 10.0% (8.0% to 12.0%); "
    )
    line = chart.alt.partition("Pareto line: ")[2]
    assert line.endswith("encoder, int8, encoder, bag of words.")
    assert "pruned" not in line
    svg = chart.svg(dark=None)
    for name in ("hashed student, int8", "bag of words", "100 kB", "10 %"):
        assert name in svg
    axes = chart.figure().axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_ylim()[0] == 0
    with pytest.raises(ValueError, match="at least one other"):
        accuracy_chart(ROWS[:1])


def test_the_finding_is_honest_about_better_and_worse():
    assert finding([ROWS[0], ROWS[3]]).endswith("measurably worse (-5.0 points)")
    assert finding([ROWS[0], ROWS[-1]]).endswith("measurably better (+3.0 points)")


# Few labels, grown labels, all labels


def test_gold_is_ten_of_each_category(made, categories):
    train = made.table("train")
    gold = gold_of(train, categories, 10, seed=1)
    assert gold["category"].value_counts().to_pylist() == [
        {"values": name, "counts": 10} for name in categories
    ]
    assert len(set(gold["id"].to_pylist())) == 20
    assert gold_of(train, categories, 10, seed=2) != gold
    with pytest.raises(ValueError, match=r"Automotive: .* are needed"):
        gold_of(train, categories, 5_000)


def test_grown_items_have_the_category_that_was_asked_for(made, categories):
    gold, test = gold_of(made.table("train"), categories, 5, seed=1), made.table("test")
    with connect("gpt-6-luna", stand_in=True) as connection:
        found = grow(gold, connection, 10, test, progress=False)
    assert found.items.schema == ITEM
    assert found.asked == 20 == len(found.items) + sum(found.dropped.values())
    assert set(found.items["category"].to_pylist()) == set(categories)
    known = {*gold["title"].to_pylist(), *test["title"].to_pylist()}
    assert not known & set(found.items["title"].to_pylist())


def test_the_study_tests_on_real_items_and_says_who_wrote(made, categories):
    items = made.table().filter(pc.is_in(made.table()["category"], pa.array(categories)))
    train, test = (items.filter(pc.equal(items["split"], name)) for name in ("train", "test"))
    start = new_classifier(categories, replace(NARROW, tokens=24))
    learners = {"words": words_learner, "encoder": encoder_learner(start, 60)}
    with connect("gpt-6-luna", stand_in=True) as connection:
        rows = study(train, test, connection, learners, seeds=(1,), each=5, asked=8,
                     progress=False)  # fmt: skip
    assert [(row.setting, row.learner) for row in rows] == [
        (setting, learner) for setting in ("5 gold each", "grown", "all labels")
        for learner in learners
    ]  # fmt: skip
    assert [row.written_by for row in rows[::2]] == ["", "stand-in", ""]
    few, grown, everything = rows[::2]
    assert few.examples == 10 < grown.examples <= 26 < everything.examples == len(train)
    assert grown.asked == 16 == grown.usable + sum(grown.dropped.values())
    assert grown.examples == 10 + grown.usable
    assert 0 <= grown.doubtful <= grown.usable
    assert all(row.low <= row.accuracy <= row.high for row in rows)
    assert min(row.accuracy for row in rows[-2:]) > 0.7
    assert start.accuracy(test) < 0.7, "the start itself is not to be taught"


def test_few_examples_are_not_seen_for_ever(made, categories):
    start = new_classifier(categories, replace(NARROW, tokens=8))
    texts, labels = examples(made.table("train").slice(0, 60), categories)
    found = encoder_learner(start, 5_000)(texts, labels, categories, 7)
    assert (found.recipe.epochs, found.recipe.seed) == (20, 7)
    with pytest.raises(ValueError, match="other categories apart"):
        encoder_learner(start, 5)(texts, labels, ("a", "b"), 7)


def test_a_share_has_an_interval():
    share, low, high = share_of(np.array([True] * 80 + [False] * 20))
    assert share == 0.8
    assert 0.68 < low < 0.76
    assert 0.84 < high < 0.9


# What is shipped


@pytest.fixture(scope="module")
def expected() -> dict:
    return json.loads((SHIPPED / EXPECTED).read_text(encoding="utf-8"))


def test_lessons_find_an_encoder_and_students(expected):
    assert sorted(expected["probabilities"]) == RELEASED
    assert {"encoder-int8", "hashed-int8", "smallest-int8"} <= set(RELEASED)
    assert size_of(SHIPPED) < 1.5e6


@pytest.mark.parametrize("name", RELEASED)
def test_what_is_shipped_says_what_its_original_said(name, expected):
    found = open_classifier(SHIPPED / name).probabilities(expected["texts"])
    wanted = np.array(expected["probabilities"][name])
    assert np.abs(found - wanted).max() < INT8_TOLERANCE
    assert np.abs(found - wanted).mean() < INT8_TOLERANCE / 10
    assert np.ptp(wanted, axis=0).min() > 0.3, "so even that anything would be near"


@pytest.mark.parametrize("name", RELEASED)
def test_a_shipped_file_that_was_changed_is_refused(name, tmp_path):
    for victim in sorted(path.name for path in (SHIPPED / name).iterdir()):
        if victim == MANIFEST:
            continue
        folder = tmp_path / victim
        folder.mkdir()
        for path in (SHIPPED / name).iterdir():
            content = bytearray(path.read_bytes())
            if path.name == victim:
                content[len(content) // 2] ^= 1
            (folder / path.name).write_bytes(bytes(content))
        with pytest.raises(ExportError, match="missing or changed since the export"):
            open_classifier(folder)


@pytest.mark.parametrize("name", RELEASED)
def test_a_shipped_model_is_data_and_nothing_else(name):
    """ONNX's own operations, no weights in other files, no file of another kind."""
    files = {path.name for path in (SHIPPED / name).iterdir()}
    assert files <= {MANIFEST, MODEL, "tokenizer.json"}
    manifest = json.loads((SHIPPED / name / MANIFEST).read_text(encoding="utf-8"))
    assert set(manifest["sha256"]) == files - {MANIFEST}
    model = onnx.load(SHIPPED / name / MODEL, load_external_data=False)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert all(one.data_location == onnx.TensorProto.DEFAULT for one in model.graph.initializer)


def test_the_recorded_run_is_whole():
    found = recorded()
    rows = [Measured.of(row) for row in found["rows"]]
    assert rows[0].name == "encoder"
    assert rows[-1].name == "bag of words"
    assert len({row.name for row in rows}) == len(rows)
    by_name = {row.name: row for row in rows}
    assert by_name["encoder, fp32"].accuracy == rows[0].accuracy
    for name in RELEASED:
        title = open_classifier(SHIPPED / name).name
        assert by_name[title].spent.bytes == size_of(SHIPPED / name), f"{name} is of another run"
    grown = [row for row in found["small_data"] if row["setting"] == "grown"]
    assert {row["written_by"] for row in grown} == {"stand-in"}
    assert {row["seed"] for row in grown} == set(found["seeds"])
    assert all(row["asked"] == row["usable"] + sum(row["dropped"].values()) for row in grown)
    assert table_of(rows)
    assert accuracy_chart(rows).alt
