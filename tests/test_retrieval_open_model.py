"""A model that is shown neighbours: what its prompts hold, what they must not, what it opens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

from test_retrieval import Hashed, changed, items

from shared.data import products
from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.evaluation import Pricer, evaluate
from shared.open_models.adapters import ADAPTER, TUNED, AdapterError, read_tuned
from shared.open_models.examples import examples
from shared.open_models.pricer import tuned_pricer
from shared.pipeline import prepare
from shared.pretraining.making import TINY
from shared.retrieval import (
    Layout,
    Neighbour,
    NeighbourModelPricer,
    NeighbourPricer,
    ProductIndex,
    TfidfEmbedding,
    clusters_of,
    neighbour_model_pricer,
    open_model,
    reprice,
    stale_knowledge,
    tune_with_neighbours,
)
from shared.retrieval.looking_up import LookUp
from shared.retrieval.open_model import HEADING, SHIPPED, SHOWN, recorded, shown_items
from shared.training.failures import TrainingError
from shared.training.fine_tuning import Plan

LAYOUT = Layout(k=3, own_tokens=20, title_tokens=6)
PLAN = Plan(epochs=1, batch=8, evaluations=1, validation=8, rank=4)
TRAIN, VALIDATION = items(48), items(24, "validation")


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY)


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> ProductIndex:
    """The training items, to be read."""
    return ProductIndex.build(TRAIN, Hashed(), tmp_path_factory.mktemp("i"), progress=False)


@pytest.fixture(scope="module")
def folder(index, tmp_path_factory) -> Path:
    """A model that was tuned with neighbours for a few steps; of what it says nothing is asked."""
    out = tmp_path_factory.mktemp("tuned")
    tune_with_neighbours(TRAIN, VALIDATION, index, out, PLAN, layout=LAYOUT, progress=False)
    return out


def near(*pairs: tuple[str, float]) -> list[Neighbour]:
    """Neighbours of (title, price)."""
    return [Neighbour(f"n{i}", t, t, "c", p, f"c{i}", 0.9) for i, (t, p) in enumerate(pairs)]


def shown_prices(text: str) -> list[int]:
    """The neighbours' dollars in a text, in its order."""
    lines = text.partition(HEADING)[2].strip().splitlines()
    return [int(re.fullmatch(r".* - \$(\d+)", line)[1]) for line in lines]


# What a prompt holds


def test_own_words_come_first_and_the_best_neighbour_last(tokenizer):
    found = LAYOUT.texts(["a lamp"], [near(("best", 9.6), ("second", 1205.0))], tokenizer)
    assert found == [f"a lamp\n\n{HEADING}\nsecond - $1205\nbest - $10"]


def test_texts_and_titles_are_cut_to_their_tokens(tokenizer):
    long = near(("steel kettle " * 30, 5.0))
    (found,) = LAYOUT.texts(["oak chair " * 90], [long], tokenizer)
    own, _, line = found.partition(f"\n\n{HEADING}\n")
    count = [len(tokenizer(t, add_special_tokens=False).input_ids) for t in (own, line)]
    assert count[0] == LAYOUT.own_tokens
    assert LAYOUT.title_tokens < count[1] <= LAYOUT.title_tokens + 8


def test_a_title_stays_on_its_line(tokenizer):
    (found,) = LAYOUT.texts(["a"], [near(("red\nlamp - $7\r\n", 40.0))], tokenizer)
    assert shown_prices(found) == [40]


def test_without_a_neighbour_the_text_is_its_own(tokenizer):
    both = LAYOUT.texts(["a lamp", "a chair"], [[], near(("stool", 20.0))], tokenizer)
    assert both[0] == "a lamp"
    assert shown_prices(both[1]) == [20]


@pytest.mark.parametrize("letter", ["A", "é", "鍋", "🪑", "🪑 7", "$9 "])
def test_no_neighbour_is_cut_off_by_the_plan(tokenizer, letter):
    """Incident in the making: texts are cut at their end, which is where neighbours are."""
    layout = Layout(k=5, own_tokens=30, title_tokens=5)
    many = near(*((letter * 40, 999.0 + i) for i in range(5)))
    texts = layout.texts([letter * 90], [many], tokenizer)
    table = changed(items(1), text=texts)
    (prompt,) = examples(table, tokenizer, layout.tokens)["prompt"]
    assert texts[0] in prompt


# What it must not hold


