"""The human baseline: answers survive, spreadsheets come back in any shape, raters are compared."""

import csv
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data import Product
from shared.evaluation import evaluate, score
from shared.pipeline import prepare
from shared.pricers.human import (
    Answers,
    HumanPricer,
    agreement,
    answered,
    asked,
    icc,
    read_price,
)
from shared.pricers.spreadsheet import export_csv, import_csv
from shared.reports import leaderboard


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return prepare("embedded", tmp_path_factory.mktemp("items"), size=1200, progress=False)


@pytest.fixture
def answers(tmp_path):
    return Answers(tmp_path / "answers.jsonl")


def some(n, **changes) -> list[Product]:
    base = {"title": "t", "text": "x", "category": "c", "details": "{}"} | changes
    return [Product(id=f"p{i}", **base) for i in range(n)]


def test_all_raters_are_asked_about_the_same_products(items):
    table = items.table("test")
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    first, again = (asked(t, 20)["id"].to_pylist() for t in (table, shuffled))
    assert first == again
    assert asked(table, 5)["id"].to_pylist() == first[:5]
    assert asked(table, 20, seed=1)["id"].to_pylist() != first
    assert asked(table, 10**6).num_rows == table.num_rows


@pytest.mark.parametrize(
    ("text", "dollars"),
    [("24.99", 24.99), ("$1,299.00", 1299), (" 12 ", 12), ("15 dollars", 15), (".99", 0.99)],
)
def test_prices_are_read_as_people_write_them(text, dollars):
    assert read_price(text) == pytest.approx(dollars)


@pytest.mark.parametrize(
    "text",
    ["", "cheap", "12,50", "10-20", "0", "-5", "0.004", "2000000", "1e9", "1e999", "nan", "١٢"],
)
def test_what_is_no_price_is_refused_with_a_reason(text):
    with pytest.raises(ValueError, match="price"):
        read_price(text)


def test_answers_survive_a_restart(answers):
    answers.add("anna", "p1", 10.0, 3.5)
    answers.add("anna", "p2", None)
    answers.add("ben", "p1", 12.0)
    again = Answers(answers.path)
    assert again.by_rater == {"anna": {"p1": 10.0, "p2": None}, "ben": {"p1": 12.0}}
    assert again.seconds["anna", "p1"] == 3.5


def test_the_last_answer_can_be_taken_back_again_and_again(answers):
    for item, price in (("p1", 1.0), ("p2", 2.0), ("p1", 3.0)):
        answers.add("anna", item, price)
    assert [answers.undo("anna"), answers.undo("anna"), answers.undo("anna")] == ["p1", "p2", None]
    assert Answers(answers.path).by_rater["anna"] == {}


def test_a_torn_last_line_is_dropped_and_any_other_is_an_error(answers):
    answers.add("anna", "p1", 10.0)
    with answers.path.open("ab") as file:
        file.write(b'{"rater": "anna", "item_id": "p2", "pri')
    torn = Answers(answers.path)
    assert torn.by_rater == {"anna": {"p1": 10.0}}
    torn.add("anna", "p3", 30.0)
    assert Answers(answers.path).by_rater == {"anna": {"p1": 10.0, "p3": 30.0}}
    answers.path.write_bytes(b"{}\n" + answers.path.read_bytes())
    with pytest.raises(ValueError, match="line 1"):
        Answers(answers.path)


@pytest.mark.parametrize("price", ['"x"', "NaN", "-1", "[]"])
def test_a_line_that_is_no_answer_is_named(answers, price):
    answers.add("anna", "p1", 10.0)
    with answers.path.open("a", encoding="utf-8") as file:
        file.write(f'{{"rater": "anna", "item_id": "p2", "price": {price}}}\n')
    with pytest.raises(ValueError, match="line 2: no answer"):
        Answers(answers.path)


