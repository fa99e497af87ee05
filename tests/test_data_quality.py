"""What curation buys, and what a language model's own examples are worth: the data of the study."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shared.data import ITEM, RECORD, assemble
from shared.frontier.connection import connect
from shared.mind.pricing import knowledge
from shared.pipeline import prepare, read_records
from shared.settings import Settings
from shared.standin import Fault
from shared.training import data_quality, studies
from shared.training.data_quality import GOLD, expand, gold_items, plan_of, requests, uncurated

RECORDS = 1_000
NEW = {
    "title": "Brandt travel kettle, 0.5 litres", "category": "Home & Kitchen", "brand": "Brandt",
    "description": "Boils a cup of water in two minutes. It was $99.99 once.",
    "details": "Capacity: 0.5 litres; Colour: white", "price": "$24.50",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return prepare("embedded", tmp_path_factory.mktemp("items"), size=RECORDS, progress=False)


@pytest.fixture(scope="module")
def records(made):
    class Few(Settings):
        size = RECORDS

    return read_records(Few())


@pytest.fixture(scope="module")
def train(made) -> pa.Table:
    return made.table("train")


def says(**changes: str) -> Fault:
    return Fault("text", text=json.dumps(NEW | changes))


def grown_from(gold: pa.Table, faults: list, apart_from: pa.Table, count: int | None = None):
    # One call after the other: then the faults come in the order of the questions.
    with connect("gpt-6-luna", stand_in=True, retries=0, concurrency=1) as connection:
        connection.server.faults = faults
        return expand(gold, connection, count or len(faults), apart_from, progress=False)


# The texts of the shop


def test_uncurated_items_differ_in_their_texts_alone(train, records) -> None:
    raw = uncurated(train, records)
    assert raw.schema == ITEM
    texts = ["title", "text"]
    assert raw.drop_columns(texts) == train.drop_columns(texts)
    assert raw["text"] != train["text"]


def test_uncurated_texts_hold_all_that_curation_takes_away(train, records) -> None:
    """Incident: the "raw" texts had been through the scrubber, and curation seemed useless."""
    before, after = (
        {
            what: pc.sum(pc.match_substring_regex(items["text"], pattern)).as_py()
            for what, pattern in (("html", r"<\w+>|&amp;"), ("money", r"\$\d"))
        }
        for items in (uncurated(train, records), train)
    )
    assert min(before.values()) > 5
    assert sum(after.values()) == 0


def test_a_text_is_the_fields_of_the_record_as_they_stand() -> None:
    record = {
        "parent_asin": "A", "title": "Mug &amp; saucer", "features": ["<b>Blue</b>"],
        "description": ["Compare at $9.99 and drink from it every day, at home or away."],
        "details": '{"Color": "blue"}', "price": "8.00",
    }  # fmt: skip
    records = pa.Table.from_pylist([record, record | {"title": "Another"}], RECORD)
    items = assemble(records)
    raw = uncurated(items, records)  # one id, two records: told apart by what became of them
    assert raw["title"].to_pylist() == ["Mug &amp; saucer", "Another"]
    assert raw["text"][0].as_py().split("\n") == [
        record["title"], *record["features"], *record["description"], record["details"],
    ]  # fmt: skip


def test_items_of_other_records_are_an_error(train, records) -> None:
    with pytest.raises(ValueError, match="items are not made of these records"):
        uncurated(train, records.slice(0, 100))


# New products


def test_the_stand_in_grows_gold_items(made, train) -> None:
    gold, evaluated = gold_items(train, 1), made.table("test")
    found = grown_from(gold, [], evaluated, 40)
    assert found.items.schema == ITEM
    assert found.asked == 40 == len(found.items) + sum(found.dropped.values())
    assert 15 < len(found.items) < 40
    assert set(found.dropped) <= {"near-duplicate", "price_out_of_range"}
    known = {*gold["title"].to_pylist(), *evaluated["title"].to_pylist()}
    assert not known & set(found.items["title"].to_pylist())
    assert len(set(found.items["id"].to_pylist())) == len(found.items)
    assert found.items.equals(grown_from(gold, [], evaluated, 40).items)  # nothing is left to luck


def test_it_writes_from_its_own_knowledge(made, train) -> None:
    """Incident: new products came out of the catalogue's generator: real data by another name."""
    found = grown_from(gold_items(train, 1), [], made.table("test"), 20).items
    titles = set(made.table()["title"].to_pylist())
    words = set(knowledge()["words"])
    for title in found["title"].to_pylist():
        assert title not in titles
        assert words & set(title.lower().split())


def test_what_a_model_wrote_is_curated_like_any_record(train) -> None:
    item = grown_from(train.slice(0, 3), [says()], train.slice(3, 50)).items.to_pylist()[0]
    assert item["price"] == 24.5
    assert item["category"] == "Home and Kitchen"
    assert "Capacity: 0.5 litres\nColour: white" in item["text"]
    assert "99.99" not in item["text"], "a price in the text would be learnt, and missed later"


