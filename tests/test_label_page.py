"""The labelling page in a real browser: by keyboard, blind, and through a kill -9."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from shared.data import prepare
from shared.pricers.human import Answers, asked

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium or chrome is installed here")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return prepare("embedded", tmp_path_factory.mktemp("items"), size=800, progress=False)


@contextmanager
def served(items, answers):
    """The real command on a free port; it is killed, not asked, in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "shared", "label", "--items", str(items.folder), "--n", "4"]
    command += ["--answers", str(answers), "--rater", "anna", "--port", str(port), "--no-browser"]
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


@contextmanager
def browser_page(url, heard, **options):
    """A page of the real browser; what it hears over the network goes to ``heard``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(**options)
        page.on("console", lambda m: heard["errors"].append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: heard["asked"].append(request.url))
        page.on("response", lambda response: _listen(response, heard))
        page.goto(url)
        page.wait_for_selector("text=answered")
        yield page
        browser.close()


def _listen(response, heard):
    kind = response.headers.get("content-type", "")
    if "json" in kind or "html" in kind:
        try:
            heard["said"].append(response.text())
        except Exception as error:  # a stream that is still open has no body yet
            heard["unread"].append(str(error))


def test_a_person_prices_by_keyboard_and_goes_on_after_a_crash(items, tmp_path):
    path, heard = tmp_path / "answers.jsonl", {"errors": [], "said": [], "asked": [], "unread": []}
    wanted = asked(items.table("test"), 4)
    ids, titles = wanted["id"].to_pylist(), wanted["title"].to_pylist()
    with served(items, path) as url, browser_page(url, heard) as page:
        page.wait_for_selector(f"text={titles[0]}")
        page.locator("#price input, #price textarea").first.click()
        page.keyboard.type("cheap")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=is not a price")
        page.keyboard.press("Control+A")
        page.keyboard.type("$1,024.50")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=1 of 4 answered")
        page.wait_for_selector(f"text={titles[1]}")
        page.keyboard.press("Escape")
        page.wait_for_selector("text=2 of 4 answered")
        page.keyboard.type("7")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=3 of 4 answered")
        page.keyboard.press("Alt+Z")
        page.wait_for_selector("text=2 of 4 answered")
        html = page.content()
    assert Answers(path).by_rater == {"anna": {ids[0]: 1024.5, ids[1]: None}}
    with served(items, path) as url, browser_page(url, heard) as page:
        page.wait_for_selector("text=2 of 4 answered")
        page.wait_for_selector(f"text={titles[2]}")
        for count in (3, 4):
            page.locator("#price input, #price textarea").first.fill("5")
            page.keyboard.press("Enter")
            page.wait_for_selector(f"text={count} of 4 answered")
        page.wait_for_selector("text=Thank you")
        html += page.content()
    assert list(Answers(path).by_rater["anna"].values()) == [1024.5, None, 5.0, 5.0]
    assert all(seconds > 0 for seconds in Answers(path).seconds.values())
    everything = html + "".join(heard["said"])
    for price in wanted["price"].to_pylist():
        assert f"{price:.2f}" not in everything, "the page gives the answer away"
    assert not [
        url for url in heard["asked"] if not url.startswith(("http://127.0.0.1", "data:", "blob:"))
    ]
    assert not [e for e in heard["errors"] if "ERR_" not in e]


def test_markup_in_a_product_is_shown_and_not_run():
    from shared.data import Product
    from shared.pricers.label_page import Session, _view

    evil = Product(
        "p", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<b>c</b>", "{}"
    )
    card, _, message = _view(Session([evil], Answers("/nowhere")), "anna", "<i>m</i>")
    assert "<script" not in card
    assert "<img" not in card
    assert "<b>" not in card
    assert "<i>" not in message
