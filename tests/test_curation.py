"""Curation: what is kept, what is dropped and why, and what must survive cleaning."""

import json

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data import ITEM, assemble, curate, records_table
from shared.data import text as rules
from shared.data.curation import MAX_CHARS, REASONS, normalise_category
from shared.data.text import MASK, is_english, parse_price, scrub


def one(**changes) -> dict:
    base = {
        "parent_asin": "A1",
        "title": "Tealark steel kettle, two quarts, with a whistle",
        "features": ["Holds two quarts of water for tea", "Fits every stove in the house"],
        "description": ["It is the kettle that your grandmother had and that still works."],
        "details": json.dumps({"Brand": "Tealark", "Best Sellers Rank": {"Appliances": 3}}),
        "main_category": "Appliances",
        "price": "19.99",
    }
    return base | changes


def curated(*records: dict):
    return curate(records_table(list(records)))


def scrubbed(text: str) -> str:
    return pl.DataFrame({"text": [text]}).select(scrub(pl.col("text")))["text"][0]


def price(text: str | None) -> float | None:
    frame = pl.DataFrame({"p": [text]}, schema={"p": pl.String})
    return frame.select(parse_price(pl.col("p")))["p"][0]


@pytest.mark.parametrize(
    ("text", "dollars"),
    [
        ("19.99", 19.99),
        ("$1,299.00", 1299.0),
        ("from 14.99", 14.99),
        ("US $5", 5.0),
        (" 12 USD ", 12.0),
        (".99", 0.99),
        ("-3.5", -3.5),
        ("1e-05", 1e-05),
        ("—", None),
        ("", None),
        (None, None),
        ("$10.00 - $20.00", None),
        ("12,50 EUR", None),
        ("1,29", None),
        ("€12", None),
        ("None", None),
        ("12.99.1", None),
        ("see cart", None),
    ],
)
def test_price_texts(text, dollars):
    assert price(text) == dollars


@given(st.floats(0.01, 99_999, allow_nan=False))
def test_any_price_survives_the_ways_shops_write_it(dollars):
    for written in (f"{dollars:.2f}", f"${dollars:,.2f}", f"from ${dollars:,.2f}"):
        assert price(written) == pytest.approx(round(dollars, 2))


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("no_price", {"price": None}),
        ("no_price", {"price": "  "}),
        ("unreadable_price", {"price": "—"}),
        ("price_out_of_range", {"price": "0.49"}),
        ("price_out_of_range", {"price": "999.50"}),
        ("price_out_of_range", {"price": "-5"}),
        ("too_short", {"title": "Kettle", "features": [], "description": None, "details": None}),
        ("too_short", {"title": "", "features": ["", " "], "description": [], "details": "{}"}),
        (
            "not_english",
            {
                "title": "Wasserkocher aus Stahl mit Pfeife und Deckel für den Herd",
                "features": ["Er ist auf jedem Herd zu Hause und hält zwei Liter"],
                "description": ["Der Kessel, den Sie von der Großmutter kennen, ist nicht neu."],
            },
        ),
        ("not_english", {"title": "不锈钢烧水壶" * 4, "features": ["带哨子" * 9]}),
    ],
)
def test_each_reason_to_drop_a_record(reason, changes):
    items, report = curated(one(), one(**changes))
    assert report.to_dict()["dropped"] == {reason: 1}
    assert reason in REASONS
    assert (report.rows_in, report.kept, items.num_rows) == (2, 1, 1)


@pytest.mark.parametrize("dollars", ["0.5", "0.50", "999.49"])
def test_the_edges_of_the_price_window_are_kept(dollars):
    assert curated(one(price=dollars))[1].kept == 1


@pytest.mark.parametrize(
    "phrase",
    [
        "1000-watt",
        "12000BTU",
        "18V",
        "128GB",
        "2TB",
        "DDR4-3200",
        "RTX3060",
        "2400-PSI",
        "100-240VAC",
        "5000mAh",
        "3/4-inch",
        "14x20",
        "1080P60",
        "2000 pieces",
        "1000000 candela",
        "4K",
    ],
)
def test_what_carries_price_survives(phrase):
    kept = scrubbed(f"The new {phrase} model for the workshop")
    assert (phrase in kept) == (phrase != "1000000 candela")  # seven digits: taken for a part


