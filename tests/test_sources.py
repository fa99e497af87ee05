"""Sources: every bad input a shop, a download or a spreadsheet has produced, and what is said."""

import gzip
import json

import orjson
import pytest

from shared.data import SourceError, source_blocks
from shared.data.parsing import MAX_LINE_BYTES, parse_block
from shared.data.sources import AMAZON
from shared.pipeline import prepare
from shared.pipeline.steps import _parsed, read_products


def record(i: int, **changes) -> dict:
    base = {
        "parent_asin": f"ID{i:04d}",
        "title": f"Stainless kettle number {i} with a long enough title",
        "features": ["Holds two quarts of water", "Whistles when it boils", f"Serial colour {i}"],
        "description": ["A kettle for the kitchen of anybody who drinks tea."],
        "price": 10.0 + i,
        "details": json.dumps({"Brand": "Tealark", "Item Weight": "2 pounds"}),
        "main_category": "Appliances",
    }
    return base | changes


def lines(records) -> bytes:
    return b"".join(orjson.dumps(r) + b"\n" for r in records)


def read(path) -> tuple[list[dict], list[str]]:
    rows, examples = [], []
    for table, malformed in _parsed(str(path), 0, 0, AMAZON, None):
        rows += table.to_pylist()
        examples += malformed.examples
    return rows, examples


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.jsonl"
    path.write_bytes(lines(record(i) for i in range(20)))
    return path


def test_reads_plain_and_gzip_alike_whatever_the_name_says(tmp_path, good):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(good.read_bytes()))
    (tmp_path / "misnamed.jsonl").write_bytes(gzip.compress(good.read_bytes()))
    (tmp_path / "plain.jsonl.gz").write_bytes(good.read_bytes())
    expected = read(good)
    for name in ("a.jsonl.gz", "misnamed.jsonl", "plain.jsonl.gz"):
        assert read(tmp_path / name) == expected


def test_a_folder_is_read_in_order_of_names(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "b.jsonl").write_bytes(lines([record(2)]))
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines([record(1)])))
    (folder / "notes.txt").write_text("not a shard")
    rows, _ = read(folder)
    assert [r["parent_asin"] for r in rows] == ["ID0001", "ID0002"]


@pytest.mark.parametrize(
    ("prefix", "ending"), [(b"\xef\xbb\xbf", b"\n"), (b"", b"\r\n"), (b"\xef\xbb\xbf", b"\r\n")]
)
def test_bom_and_crlf_change_nothing(tmp_path, good, prefix, ending):
    path = tmp_path / "windows.jsonl"
    path.write_bytes(prefix + good.read_bytes().replace(b"\n", ending))
    assert read(path) == read(good)


def test_a_last_line_without_newline_and_blank_lines_are_fine(tmp_path):
    path = tmp_path / "gaps.jsonl"
    path.write_bytes(lines([record(1)]) + b"\n\n  \n" + lines([record(2)]).rstrip())
    rows, examples = read(path)
    assert len(rows) == 2
    assert examples == []


def test_malformed_lines_are_named_by_file_and_line_and_the_rest_is_kept(tmp_path):
    path = tmp_path / "some.jsonl"
    bad = [b"{'single': 'quotes'}", b"[1, 2]", b'"text"', b'{"cut": ', b'{"a": "\xff\xfe"}']
    body = lines(record(i) for i in range(50)).splitlines()
    for place, line in zip((3, 10, 20, 30, 40), bad, strict=True):
        body.insert(place, line)
    body.insert(0, b"")  # a blank line still counts as a line when places are named
    path.write_bytes(b"\n".join(body))
    rows, examples = read(path)
    assert len(rows) == 50
    assert [e.split(":")[0] for e in examples] == [
        f"some.jsonl, line {n}" for n in (5, 12, 22, 32, 42)
    ]
    assert "not JSON" in examples[0]
    assert "a JSON list" in examples[1]
    assert "not UTF-8" in examples[4]


def test_too_many_malformed_lines_are_an_error_that_shows_them(tmp_path):
    path = tmp_path / "page.jsonl"
    path.write_bytes(b"<html>\n" * 40 + lines(record(i) for i in range(40)))
    with pytest.raises(SourceError, match=r"40 of 80 lines are malformed.*page.jsonl, line 1"):
        read(path)


def test_a_huge_file_of_another_kind_is_refused_early(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"GET /index.html 200\n" * 200_000)
    blocks = source_blocks(str(path))
    first = next(blocks)
    assert len(first.lines) <= 5000
    with pytest.raises(SourceError, match="malformed"):
        read(path)


def test_a_50_mb_line_is_counted_and_not_held(tmp_path):
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(lines([record(1)]))
        file.write(b'{"title": "' + b"x" * 50_000_000 + b'"}\n')
        file.write(lines([record(2)]))
    rows, examples = read(path)
    assert [r["parent_asin"] for r in rows] == ["ID0001", "ID0002"]
    assert examples == ["long.jsonl, line 2: longer than 16 MB"]
    longest = max(len(line) for b in source_blocks(str(path)) for line in b.lines)
    assert longest < MAX_LINE_BYTES + 9_000_000


