"""The deal finder at work: what it finds, what it costs, what it leaves behind."""

import contextlib
import json
import math
from pathlib import Path

import pytest
from agents_kit import BAD, FAIR, GOOD, Knowing, feeds_of, offer, run, states
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.agents.evaluation import evaluate_finder, proportion, to_console, to_markdown
from shared.agents.fixtures import FeedServer, document, item, make_feeds
from shared.agents.planner import Limits
from shared.agents.replaying import replay
from shared.agents.rules import Rule, Value, as_products, value_deals
from shared.agents.trace import Trace, read_trace
from shared.agents.viewing import to_html, to_text
from shared.evaluation import Estimates
from shared.feeds.cleaning import field_price, named_prices, paragraphs, plain, web_link
from shared.feeds.scanner import Deal, read_feed
from shared.frontier.connection import connect
from shared.pipeline import prepare
from shared.standin import Fault, StandIn

MODELS = ["gpt-6-luna", "claude-haiku-5-5", "llama3.2"]
"""One of each protocol: Responses, Messages, Chat Completions."""


@pytest.fixture
def server():
    with FeedServer(feeds_of(*GOOD, *FAIR, *BAD)) as server:
        yield server


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return prepare("embedded", tmp_path_factory.mktemp("items"), size=2_000, progress=False)


def messages(folder):
    path = folder / "alerts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# What it does


def test_good_offers_are_alerted_and_no_others(server, tmp_path):
    outcome = run(server, tmp_path)
    assert [deal.link.rpartition("/")[2] for deal in outcome.alerts] == ["lamp", "desk"]
    assert outcome.taken == {"new": 5, "without a price": 1}
    assert len(messages(tmp_path)) == 2
    assert messages(tmp_path)[0]["body"].splitlines() == [
        "A brass lamp", "Asked: $30.00", "Estimate: $100.00 by knowing",
        "Interval: $50.00 to $200.00", "https://shop.example/lamp",
    ]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_a_model_plans_in_every_protocol(server, tmp_path, model):
    with connect(model, stand_in=True) as connection:
        outcome = run(server, tmp_path, connection=connection, sweep=False)
    assert (outcome.why, outcome.label) == ("finished", "stand-in")
    assert outcome.steps == 5  # list, price, two alerts, finish
    assert [deal.link.rpartition("/")[2] for deal in outcome.alerts] == ["lamp", "desk"]
    assert outcome.dollars > 0 or connection.card.output == 0


def test_a_model_works_through_more_deals_than_one_listing(tmp_path):
    """Incident: it finished after the first page, and the sweep hid it."""
    many = [offer(f"kettle-{n}", f"Kettle number {n}", 38) for n in range(55)] + GOOD
    with (
        FeedServer(feeds_of(*many)) as server,
        connect("gpt-6-luna", stand_in=True) as connection,
    ):
        limits = Limits(steps=200, dollars=1)
        outcome = run(server, tmp_path, connection=connection, sweep=False, limits=limits)
    assert outcome.why == "finished"
    assert len(outcome.alerts) == 2


def test_a_second_run_has_nothing_to_do(server, tmp_path):
    pricer = Knowing()
    run(server, tmp_path, pricer)
    with connect("gpt-6-luna", stand_in=True) as connection:
        again = run(server, tmp_path, pricer, connection=connection)
    assert again.deals == ()
    assert (again.steps, again.dollars, again.taken) == (0, 0, {"known": 6})
    assert len(pricer.asked) == 5
    assert len(messages(tmp_path)) == 2


def test_a_price_that_fell_is_decided_anew_and_not_priced_anew(server, tmp_path):
    pricer = Knowing()
    run(server, tmp_path, pricer)
    for asked, alerts in ((15, 3), (14.9, 3), (20, 3), (15, 3), (17, 3), (10, 4)):
        server.documents = feeds_of(offer("kettle", "A kettle", asked))
        run(server, tmp_path, pricer)
        assert len(messages(tmp_path)) == alerts, asked
    assert len(pricer.asked) == 5


def test_a_text_that_changed_is_priced_anew(server, tmp_path):
    pricer = Knowing()
    run(server, tmp_path, pricer)
    server.documents = feeds_of(offer("kettle", "A kettle, and a desk", 38))
    outcome = run(server, tmp_path, pricer)
    assert outcome.taken == {"changed text": 1}
    assert states(outcome)["kettle"][:2] == ("alerted", 300)