@pytest.mark.parametrize(
    "part", ["WPW10503278", "DC31-00054A", "4391960", "AP6010503", "PS11743686", "XEL234RK"]
)
def test_part_numbers_go(part):
    assert scrubbed(f"Knob {part} for dryers") == "Knob for dryers"


@pytest.mark.parametrize(
    "text",
    [
        "Now only $49.99!",
        "MSRP: 129.00 USD",
        "was 14.99, now 9.99.",
        "12 dollars each",
        "€49,99 or 49,99 €",
        "List price 59",
        "Price:$5",
        "from $5-$10",
        "US$ 30",
        "$1,299",
        "buy it for 3.50 each",
    ],
)
def test_prices_in_the_text_are_masked(text):
    masked = scrubbed(text)
    assert MASK in masked
    assert not any(c.isdigit() for c in masked)


@pytest.mark.parametrize(
    "text", ["weighs only 3.25 pounds", "at 0.75 oz", "for 5.28 x 3 boards", "a 9.99 inch blade"]
)
def test_measures_are_not_taken_for_prices(text):
    assert scrubbed(text) == text


def test_prices_are_masked_in_title_and_details_too():
    items, report = curated(
        one(
            title="Tealark kettle ONLY $19.99 while stocks last",
            details=json.dumps(
                {"Offer": "was $25.00", "Our Sale Price": 19.99, "Brand": "Tealark", "MSRP": "25"}
            ),
        )
    )
    row = items.to_pylist()[0]
    assert "19.99" not in row["title"] + row["text"] + row["details"]
    assert "25.00" not in row["text"] + row["details"]
    assert json.loads(row["details"]) == {"Offer": f"was {MASK}", "Brand": "Tealark"}
    assert report.notes["masked_prices"] == 1


def test_markup_entities_boilerplate_and_links_go():
    text = (
        "<b>Nice</b> kettle<br/>Tea &amp;amp; coffee. Batteries Included? No "
        "Is Discontinued By Manufacturer: No Visit https://x.example/y or mail a@b.example ★★"
    )
    item = assemble(records_table([one(description=[text])])).to_pylist()[0]
    assert "Nice kettle" in item["text"]
    assert "Tea & coffee" in item["text"]
    for gone in ("<b>", "Batteries", "Discontinued", "https", "@", "★", "amp;"):
        assert gone not in item["text"]


def test_long_texts_are_cut_at_a_blank_and_counted():
    items, report = curated(one(description=["word " * 3000]))
    text = items["text"][0].as_py()
    assert MAX_CHARS - 50 < len(text) <= MAX_CHARS
    assert text.endswith("word")
    assert report.notes["cut_texts"] == 1


@pytest.mark.parametrize("details", ['{"Brand": "Tea', "{'Brand': 'x'}", "[1]", "null?", "7"])
def test_broken_details_cost_the_details_and_not_the_record(details):
    items, report = curated(one(details=details))
    assert report.kept == 1
    assert report.notes["unreadable_details"] == 1
    assert items["details"][0].as_py() == "{}"


def test_useful_details_join_the_text_and_noisy_ones_do_not():
    details = {"Brand": "Tealark", "Capacity": ["2", "quarts"], "UPC": "123", "": "x", "Color": ""}
    text = assemble(records_table([one(details=json.dumps(details))]))["text"][0].as_py()
    assert "Brand: Tealark\nCapacity: 2, quarts" in text
    assert "UPC" not in text
    assert "Color" not in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Toys_and_Games", "Toys and Games"),
        ("Toys & Games", "Toys and Games"),
        ("TOOLS AND HOME IMPROVEMENT", "Tools and Home Improvement"),
        ("Pet  Rocks & Co", "Pet Rocks and Co"),
    ],
)
def test_categories_are_spelled_one_way(name, expected):
    assert normalise_category(name) == expected