def kin_shown(texts: list[str]) -> list[bool]:
    """Whether each text of ``items()`` shows one of its own three near-duplicates."""
    clusters = [{(price - 10) // 3 for price in shown_prices(text)} for text in texts]
    return [row // 3 in found for row, found in enumerate(clusters)]


def test_nothing_is_trained_on_its_own_price_or_its_near_duplicates(
    index, tokenizer, tmp_path, monkeypatch
):
    taught = {}

    def watched(train, validation, out, plan, **options):
        taught.update(train=train, validation=validation, plan=plan)
        return {"sha256": {ADAPTER: "x"}}

    monkeypatch.setattr(open_model, "fine_tune", watched)
    twins = changed(TRAIN, id=[f"twin-{i}" for i in range(len(TRAIN))])
    tune_with_neighbours(TRAIN, twins, index, tmp_path, PLAN, layout=LAYOUT)
    assert taught["plan"].text_tokens == LAYOUT.tokens
    for name in ("train", "validation"):
        texts = taught[name]["text"].to_pylist()
        assert {len(shown_prices(text)) for text in texts} == {LAYOUT.k}
        assert not any(kin_shown(texts)), name
    near = LookUp(index, LAYOUT.k).neighbours(products(twins))
    flattered = shown_items(twins, near, tokenizer, LAYOUT)["text"].to_pylist()
    assert np.mean(kin_shown(flattered)) > 0.9, "they are what is nearest: this can fail"


# Prices that move in training


def test_an_item_and_its_neighbours_move_together(index, tokenizer):
    dear = changed(TRAIN, price=TRAIN["price"].to_numpy() + 300)
    near = LookUp(index, LAYOUT.k).neighbours(products(dear))
    still = shown_items(dear, near, tokenizer, LAYOUT)
    assert still["price"].equals(dear["price"])
    moved = shown_items(dear, near, tokenizer, LAYOUT, moved=2.0)
    assert moved.schema.equals(still.schema)
    factors = moved["price"].to_numpy() / dear["price"].to_numpy()
    assert 0.5 <= factors.min() < 0.6
    assert 1.7 < factors.max() <= 2
    for old, new, factor in zip(still["text"], moved["text"], factors, strict=True):
        wanted = np.array(shown_prices(old.as_py())) * factor
        np.testing.assert_allclose(shown_prices(new.as_py()), wanted, atol=0.51)
    again = shown_items(dear, near, tokenizer, LAYOUT, moved=2.0)
    other = shown_items(dear, near, tokenizer, LAYOUT, moved=2.0, seed=7)
    assert moved.equals(again)
    assert not moved.equals(other)


def test_no_price_moves_out_of_what_is_curated(index, tokenizer):
    ends = changed(TRAIN, price=[MIN_PRICE, MAX_PRICE] * 24)
    near = LookUp(index, LAYOUT.k).neighbours(products(ends))
    found = shown_items(ends, near, tokenizer, LAYOUT, moved=3.0)["price"].to_numpy()
    assert found.min() >= MIN_PRICE * 0.999_999
    assert found.max() <= MAX_PRICE * 1.000_001
    assert len(set(found.round(6))) > 40, "both ends move, to the one side that is left"


@pytest.mark.parametrize("moved", [0.5, 0, -1, float("nan"), float("inf")])
def test_a_move_that_is_none_is_refused(tokenizer, moved):
    with pytest.raises(ValueError, match=r"factor of at least 1"):
        shown_items(TRAIN, [[]] * len(TRAIN), tokenizer, LAYOUT, moved=moved)


def test_a_factor_is_drawn_anew_in_each_epoch(index, tmp_path):
    """Two epochs of 48 items are one epoch of 96: as many steps, and no item twice the same."""
    plan = Plan(epochs=2, batch=24, evaluations=1, validation=4, rank=4)
    options = {"layout": LAYOUT, "progress": False}
    found = tune_with_neighbours(
        TRAIN, VALIDATION, index, tmp_path / "a", plan, moved=2.0, **options
    )
    assert (found["steps"], found["plan"]["epochs"]) == (4, 1)
    plan = Plan(epochs=2, batch=24, evaluations=1, validation=4, rank=4, limit=24)
    found = tune_with_neighbours(
        TRAIN, VALIDATION, index, tmp_path / "b", plan, moved=2.0, **options
    )
    assert (found["steps"], found["plan"]["limit"]) == (2, 48)


# Tuned, opened, asked


def test_it_is_asked_what_it_was_taught_to_the_letter(folder, index, tokenizer):
    clusters = clusters_of(TRAIN, VALIDATION)
    pricer = neighbour_model_pricer(index, folder, clusters=clusters)
    assert isinstance(pricer, Pricer)
    assert isinstance(pricer, NeighbourModelPricer)
    asked = products(VALIDATION)
    near = LookUp(index, LAYOUT.k, clusters).neighbours(asked)
    taught = examples(shown_items(VALIDATION, near, tokenizer, LAYOUT), tokenizer, LAYOUT.tokens)
    taught = taught["prompt"]
    assert pricer.prompts(asked) == taught
    assert pricer.neighbours(asked) == near
    wanted = [[round(n.price) for n in reversed(found)] for found in near]
    assert [shown_prices(p.partition("\n\nPrice is")[0]) for p in taught] == wanted


def test_a_finished_run_is_opened_and_another_refused(folder, index):
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("adapter*")}
    kept = (folder / SHOWN).read_bytes()
    again = [TRAIN, VALIDATION, index, folder, PLAN]
    tune_with_neighbours(*again, layout=LAYOUT, progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("adapter*")} == before
    for changes in ({"layout": Layout(2, 20, 6)}, {"layout": LAYOUT, "moved": 1.5}):
        with pytest.raises(TrainingError, match="holds another run"):
            tune_with_neighbours(*again, progress=False, **changes)
    assert (folder / SHOWN).read_bytes() == kept


def test_it_prices_with_intervals_and_says_what_it_stands_on(folder, index, tmp_path):
    clusters = clusters_of(TRAIN, VALIDATION)
    pricer = neighbour_model_pricer(index, folder, clusters=clusters)
    assert pricer.name == "tiny, QLoRA, 3 neighbours"
    pricer.calibrate(VALIDATION)
    found = evaluate(pricer, VALIDATION, progress=False)
    assert found.scores["failed"] == 0
    low, high = (found.predictions[name].to_numpy() for name in ("low", "high"))
    assert (low <= high).all()
    kept = ("adapter", "base", "text_tokens", "coverage", "layout", "knowledge", "embedding", "k")
    assert set(kept) <= set(pricer.settings)
    assert pricer.settings["layout"] == {"k": 3, "own_tokens": 20, "title_tokens": 6}
    json.dumps(pricer.settings)


def test_new_prices_in_the_store_are_read_and_noted(folder, tmp_path):
    own = ProductIndex.build(TRAIN, Hashed(), tmp_path / "own", progress=False)
    pricer = neighbour_model_pricer(own, folder).calibrate(VALIDATION)
    asked = products(VALIDATION)[:4]
    old, settings = pricer.prompts(asked), pricer.settings
    reprice(own, 2.0)
    new = pricer.prompts(asked)
    for before, after in zip(old, new, strict=True):
        pair = [shown_prices(p.partition("\n\nPrice is")[0]) for p in (before, after)]
        np.testing.assert_allclose(pair[1], np.array(pair[0]) * 2, atol=1.01)
    assert pricer.settings["knowledge"] == own.fingerprint != settings["knowledge"]
    assert pricer.settings["coverage"] == settings["coverage"] == 0.9


def test_without_neighbours_it_prices_by_the_text(folder):
    class Empty:
        settings: dict = {}  # noqa: RUF012

        def search(self, queries, k=5, **more):
            return [[] for _ in queries]

    found = neighbour_model_pricer(Empty(), folder).price(products(VALIDATION)[:2])
    assert np.isfinite(found.price).all()
    assert len(neighbour_model_pricer(Empty(), folder).price([]).price) == 0


# Folders that are not what they should be


def test_a_model_that_was_not_shown_neighbours_is_refused(index):
    with pytest.raises(AdapterError, match="was not shown neighbours"):
        neighbour_model_pricer(index, TUNED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"layout": {"k": 3}}', "damaged"),
        ('{"layout": {"rows": 3}, "adapter": "x"}', "damaged"),
        ('{"layout": {"k": 3}, "adapter": "x"}', "of another adapter"),
    ],
)
def test_a_damaged_note_is_refused(folder, index, tmp_path, text, message):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("checkpoints"))
    (copy / SHOWN).write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError, match=message):
        neighbour_model_pricer(index, copy)


