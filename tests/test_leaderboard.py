"""The leaderboard: from stored files alone, honest about what it holds, safe to open."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from shared.evaluation import evaluate, score
from shared.evaluation.store import SUFFIX
from shared.reports import collect, to_console, to_html, to_markdown
from shared.reports import columns as c

PRICES = np.round(np.random.default_rng(5).uniform(5, 300, 120), 2)
EVIL = "<script>alert('x')</script> | $a$"


def items(prices=PRICES, split="test"):
    return [
        {"id": f"p{i}", "title": str(i), "category": f"c{i % 3}", "price": float(p), "split": split}
        for i, p in enumerate(prices)
    ]


def save(folder, name, estimates, prices=PRICES, split="test", **options):
    values = dict(zip((f"p{i}" for i in range(len(prices))), estimates, strict=True))

    def pricer(product):
        return values[product.id]

    pricer.__name__ = name
    evaluate(pricer, items(prices, split), store=folder, progress=False, **options)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    noise = np.random.default_rng(1).normal(0, 20, (3, len(PRICES)))
    save(folder, "fair", PRICES + 300 + noise[0])
    save(folder, "twin", PRICES + 300 + noise[1], label="stand-in")
    save(folder, EVIL, PRICES + 900)
    save(folder, "silent", [None] * len(PRICES))
    save(folder, "picky", [p if i < 60 else None for i, p in enumerate(PRICES)])
    save(folder / "validation", "fair", PRICES[:50] + 1, PRICES[:50], "validation")
    (folder / ".partial" / "slow-0123456789abcdef").mkdir(parents=True)
    save(folder, "torn", PRICES)
    (folder / f"torn{SUFFIX}").unlink()
    return folder


@pytest.fixture(scope="module")
def board(results):
    return collect(results)


def by_name(board, split="Test"):
    return {r["pricer"]: r for r in board if r["items_title"].startswith(split)}


def test_sets_of_items_are_never_mixed(board):
    assert [c.heading(g).split()[0] for g in c.groups(board).values()] == ["Test", "Validation"]
    assert len(by_name(board, "Validation")) == 1
    assert by_name(board)["fair"]["n"] == 120
    assert "3 categories, median price" in by_name(board)["fair"]["items_title"]


def test_ranks_and_ties(board):
    rows = by_name(board)
    assert {rows["fair"]["rank"], rows["twin"]["rank"]} == {1, 2}
    assert rows[EVIL]["rank"] == 3
    second = next(r for r in rows.values() if r["rank"] == 2)
    assert second["p_against_best"] > 0.05
    assert rows[EVIL]["p_against_best"] < 0.05
    text = to_console(board)
    assert re.search(r"tie, p = 0\.\d+", text)
    assert "worse, p" in text


def test_who_leaves_out_the_hard_ones_gets_no_rank(board):
    """The incident: a pricer that answered half of the products, all perfectly, led the table."""
    rows = by_name(board)
    assert rows["picky"]["mae"] == 0
    assert rows["picky"]["rank"] is None
    assert not rows["picky"]["is_best"]
    order = [r["pricer"] for r in board if r["items_title"].startswith("Test")]
    assert order[-2:] == ["picky", "silent"]


def test_unfinished_results_are_left_out_and_named(board):
    assert "torn" not in by_name(board)
    for text in (to_console(board), to_markdown(board), to_html(board)):
        assert "torn: no manifest" in text
        assert "slow: stopped half-way" in text


def test_a_failure_is_a_dash_and_never_zero_dollars(board):
    row = by_name(board)["silent"]
    assert row["mae"] is None
    line = next(x for x in to_console(board).splitlines() if "silent" in x)
    assert "—" in line
    assert "0.00" not in line


def test_rows_are_json(board):
    text = json.dumps(board, allow_nan=False)
    assert {"pricer", "n", "failed", "mae", "rmsle", "hits"} <= set(json.loads(text)[0])


def test_stand_ins_and_reported_figures_are_labelled(board):
    for text in (to_console(board), to_markdown(board)):
        assert "twin (stand-in)" in text
        assert "gpt-4o (reported)" in text
        assert "do not compare" in text
    page = to_html(board)
    assert 'twin <span class="chip">stand-in</span>' in page
    assert page.count('<span class="chip">reported</span>') == len(c.reported())
    assert "do not compare" in page


def test_reported_figures_have_a_source_a_size_and_sane_intervals():
    for one in c.reported():
        assert one["title"]
        assert one["source"]
        assert one["products"] >= 200
        errors = [row["mae"] for row in one["results"]]
        assert errors == sorted(errors)
        assert all(r["low"] < r["mae"] < r["high"] for r in one["results"] if "low" in r)


class Outline(HTMLParser):
    """Collects the tags of a page and checks that they close."""

    void = frozenset({"meta", "br"})

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_self_contained_and_escapes_names(board):
    page = to_html(board)
    outline = Outline(page)
    names = [tag for tag, _ in outline.tags]
    assert not {"script", "link", "img", "iframe", "object"} & set(names)
    assert EVIL in "".join(outline.text)
    for tag, attributes in outline.tags:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on"), (tag, attribute)
            if attribute in ("src", "href", "xlink:href", "action"):
                assert value.startswith("#"), (tag, value)
    assert not re.search(r"@import|url\((?!#)", page)


def test_the_page_is_accessible_and_has_both_themes(board):
    page = to_html(board)
    outline = Outline(page)
    tables = [tag for tag, _ in outline.tags if tag in ("table", "caption")]
    assert tables.count("table") == tables.count("caption") == 2 + len(c.reported())
    assert all("scope" in attributes for tag, attributes in outline.tags if tag == "th")
    charts = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(charts) == 2
    assert all(a["role"] == "img" and "Mean absolute error" in a["aria-label"] for a in charts)
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "prefers-color-scheme: dark" in page
    assert 'lang="en"' in page
    assert "var(--good)" in page


def test_markdown_tables_keep_their_shape(board):
    tables = [b for b in to_markdown(board).split("\n\n") if b.startswith("|")]
    assert len(tables) == 2 + len(c.reported())
    for table in tables:
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "<script>" not in to_markdown(board)
    assert not re.search(r"(?<!\\)\$", to_markdown(board))


def test_only_stored_files_are_read(results, board):
    assert collect(str(results)) == list(board)
    assert not list(results.glob(".partial/*/*"))


def test_no_results_and_no_folder(tmp_path):
    empty = collect(tmp_path)
    assert "No finished results yet" in to_console(empty)
    assert "No finished results yet" in to_markdown(empty)
    Outline(to_html(empty))
    with pytest.raises(FileNotFoundError, match="no folder"):
        collect(tmp_path / "nowhere")


def test_plain_scores_make_a_table_too(results):
    rows = [score(results / "fair.parquet"), score(results / "silent.parquet")]
    text = to_console(rows)
    assert "120 products" in text
    assert text.index("fair") < text.index("silent")
    assert "(reported)" not in text
    Outline(to_html(rows))