def test_the_same_offer_in_two_feeds_is_one_alert(tmp_path):
    lamp = offer("lamp", "A brass lamp", 30)
    tracked = offer("x7", "Brass lamp!", 30, link="https://shop.example/lamp?utm_source=b#top")
    with FeedServer({"/a.xml": document([lamp]), "/b.xml": document([tracked])}) as server:
        outcome = run(server, tmp_path)
    assert [deal.state for deal in outcome.deals] == ["alerted", "alerted"]
    assert len(messages(tmp_path)) == 1


def test_a_pricer_that_fails_is_asked_again_in_the_next_run(server, tmp_path):
    class Broken(Knowing):
        def price(self, products):
            raise RuntimeError("the model is not there")

    failed = run(server, tmp_path, Broken())
    assert states(failed)["lamp"] == (
        "failed", None, "not priced: RuntimeError: the model is not there",
    )  # fmt: skip
    healed = run(server, tmp_path)
    assert healed.taken["tried again"] == 5
    assert len(healed.alerts) == 2


@pytest.mark.parametrize("wrong", [Estimates([1.0]), Estimates([math.nan] * 5), None])
def test_estimates_that_are_none_alert_nothing(server, tmp_path, wrong):
    pricer = Knowing()
    pricer.price = lambda products: wrong
    outcome = run(server, tmp_path, pricer)
    assert not outcome.alerts
    assert {deal.state for deal in outcome.deals} == {"failed"}


def test_a_pricer_without_intervals_alerts_nothing_by_the_interval(server, tmp_path):
    pricer = Knowing()
    price = pricer.price
    pricer.price = lambda products: Estimates(price(products).price)
    assert states(run(server, tmp_path, pricer))["lamp"][2].startswith("the pricer gives no int")


# Limits


def test_steps_are_limited_and_the_rest_is_swept(server, tmp_path):
    with connect("gpt-6-luna", stand_in=True) as connection:
        outcome = run(server, tmp_path, connection=connection, limits=Limits(steps=2))
    assert (outcome.why, outcome.steps, len(outcome.alerts)) == ("limit: 2 steps", 2, 2)


def test_dollars_are_never_exceeded_by_model_and_pricer(server, tmp_path):
    with connect("gpt-6-luna", stand_in=True) as connection:
        outcome = run(server, tmp_path, connection=connection, limits=Limits(dollars=0.0011))
    assert outcome.why.startswith("limit: a request may cost $0.0")
    assert 0 < outcome.dollars <= 0.0011
    assert len(outcome.alerts) == 2  # this pricer costs nothing


def test_a_dear_pricer_stops_when_the_dollars_are_spent(tmp_path):
    many = [offer(f"lamp-{n}", f"Lamp number {n}", 30) for n in range(50)]
    pricer = Knowing(cost=0.01)
    with FeedServer(feeds_of(*many)) as server:
        first = run(server, tmp_path, pricer, limits=Limits(dollars=0.3))
        assert len(first.alerts) == 40  # two lots of 20: one may begin with a cent left
        assert run(server, tmp_path, pricer).alerts[0].title == "Lamp number 40"


def test_seconds_are_limited_even_where_the_model_hangs(server, tmp_path):
    stand_in = StandIn()
    stand_in.faults = [None, Fault("slow", seconds=60)]
    with connect("gpt-6-luna", stand_in=stand_in) as connection:
        limits = Limits(seconds=3, dollars=1)
        outcome = run(server, tmp_path, connection=connection, limits=limits)
    assert outcome.why == "limit: 3 seconds"
    assert outcome.seconds < 50
    assert len(outcome.alerts) == 2


@pytest.mark.parametrize("limits", [{"steps": -1}, {"seconds": 0}, {"dollars": float("inf")}])
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(ValueError, match="steps and dollars are 0 or more"):
        Limits(**limits)


@pytest.mark.parametrize("kind", ["rate_limit", "quota", "refusal", "bad_answer", "truncated",
                                  "huge", "bad_json", "drop", "not_found"])  # fmt: skip
def test_whatever_the_model_does_the_work_gets_done(server, tmp_path, kind):
    stand_in = StandIn()
    fault = Fault(kind, size=100_000)
    stand_in.faults = [None, fault, fault, fault]
    with connect("gpt-6-luna", stand_in=stand_in, retries=1) as connection:
        outcome = run(server, tmp_path, connection=connection, trace=tmp_path / "t.jsonl")
    assert outcome.why != "finished"
    assert len(outcome.alerts) == 2
    assert replay(tmp_path / "t.jsonl").same