def test_no_price_that_cannot_be_one_is_kept(answers):
    for price in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not a price"):
            answers.add("anna", "p1", price)
    assert not answers.path.exists()


def test_taking_back_can_be_kept_to_the_products_at_hand(answers):
    answers.add("anna", "here", 1.0)
    answers.add("anna", "of another split", 2.0)
    assert answers.undo("anna", among=["here"]) == "here"
    assert answers.undo("anna", among=["here"]) is None
    assert answers.by_rater == {"anna": {"of another split": 2.0}}


def test_two_readers_of_one_file_see_each_other(answers):
    other = Answers(answers.path)
    answers.add("anna", "p1", 1.0)
    other.add("ben", "p1", 2.0)
    assert other.by_rater == {"anna": {"p1": 1.0}, "ben": {"p1": 2.0}}
    answers.refresh()
    assert answers.by_rater == other.by_rater
    answers.path.unlink()
    answers.add("anna", "p2", 3.0)
    assert answers.by_rater == {"anna": {"p2": 3.0}} == Answers(answers.path).by_rater


def test_a_process_waits_while_another_one_writes(answers):
    """Incident: it took the other's half line for a crash, and cut it off."""
    fcntl = pytest.importorskip("fcntl")
    code = (
        "import sys; from pathlib import Path\n"
        "from shared.pricers.human import Answers\n"
        "answers = Answers(Path(sys.argv[1]))\n"
        "print('ready', flush=True); answers.add('ben', 'p1', 2.0)"
    )
    line = b'{"rater": "anna", "item_id": "p1", "price": 1.0}\n'
    with answers.path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line[:20])
        file.flush()
        command = [sys.executable, "-c", code, str(answers.path)]
        ben = subprocess.Popen(command, stdout=subprocess.PIPE)
        ben.stdout.readline()
        time.sleep(0.5)  # time enough to do damage
        file.write(line[20:])
    ben.communicate()
    assert Answers(answers.path).by_rater == {"anna": {"p1": 1.0}, "ben": {"p1": 2.0}}


def test_an_answer_is_on_the_disk_when_add_returns(tmp_path):
    """kill -9 right after each answer: nothing acknowledged is lost."""
    path = tmp_path / "answers.jsonl"
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from shared.pricers.human import Answers\n"
        "Answers(Path(sys.argv[1])).add('anna', sys.argv[2], 5.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    for item in ("p1", "p2"):
        subprocess.run([sys.executable, "-c", code, str(path), item], env=os.environ)
    assert list(Answers(path).by_rater["anna"]) == ["p1", "p2"]


def test_a_rater_is_scored_like_any_pricer(items, answers):
    table = asked(items.table("test"), 12)
    for i, item in enumerate(table.to_pylist()[:10]):
        answers.add("anna", item["id"], None if i == 0 else item["price"] + 5, seconds=2.0)
    found = evaluate(HumanPricer(answers, "anna"), table, progress=False)
    result = score(found)
    assert (result["pricer"], result["n"], result["failed"]) == ("human:anna", 12, 3)
    assert result["mae"] == pytest.approx(5.0)
    assert found.predictions["error"].to_pylist()[0] == "skipped"
    assert found.predictions["error"].to_pylist()[-1] == "not answered"
    assert found.predictions["seconds"].to_pylist()[1] == 2.0
    with pytest.raises(ValueError, match="there are: anna"):
        HumanPricer(answers, "zoe")


def test_a_product_that_nobody_came_to_is_no_failure(items, answers):
    table = asked(items.table("test"), 12)
    ids = table["id"].to_pylist()
    answers.add("anna", ids[2], 10.0)
    answers.add("anna", ids[0], None)
    answers.add("ben", ids[5], 20.0)
    answers.add("ben", "of another split", 20.0)
    seen = answered(table, answers, "anna")
    assert seen["id"].to_pylist() == [ids[0], ids[2]]
    result = score(evaluate(HumanPricer(answers, "anna"), seen, progress=False))
    assert (result["n"], result["failed"]) == (2, 1)
    assert answered(table, answers)["id"].to_pylist() == [ids[0], ids[2], ids[5]]
    assert answered(table, answers, "zoe").num_rows == 0


