"""Batches on bad days: killed, cut off, refused, spoilt; and nothing is submitted or paid twice.

Good days are in test_frontier_money.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shared.frontier.batches import BatchError, BatchReport, buy_batch
from shared.frontier.cache import Cache
from shared.frontier.connection import Connection, connect
from shared.frontier.messages import Reply, Request
from shared.frontier.money import BudgetError, cost
from shared.standin import Fault, StandIn
from tests.test_frontier import simple

LUNA, HAIKU, OSS = "gpt-6-luna", "claude-haiku-5-5", "openai/gpt-oss-120b"
KEY = "sk-planted-0123456789abcdef"
VENDORS = pytest.mark.parametrize("model", [LUNA, HAIKU])


class Vendor(StandIn):
    """A stand-in whose answers about batches pass through ``trick`` on their way out."""

    trick: Callable | None = None

    def answer(self, request, allowed):
        answer, fault = super().answer(request, allowed)
        return (self.trick and self.trick(request, answer)) or (answer, fault)

    @property
    def made(self) -> list:
        """All batches, of either vendor, the oldest one first."""
        return [*self.batches.held.values(), *self.message_batches.held.values()]


def creates(request) -> bool:
    return request.method == "POST" and request.path.endswith("batches")


def polls(request) -> bool:
    return request.method == "GET" and "/batches/" in request.path


def fetches(request) -> bool:
    return request.path.endswith(("/content", "/results"))


def looks(request) -> bool:
    return request.method == "GET" and request.path.endswith("/batches")


@contextmanager
def connected(model: str, folder: Path, server: Vendor | None = None, **options) -> Iterator:
    server = server or Vendor(speed=10)
    options = {"cache": folder / "c.sqlite", "retries": 0} | options
    with connect(model, stand_in=server, **options) as connection:
        yield connection


def asked(connection: Connection, *numbers: int) -> list[Request]:
    return [simple(connection, f"kettle number {i}") for i in numbers or range(12)]


def buy(connection: Connection, wanted: list[Request], folder: Path, **options) -> BatchReport:
    options = {"poll": 0.02, "progress": False} | options
    return buy_batch(connection, wanted, folder / "b", **options)


def notes(folder: Path) -> list[Path]:
    return list((folder / "b").glob("*.json"))


def stored(connection: Connection, wanted: list[Request]) -> list[Reply | None]:
    return [connection.cache.get(request.key(connection.address)) for request in wanted]


# Nothing is bought twice


@VENDORS
def test_a_batch_goes_on_although_one_of_its_answers_was_bought_live(model, tmp_path):
    """Incident: one more stored answer, and the batch was submitted a second time."""
    with connected(model, tmp_path) as connection:
        wanted = asked(connection)
        waiting = buy(connection, wanted, tmp_path, patience=0)
        live = connection.ask(wanted[0])
        report = buy(connection, wanted, tmp_path)
        assert len(connection.server.made) == 1
        assert (report.id, report.bought, report.failed) == (waiting.id, 11, {})
        replies = stored(connection, wanted)
        assert replies[0] == live, "what was there stays"
        twice = cost(connection.card, live.usage, batch=True)  # the batch holds it, so it is paid
        paid = sum(reply.cost_usd for reply in replies)
        assert connection.budget.spent == pytest.approx(paid + twice, rel=0.05)
        assert report.cost_usd == pytest.approx(paid - live.cost_usd)
        assert notes(tmp_path) == []


@VENDORS
def test_other_requests_do_not_lose_the_batch_under_way(model, tmp_path):
    with connected(model, tmp_path) as connection:
        first, more, fewer = (asked(connection, *r) for r in (range(12), range(6, 20), range(3)))
        buy(connection, first, tmp_path, patience=0)
        report = buy(connection, more, tmp_path)
        assert [len(batch.lines) for batch in connection.server.made] == [12, 8]
        assert report.bought == 20, "what was paid for and is not asked now is kept, too"
        assert buy(connection, fewer, tmp_path) == BatchReport()
        assert None not in stored(connection, first + more)


@VENDORS
def test_all_batches_that_hold_something_are_collected(model, tmp_path):
    with connected(model, tmp_path) as connection:
        for part in (range(5), range(5, 9)):
            buy(connection, asked(connection, *part), tmp_path, patience=0)
        assert buy(connection, asked(connection, *range(9)), tmp_path).bought == 9
        assert [len(batch.lines) for batch in connection.server.made] == [5, 4]


def test_patience_holds_for_all_batches_together(tmp_path):
    with connected(LUNA, tmp_path, Vendor(speed=0.01)) as connection:
        buy(connection, asked(connection, 1, 2), tmp_path, patience=0)
        start = time.monotonic()
        report = buy(connection, asked(connection, 1, 2, 3), tmp_path, patience=0.3)
        assert time.monotonic() - start < 2
        assert not report.ended
        assert len(connection.server.made) == 1, "the rest is submitted after the first has ended"


def test_what_failed_in_a_batch_that_was_waited_for_is_reported_and_not_bought(tmp_path):
    with connected(LUNA, tmp_path) as connection:
        connection.server.batch_expires = True
        wanted = asked(connection)
        buy(connection, wanted, tmp_path, patience=0)
        report = buy(connection, wanted, tmp_path)
        assert report.bought == len(report.failed) == 6
        assert len(connection.server.made) == 1
        connection.server.batch_expires = False
        assert buy(connection, wanted, tmp_path).bought == 6


@VENDORS
def test_interrupted_while_collecting_in_one_process(model, tmp_path):
    with connected(model, tmp_path) as connection:
        wanted, put, count = asked(connection), connection.cache.put, iter(range(99))

        def interrupted(*args):
            if next(count) == 5:
                raise KeyboardInterrupt
            put(*args)

        connection.cache.put = interrupted
        with pytest.raises(KeyboardInterrupt):
            buy(connection, wanted, tmp_path)
        connection.cache.put = put
        assert connection.budget.spent > 0, "what came is billed, however it ends"
        report = buy(connection, wanted, tmp_path)
        assert len(connection.server.made) == 1
        assert report.bought == 7
        replies = stored(connection, wanted)
        assert connection.budget.spent == pytest.approx(sum(r.cost_usd for r in replies))
        assert connection.usage.output == sum(r.usage.output for r in replies)


RUN = """
import sys, time
from pathlib import Path
from shared.frontier.batches import buy_batch
from shared.frontier.connection import connect
from tests.test_frontier import simple
model, url, folder, slow = sys.argv[1:]
with connect(model, base_url=url, cache=Path(folder) / "c.sqlite", retries=0) as connection:
    put = connection.cache.put
    connection.cache.put = lambda *args: (put(*args), time.sleep(float(slow)))
    wanted = [simple(connection, f"kettle number {i}") for i in range(12)]
    report = buy_batch(connection, wanted, Path(folder) / "b", poll=0.02, progress=False)
    print(report.bought, report.cost_usd, connection.budget.spent, len(connection.cache))