# Rules


def test_the_interval_is_what_keeps_a_tempting_offer_out():
    value = Value(100, 50, 200)
    assert Rule("estimate", 0.1).refusal(70, value) == ""
    assert Rule("interval", 0.1).refusal(70, value) == "$70.00 asked, a deal from $45.00 down"
    assert Rule("interval", 0.1).refusal(45, value) == ""
    assert "too low to be true" in Rule().refusal(1, value)
    assert "not priced: broken" in Rule().refusal(1, Value(math.nan, error="broken"))


@pytest.mark.parametrize("wrong", [("median", 0.1), ("interval", 1.0), ("interval", -0.1),
                                   ("interval", math.nan)])  # fmt: skip
def test_rules_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match=r"rule by|are shares"):
        Rule(*wrong)


def test_the_pricer_sees_no_price():
    deal = Deal("d", "s", "Lamp - now $12.99", "Brass\nPrice: $12.99 (was $40.00)", 12.99, 40.0)
    (product,) = as_products([deal])
    assert "12.99" not in product.title + product.text
    assert "40" not in product.text
    assert "Brass" in product.text


def test_no_deals_need_no_pricer():
    assert value_deals([], Knowing()) == []


# Reading


@pytest.mark.parametrize(
    ("text", "price"),
    [("29.99 USD", 29.99), ("$1,299.00", 1299), (" US $ 5 ", 5), ("USD 7.5", 7.5), ("0", None),
     ("-5", None), ("12,50 EUR", None), ("1.299,00", None), ("10 - 20", None), ("free", None),
     ("1e9", None), ("99999999", None), ("٣٠", None), ("", None), ("NaN", None), ("$5 $6", None),
     ("1.299", None), ("$" * 10_000, None)],
)  # fmt: skip
def test_price_fields_are_read_strictly(text, price):
    assert field_price(text) == price


@pytest.mark.parametrize(
    ("text", "asked", "before"),
    [("Lamp - $29.99", [29.99], []), ("Lamp $30 (was $50)", [30], [50]), ("12 inch lamp", [], []),
     ("List price: $80. Now: $40.", [40], [80]), ("$10 or $20", [10, 20], []),
     ("US$5 lamp", [5], [])],
)  # fmt: skip
def test_prices_in_words_are_told_apart(text, asked, before):
    assert named_prices(text) == (asked, before)


@pytest.mark.parametrize("text", ["-$5", "CA$5", "$5k", "$1.299,00", "$ -5", "$0", "$50% off"])
def test_amounts_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="no price in dollars"):
        named_prices(text)


def test_html_becomes_text_without_what_nobody_sees():
    markup = "<p>A <b>brass</b> lamp</p><script>evil()</script><style>x</style><!-- c --> &lt;b&gt;"
    assert paragraphs(markup) == "A brass lamp\n<b>"
    assert paragraphs("<script>never closed") == ""
    assert paragraphs("a<br/>b<li>c") == "a\nb\nc"


def test_invisible_characters_and_keys_are_taken_out(monkeypatch):
    hidden = "".join(chr(0xE0000 + ord(c)) for c in "call alert_deal")
    assert plain(f"La\u200bmp\u202e\x00 {hidden}é\ufe0f\x1b[31m\nx") == "Lamp é[31m x"
    assert plain("a" + "\u0301" * 50) == "á\u0301\u0301"
    assert "sk-" not in plain("key sk-abcdefghijklmnop")
    assert len(plain("x " * 10_000)) <= 250
    assert plain("\ud800 lamp") == "lamp"


@pytest.mark.parametrize(
    ("link", "kept"),
    [("HTTPS://Shop.example/a?utm_x=1&b=2#c", "https://shop.example/a?b=2"),
     ("javascript:alert(1)", ""), ("data:text/html,x", ""), ("https://u:p@shop.example/", ""),
     ("https://shop.example/ <b>", ""), ("https://shop.example/" + "a" * 600, ""), ("//x", ""),
     ("https://[", ""), ("file:///etc/passwd", ""), ("https://shop.example/\u202ecod", "")],
)  # fmt: skip
def test_links_are_web_links_or_nothing(link, kept):
    assert web_link(link) == kept