def test_the_crowd_is_the_median_of_those_who_answered(answers):
    for rater, price in (("a", 10.0), ("b", 20.0), ("c", 90.0), ("d", None)):
        answers.add(rater, "p0", price)
    crowd = HumanPricer(answers)
    assert crowd.name == "human"
    assert crowd.price(some(1)).price[0] == 20.0


def test_changed_answers_are_another_result(answers):
    answers.add("anna", "p0", 10.0)
    before = HumanPricer(answers).settings
    answers.add("anna", "p0", 11.0)
    assert HumanPricer(answers).settings != before


def test_agreement_is_one_for_twins_and_near_zero_for_strangers(answers, tmp_path):
    rng = np.random.default_rng(0)
    strangers = Answers(tmp_path / "strangers.jsonl")
    for i, price in enumerate(rng.lognormal(4, 1, 40)):
        for rater in ("a", "b"):
            answers.add(rater, f"p{i}", float(price))
            strangers.add(rater, f"p{i}", float(rng.lognormal(4, 1)))
    same, different = agreement(answers), agreement(strangers)
    assert (same["icc"], same["difference"]) == (pytest.approx(1.0), 0.0)
    assert same["n"] == 40
    assert different["icc_low"] < 0.1 < different["icc_high"] + 0.2
    assert different["difference_low"] < different["difference"] < different["difference_high"]


def test_icc_is_the_published_example():
    """Shrout and Fleiss (1979), table 2: six targets, four judges; ICC(2,1) = 0.29."""
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert icc(np.exp(np.array(ratings, dtype=float))) == pytest.approx(0.29, abs=0.005)


def test_agreement_needs_two_raters_and_common_items(answers):
    with pytest.raises(ValueError, match="needs two raters"):
        agreement(answers)
    answers.add("a", "p0", 1.0)
    answers.add("b", "p1", 1.0)
    with pytest.raises(ValueError, match=r"2 raters with 0 items.*a priced 1, b priced 1"):
        agreement(answers)


def test_a_rater_who_has_hardly_begun_can_be_left_out_of_the_agreement(answers):
    for rater, factor in (("a", 1.0), ("b", 1.1)):
        for i in range(5):
            answers.add(rater, f"p{i}", (i + 1) * factor)
    answers.add("c", "p0", 1.0)
    with pytest.raises(ValueError, match="c priced 1"):
        agreement(answers)
    found = agreement(answers, raters=["a", "b"])
    assert (found["raters"], found["n"], found["difference"]) == (2, 5, pytest.approx(0.3))


TITLES = st.text(min_size=0, max_size=30).filter(lambda t: "\x00" not in t and "\r" not in t)


@given(st.lists(TITLES, min_size=1, max_size=6), st.sampled_from(",;\t"), st.randoms())
@settings(deadline=None, max_examples=40)
def test_a_spreadsheet_comes_back_whatever_the_titles_are(tmp_path_factory, titles, mark, random):
    folder = tmp_path_factory.mktemp("sheet")
    listed = [Product(f"p{i}", t, t, "c", "{}") for i, t in enumerate(titles)]
    path = export_csv(listed, folder / "sheet.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    head, body = rows[0], rows[1:]
    random.shuffle(body)
    for row in body:
        assert not row[1].startswith(("=", "+", "-", "@"))
        row[4] = "$1,000.50"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=mark).writerows([[h.upper() for h in head], *body])
    answers = Answers(folder / "answers.jsonl")
    assert import_csv(path, listed, answers, "anna") == []
    assert answers.by_rater["anna"] == {p.id: 1000.5 for p in listed}


