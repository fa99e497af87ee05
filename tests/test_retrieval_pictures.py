"""The map and the cards: what they say and survive, and that no seller can write in them."""

from __future__ import annotations

import base64
import io
import re
import warnings
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from test_retrieval import changed, items

from shared.data import products
from shared.reports.figures import DARK, LIGHT, contrast
from shared.reports.likeness import COLOURS, MARKS, flattened, likeness_map, nearest
from shared.retrieval import Neighbour, ProductIndex, TfidfEmbedding
from shared.retrieval.pictures import neighbour_cards, product_map, shared_words

HOSTILE = "<script>alert('x')</script> ${text} $surface \"q\" & $5$ \x07 日本"


class Page(HTMLParser):
    """Collects tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def spots(self) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == "i"]


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> ProductIndex:
    table = changed(items(120), category=["Toys" if i % 3 else "Unknown" for i in range(120)])
    embedding = TfidfEmbedding(24).fit(table)
    return ProductIndex.build(table, embedding, tmp_path_factory.mktemp("x") / "i", progress=False)


@pytest.fixture(scope="module")
def drawn(index):
    """A query's neighbours on the map."""
    asked = products(items(3, split="test"))[1]
    return product_map(index, asked, index.search([asked])[0], count=60), asked


def near(**facts) -> Neighbour:
    known = {"id": "n", "title": "Red kettle", "text": "Red kettle, 2 litres", "category": "Home"}
    return Neighbour(**known | {"price": 24.5, "cluster": "c", "similarity": 0.8} | facts)


# The map


def test_every_point_has_its_spot_and_its_words(index, drawn):
    found, _ = drawn
    spots = Page(found.html()).spots()
    assert len(spots) == 61 == len(found.names)
    known = {row["title"]: row for row in index.items().to_pylist()}
    for spot in spots[:60]:
        title, price = re.fullmatch(r"(.+), \$([\d.,]+) \(.+\)", spot["data-name"]).groups()
        assert float(price.replace(",", "")) == pytest.approx(known[title]["price"], abs=0.5)
    assert spots[-1]["data-name"].startswith("The query: ")


def test_a_spot_lies_on_its_point():
    """Twelve far groups of one colour each: under the middle of a group's spots is its colour."""
    draw = np.random.default_rng(0)
    vectors = np.repeat(np.eye(8), 12, axis=0) + draw.normal(0, 0.01, (96, 8))
    kinds = np.repeat([f"kind {i}" for i in range(8)], 12)
    facts = {"title": kinds, "price": np.full(96, 10.0), "category": kinds}
    found = likeness_map(pa.table(facts), vectors)
    image = np.asarray(Image.open(io.BytesIO(found.png())).convert("RGB")).astype(int)
    for spot in Page(found.html()).spots():
        left, top = map(float, re.findall(r"([\d.]+)%", spot["style"]))
        x, y = round(left / 100 * image.shape[1]), round(top / 100 * image.shape[0])
        around = image[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3)
        number = int(re.search(r"kind (\d)", spot["data-name"])[1])
        counts = sorted({k: i for i, k in enumerate(dict.fromkeys(kinds))}.items())
        colour = COLOURS[dict(counts)[f"kind {number}"]]
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.abs(around - wanted).sum(axis=1).min() < 120, spot


def test_the_alt_text_says_what_is_found_and_how_little_a_plane_holds(drawn, index):
    found, asked = drawn
    assert re.search(r"Map of 60 products\. 100% of the nearest share a product's category; by "
                     r"chance 100% would\. Made flat by t-SNE, which keeps \d+% of each one's 5 "
                     r"nearest; the two best straight axes would hold \d+% of the variance",
                     found.alt)  # fmt: skip
    listed = found.alt.split("numbered: ")[1]
    titles = [n.title for n in index.search([asked])[0]]
    assert [listed.index(f"{i}. {t}") for i, t in enumerate(titles, 1)] == sorted(
        listed.index(f"{i}. {t}") for i, t in enumerate(titles, 1)
    )


def test_shares_in_the_title_are_counted_by_hand():
    """Two groups far apart, each of one category but for one of the other, and one unknown."""
    vectors = np.vstack([np.eye(2)[[0] * 6], np.eye(2)[[1] * 6]])
    vectors += np.random.default_rng(1).normal(0, 1e-3, vectors.shape)
    kinds = ["a"] * 6 + ["b"] * 5 + ["Unknown"]
    table = pa.table({"title": kinds, "price": [1.0] * 12, "category": kinds})
    chance = (6 / 11) ** 2 + (5 / 11) ** 2
    assert f"100% of the nearest share a product's category; by chance {chance:.0%}" in (
        likeness_map(table, vectors).alt
    )
    mixed = table.set_column(2, "category", pa.array(["a", "b"] * 6))
    # Of five others in a group of three and three, two are of the same.
    assert "40% of the nearest" in likeness_map(mixed, vectors).alt
    unknown = table.set_column(2, "category", pa.array([None] * 12, pa.string()))
    assert "12 products, the more alike the nearer" in likeness_map(unknown, vectors).alt