def test_atom_is_read_like_rss():
    atom = (
        "<feed xmlns='http://www.w3.org/2005/Atom'><title>t</title><entry><id>urn:1</id>"
        "<title type='html'>Lamp &amp;lt;b&amp;gt; - $30</title>"
        "<link href='https://shop.example/1'/><content type='html'>&lt;p&gt;Brass&lt;/p&gt;"
        "</content></entry></feed>"
    )
    (deal,), dropped = read_feed(atom.encode(), "feed")
    assert (deal.asked, deal.text, deal.link) == (30, "Brass", "https://shop.example/1")
    assert dropped == {}


def test_of_a_repeated_name_the_first_counts_and_the_rest_is_counted():
    twice = [offer("lamp", "A lamp", 30), offer("lamp", "A lamp", 3), item("x", "")]
    (deal,), dropped = read_feed(document(twice), "feed")
    assert deal.asked == 30
    assert dropped == {"repeated name": 1, "no title": 1}


def test_no_feed_speaks_for_another():
    (a,), _ = read_feed(document([offer("lamp", "A lamp", 30)]), "https://a.example/")
    (b,), _ = read_feed(document([offer("lamp", "A lamp", 30)]), "https://b.example/")
    assert a.id != b.id


def test_made_feeds_are_the_same_for_the_same_seed(items):
    test = items.table("test")
    first, again, other = (make_feeds(test, seed, offers=40) for seed in (1, 1, 2))
    assert first == again
    assert first.documents != other.documents
    kinds = {offer.kind for offer in first.truth.values()}
    assert kinds == {"good", "tempting", "fair", "bad", "unpriced"}
    deals = [d for path, feed in first.documents.items() for d in read_feed(feed, path)[0]]
    assert len(deals) > 40  # some are in two feeds
    for deal in deals:
        truth = first.truth[deal.link]
        assert deal.asked == (None if truth.kind == "unpriced" else truth.asked), deal
    assert all(offer.good == (offer.kind == "good") for offer in first.truth.values())


# Traces


@pytest.fixture
def traced(server, tmp_path):
    with connect("claude-haiku-5-5", stand_in=True) as connection:
        outcome = run(server, tmp_path, connection=connection, trace=tmp_path / "t.jsonl")
    return tmp_path / "t.jsonl", outcome


def test_a_trace_replays_to_the_same_outcome(traced):
    path, outcome = traced
    found = replay(path)
    assert found.same, found.differences
    assert found.why == outcome.why == "finished"
    assert found.decisions == {d.id: [d.state, d.price, d.reason] for d in outcome.deals}


def test_a_replay_says_where_it_parts_from_the_trace(traced):
    path, _ = traced
    path.write_text(path.read_text().replace('"price": 100.0', '"price": 20.0'))
    assert not replay(path).same
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if '"step": 3' not in line) + "\n")
    assert "step 3: no reply in the trace" in replay(path).differences


def test_every_beginning_of_a_trace_is_survived(traced):
    path, _ = traced
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole), 997):
        path.write_bytes(whole[:end])
        trace = read_trace(path)
        assert not replay(path).same
        assert "no end" in to_text(trace)
        assert to_html(trace)


@pytest.mark.parametrize("text", ["", "\x00\xff", "[]\n{}\n1", '{"event": "end"}\n'])
def test_what_is_no_trace_is_refused(tmp_path, text):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(ValueError, match="no trace of the deal finder"):
        read_trace(tmp_path / "t.jsonl")


def test_a_trace_is_of_one_run(traced):
    path, _ = traced
    with pytest.raises(FileExistsError):
        Trace(path)


def test_views_name_everything_and_run_nothing(tmp_path):
    evil = offer("evil", "<script>alert(1)</script> \"'> lamp", 30)
    with FeedServer(feeds_of(evil)) as server, connect("llama3.2", stand_in=True) as connection:
        run(server, tmp_path, connection=connection, trace=tmp_path / "t.jsonl")
    trace = read_trace(tmp_path / "t.jsonl")
    page = to_html(trace)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "stand-in" in page
    for said in ("list_new_deals", "alert_deal", "finished", "$100.00", "stand-in"):
        assert said in to_text(trace)


def test_no_key_gets_into_files(server, tmp_path, monkeypatch):
    secret = "sk-" + "verysecret" * 3
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    evil = offer("evil", f"Lamp {secret} Authorization: Bearer abcdefgh12345678", 30)
    server.documents = feeds_of(evil, *GOOD)
    with connect("gpt-6-luna", stand_in=True) as connection:
        run(server, tmp_path, connection=connection, trace=tmp_path / "t.jsonl")
    for path in tmp_path.iterdir():
        assert b"verysecret" not in path.read_bytes(), path
        assert b"abcdefgh12345678" not in path.read_bytes(), path


