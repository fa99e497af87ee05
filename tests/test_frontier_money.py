"""Money under control: caps that hold, answers that are bought once, batches that survive."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.data import Product
from shared.evaluation import evaluate
from shared.frontier.batches import BatchError, buy_batch
from shared.frontier.cache import Cache
from shared.frontier.clients import CallError
from shared.frontier.connection import Connection, connect, make_client
from shared.frontier.messages import Reply, Request, Turn, Usage
from shared.frontier.models import find_model
from shared.frontier.money import Budget, BudgetError, about, at_most, cost
from shared.frontier.secrets import Secret
from shared.prompting.pricer import FrontierPricer
from shared.prompting.techniques import ZeroShot
from shared.standin import Fault, StandIn
from tests.test_frontier import items, simple

LUNA, HAIKU = find_model("gpt-6-luna"), find_model("claude-haiku-5-5")


# What it costs


@given(st.text(max_size=400), st.integers(1, 500))
def test_no_request_costs_more_than_was_reserved_for_it(text, out):
    for card in (LUNA, HAIKU):
        request = Request(card.name, (Turn("user", text),), max_tokens=out)
        tokens = len(text.encode())  # a tokenizer that finds nothing to merge
        worst = Usage(input=tokens, output=out, written=tokens)
        assert cost(card, worst) <= at_most(card, request)
        assert about(card, request) <= at_most(card, request)


def test_tokens_put_into_the_vendors_cache_cost_a_quarter_more():
    plain, written = Usage(input=4000), Usage(input=4000, written=4000)
    assert cost(HAIKU, written) == pytest.approx(1.25 * cost(HAIKU, plain))
    assert cost(LUNA, written) == pytest.approx(1.25 * cost(LUNA, plain))


def test_a_model_of_unknown_price_is_not_asked():
    card = replace(LUNA, input=None)
    with (
        Connection(card, None, address="x") as connection,
        pytest.raises(ValueError, match="price"),
    ):
        connection.ask(simple(connection))


def test_a_cap_below_zero_or_nan_is_refused():
    for cap in (-1, math.nan):
        with pytest.raises(ValueError, match="cap"):
            Budget(cap)


def test_the_cap_holds_with_a_hundred_calls_under_way():
    budget = Budget(cap=1.0)

    def call(i: int) -> bool:
        try:
            with budget.reserve(0.03) as bill:
                time.sleep(0.001)
                bill.dollars = 0.03 if i % 3 else 0.0
                assert budget.spent <= 1.0
            return True
        except BudgetError:
            return False

    with ThreadPoolExecutor(100) as threads:
        done = sum(threads.map(call, range(300)))
    assert 0.97 < budget.spent <= 1.0, "calls wait for others that cost less than they reserved"
    assert 33 <= done < 300
    assert budget.left == pytest.approx(1.0 - budget.spent)


def test_a_call_waits_for_what_others_have_reserved():
    budget = Budget(cap=1.0)

    def call(_: int) -> None:
        with budget.reserve(0.9) as bill:
            bill.dollars = 0.01

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(11)))  # one at a time is all that the cap admits
    assert budget.spent == pytest.approx(0.11)


def test_a_call_that_fails_gives_its_reservation_back():
    budget = Budget(cap=1.0)
    with pytest.raises(CallError), budget.reserve(0.9):
        raise CallError("server down")
    assert budget.left == 1.0


@pytest.mark.parametrize("model", ["gpt-6-luna", "claude-haiku-5-5"])
def test_a_run_ends_below_its_cap_and_says_what_is_missing(tmp_path, model):
    with connect(model, stand_in=True, cache=tmp_path / "c") as free:
        evaluate(FrontierPricer(free, ZeroShot(), progress=False), items(60), progress=False)
        whole = free.budget.spent
    one = Product("", "", items(1)["text"][0].as_py(), "", "")
    cap = 0.5 * whole + 2 * at_most(free.card, ZeroShot().first(model, one))
    with connect(model, stand_in=True, cap=cap, concurrency=2) as connection:
        pricer = FrontierPricer(connection, ZeroShot(), progress=False)
        found = evaluate(pricer, items(60), progress=False)
        assert connection.budget.spent <= cap
    failed = [e for e in found.predictions["error"].to_pylist() if e]
    assert 0 < len(failed) < 60
    assert all("cap of" in error for error in failed)
    assert found.scores["failed"] == len(failed)


def test_after_the_cap_was_raised_only_what_is_missing_is_bought(tmp_path):
    options = {"stand_in": True, "cache": tmp_path / "c"}
    with connect("gpt-6-luna", cap=0.001, concurrency=4, **options) as poor:
        first = evaluate(
            FrontierPricer(poor, ZeroShot(), progress=False), items(60), store=tmp_path,
            progress=False,
        )  # fmt: skip
        assert first.scores["failed"] > 0
    with connect("gpt-6-luna", **options) as rich:
        again = evaluate(
            FrontierPricer(rich, ZeroShot(), progress=False), items(60), store=tmp_path,
            progress=False,
        )  # fmt: skip
        assert again.scores["failed"] == 0
        assert rich.asked == first.scores["failed"]


def test_the_estimate_comes_first_and_counts_what_is_stored(tmp_path):
    with connect("gpt-6-luna", stand_in=True, cache=tmp_path / "c", cap=2) as connection:
        pricer = FrontierPricer(connection, ZeroShot(), progress=False)
        products = [Product(str(i), "", f"kettle {i}", "", "") for i in range(20)]
        said = pricer.estimate([*products, products[0]])
        assert said.startswith("20 calls of gpt-6-luna (0 more are stored)")
        assert "cap $2.00" in said
        assert not connection.server.calls
        pricer.price(products[:5])
        assert pricer.estimate(products).startswith("15 calls of gpt-6-luna (5 more are stored)")
        most = float(said.split("at most $")[1].split(";")[0])
        pricer.price(products)
        assert connection.budget.spent <= most


# What is stored


def test_replies_are_kept_and_a_spoilt_one_counts_as_none(tmp_path):
    with_reply = Cache(tmp_path / "c.sqlite")
    with_reply.put("a", Reply("x", usage=Usage(1, 2, 3, 4)))
    with_reply.put("a", Reply("y"))
    with_reply.close()
    with sqlite3.connect(tmp_path / "c.sqlite") as database:
        database.execute("INSERT INTO replies VALUES ('b', '{}'), ('c', 'not json'), ('d', '[]')")
    cache = Cache(tmp_path / "c.sqlite")
    assert cache.get("a") == Reply("y")
    assert [cache.get(key) for key in "bcdx"] == [None] * 4
    assert len(cache) == 4
    cache.close()


def test_a_file_that_is_no_cache_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes, which are longer than a header of a database, I hope" * 20)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not a cache"):
        Cache(path)
    assert path.read_bytes() == before


def test_many_threads_write_one_cache(tmp_path):
    cache, other = Cache(tmp_path / "c"), Cache(tmp_path / "c")
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda i: (cache, other)[i % 2].put(str(i), Reply(str(i))), range(400)))
    assert len(cache) == len(other) == 400
    assert cache.get("399").text == "399"
    cache.close()
    other.close()


RUN = """
import sys
from pathlib import Path
from shared.evaluation import evaluate
from shared.frontier.connection import connect
from shared.prompting.pricer import FrontierPricer
from shared.prompting.techniques import ZeroShot
from tests.test_frontier import items
url, folder = sys.argv[1:]
with connect("gpt-6-luna", base_url=url, cache=Path(folder) / "cache", concurrency=4) as connection:
    pricer = FrontierPricer(connection, ZeroShot(), progress=False)
    found = evaluate(pricer, items(80), store=Path(folder), progress=False)
