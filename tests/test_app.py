"""The page's plain functions: what was typed, what mattered, what is known, what is shown."""

import asyncio
import json
import re
import socket
import threading
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from shared.app import compare_tab, price_tab, view
from shared.app.asking import CATEGORIES, EXAMPLES, MOST_TEXT, MOST_TITLE, asked_product
from shared.app.guard import MOST_BYTES, Guard
from shared.app.knowledge import Knowledge
from shared.app.mattered import MOST, Effect, marked, what_mattered, without
from shared.app.page import PASSWORD, serve_page
from shared.app.worker import Model, Worker, released
from shared.data import Product
from shared.evaluation.protocol import Estimates
from shared.pipeline import prepare
from shared.settings import Settings

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> [a](javascript:alert(1)) \"'><b>"


class ByWords:
    """Prices a product at 10 dollars, and 5 more for each different long word in it."""

    name, label, version = "by words", "", "v1"

    def price(self, products):
        words = [{w for w in re.findall(r"\w+", p.text.lower()) if len(w) > 4} for p in products]
        return Estimates([10.0 + 5 * len(w) for w in words])


class Tags(HTMLParser):
    """Writes down which tags and attributes a page would really have."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """The shipped release over few items, with its index built."""
    runs = tmp_path_factory.mktemp("runs")
    settings = Settings(runs=runs)
    prepare("embedded", runs / "items", size=600, progress=False)
    found = Worker(released(None), Knowledge.open(runs / "items", settings), settings)
    found.knowledge.start()
    assert found.knowledge.wait(60), found.knowledge.error
    yield found
    found.close()


def test_what_was_typed_is_cleaned_as_in_training():
    """Incident: a price that somebody pasted with the text was read by the model as a hint."""
    product = asked_product("Kettle, was $49.99", "Steel. https://shop.example/x B07XYZ1234", "")
    assert "49.99" not in product.text
    assert "http" not in product.text
    assert product.category == "Unknown"
    assert asked_product("Kettle", "", "Appliances").category == "Appliances"
    assert asked_product("Kettle", "", "<b>").category == "Unknown"
    assert asked_product("Kettle", "a", "").id != asked_product("Kettle", "b", "").id


@pytest.mark.parametrize(
    ("title", "text", "said"),
    [
        ("", "a fine thing", "title first"),
        (None, None, "title first"),
        (" \n\t", "x", "title first"),
        ("x" * (MOST_TITLE + 1), "", "501 characters"),
        ("x", "y" * (MOST_TEXT + 1), "20,001 characters"),
        ("<b></b>", "https://example.com", "No words are left"),
        ("...", "!!", "No words are left"),
    ],
)
def test_what_cannot_be_priced_is_refused_in_words(title, text, said):
    with pytest.raises(ValueError, match=said):
        asked_product(title, text, "Unknown")


@pytest.mark.parametrize("title", ["\ud800 kettle", "\x00kettle", "水壶 kettle", "a\u202eb kettle"])
def test_odd_characters_are_priced_like_any_other(title, worker):
    price, words = price_tab.estimate(worker, title, "steel " * 3000, "Unknown")
    assert "class='price'" in price
    assert "What mattered" in words


def test_a_word_is_left_out_wherever_it_stands():
    """Incident: a word that stood twice seemed not to matter, as its twin stood in for it."""
    product = Product("p", "Steel kettle", "Steel kettle\nof 1.5 l. Steel-made, steely", "c", "{}")
    found = without(product, "steel")
    assert (found.title, found.text) == ("kettle", "kettle\nof 1.5 l. -made, steely")
    assert "1.5" in without(product, "5").text
    assert "1.5" not in without(product, "1.5").text


def test_what_mattered_is_the_difference_that_a_word_makes():
    product = Product("p", "Steel kettle", "Steel kettle\nwith a handle, handle", "Unknown", "{}")
    found = what_mattered(ByWords(), product)
    assert {e.word: e.dollars for e in found.effects} == {"steel": 5, "kettle": 5, "handle": 5}
    assert (found.price, found.tried, found.unread) == (25.0, 5, 0)
    pieces = marked(product.text, found.effects)
    assert "".join(piece for piece, _ in pieces) == product.text
    assert sum(effect is not None for _, effect in pieces) == 4


def test_a_long_text_takes_a_bounded_number_of_estimates():
    """Incident: a pasted manual was priced four thousand times, while everybody waited."""
    asked = []

    class Counted(ByWords):
        def price(self, products):
            asked.append(len(products))
            return super().price(products)

    text = " ".join(f"w{n}" for n in range(3000))
    title = " ".join(f"t{n}" for n in range(100))
    found = what_mattered(Counted(), Product("p", title, text, "Electronics", "{}"))
    assert asked == [MOST + 2]
    assert found.unread == len(text) - 600


def test_a_failed_estimate_is_said_and_not_shown_as_a_price(worker, monkeypatch):
    broken = Model("broken", "", lambda: None)
    monkeypatch.setattr(broken, "price", lambda products: Estimates([np.nan], ["no <memory>"]))
    monkeypatch.setattr(worker, "model", broken)
    price, words = price_tab.estimate(worker, "Kettle", "", "Unknown")
    assert "No estimate: no &lt;memory&gt;" in price
    assert "$" not in price + words
    monkeypatch.setattr(broken, "price", lambda products: 1 / 0)
    assert "ZeroDivisionError" in price_tab.estimate(worker, "Kettle", "", "Unknown")[0]


def test_the_estimate_says_what_its_interval_means(worker):
    price, words = price_tab.estimate(worker, *EXAMPLES[0])
    amounts = [float(a.replace(",", "")) for a in re.findall(r"\$([\d,]+\.\d\d)", price)[:3]]
    assert amounts[1] < amounts[0] < amounts[2]
    assert amounts[2] / amounts[0] == pytest.approx(worker.release.factor, rel=0.01)
    for said in ("About 90 of 100", "version shipped", "off by $49.36 on average on test"):
        assert said in price
    assert "do not add up" in words


def test_neighbours_come_when_the_index_is_there(worker, tmp_path):
    shown = list(price_tab.neighbours(worker, *EXAMPLES[0]))
    assert len(shown) == 1
    assert shown[0].count('class="card"') == 6
    assert f"{worker.knowledge.count:,} training items: your items in items" in shown[0]
    assert list(price_tab.neighbours(worker, "", "", "")) == [""]
    nothing = next(price_tab.neighbours(worker, "qqqq xxzzyy", "", ""))
    assert "estimate" in nothing  # with little to go by, or to be taken with care


def test_a_second_start_opens_the_index_that_the_first_built(worker, monkeypatch):
    from shared.retrieval import ProductIndex

    monkeypatch.setattr(ProductIndex, "build", None)
    again = Knowledge(worker.knowledge.items, worker.settings, "the same")
    again.start()
    assert again.wait(60), again.error
    product = asked_product(*EXAMPLES[1])
    assert again.neighbours(product) == worker.knowledge.neighbours(product)


def test_a_failed_index_leaves_the_page_working_and_says_why(worker, monkeypatch):
    broken = Knowledge(worker.knowledge.items, worker.settings, "broken")
    monkeypatch.setattr(broken, "_indexed", lambda: 1 / 0)
    broken.start()
    assert not broken.wait(10)
    monkeypatch.setattr(worker, "knowledge", broken)
    assert "ZeroDivisionError" in list(price_tab.neighbours(worker, *EXAMPLES[0]))[-1]
    assert "class='price'" in price_tab.estimate(worker, *EXAMPLES[0])[0]


def test_without_items_a_sample_of_the_catalogue_is_made_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr("shared.app.knowledge.SAMPLE", 300)
    found = Knowledge.open(None, Settings(runs=tmp_path))
    assert "sample of the embedded catalogue" in found.about
    assert found.items.folder == tmp_path / "app" / "sample"
    assert found.questions()
    with pytest.raises(ValueError, match="curate"):
        Knowledge.open(tmp_path / "nothing", Settings(runs=tmp_path))


def test_nothing_that_was_typed_becomes_markup(worker):
    effects = (Effect("alert", 3.0), Effect("<b>", -2.0))
    product = Product("p", EVIL, EVIL, EVIL, "{}")
    found = what_mattered(ByWords(), product)
    html = [
        view.mattered(product, found), view.note(EVIL), view.part(EVIL), view.muted(EVIL),
        view.table(EVIL, [EVIL, "b"], [[EVIL, EVIL]]), str(marked(EVIL, effects)) and "",
        *price_tab.estimate(worker, EVIL, EVIL, EVIL),
        *price_tab.neighbours(worker, EVIL, EVIL, EVIL),
        *compare_tab.compare(worker, EVIL, EVIL, EVIL, ["smallest student"]),
    ]  # fmt: skip
    found = Tags("".join(html))
    assert not found.tags & {"script", "img", "a", "iframe"}
    assert not [name for name in found.attributes if name.startswith("on")]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("/home/anna/course/runs/x.json: damaged", "OSError: …/x.json: damaged"),
        ("no file '/a/b c/d.onnx' here", "OSError: no file '…/b c/d.onnx' here"),
        ("C:\\Users\\anna\\x.json", "OSError: …/x.json"),
        ("see https://example.com/a/b and 1/2", "OSError: see https://example.com/a/b and 1/2"),
    ],
)
def test_errors_do_not_tell_where_things_are(message, said):
    assert view.failure(OSError(message)) == said


def test_models_are_compared_and_one_that_fails_stops_nobody(worker, monkeypatch):
    def fail():
        raise OSError("<no such file>")

    monkeypatch.setitem(worker.models, "broken", Model("broken", "", fail))
    chosen = [worker.model.name, "broken", "smallest student", "no such model"]
    shown = list(compare_tab.compare(worker, *EXAMPLES[0], chosen))
    assert len(shown) == 4  # three while it waits, one in the end
    assert "asking broken" in shown[1]
    assert "OSError: &lt;no such file&gt;" in shown[-1]
    assert len(re.findall(r"\$[\d.]+", shown[-1])) == 4  # one with an interval, one without
    assert "at least one model" in next(compare_tab.compare(worker, "Kettle", "", "", []))
    assert "title first" in next(compare_tab.compare(worker, "", "", "", chosen))


def test_a_failed_estimate_took_time_all_the_same(worker):
    """Incident: where a model reports no seconds of a failure, the table said "nan s"."""

    class Failing:
        def price(self, products):
            return Estimates([np.nan], ["refused"], seconds=[np.nan])

    row = compare_tab.ask(Model("m", "", Failing), asked_product(*EXAMPLES[0]))
    assert "nan" not in " ".join(row)
    assert row[3].endswith(" ms")


def test_a_hosted_model_states_its_cost_before_and_is_a_stand_in_without_a_key(worker, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    chosen = [name for name, model in worker.models.items() if model.hosted]
    assert chosen == ["gpt-6-luna (stand-in)"]
    said = compare_tab.stated_cost(worker, *EXAMPLES[0], chosen)
    assert re.search(r"about \$0\.\d+, at most \$0\.\d+; cap \$0\.05", said)
    assert "No real money" in said
    assert worker.models[chosen[0]].pricer().connection.asked == 0, "it was asked before the button"
    assert "stand-in: no real money" in list(
        compare_tab.compare(worker, *EXAMPLES[0], chosen)
    )[-1]  # fmt: skip
    assert compare_tab.stated_cost(worker, *EXAMPLES[0], ["smallest student"]) == ""


def test_with_a_key_the_cheapest_model_of_that_vendor_is_offered(monkeypatch):
    from shared.app.worker import _hosted

    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key-of-nobody")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = _hosted()
    assert [model.label for model in found] == [""]
    assert "costs money" in found[0].takes


def test_the_leaderboard_is_read_from_stored_results(worker, tmp_path, monkeypatch):
    from shared.evaluation import evaluate

    assert "No stored results yet" in compare_tab.board(worker)
    test = worker.knowledge.items.table("test")
    evaluate(lambda product: 42.0, test, store=worker.settings.results, progress=False)
    shown = compare_tab.board(worker)
    assert ">pricer</th><th scope='col' role='columnheader'>rank</th>" in shown
    assert "Test split" in shown


def test_a_model_is_opened_once_and_asked_by_one_at_a_time():
    """Incident: ten tabs loaded the same model ten times, and the machine ran out of memory."""
    opened, inside, most = [], [], []

    class Slow(ByWords):
        def price(self, products):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.01)
            inside.pop()
            return super().price(products)

    model = Model("slow", "", lambda: opened.append(1) or Slow())
    product = Product("p", "t", "t", "c", "{}")
    threads = [threading.Thread(target=model.price, args=([product],)) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert (len(opened), max(most), len(most)) == (1, 1, 8)


def test_a_registry_answers_with_the_version_that_was_asked_for(tmp_path):
    assert released(None).version == "shipped"
    with pytest.raises(ValueError, match=r"."):
        released(tmp_path / "none", "v9").open()


def test_the_page_is_not_opened_to_others_without_a_password(worker, monkeypatch):
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(ValueError, match=PASSWORD), serve_page(worker, host="0.0.0.0"):
        pytest.fail("it was served to everybody")


def test_a_port_that_is_taken_is_said_in_our_words(worker, monkeypatch):
    monkeypatch.setattr(worker, "close", lambda: None)  # others use it, too
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="another with --port"), serve_page(worker, port=port):
            pytest.fail("it was served on a port of somebody else's")


@pytest.mark.parametrize(
    ("path", "headers", "chunks", "status"),
    [
        ("/gradio_api/upload", [], [], 404),
        ("/upload", [], [], 404),
        ("/gradio_api/file=/etc/passwd", [], [], 404),
        ("/gradio_api/run/predict", [], [], 404),
        ("/gradio_api/info", [], [], 404),
        ("/monitoring/summary", [], [], 404),
        ("/gradio_api/queue/join", [(b"content-length", b"999999999")], [], 413),
        ("/gradio_api/queue/join", [(b"content-length", b"12")], [b"x"], 200),
        ("/gradio_api/queue/join", [(b"content-length", b"x")], [b"x"], 200),
        ("/gradio_api/queue/join", [], [b"x" * MOST_BYTES, b"x"], "disconnected"),
        ("/", [], [], 200),
    ],
)
def test_what_the_page_does_not_need_is_refused(path, headers, chunks, status):
    sent = []

    async def app(scope, receive, send):
        for _ in chunks:
            if (await receive())["type"] == "http.disconnect":
                sent.append("disconnected")
                return
        await send({"type": "http.response.start", "status": 200})

    async def receive():
        return {"type": "http.request", "body": chunks[len(taken)], "more": taken.append(1)}

    async def send(message):
        sent.append(message.get("status"))

    taken = []
    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(Guard(app)(scope, receive, send))
    assert sent[0] == status


def test_the_index_is_drawn_from_large_collections_by_the_seed():
    from shared.app.knowledge import MOST as MOST_ITEMS
    from shared.app.knowledge import _drawn

    rows = pa.table({"id": list(map(str, range(MOST_ITEMS + 5)))})
    assert len(_drawn(rows, 1)) == MOST_ITEMS
    assert _drawn(rows, 1) == _drawn(rows, 1)
    assert _drawn(rows, 1) != _drawn(rows, 2)


def test_opening_the_page_needs_no_torch(tmp_path):
    """Incident: the page took half a minute to open, for a model that needs no PyTorch."""
    import subprocess
    import sys

    code = (
        "import sys, json; from pathlib import Path\n"
        "import shared.app; light = sorted({'gradio', 'torch', 'sklearn'} & set(sys.modules))\n"
        "from shared.app import Knowledge, Worker, app_page\n"
        "from shared.app.worker import released; from shared.settings import Settings\n"
        "import shared.app.knowledge as k; k.SAMPLE = 300\n"
        f"s = Settings(runs=Path({str(tmp_path)!r}))\n"
        "w = Worker(released(None), Knowledge.open(None, s), s); app_page(w)\n"
        "print(json.dumps([light, sorted({'torch', 'transformers'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], []]


def test_categories_are_those_of_the_data():
    assert set(kind for _, _, kind in EXAMPLES) <= set(CATEGORIES)
