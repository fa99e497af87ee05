"""The embedded catalogue: the same on every machine, as dirty as promised, priced as documented."""

import ast
import hashlib
import json
import re
from collections import Counter
from dataclasses import fields, replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yardstick import compare, listing_text

from shared.embedded import catalogue
from shared.embedded.dirt import RATES
from shared.embedded.prices import Product, median_price, rounded
from shared.embedded.vocabulary import product_types, spellings, table, tiers

SIZE = 12_000
FINGERPRINT = "74044d7d91f9e842"
"""Of the first 256 records of seed 42, on every platform and Python version."""

CATEGORIES = {
    "Appliances",
    "Automotive",
    "Cell Phones and Accessories",
    "Electronics",
    "Musical Instruments",
    "Office Products",
    "Tools and Home Improvement",
    "Toys and Games",
}
KEYS = {
    "main_category", "title", "average_rating", "rating_number", "features", "description", "price",
    "images", "videos", "store", "categories", "details", "parent_asin",
}  # fmt: skip


@pytest.fixture(scope="module")
def records():
    return list(catalogue.generate(SIZE))


@pytest.fixture(scope="module")
def truths():
    return list(catalogue.true_products(SIZE))


def as_bytes(records):
    return "\n".join(json.dumps(record) for record in records).encode()


def plain_product(type_name="chest freezer", tier="mid", **changes):
    kind = next(k for kinds in product_types().values() for k in kinds if k.name == type_name)
    product = Product(
        type=kind, brand="Korrith", tier=tiers()[tier], size=kind.size.middle,
        second=kind.second.middle if kind.second else None, made=kind.made[0], grade=False,
        condition="new", pack=1, kit=False, line="", color="black", ending=None, noise=0.0,
    )  # fmt: skip
    return replace(product, **changes)


# --- the same records every time


def test_same_seed_same_bytes_and_other_seed_other_bytes():
    assert as_bytes(catalogue.generate(300)) == as_bytes(catalogue.generate(300))
    assert as_bytes(catalogue.generate(300)) != as_bytes(catalogue.generate(300, seed=43))


@settings(max_examples=15, deadline=None)
@given(small=st.integers(0, 200), more=st.integers(0, 200), seed=st.integers(0, 10**9))
def test_a_small_catalogue_is_the_beginning_of_a_large_one(small, more, seed):
    large = islice(catalogue.generate(small + more, seed), small)
    assert list(catalogue.generate(small, seed)) == list(large)


def test_records_match_a_fingerprint_taken_elsewhere():
    """A change here means every stored number of the course changes: do it knowingly."""
    assert hashlib.sha256(as_bytes(catalogue.generate(256))).hexdigest()[:16] == FINGERPRINT


def test_negative_size_is_refused():
    with pytest.raises(ValueError, match="-1 is negative"):
        next(catalogue.generate(-1))


# --- what is in it


def test_eight_categories_and_many_types(truths):
    assert set(product_types()) == CATEGORIES
    assert sum(map(len, product_types().values())) >= 120
    assert {truth["category"] for truth in truths} == CATEGORIES
    assert len({truth["type"] for truth in truths}) >= 120
    assert len({truth["brand"] for truth in truths if truth["tier"] != "noname"}) >= 60
    assert {truth["tier"] for truth in truths} == set(tiers())


def test_keys_are_those_of_the_real_metadata(records):
    assert all(set(record) <= KEYS for record in records)
    assert sum(set(record) == KEYS for record in records) > 0.98 * SIZE


def test_every_unit_of_a_type_has_spellings():
    for kind in (kind for kinds in product_types().values() for kind in kinds):
        for measure in filter(None, (kind.size, kind.second)):
            assert spellings(measure.unit, measure.values[0]), (kind.name, measure.unit)
        assert kind.kind in table("sentences"), kind.name


def test_no_slot_is_left_unfilled(records):
    assert not [r for r in records if re.search(r"[{}]|\\bNone\\b", listing_text(r))]