def test_neighbours_on_the_plane_are_those_in_space_where_it_can_be():
    draw = np.random.default_rng(2)
    vectors = np.repeat(draw.normal(0, 1, (15, 40)), 6, axis=0) + draw.normal(0, 0.01, (90, 40))
    places = flattened(vectors, 0)
    groups = nearest(places) // 6
    assert (groups == np.arange(90)[:, None] // 6).mean() > 0.95
    np.testing.assert_array_equal(places, flattened(vectors, 0))


def test_the_notebook_gets_a_picture_a_page_and_words(drawn):
    found, _ = drawn
    data, metadata = found._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain", "text/html"}
    assert data["text/plain"] == metadata["image/png"]["alt"] == found.alt
    images = [attributes for tag, attributes in Page(data["text/html"]).tags if tag == "img"]
    assert [image["alt"] for image in images] == [found.alt]
    start, _, picture = images[0]["src"].partition(",")
    assert start == "data:image/png;base64"
    assert "/" not in picture, "part of it would look like somebody's folder"
    assert base64.b64decode(unquote(picture)) == data["image/png"]
    assert len(str(data)) < 400_000


def test_nothing_is_fetched_and_nothing_runs(drawn):
    found, asked = drawn
    for html in (found.html(), neighbour_cards(asked, [near(), near(title=HOSTILE)])._repr_html_()):
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in Page(html).tags}
        assert not re.search(r"https?:|url\(|@import|\son\w+=", re.sub(r"base64,[^\"]+", "", html))


def test_a_map_that_cannot_be_drawn_says_why(index):
    with pytest.raises(ValueError, match=r"9 points: a map needs 10"):
        product_map(index, count=9)
    with pytest.raises(ValueError, match="that are not all alike"):
        flattened(np.ones((20, 3)), 0)
    with pytest.raises(ValueError, match="does not hold the neighbour 'elsewhere'"):
        product_map(index, "a kettle", [near(id="elsewhere")])


def test_a_map_without_a_query_and_one_of_an_odd_query(index):
    assert "star" not in product_map(index, count=20).alt
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = product_map(index, HOSTILE, [], count=20)
        html = found.html()
    assert "numbered: nothing." in found.alt
    assert "<script" not in html
    assert "alert('x')" in Page(html).spots()[-1]["data-name"]


def test_colours_stand_out_on_both_surfaces_and_differ_in_shape():
    for theme in (LIGHT, DARK):
        assert all(contrast(colour, theme.surface) >= 3 for colour in COLOURS)
    assert len(set(COLOURS)) == len(set(MARKS)) == len(COLOURS) == 8


# The cards


def test_a_card_shows_price_likeness_category_and_shared_words():
    cards = neighbour_cards("Blue kettle of 2 litres", [near(), near(title="Oven", similarity=-1)])
    page = Page(cards._repr_html_())
    text = " ".join(page.text)
    assert all(part in text for part in ("$24.50", "Red kettle", "Home", "0.80", "Blue kettle"))
    widths = [a["style"] for _, a in page.tags if "style" in a]
    assert widths == ["width:80%", "width:0%"]
    assert [tag for tag, _ in page.tags].count("li") == 2
    assert repr(cards).splitlines() == [
        "looked for: Blue kettle of 2 litres",
        "1. 0.80  Red kettle, $24.50 (Home)", "   shares kettle, litres",
        "2. -1.00  Oven, $24.50 (Home)", "   shares kettle, litres",
    ]  # fmt: skip


def test_what_sellers_write_stays_text():
    facts = {"title": HOSTILE, "category": HOSTILE, "text": HOSTILE}
    html = neighbour_cards(HOSTILE, [near(**facts)])._repr_html_()
    assert "<script" not in html
    assert html.count("${text} $surface") >= 2
    assert "alert('x')" in "".join(Page(html).text)


def test_no_neighbour_and_no_title_are_said():
    assert "no neighbour" in neighbour_cards("a kettle", [])._repr_html_()
    assert "no title" in repr(neighbour_cards(" ", [near(title="", text="")]))
    assert "no word" in repr(neighbour_cards("lamp", [near()]))


def test_shared_words_leave_out_what_every_text_has():
    one = "Steel kettle with a lid\nItem Weight: 2 pounds\nBrand: Acme"
    other = "A lid for the steel pot\nItem Weight: 3 pounds\nBrand: Other"
    assert shared_words(one, other) == ["steel", "lid", "pounds"]
    assert shared_words(one, other, most=1) == ["steel"]