def test_bad_rows_are_named_and_good_ones_kept(answers, tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text(
        "price;id\n12,99;p0\n5;p1\ncheap;p2\n7;p9\n;p3\n8;p1\n;\n9\n", encoding="cp1252"
    )
    complaints = import_csv(path, some(5), answers, "anna")
    assert answers.by_rater == {"anna": {"p1": 5.0}}
    assert [c.split(":")[0] for c in complaints] == [
        f"sheet.csv, line {n}" for n in (2, 4, 5, 7, 9)
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,cost\n1,2\n", "no column id and no column price"),
        (b"", "no column id"),
        (b"PK\x03\x04rest", "Excel workbook"),
        (b'id,price\n"p0,5', "no CSV"),
    ],
)
def test_a_file_that_is_no_table_of_answers_says_so(answers, tmp_path, content, message):
    path = tmp_path / "sheet.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        import_csv(path, some(2), answers, "anna")
    assert not answers.path.exists()


def test_utf16_from_excel_is_read(answers, tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_bytes("id\tprice\np0\t5\n".encode("utf-16"))
    assert import_csv(path, some(1), answers, "anna") == []
    assert answers.by_rater["anna"] == {"p0": 5.0}


def test_the_command_exports_imports_and_scores(items, tmp_path):
    def label(*arguments):
        command = [sys.executable, "-m", "shared", "label", "--items", str(items.folder)]
        command += ["--n", "6", "--answers", str(tmp_path / "answers.jsonl"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ)

    sheet = tmp_path / "sheet.csv"
    assert label("--export", sheet).returncode == 0
    assert "exists already" in label("--export", sheet).stderr, "hours of work overwritten"
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    prices = set(f"{p:.2f}" for p in items.table()["price"].to_pylist())
    assert not prices & {cell for row in rows for cell in row}, "the sheet gives the answers away"
    for rater, price in (("anna", "50"), ("ben", "60")):
        with sheet.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([rows[0], *([*row[:4], price] for row in rows[1:])])
        done = label("--import", sheet, "--rater", rater)
        assert (done.returncode, "6 of 6" in done.stdout) == (0, True), done.stderr
    models = tmp_path / "models"
    evaluate(fifty, items.table("test"), store=models, progress=False, label="stand-in")
    assert label("--against", models).returncode == 2
    done = label("--results", tmp_path / "results", "--against", models)
    assert done.returncode == 0, done.stderr
    assert "they differ by 10.00 dollars" in done.stdout
    rows = leaderboard.collect(tmp_path / "results")
    assert {row["pricer"] for row in rows} == {"human", "human:anna", "human:ben", "fifty"}
    assert len({row["items"] for row in rows}) == 1, "one table: all on the same products"
    assert {row["pricer"] for row in rows if row["label"] == "stand-in"} == {"fifty"}


def fifty(product):
    return 50.0


def test_an_unfinished_rater_is_scored_on_what_was_answered(items, tmp_path):
    path = tmp_path / "answers.jsonl"
    for item in asked(items.table("test"), 6)["id"].to_pylist()[:2]:
        Answers(path).add("anna", item, 9.0)
    command = [sys.executable, "-m", "shared", "label", "--items", str(items.folder), "--n", "6"]
    command += ["--out", str(path), "--results", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "anna has come to 2 of 6" in done.stdout
    assert [row["failed"] for row in leaderboard.collect(tmp_path / "results")] == [0]


def test_an_id_that_excel_took_for_a_number_is_still_known(answers, tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text("id,price\n312345678,5\nB001,cheap\nB001,7\n", encoding="utf-8")
    listed = [Product(i, "t", "x", "c", "{}") for i in ("0312345678", "B001")]
    complaints = import_csv(path, listed, answers, "anna")
    assert [c.split(":")[0] for c in complaints] == ["sheet.csv, line 3"]
    assert answers.by_rater["anna"] == {"0312345678": 5.0, "B001": 7.0}