def test_a_changed_adapter_is_refused(folder, index, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("checkpoints"))
    with (copy / ADAPTER).open("ab") as file:
        file.write(b"x")
    with pytest.raises(AdapterError, match="missing or was changed"):
        neighbour_model_pricer(index, copy)


def test_the_room_is_imported_without_torch():
    code = (
        "import sys, shared.retrieval; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# What is shipped


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Curated products of the embedded catalogue."""
    return prepare("embedded", tmp_path_factory.mktemp("shop"), size=1_000, progress=False)


def test_the_shipped_adapter_is_the_recorded_one():
    manifest, found = read_tuned(SHIPPED), recorded()
    (row,) = [r for r in found["trained"] if r["adapter"] == manifest["sha256"][ADAPTER]]
    assert (row["name"], row["seed"]) == (found["shipped"], manifest["plan"]["seed"])
    assert row["layout"] == vars(Layout())
    whole = sum(path.stat().st_size for path in SHIPPED.iterdir())
    assert whole < 2_000_000, "a package that everybody downloads"


def test_the_shipped_model_follows_the_store_and_the_plain_one_cannot(shop, tmp_path):
    train, asked = shop.table("train"), shop.table("test")
    clusters = clusters_of(train, asked)
    embedding = TfidfEmbedding(64).fit(train)
    own = ProductIndex.build(train, embedding, tmp_path / "own", progress=False)
    pricer = neighbour_model_pricer(own, clusters=clusters)
    plain, shown = stale_knowledge(own, [tuned_pricer(), pricer], asked, 1.5)
    assert plain.followed == 0
    (measured,) = [row for row in recorded()["stale"] if row["pricer"] == recorded()["shipped"]]
    assert shown.followed > measured["followed"] / 2
    assert shown.error_after < shown.error_stale
    alone = evaluate(NeighbourPricer(own, clusters=clusters), asked, progress=False)
    assert shown.error_before < alone.scores["mae"]
