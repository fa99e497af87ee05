"""The data card: its numbers are those of the items, and the same items give the same card."""

import collections
import json

import numpy as np
import pytest

from shared.data.schema import PRICE_BANDS
from shared.pipeline import prepare
from tests.test_sources import lines, record


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    return prepare("embedded", tmp_path_factory.mktemp("card"), size=2500, progress=False)


@pytest.fixture(scope="module")
def card(embedded):
    return json.loads((embedded.folder / "card.json").read_text())


def test_counts_are_those_of_the_manifest(embedded, card):
    manifest = embedded.manifest
    assert card["records"] == manifest["rows_in"] == 2500
    assert card["items"] == manifest["kept"] == card["records"] - sum(card["dropped"].values())
    for name in ("fingerprint", "dropped", "splits"):
        assert card[name] == manifest[name]


def test_distributions_are_those_of_the_items(embedded, card):
    table = embedded.table()
    prices = table["price"].to_numpy()
    lengths = [len(text) for text in table["text"].to_pylist()]
    assert card["price_dollars"]["p50"] == pytest.approx(np.median(prices), abs=0.01)
    assert card["price_dollars"]["p100"] == prices.max()
    assert card["text_characters"]["p0"] == min(lengths)
    assert card["text_characters"]["p95"] == pytest.approx(np.percentile(lengths, 95), abs=1)
    assert list(card["price_bands"]) == list(PRICE_BANDS)
    assert sum(card["price_bands"].values()) == pytest.approx(1, abs=0.001)
    counted = collections.Counter(table["category"].to_pylist())
    assert card["categories"] == counted
    assert list(card["categories"].values()) == sorted(counted.values(), reverse=True)


def test_duplicates_are_those_of_the_clusters(embedded, card):
    sizes = np.array(list(collections.Counter(embedded.table()["cluster"].to_pylist()).values()))
    found = card["duplicates"]
    assert found["clusters"] == len(sizes) == embedded.manifest["clusters"]
    assert found["clusters_of_two_or_more"] == (sizes > 1).sum() > 0
    assert found["items_in_them"] == sizes[sizes > 1].sum()
    assert found["largest_cluster"] == sizes.max()
    assert found["exact_dropped"] == card["dropped"]["duplicate"]


def test_the_card_reads_well_and_says_whose_the_data_are(embedded):
    text = embedded.card
    assert text.startswith("# Data card\n")
    assert "MIT" in text
    assert "made by code" in text
    assert f"`{embedded.manifest['fingerprint']}`" in text
    assert f"gave {embedded.manifest['kept']:,} items" in text
    for heading in ("Prices", "Categories", "Duplicates", "Splits", "Known limits"):
        assert f"\n## {heading}\n" in text


def test_a_local_file_has_no_licence_that_we_know_and_its_path_is_not_told(tmp_path):
    bodies = [record(i, main_category="Tea | Coffee") for i in range(40)]
    cards = []
    for name in ("here", "there"):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(lines(bodies))
        cards.append(prepare(str(path), tmp_path / f"{name}-out", progress=False).card)
    assert cards[0] == cards[1]
    assert "state it yourself" in cards[0]
    assert str(tmp_path) not in cards[0]
    assert "here.jsonl" not in cards[0]
    assert "| Tea \\| Coffee | " in cards[0]


def test_amazon_is_cited(tmp_path):
    (tmp_path / "meta_Appliances.jsonl").write_bytes(lines(record(i) for i in range(40)))
    template = str(tmp_path / "meta_{category}.jsonl")
    items = prepare("amazon:Appliances", tmp_path / "out", amazon=template, progress=False)
    assert "McAuley" in items.card
    assert "Cite Hou et al. (2024)" in items.card