print(found.scores["failed"], connection.asked)
"""


def test_kill_9_in_the_middle_and_nothing_is_bought_twice(tmp_path):
    """Incident: a kernel died at product 200, and all 200 were paid for again."""
    with StandIn(latency=0.03) as server:
        command = [sys.executable, "-c", RUN, f"{server.url}/v1", str(tmp_path)]
        environment = os.environ | {"OPENAI_API_KEY": "sk-not-a-real-key-000000"}
        process = subprocess.Popen(command, env=environment)
        while len(server.calls) < 30:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        bodies = [json.dumps(call["body"], sort_keys=True) for call in server.calls]
    failed, asked = map(int, done.stdout.split())
    assert failed == 0
    twice = len(bodies) - len(set(bodies))
    assert twice <= 4, "more than what was under way is asked again"
    assert asked <= 80 - 30 + 8


# Batches


def requests(connection: Connection, count: int = 12) -> list[Request]:
    return [simple(connection, f"kettle number {i}") for i in range(count)]


@pytest.fixture(params=["gpt-6-luna", "claude-haiku-5-5", "openai/gpt-oss-120b"])
def connection(request, tmp_path):
    fast = StandIn(speed=20)
    with connect(request.param, stand_in=fast, cache=tmp_path / "c.sqlite", retries=2) as found:
        yield found


def buy(connection, wanted, tmp_path, **options):
    return buy_batch(connection, wanted, tmp_path / "b", poll=0.05, progress=False, **options)


def test_a_batch_is_half_the_price_and_then_no_call_is_made(connection, tmp_path):
    wanted = requests(connection)
    report = buy(connection, wanted, tmp_path)
    assert (report.ended, report.bought, report.failed) == (True, 12, {})
    replies = [connection.ask(request) for request in wanted]
    assert connection.server.calls == []
    assert connection.budget.spent == pytest.approx(sum(r.cost_usd for r in replies))
    live = connection.ask(simple(connection, "kettle number 0", sample=1))
    assert replies[0].cost_usd == pytest.approx(live.cost_usd / 2, rel=0.2)
    assert len({reply.text for reply in replies}) > 1, "answers must be joined by id"
    assert list((tmp_path / "b").glob("*.json")) == []
    assert "12 answers" in str(report)


def test_batched_answers_are_the_ones_of_live_calls(connection, tmp_path):
    wanted = requests(connection)
    buy(connection, wanted, tmp_path)
    with connect(connection.card.name, stand_in=True) as live:
        assert [connection.ask(r).text for r in wanted] == [live.ask(r).text for r in wanted]


def test_a_batch_is_followed_after_a_restart_and_not_submitted_twice(connection, tmp_path):
    wanted = requests(connection)
    waiting = buy(connection, wanted, tmp_path, patience=0)
    assert not waiting.ended
    assert "still being worked on" in str(waiting)
    assert connection.budget.spent == 0
    report = buy(connection, wanted, tmp_path)
    assert report.id == waiting.id
    assert report.bought == 12


def test_what_fails_in_a_batch_has_its_reason_and_the_rest_is_kept(connection, tmp_path):
    connection.server.fault_rate = {"server_error": 0.4}
    wanted = requests(connection, 40)
    report = buy(connection, wanted, tmp_path)
    assert 0 < len(report.failed) < 40
    assert report.bought + len(report.failed) == 40
    assert all(report.failed.values())
    connection.server.fault_rate = {}
    second = buy(connection, wanted, tmp_path)
    assert second.bought == len(report.failed)


def test_an_expired_batch_delivers_what_was_finished(connection, tmp_path):
    connection.server.batch_expires = True
    report = buy(connection, requests(connection, 20), tmp_path)
    assert 0 < report.bought < 20
    assert all("expired" in why for why in report.failed.values())


def test_a_batch_that_could_break_the_cap_is_not_submitted(tmp_path):
    with connect("gpt-6-luna", stand_in=True, cache=tmp_path / "c", cap=0.0005) as connection:
        with pytest.raises(BudgetError, match="cap"):
            buy(connection, requests(connection, 40), tmp_path)
        assert list(connection.client.sdk.batches.list()) == []


def test_a_refused_batch_leaves_no_note(tmp_path):
    with connect("claude-haiku-5-5", stand_in=True, cache=tmp_path / "c", retries=0) as connection:
        connection.server.__exit__(None, None, None)
        with pytest.raises(BatchError, match="refused"):
            buy(connection, requests(connection), tmp_path)
        assert list((tmp_path / "b").glob("*.json")) == []
        connection.server = None


def test_batches_need_a_cache_and_a_vendor_that_has_them(tmp_path):
    with (
        connect("gpt-6-luna", stand_in=True) as connection,
        pytest.raises(ValueError, match="cache"),
    ):
        buy(connection, requests(connection), tmp_path)
    card = replace(LUNA, batch_discount=0.0)
    client = make_client(LUNA, Secret("none"), "http://127.0.0.1:9/v1")
    with (
        Connection(card, client, address="x", cache=tmp_path / "c") as connection,
        pytest.raises(ValueError, match="no batches"),
    ):
        buy(connection, requests(connection), tmp_path)


def test_a_timeout_is_a_failure_with_a_reason(tmp_path):
    with connect("gpt-6-luna", stand_in=True, retries=0, timeout=0.2) as connection:
        connection.server.faults = [Fault("slow", seconds=1.0)]
        with pytest.raises(CallError, match=r"(?i)time"):
            connection.ask(simple(connection))
