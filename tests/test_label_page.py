"""The labelling page in a real browser: by keyboard, blind, and through a kill -9."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pyarrow as pa
import pytest
from browsers import needs_browser

from shared.data import Product, open_items
from shared.data.schema import ITEM
from shared.data.storage import write_json, write_parquet
from shared.pipeline import prepare
from shared.pricers.human import Answers, asked
from shared.pricers.label_page import Session, _view

BOX = "#price input, #price textarea"
EVIL = Product("p", "<script>alert(1)</script>", "<img src=x onerror=alert(1)> ${1+1}", "<b>", "{}")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Real items, and in place of one that is asked about, one that would be code if it could."""
    found = prepare("embedded", tmp_path_factory.mktemp("items"), size=800, progress=False)
    rows = asked(found.table("test"), 6).to_pylist()
    rows[1] |= {
        "title": f"{EVIL.title} {{{{value}}}}",
        "text": EVIL.text,
        "category": EVIL.category,
    }
    folder = tmp_path_factory.mktemp("asked")
    write_parquet(pa.Table.from_pylist(rows, ITEM), folder / "items.parquet")
    write_json(found.manifest, folder / "manifest.json")
    return open_items(folder)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def served(items, answers, port):
    """The real command; it is killed, not asked, in the end."""
    command = [sys.executable, "-m", "shared", "label", "--items", str(items.folder), "--n", "6"]
    command += ["--out", str(answers), "--rater", "anna", "--port", str(port), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            for line in process.stdout:
                if found := re.search(r"http://127.0.0.1:\d+", line):
                    yield found[0]
                    break
            else:
                pytest.fail("the page did not start")
        finally:
            process.send_signal(signal.SIGKILL)


LISTEN = """
    window.heard = [];
    const fetched = window.fetch;
    window.fetch = async (...asked) => {
        const answer = await fetched(...asked);
        const copy = answer.clone().body?.getReader(), decoder = new TextDecoder();
        const read = () => copy.read().then(({done, value}) => {
            if (!done) { window.heard.push(decoder.decode(value, {stream: true})); read(); }
        }, () => {});
        if (copy) read();
        return answer;
    };
    window.EventSource = class extends window.EventSource {
        constructor(...asked) {
            super(...asked);
            this.addEventListener("message", (event) => window.heard.push(event.data));
        }
    };
"""
"""Writes down what the page is told as it comes: a busy browser forgets streams that have ended."""


class Person:
    """Somebody at a page of a real browser; what the page hears and says is written down."""

    def __init__(self, browser, url):
        self.errors, self.asked, self.said = [], [], []
        self.page = browser.new_page()
        self.page.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.add_init_script(LISTEN)
        self.said.append(self.page.goto(url).text())

    def sees(self, *texts):
        for text in texts:
            self.page.get_by_text(text).first.wait_for()
        self.said += [self.page.content(), self.page.evaluate("window.heard.join('')")]

    def types(self, text, *keys):
        self.page.keyboard.type(text)
        for key in keys or ["Enter"]:
            self.page.keyboard.press(key)


@needs_browser
def test_a_person_prices_by_keyboard_and_goes_on_after_a_crash(items, tmp_path, browser):
    path, port, wanted = tmp_path / "answers.jsonl", free_port(), asked(items.table("test"), 6)
    ids, titles = wanted["id"].to_pylist(), wanted["title"].to_pylist()
    with served(items, path, port) as url:
        anna = Person(browser, url)
        anna.sees(titles[0], "0 of 6 done")
        anna.page.wait_for_function("document.activeElement.closest('#price')")
        anna.types("cheap")
        anna.sees("is not a price")
        anna.types("$1,024.50", "Enter", "Enter")  # what was typed wrong is selected: type over it
        anna.sees("1 of 6 done", titles[1], EVIL.text)
        anna.page.keyboard.press("Escape")
        anna.sees("2 of 6 done", titles[2])
        anna.types("7")
        anna.sees("3 of 6 done", titles[3])
        anna.page.keyboard.press("Alt+Z")
        anna.sees("2 of 6 done", "Taken back")
        anna.page.reload()
        anna.sees("2 of 6 done", titles[2])
    assert Answers(path).by_rater == {"anna": {ids[0]: 1024.5, ids[1]: None}}
    anna.page.close()  # the kill gives it errors of its own
    assert not anna.errors
    with served(items, path, port) as url:
        again = Person(browser, url)
        for i in range(2, 6):
            again.sees(f"{i} of 6 done", titles[i])
            again.types("5")
        again.sees("6 of 6 done", "Done, thank you")
    assert list(Answers(path).by_rater["anna"].values()) == [1024.5, None, 5.0, 5.0, 5.0, 5.0]
    assert all(seconds > 0 for seconds in Answers(path).seconds.values())
    everything = "".join(anna.said + again.said)
    assert titles[2] in everything
    assert f"{ids[2]}" in everything
    for price in wanted["price"].to_pylist():
        written = {f"{price:.2f}"} | ({str(price)} if price % 1 else set())
        assert not [text for text in written if text in everything], "the answer is given away"
    strangers = [u for u in anna.asked + again.asked if not u.startswith((url, "data:", "blob:"))]
    assert not strangers, "the page needs the internet"


@needs_browser
def test_two_raters_and_two_tabs_do_not_answer_for_each_other(items, tmp_path, browser):
    path, wanted = tmp_path / "answers.jsonl", asked(items.table("test"), 6)
    ids, titles = wanted["id"].to_pylist(), wanted["title"].to_pylist()
    with served(items, path, free_port()) as url:
        one, two = Person(browser, url), Person(browser, url)
        for tab in (one, two):
            tab.sees("0 of 6 done", titles[0])
        one.page.locator(BOX).first.fill("10")
        one.types("")
        one.sees("1 of 6 done")
        two.page.locator(BOX).first.fill("20")
        two.types("")
        two.sees("has been answered", titles[1])
        one.page.locator("#rater input, #rater textarea").first.fill("ben")
        one.page.locator(BOX).first.fill("")
        one.sees("0 of 6 done", titles[0])
        one.page.locator(BOX).first.fill("30")
        one.types("")
        one.sees("1 of 6 done")
        assert Answers(path).by_rater == {"anna": {ids[0]: 10.0}, "ben": {ids[0]: 30.0}}
        assert not one.errors + two.errors
        one.page.close(), two.page.close()


def test_nothing_is_kept_for_a_product_that_was_not_on_the_screen(tmp_path):
    session = Session(
        [Product(f"p{i}", "t", "x", "c", "{}") for i in range(3)], Answers(tmp_path / "a.jsonl")
    )
    ticket = session.ticket("anna")
    assert "next product of ben" in session.answer("ben", ticket, "5")
    assert "$5.00" in session.answer("anna", ticket, "5")
    assert "has been answered" in session.answer("anna", ticket, "5")
    assert "has been answered" in session.answer("anna", ticket, None)
    assert "Nothing kept" in session.answer("anna", None, "5")
    with pytest.raises(ValueError, match="your name"):
        session.answer("", session.ticket(""), "5")
    assert session.answers.by_rater == {"anna": {"p0": 5.0}}
    session.answers.add("anna", "of another split", 9.0)
    assert "Taken back" in session.undo("anna")
    assert "nothing" in session.undo("anna")
    assert session.answers.by_rater == {"anna": {"of another split": 9.0}}


def test_product_texts_are_text_and_not_markup(tmp_path):
    count, card, message = _view(Session([EVIL], Answers("/nowhere")), "anna", "<i>m</i>")
    for markup in ("<script", "<img", "<b>", "<i>"):
        assert markup not in card + message
    assert "0 of 1" in count