BAD_FILES = {
    "empty": (b"", "is empty"),
    "blank": (b"\n\n\n", "is empty"),
    "utf16": ("{}\n".encode("utf-16"), "UTF-16.*save it as UTF-8"),
    "parquet": (b"PAR1....", "Parquet"),
    "zip": (b"PK\x03\x04....", "zip archive; unpack"),
    "latin1": ('{"title": "Käse"}\n'.encode("latin-1") * 9, r"not UTF-8 \(byte 0xe4"),
    "truncated": (gzip.compress(b'{"title": "a"}\n' * 90_000)[:-200], "cut off.*download"),
    "damaged": (b"\x1f\x8b\x08\x00" + b"\x00" * 50, "damaged|cut off"),
    "array": (b'[\n{"title": "a"},\n{"title": "b"}\n]\n', "JSON array; write one object a line"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_gets_a_clear_error_and_nothing_is_written(tmp_path, name):
    content, message = BAD_FILES[name]
    path = tmp_path / f"{name}.jsonl"
    path.write_bytes(content)
    out = tmp_path / "out"
    with pytest.raises(SourceError, match=message) as caught:
        prepare(str(path), out, progress=False)
    assert path.name in str(caught.value)
    assert not out.exists()


def test_a_source_that_is_not_there_says_what_a_source_is(tmp_path):
    with pytest.raises(SourceError, match=r"no such file.*'embedded'"):
        prepare(str(tmp_path / "nowhere.jsonl"), tmp_path / "out", progress=False)
    with pytest.raises(SourceError, match=r"holds no .jsonl"):
        prepare(str(tmp_path), tmp_path / "out", progress=False)


def test_fields_of_another_type_than_declared_are_brought_to_it(tmp_path):
    path = tmp_path / "types.jsonl"
    odd = [
        record(1, title=["A list", "of words"], features="one text", description=None),
        record(2, price="from 14.99", details={"Brand": "Tealark"}, categories="Kettles"),
        record(3, price=True, title=17, features=[1, None, "b"], store={"name": "x"}),
        {"title": "nothing else"},
        {},
    ]
    path.write_bytes(lines(odd))
    rows, examples = read(path)
    assert examples == []
    assert rows[0]["title"] == "A list of words"
    assert rows[0]["features"] == ["one text"]
    assert rows[0]["description"] == []
    assert rows[1]["price"] == "from 14.99"
    assert json.loads(rows[1]["details"]) == {"Brand": "Tealark"}
    assert rows[2]["title"] == "17"
    assert rows[2]["features"] == ["1", "", "b"]
    assert rows[4]["title"] is None


def test_products_to_be_priced_are_all_kept_with_ids_of_their_own(tmp_path):
    path = tmp_path / "input.jsonl"
    path.write_bytes(
        lines([record(1), record(1), record(2, parent_asin=None, price=None), {"title": "x"}])
    )
    items, malformed = read_products(str(path))
    assert malformed.count == 0
    assert items["id"].to_pylist() == ["ID0001", "ID0001#2", "record-3", "record-4"]
    assert items["price"].to_pylist() == [11.0, 11.0, None, None]


def test_impossible_prices_of_products_to_be_priced_are_unknown(tmp_path):
    """Incident: one record at -1 dollars stopped the pricing of all the others."""
    path = tmp_path / "odd.jsonl"
    prices = [-1.0, 0, "1e30", "0.01", 5000]
    path.write_bytes(lines(record(i, price=p) for i, p in enumerate(prices)))
    items, _ = read_products(str(path))
    assert items["price"].to_pylist() == [None, None, None, 0.01, 5000.0]


def test_blocks_know_their_line_numbers(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_bytes(lines(record(i) for i in range(9000)))
    blocks = list(source_blocks(str(path)))
    assert sum(len(b.lines) for b in blocks) == 9000
    assert [b.first for b in blocks] == [1, 4097, 8193]
    table, _ = parse_block(blocks[1])
    assert table["parent_asin"][0].as_py() == "ID4096"


def test_amazon_is_streamed_from_plain_jsonl_over_http(httpserver, tmp_path):
    rows = [record(i, price="from 14.99" if i == 3 else 9.5) for i in range(10)]
    body = lines(rows) + b'{"title": "\xff"}\nnot json\n'
    httpserver.expect_request("/meta_Appliances.jsonl").respond_with_data(body)
    template = httpserver.url_for("/meta_{category}.jsonl")
    found, examples = [], []
    for table, malformed in _parsed("amazon:Appliances", 0, 0, template, None):
        found += table.to_pylist()
        examples += malformed.examples
    assert [r["parent_asin"] for r in found] == [r["parent_asin"] for r in rows]
    assert found[3]["price"] == "from 14.99"
    assert [e.split(":")[0] for e in examples] == [
        "meta_Appliances.jsonl, line 11",
        "meta_Appliances.jsonl, line 12",
    ]


def test_amazon_is_read_from_a_local_mirror_too_one_category_after_the_other(tmp_path):
    for i, category in enumerate(("Appliances", "Toys_and_Games")):
        (tmp_path / f"meta_{category}.jsonl").write_bytes(lines([record(i)]))
    template = str(tmp_path / "meta_{category}.jsonl")
    items, _ = read_products("amazon:Appliances, Toys and Games", amazon=template)
    assert items["id"].to_pylist() == ["ID0000", "ID0001"]


def test_amazon_that_cannot_be_reached_names_category_and_remedy(httpserver, tmp_path):
    template = httpserver.url_for("/missing_{category}.jsonl")
    with pytest.raises(SourceError, match=r"amazon:Appliances.*pass its path"):
        prepare("amazon:Appliances", tmp_path / "out", amazon=template, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_category_that_does_not_exist_gets_a_suggestion():
    with pytest.raises(SourceError, match="did you mean Appliances"):
        source_blocks("amazon:Aplliances")


def test_the_amazon_address_is_pinned_to_a_revision_and_runs_no_script():
    assert "@2b6d039ed471f2ba5fd2acb718bf33b0a7e5598e/" in AMAZON
    assert AMAZON.endswith(".jsonl")