def test_what_cannot_be_used_is_counted_and_never_replaced(train) -> None:
    unlike = "Oak garden bench for three people, with arms and a slatted back"
    faults = [
        says(), says(description="Boils a cup of water in two minutes. It was $89.99 once."),
        says(price="between $20 and $30"), says(price="$12,000"), Fault("refusal"),
        says(title=unlike, description=unlike, details="Seats: 3", price="139"),
    ]  # fmt: skip
    found = grown_from(train.slice(0, 3), faults, train.slice(3, 50))
    assert found.items["price"].to_pylist() == [24.5, 139.0]
    assert found.dropped == Counter(
        {"near-duplicate": 1, "failed (NotAPrice)": 2, "price_out_of_range": 1}
    )
    assert str(found).startswith("2 of 6 are new items; dropped: 2 failed (NotAPrice)")


def test_copies_of_gold_and_of_evaluation_items_are_dropped(train) -> None:
    """Incident: a model repeated a test product it was shown nowhere but in its training."""
    gold, evaluated = train.slice(0, 3), train.slice(3, 50)
    copies = [gold.to_pylist()[2], evaluated.to_pylist()[7]]
    faults = [
        says(title=c["title"], description=c["text"].partition("\n")[2], details="", brand="")
        for c in copies
    ]
    found = grown_from(gold, faults, evaluated)
    assert (len(found.items), found.dropped) == (0, Counter({"near-duplicate": 2}))


def test_no_answer_at_all_gives_no_item(train) -> None:
    found = grown_from(train.slice(0, 3), [Fault("server_error")] * 4, train.slice(3, 5))
    assert (len(found.items), sum(found.dropped.values())) == (0, 4)


def test_each_gold_item_is_varied_as_often_as_any_other(train) -> None:
    gold = train.slice(0, 3)
    asked = requests(gold, "gpt-6-luna", 7)
    assert len({request.key("here") for request in asked}) == 7
    texts = [request.turns[0].text for request in asked]
    assert all(text.count("<price>") == 3 for text in texts)
    titles = [title[:40] for title in gold["title"].to_pylist()]
    varied = [max(titles, key=text.rindex) for text in texts]
    assert Counter(varied) == Counter({titles[0]: 3, titles[1]: 2, titles[2]: 2})


# The study


def test_few_examples_are_repeated_to_the_same_number_of_steps() -> None:
    plans = [plan_of(count, seed=1) for count in (3_000, 1_000, 200, 10)]
    assert [plan.epochs for plan in plans] == [1, 3, 15, 20]
    assert {plan.epochs * plan.limit for plan in plans[:3]} == {3_000}


def test_gold_items_are_spread_over_the_prices(train) -> None:
    """Incident: ten random items were dear ones, and all that grew of them was dear, too."""
    tenths = np.array_split(np.sort(train["price"].to_numpy()), GOLD)
    for seed in (1, 2):
        prices = gold_items(train, seed)["price"].to_pylist()
        assert all(price in tenth for price, tenth in zip(prices, tenths, strict=True))
    assert gold_items(train, 1) != gold_items(train, 2)


def test_the_study_runs_every_setting_once_a_seed(made, records, tmp_path, monkeypatch) -> None:
    taught = []

    def run(trials, train, validation, folder, **more):
        (trial,) = trials
        taught.append((trial.setting, trial.plan, train))
        return [{"study": trial.study, "setting": trial.setting, "seed": trial.plan.seed}]

    monkeypatch.setattr(studies, "run", run)
    monkeypatch.setattr(data_quality, "ASKED", 30)
    splits = {name: made.table(name) for name in ("train", "validation", "test")}
    with connect("gpt-6-luna", stand_in=True) as connection:
        rows = data_quality.study(
            splits, records, connection, tmp_path, seeds=(1, 2), progress=False
        )
    count = Counter((row["study"], row["setting"], row.get("judged")) for row in rows)
    assert set(count.values()) == {2}
    assert len(count) == len(data_quality.SIZES) + 2 + 4
    grown = next(row for row in rows if "written_by" in row)
    assert grown["written_by"] == "stand-in"
    names, plans, tables = zip(*taught, strict=True)
    at = names.index(grown["setting"])
    assert tables[at].slice(0, GOLD) == gold_items(splits["train"], 1)
    assert len(tables[at]) == plans[at].limit == GOLD + grown["usable"]
    assert replace(plans[at], limit=1, epochs=1) == replace(plans[0], limit=1, epochs=1)


def test_the_recorded_study_says_what_it_depends_on() -> None:
    found = studies.recorded(data_quality.NAME)
    assert {"train", "validation", "base", "date", "versions"} <= set(found)
    seeds = Counter((r["study"], r["setting"], r.get("judged")) for r in found["rows"])
    assert set(seeds.values()) == {3}, f"a setting has more seeds than another: {seeds}"
    assert {row["seed"] for row in found["rows"]} <= set(studies.SEEDS)
    assert all(row["dollars"] > 0 for row in found["rows"])