def test_a_missing_category_comes_from_the_shelf_or_the_sales_rank():
    shelf = one(main_category=None, categories=["Musical_Instruments", "Guitars"])
    rank = one(main_category="")
    neither = one(main_category=None, details=None)
    found = assemble(records_table([shelf, rank, neither]))["category"].to_pylist()
    assert found == ["Musical Instruments", "Appliances", "Unknown"]


def test_lists_of_parts_count_as_english():
    frame = pl.DataFrame({"t": ["Hex bolt M8 zinc plated steel 50 pieces DIN 933 grade 8"]})
    assert frame.select(is_english(pl.col("t")))["t"][0]


tokens = "the and der die und DDR4-3200 WPW10503278 18V 4391960 a@b.example 你好 , - \n".split(" ")
shop_text = st.text("ab D1257890-/.,;:| \n\u2003é你@w:/", max_size=40)
shop_text |= st.lists(st.sampled_from(tokens)).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(shop_text, max_size=4))
def test_the_short_ways_of_the_rules_give_what_the_plain_rules_give(texts):
    """Rules look first whether they have anything to do; that must not change what they do."""
    frame, text = pl.DataFrame({"t": texts}, schema={"t": pl.String}), pl.col("t")

    def plain(pattern, to):
        return frame.select(text.str.replace_all(pattern, to))["t"].to_list()

    assert rules._drop_links(frame["t"]).to_list() == plain(rules._LINKS, " ")
    assert rules._drop_part_numbers(frame["t"]).to_list() == plain(rules.PART_NUMBERS, "${1}")
    settled = text.str.replace_all(r"[^\S\n]+", " ")
    settled = settled.str.replace_all(r"(?:[,;:/|-] ?){2,}(?:\n|$|,)", "\n")
    settled = settled.str.replace_all(r" ([,.;])", "$1")
    settled = settled.str.replace_all(r"[ \n]*\n[ \n]*", "\n").str.strip_chars()
    assert frame.select(rules.settle(text)).equals(frame.select(settled))
    foreign, english = (text.str.count_matches(p) for p in (rules._FOREIGN, rules._ENGLISH))
    script = text.str.count_matches(rules._OTHER_SCRIPT) / text.str.len_chars().clip(1)
    expected = ~((script > 0.15) | ((foreign >= 4) & (foreign > english)))
    assert frame.select(is_english(text)).equals(frame.select(expected))


def test_curate_is_pure_and_does_not_look_at_other_rows():
    records = [one(parent_asin=f"A{i}", price=str(i / 2)) for i in range(40)]
    table = records_table(records)
    whole, report = curate(table)
    parts = [curate(table.slice(i, 7)) for i in range(0, 40, 7)]
    assert pa.concat_tables([items for items, _ in parts]).equals(whole)
    joined = parts[0][1]
    for _, part in parts[1:]:
        joined = joined + part
    assert joined == report
    assert whole.schema == ITEM
    assert table.equals(records_table(records))


def test_other_string_types_and_missing_columns_are_accepted():
    table = records_table([one()])
    large = table.cast(
        pa.schema(
            [(f.name, pa.large_string()) if f.type == pa.string() else f for f in table.schema]
        )
    )
    numbers = large.drop_columns(["price", "store"]).append_column("price", pa.array([19.99]))
    assert curate(numbers)[0].equals(curate(table)[0])


def test_a_column_that_cannot_be_cast_is_named():
    table = records_table([one()]).drop_columns(["title"])
    table = table.append_column("title", pa.array([{"a": 1}]))
    with pytest.raises(ValueError, match="column 'title' is struct"):
        curate(table)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = ["title", "features", "description", "details", "main_category", "categories", "price"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), json_values), max_size=5))
def test_whatever_json_holds_rows_in_is_kept_plus_dropped(records):
    records = [one(**r) if i % 2 else r for i, r in enumerate(records)]
    table = records_table(json.loads(json.dumps(records)))
    items, report = curate(table)
    assert report.rows_in == len(records) == report.kept + sum(report.dropped.values())
    assert items.num_rows == report.kept
    assert assemble(table).num_rows == len(records)