def test_variants_are_near_duplicates_at_nearly_the_same_price(truths, records):
    pairs = [
        (truths[i - 1], truths[i], records[i - 1], records[i])
        for i in range(1, SIZE)
        if truths[i]["dirt"][:1] == ["variant"] and truths[i - 1]["type"] == truths[i]["type"]
    ]
    same_size = [(a, b) for a, b, _, _ in pairs if a["size"] == b["size"]]
    assert len(pairs) > 0.05 * SIZE
    assert all(abs(a["price"] / b["price"] - 1) < 0.1 or b["price"] < 15 for a, b in same_size)
    assert sum(a["price"] == b["price"] for a, b in same_size) > 0.6 * len(same_size)
    overlaps = [word_overlap(listing_text(a), listing_text(b)) for *_, a, b in pairs]
    assert sorted(overlaps)[len(overlaps) // 2] > 0.8


def word_overlap(a, b):
    a, b = set(a.lower().split()), set(b.lower().split())
    return len(a & b) / max(len(a | b), 1)


# --- the dirt

GROUP_SHADOWS = {"category_underscore": 0.42, "price_text": 0.52, "price_out_of_range": 0.49}
"""Dirt that only records free of an earlier kind of its group can get: the share of those."""


@pytest.mark.parametrize(
    "kind", [f.name for f in fields(RATES) if f.name not in ("variants", "copies_same_asin")]
)
def test_each_kind_of_dirt_comes_at_its_documented_rate(truths, kind):
    seen = sum(kind in truth["dirt"] for truth in truths) / SIZE
    expected = getattr(RATES, kind) * GROUP_SHADOWS.get(kind, 1.0)
    assert 0.6 * expected - 0.001 < seen < 1.4 * expected + 0.001


def test_about_half_have_no_price_and_few_have_odd_ones(records):
    kinds = Counter(type(record.get("price")).__name__ for record in records)
    assert 0.42 < kinds["NoneType"] / SIZE < 0.58
    assert 0.01 < kinds["str"] / SIZE < 0.08
    prices = [r["price"] for r in records if isinstance(r.get("price"), int | float)]
    assert {0.01, 0.0, 4999.0} <= set(prices)
    assert min(prices) < 0
    texts = {r["price"] for r in records if isinstance(r.get("price"), str)}
    assert {"—", "", "Currently unavailable"} <= texts
    assert any(text.startswith("from ") for text in texts)
    assert any("," in text for text in texts)


def test_details_are_mostly_json_text(records):
    parsed = Counter(details_kind(record.get("details")) for record in records)
    assert parsed["json"] > 0.94 * SIZE
    assert parsed["broken"] > 0.01 * SIZE
    assert parsed["python"] > 0.003 * SIZE
    assert parsed["dict"] > 0.005 * SIZE


def details_kind(details):
    if not isinstance(details, str):
        return type(details).__name__
    try:
        return "json" if isinstance(json.loads(details), dict) else "broken"
    except json.JSONDecodeError:
        pass
    try:
        return "python" if isinstance(ast.literal_eval(details), dict) else "broken"
    except (ValueError, SyntaxError):
        return "broken"


def test_copies_repeat_the_text_with_and_without_a_new_asin(records):
    asins = Counter(record["parent_asin"] for record in records)
    texts = Counter(listing_text(r) for r in records if len(listing_text(r)) > 80)
    assert sum(n > 1 for n in asins.values()) > 0.005 * SIZE
    assert sum(n > 1 for n in texts.values()) > 0.02 * SIZE


def test_the_mess_of_real_texts_is_there(records):
    texts = "\n".join(listing_text(record) for record in records)
    for piece in ("&amp;", "&#39;", "<br>", "Batteries Included? No", "Replaces: ", "™", "″", "【",
                  "MSRP: ", "PLEASE CHECK", "Lieferumfang", "説明書", "\u00a0"):  # fmt: skip
        assert piece in texts, piece
    lengths = [len(listing_text(record)) for record in records]
    assert max(lengths) > 4000
    assert min(lengths) < 30
    assert any(isinstance(record.get("title"), list) for record in records)
    assert any(isinstance(record.get("description"), str) for record in records)


# --- the prices


def test_capacity_costs_more_at_a_premium_brand_in_dollars_and_in_ratio():
    small, large = 3.5, 7.0
    prices = {
        (tier, size): median_price(plain_product(tier=tier, size=size))
        for tier in ("budget", "premium")
        for size in (small, large)
    }
    steps = {t: prices[t, large] - prices[t, small] for t in ("budget", "premium")}
    ratios = {t: prices[t, large] / prices[t, small] for t in ("budget", "premium")}
    assert steps["premium"] > 1.5 * steps["budget"]
    assert ratios["premium"] > 1.05 * ratios["budget"] > 1.05


def test_packs_cost_more_in_all_and_less_apiece_and_the_discount_depends_on_the_tier():
    apiece = {
        tier: [median_price(plain_product("LED light bulb", tier, pack=n)) / n for n in (1, 6, 12)]
        for tier in ("noname", "premium")
    }
    assert all(one > six > dozen > one / 12 for one, six, dozen in apiece.values())
    drop = {tier: dozen / one for tier, (one, _, dozen) in apiece.items()}
    assert drop["noname"] < 0.95 * drop["premium"]


@pytest.mark.parametrize("condition", ["renewed", "used", "open"])
def test_the_discount_of_a_condition_depends_on_the_tier(condition):
    kept = {
        tier: median_price(plain_product(tier=tier, condition=condition))
        / median_price(plain_product(tier=tier))
        for tier in tiers()
    }
    assert all(share < 1 for share in kept.values())
    assert kept["premium"] > 1.1 * kept["budget"]


def test_professional_grade_depends_on_type_and_tier():
    def premium(type_name, tier):
        plain = plain_product(type_name, tier)
        return median_price(replace(plain, grade=True)) / median_price(plain)

    assert premium("espresso machine", "mid") > 1.2 * premium("portable air conditioner", "mid")
    assert premium("espresso machine", "premium") > 1.1 * premium("espresso machine", "budget")


def test_solid_wood_and_veneer_share_a_word_and_not_a_price():
    solid = plain_product("standing desk", made=("solid walnut", 1.9))
    prices = dict(solid.type.made)
    assert prices["solid walnut"] > 1.3 * prices["walnut veneer"]
    assert prices["walnut veneer"] > 1.05 * prices["walnut-look laminate"]


@given(st.floats(0.6, 5000), st.sampled_from([0.99, 0.95, 0.49, 0.0, None]))
def test_rounding_stays_close_and_keeps_the_habit(dollars, ending):
    price = rounded(dollars, ending)
    assert price > 0
    assert abs(price - dollars) <= 1.0
    if ending is not None and dollars >= 1.5:
        assert round(price % 1, 2) == ending


def test_price_endings_are_those_of_shops(truths):
    cents = Counter(f"{truth['price']:.2f}"[-2:] for truth in truths)
    assert 0.3 < cents["99"] / SIZE < 0.45
    assert 0.1 < cents["00"] / SIZE < 0.25


def test_best_possible_error_is_computed_and_leaves_room():
    error = catalogue.irreducible_error(6_000, seed=7)
    assert error["records"] > 2_000
    assert 10 < error["mae"] < 35
    assert error["median_absolute_error"] < error["mae"]
    assert 0.14 < error["rmsle"] < 0.25
    assert 0.12 < error["mae"] / error["constant_mae"] < 0.25


def test_comparison_of_a_catalogue_with_itself_is_one(records):
    table_ = compare(records[:1500], records[:1500])
    assert {row["ratio"] for row in table_.values()} == {1.0}