"""


def process(model: str, server: StandIn, folder: Path, slow: float = 0.0) -> subprocess.Popen:
    url = server.url if model == HAIKU else f"{server.url}/v1"
    command = [sys.executable, "-c", RUN, model, url, str(folder), str(slow)]
    keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}
    return subprocess.Popen(command, env=os.environ | keys, stdout=subprocess.PIPE, text=True)


def killed_when(started: subprocess.Popen, when: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not when():
        assert started.poll() is None, "it ended too early"
        assert time.monotonic() < until
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.communicate()


def said(started: subprocess.Popen) -> list[float]:
    output, _ = started.communicate(timeout=60)
    assert started.returncode == 0
    return [float(word) for word in output.split()]


@VENDORS
def test_kill_9_while_collecting_and_the_same_batch_is_collected(model, tmp_path):
    """Incident: killed after 5 of 12 results; the other 7 were submitted and paid again."""
    with Vendor(speed=10) as server:
        cache = Cache(tmp_path / "c.sqlite")
        killed_when(process(model, server, tmp_path, slow=0.1), lambda: len(cache) >= 5)
        there = len(cache)
        assert there < 12
        bought, dollars, spent, count = said(process(model, server, tmp_path))
        assert len(server.made) == 1
        assert (bought, count) == (12 - there, 12)
        assert 0 < dollars < spent, "a new process bills the whole batch, but reports the new ones"
        assert notes(tmp_path) == []
        cache.close()


@VENDORS
def test_kill_9_while_submitting_and_the_batch_is_found(model, tmp_path):
    with Vendor(speed=10) as server:

        def hold(request, answer):
            if creates(request):
                server.stopping.wait(30)

        server.trick = hold
        killed_when(process(model, server, tmp_path), lambda: bool(server.made))
        server.trick = None
        (note,) = notes(tmp_path)
        assert json.loads(note.read_text())["batch"] == ""
        assert said(process(model, server, tmp_path))[0] == 12
        assert len(server.made) == 1
        assert notes(tmp_path) == []


def test_two_processes_with_one_folder_submit_one_batch(tmp_path):
    with Vendor(speed=1) as server:
        started = [process(LUNA, server, tmp_path) for _ in range(2)]
        results = [said(one) for one in started]
        assert len(server.made) == 1
        assert [count for *_, count in results] == [12, 12]


def test_who_comes_while_another_submits_waits_for_its_note(tmp_path):
    with Vendor(speed=5) as server, ThreadPoolExecutor(3) as threads:

        def hold(request, answer):  # a big file takes its time
            if request.path.endswith("/files"):
                server.stopping.wait(0.5)

        def one(_: int) -> BatchReport:
            url = f"{server.url}/v1"
            with connect(LUNA, base_url=url, cache=tmp_path / "c.sqlite") as connection:
                return buy(connection, asked(connection), tmp_path)

        server.trick = hold
        reports = list(threads.map(one, range(3)))
        assert [report.id for report in reports] == [server.made[0].id] * 3
        assert len(server.made) == 1
        assert sum(report.bought for report in reports) >= 12
        assert notes(tmp_path) == []


def test_one_run_submits_once_even_if_the_cache_keeps_nothing(tmp_path):
    with connected(LUNA, tmp_path) as connection:
        connection.cache.put = lambda *_: None
        assert buy(connection, asked(connection), tmp_path).ended
        assert len(connection.server.made) == 1


# The vendor's reply to a new batch gets lost


def lost(request, answer):
    return (answer, Fault("drop")) if creates(request) else None


def broken(request, answer):
    return (replace(answer, body={"error": {}}, status=503), None) if creates(request) else None


def no_json(request, answer):
    return (answer, Fault("bad_json")) if creates(request) else None


@pytest.mark.parametrize("model", [LUNA, HAIKU, OSS])
@pytest.mark.parametrize("trick", [lost, broken, no_json])
def test_a_batch_whose_creation_was_not_confirmed_is_found(model, trick, tmp_path):
    """Incident: six tries by the SDK, and one batch each."""
    with connected(model, tmp_path, retries=6) as connection:
        connection.server.trick = trick
        report = buy(connection, asked(connection), tmp_path)
        assert len(connection.server.made) == 1
        assert report.bought == 12
        assert report.id == connection.server.made[0].id
        assert notes(tmp_path) == []


def test_a_reply_that_comes_too_late_is_a_lost_one(tmp_path):
    with connected(LUNA, tmp_path, timeout=0.3) as connection:
        server = connection.server
        server.trick = lambda r, a: creates(r) and server.stopping.wait(1) and None
        assert buy(connection, asked(connection), tmp_path).bought == 12
        assert len(server.made) == 1


@VENDORS
def test_a_batch_that_is_not_listed_is_not_submitted_blindly(model, tmp_path):
    with connected(model, tmp_path) as connection:
        server, wanted, tries = connection.server, asked(connection), []

        def swallow(request, answer):  # the request never got through, and the gateway says 502
            if creates(request):
                tries.append(1)
                server.batches.held.clear()
                server.message_batches.held.clear()
                return replace(answer, body={"error": {"message": "bad gateway"}}, status=502), None
            return None

        server.trick = swallow
        for _ in range(2):
            with pytest.raises(BatchError, match=r"(?s)502.*run again.*delete"):
                buy(connection, wanted, tmp_path)
        assert len(tries) == 1
        (note,) = notes(tmp_path)
        note.unlink()
        server.trick = None
        assert buy(connection, wanted, tmp_path).bought == 12


def test_other_peoples_batches_of_the_same_size_are_not_taken(tmp_path):
    with connected(HAIKU, tmp_path, Vendor(speed=3)) as connection:
        server, wanted = connection.server, asked(connection)
        other = buy(connection, asked(connection, *range(50, 62)), tmp_path / "other")
        server.trick = lost
        ours = buy(connection, wanted, tmp_path, patience=0)
        assert (ours.ended, ours.id) == (False, ""), "it cannot be told before it has ended"
        report = buy(connection, wanted, tmp_path)
        assert report.id not in ("", other.id)
        assert (report.bought, len(server.made)) == (12, 2)

        def swallow(request, answer):
            if creates(request):
                del server.message_batches.held[answer.body["id"]]
            return lost(request, answer)

        server.trick = swallow
        with pytest.raises(BatchError, match="delete"):
            buy(connection, asked(connection, *range(70, 82)), tmp_path)


@VENDORS
@pytest.mark.parametrize("status", [400, 401, 413, 429])
def test_a_refused_batch_leaves_nothing_behind(model, status, tmp_path):
    with connected(model, tmp_path, retries=3) as connection:
        server, tries = connection.server, []

        def refuse(request, answer):
            if creates(request):
                tries.append(1)
                return replace(
                    answer, body={"error": {"message": f"no: {KEY}"}}, status=status
                ), None
            return None

        server.trick = refuse
        with pytest.raises(BatchError, match=f"refused.*{status}.*no") as caught:
            buy(connection, asked(connection), tmp_path)
        assert KEY not in repr(caught.value)
        assert notes(tmp_path) == []
        assert len(tries) == 1
        assert server.files.held == {}
        assert connection.budget.spent == connection.budget.lost == 0


def test_a_crash_while_submitting_is_found_out(tmp_path):
    """A note without the id, however it came about: found by its mark, or by its requests."""
    for model in (LUNA, HAIKU):
        with connected(model, tmp_path / model) as connection:
            wanted = asked(connection)
            waiting = buy(connection, wanted, tmp_path / model, patience=0)
            (note,) = notes(tmp_path / model)
            note.write_text(json.dumps(json.loads(note.read_text()) | {"batch": ""}))
            assert buy(connection, wanted, tmp_path / model).id == waiting.id
            assert len(connection.server.made) == 1


def test_a_damaged_note_is_not_passed_over(tmp_path):
    with connected(LUNA, tmp_path) as connection:
        wanted = asked(connection)
        buy(connection, wanted, tmp_path, patience=0)
        (note,) = notes(tmp_path)
        for text in ("{", "[]", json.dumps({"batch": "", "requests": 12})):
            note.write_text(text)
            with pytest.raises(BatchError, match="damaged"):
                buy(connection, wanted, tmp_path)
        assert len(connection.server.made) == 1


def test_batches_at_other_addresses_are_left_alone(tmp_path):
    with connected(LUNA, tmp_path) as connection:
        buy(connection, asked(connection), tmp_path, patience=0)
        (note,) = notes(tmp_path)
        note.write_text(json.dumps(json.loads(note.read_text()) | {"address": "openai"}))
        before = note.read_bytes()
        assert buy(connection, asked(connection), tmp_path).bought == 12
        assert len(connection.server.made) == 2
        assert note.read_bytes() == before


# Money


def test_answers_that_are_paid_for_are_collected_whatever_the_cap(tmp_path):
    with connected(LUNA, tmp_path, retries=2) as rich:
        for part in (range(6), range(6, 12)):
            buy(rich, asked(rich, *part), tmp_path, patience=0)
        options = {"cache": tmp_path / "c.sqlite", "cap": 1e-6}
        with connect(LUNA, base_url=f"{rich.server.url}/v1", **options) as poor:
            assert buy(poor, asked(poor), tmp_path).bought == 12
            assert poor.budget.spent > poor.budget.cap
            assert poor.budget.left == poor.budget.cap - poor.budget.spent, "nothing is held back"
            with pytest.raises(BudgetError, match="cap"):
                buy(poor, asked(poor, 12), tmp_path)
        assert len(rich.server.made) == 2


def test_a_batch_costs_what_its_own_model_costs(tmp_path):
    with connected(LUNA, tmp_path) as luna:
        wanted = asked(luna)
        buy(luna, wanted, tmp_path, patience=0)
        options = {"base_url": f"{luna.server.url}/v1", "cache": tmp_path / "c.sqlite"}
        with connect("gpt-6-sol", **options) as sol:
            report = buy(sol, wanted, tmp_path)
            replies = stored(sol, wanted)
        expected = sum(cost(luna.card, reply.usage, batch=True) for reply in replies)
        assert report.cost_usd == pytest.approx(expected)


# What goes wrong while waiting


@VENDORS
def test_a_refusal_that_repeats_the_key_does_not_show_it(model, tmp_path):
    with connected(model, tmp_path) as connection:
        wanted, server = asked(connection), connection.server
        wrong = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
        for where in (polls, fetches):
            server.trick = lambda r, a, where=where: (
                (replace(a, body=wrong, status=401), None) if where(r) else None
            )
            with pytest.raises(BatchError, match=r"401.*again") as caught:
                buy(connection, wanted, tmp_path)
            assert KEY not in f"{caught.value!r} {caught.value.__cause__!r}"
        server.trick = None
        assert buy(connection, wanted, tmp_path).bought == 12
        assert len(server.made) == 1


@VENDORS
def test_a_connection_lost_while_waiting_is_no_reason_to_submit_again(model, tmp_path):
    with connected(model, tmp_path, retries=1) as connection:
        server, seen = connection.server, []

        def drop(request, answer):
            seen.append(polls(request))
            return (answer, Fault("drop")) if polls(request) else None

        server.trick = drop
        with pytest.raises(BatchError, match="run the same again to go on"):
            buy(connection, asked(connection), tmp_path)
        assert sum(seen) == 2, "the SDK tries again, the module does not"
        server.trick = None
        assert buy(connection, asked(connection), tmp_path).bought == 12
        assert len(server.made) == 1


def test_a_failed_batch_says_why_and_can_be_submitted_again(tmp_path):
    with connected(LUNA, tmp_path) as connection:
        server, wanted = connection.server, asked(connection)
        buy(connection, wanted, tmp_path, patience=0)
        reason = {"code": "token_limit_exceeded", "message": f"Enqueued token limit, {KEY}"}
        server.made[0].about["errors"].append(reason)
        with pytest.raises(BatchError, match=r"Enqueued token limit.*again") as caught:
            buy(connection, wanted, tmp_path)
        assert KEY not in str(caught.value)
        assert (notes(tmp_path), server.files.held) == ([], {})
        assert buy(connection, wanted, tmp_path).bought == 12


@VENDORS
def test_a_batch_that_the_vendor_does_not_know_is_forgotten(model, tmp_path):
    with connected(model, tmp_path) as connection:
        server, wanted = connection.server, asked(connection)
        waiting = buy(connection, wanted, tmp_path, patience=0)
        server.batches.held.clear()
        server.message_batches.held.clear()
        with pytest.raises(BatchError, match=f"{waiting.id} is gone.*404"):
            buy(connection, wanted, tmp_path)
        assert notes(tmp_path) == []
        assert buy(connection, wanted, tmp_path).bought == 12


def test_an_archived_batch_has_no_results_any_more(tmp_path):
    with connected(HAIKU, tmp_path) as connection:
        at = {"archived_at": "2026-01-01T00:00:00Z", "results_url": None}
        connection.server.trick = lambda r, a: (
            (replace(a, body=a.body | at), None) if polls(r) else None
        )
        with pytest.raises(BatchError, match="archived"):
            buy(connection, asked(connection), tmp_path)
        assert notes(tmp_path) == []


# What comes back


def spoilt(lines: Callable[[list[dict]], str]) -> Callable:
    """Return a trick: ``lines`` makes the text of the results from its rows."""

    def trick(request, answer):
        if not fetches(request):
            return None
        rows = [json.loads(line) for line in answer.body.split(b"\n") if line]
        return replace(answer, body=lines(rows).encode()), None

    return trick


def text_of(row: dict) -> dict:
    """Return where the text of an answer is in a row of the results."""
    if "result" in row:
        return row["result"]["message"]["content"][0]
    body = row["response"]["body"]
    return body["output"][-1]["content"][0] if "output" in body else body["choices"][0]["message"]


@VENDORS
def test_a_spoilt_line_costs_its_own_request_only(model, tmp_path):
    def spoil(rows):
        bodies = [row["result"] if "result" in row else row["response"] for row in rows[:3]]
        bodies[0]["message" if "message" in bodies[0] else "body"] = {"oops": 1}
        bodies[1]["message" if "message" in bodies[1] else "body"] = None
        for name in ("result", "response"):
            rows[2] |= {name: "what?"} if name in rows[2] else {}
        lines = [json.dumps(row) for row in rows]
        lines[3:6] = ["{not json", '"text"', "[" * 5000]
        return "\r\n\n".join([*lines, lines[-1], '{"custom_id": ["x"]}', ""])

    with connected(model, tmp_path) as connection:
        connection.server.trick = spoilt(spoil)
        wanted = asked(connection)
        report = buy(connection, wanted, tmp_path)
        assert (report.bought, len(report.failed)) == (6, 6)
        reasons = sorted(report.failed.values())
        assert sum("cannot be used" in why for why in reasons) == 3
        assert sum("3 lines cannot be read" in why for why in reasons) == 3
        assert connection.budget.lost > 0, "what was answered may have been billed, read or not"
        assert stored(connection, wanted).count(None) == 6
        connection.server.trick = None
        assert buy(connection, wanted, tmp_path).bought == 6


@pytest.mark.parametrize("model", [LUNA, HAIKU, OSS])
def test_only_a_line_feed_ends_a_line(model, tmp_path):
    odd = "a\u2028b\u2029c\x85d"

    def spoil(rows):
        for row in rows:
            part = text_of(row)
            part["text" if "text" in part else "content"] = odd
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    with connected(model, tmp_path) as connection:
        connection.server.trick = spoilt(spoil)
        wanted = asked(connection)
        assert buy(connection, wanted, tmp_path).bought == 12
        assert {reply.text for reply in stored(connection, wanted)} == {odd}


@VENDORS
def test_results_that_are_nothing_but_garbage_are_fetched_again(model, tmp_path):
    with connected(model, tmp_path) as connection:
        wanted = asked(connection)
        connection.server.trick = spoilt(lambda rows: "<html>\nBad gateway\n</html>")
        with pytest.raises(BatchError, match=r"can be read.*again.*delete"):
            buy(connection, wanted, tmp_path)
        connection.server.trick = None
        assert buy(connection, wanted, tmp_path).bought == 12
        assert len(connection.server.made) == 1


@VENDORS
def test_a_key_that_a_model_repeats_is_not_stored(model, tmp_path, monkeypatch):
    """Incident: live answers were cleaned of keys, and those of batches were not."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)

    def spoil(rows):
        for row in rows[1:]:
            text_of(row)["text"] = f"$20, and the key is {KEY}"
        if model == LUNA:
            call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": KEY}
            rows[1]["response"]["body"]["output"].append(call)
            rows[0]["response"] |= {"status_code": 500, "body": {"error": {"message": KEY}}}
        else:
            call = {"type": "tool_use", "id": "c", "name": "f", "input": {"key": KEY}}
            rows[1]["result"]["message"]["content"].append(call)
            rows[0]["result"] = {"type": "errored", "error": {"error": {"message": KEY}}}
        return "".join(json.dumps(row) + "\n" for row in rows)

    with Vendor(speed=10) as server:
        url = server.url if model == HAIKU else f"{server.url}/v1"
        server.trick = spoilt(spoil)
        with connect(model, base_url=url, cache=tmp_path / "c.sqlite") as connection:
            report = buy(connection, asked(connection), tmp_path)
            assert report.bought == 11
            assert KEY not in f"{report} {report.failed}"
            replies = [reply for reply in stored(connection, asked(connection)) if reply]
            assert any("***" in call.arguments for reply in replies for call in reply.calls)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert all(KEY.encode() not in data for data in files)