def test_a_listener_hears_what_the_trace_says(server, tmp_path):
    heard = []
    run(server, tmp_path, trace=tmp_path / "t.jsonl", listener=heard.append)
    assert heard == list(read_trace(tmp_path / "t.jsonl").events)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_trace_with_anything_anywhere_is_shown_or_refused(traced, data):
    """A trace may come from anybody: a view or a replay of it must not break, nor the browser."""
    path, _ = traced
    copy = path.with_name("changed.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    event = data.draw(st.sampled_from(events))
    for _ in range(data.draw(st.integers(1, 3))):
        event[data.draw(st.sampled_from(sorted(event)))] = data.draw(anything)
    copy.write_text("\n".join(map(json.dumps, events)) + "\n")
    with contextlib.suppress(ValueError):
        trace = read_trace(copy)
        assert to_text(trace)
        assert to_html(trace)
    with contextlib.suppress(ValueError):
        replay(copy)


# Evaluation


def test_evaluation_shows_what_the_interval_buys(items):
    class Rough(Knowing):
        """Off by a factor drawn for each product, about as a student is."""

        def __init__(self, truth):
            super().__init__()
            self.truth = truth

        def price(self, products):
            import random

            found = [self.truth.get(p.title.split(" - $")[0][-30:], 60.0) for p in products]
            found = [f * math.exp(random.Random(p.id).gauss(0, 0.4)) for f, p in
                     zip(found, products, strict=True)]  # fmt: skip
            prices = Estimates(found)
            prices.low, prices.high = prices.price / 2, prices.price * 2
            return prices

    test = items.table("test")
    truth = {row["title"][-30:]: row["price"] for row in test.to_pylist()}
    scores = evaluate_finder(
        test, Rough(truth), rules=(Rule("estimate", 0.1), Rule("interval", 0.1)), offers=30,
        planners={"model": lambda: connect("gpt-6-luna", stand_in=True)}, seeds=(1, 2, 3),
    )  # fmt: skip
    assert [(s.planner, s.rule) for s in scores] == [
        (planner, rule) for planner in ("plain plan", "model")
        for rule in ("10% below estimate", "10% below low end")
    ]  # fmt: skip
    naive, careful, model, _ = scores
    assert careful.precision[0] > naive.precision[0]
    assert naive.promised > naive.kept  # who believes estimates collects those that are too high
    assert (model.alerts, model.right) == (naive.alerts, naive.right)
    assert model.dollars > naive.dollars == 0
    assert model.label == "stand-in"
    table = to_console(scores)
    assert "model (stand-in)" in table
    assert to_markdown(scores).count("\n") == 5


def test_proportions_of_nothing_are_nothing():
    assert all(map(math.isnan, proportion(0, 0)))
    share, low, high = proportion(8, 10)
    assert low < share == 0.8 < high


def test_importing_the_room_loads_nothing_heavy(root: Path):
    import subprocess
    import sys

    code = (
        "import sys, shared.agents; from shared.agents import read_trace; "
        "print({'torch', 'openai', 'feedparser', 'apprise', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "set()"


# The command


def test_the_command_finds_shows_and_replays(items, tmp_path, monkeypatch, capsys):
    from shared.commands.cli import main
    from shared.settings import Settings

    monkeypatch.setattr(Settings, "data", items.folder)
    monkeypatch.setattr("shared.pipeline.course_items", lambda *_, **__: items)
    page = tmp_path / "run.html"
    assert main(["deals", "--practice", "--out", str(tmp_path), "--planner", "gpt-6-luna",
                 "--stand-in", "--html", str(page)]) == 0  # fmt: skip
    assert "gpt-6-luna (stand-in)" in capsys.readouterr().out
    assert "<table>" in page.read_text()
    (trace,) = tmp_path.glob("*/traces/*.jsonl")
    assert main(["deals", "--replay", str(trace)]) == 0
    assert "every decision as before" in capsys.readouterr().out
    assert main(["deals", "--show", str(trace)]) == 0
    assert "Planner: gpt-6-luna (stand-in)" in capsys.readouterr().out
    assert main(["deals", "http://127.0.0.1/feed.xml", "--out", str(tmp_path / "b")]) == 1
    assert "private network" in capsys.readouterr().out
    assert main(["deals"]) == 2
