"""What a watch survives: damaged files, killed processes, failing messengers, strange windows."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from shared.data import Product
from shared.evaluation import Estimates
from shared.watching import (
    Alerts,
    Observation,
    ObservationLog,
    Reference,
    Signal,
    Truths,
    Vocabulary,
    Watch,
    item_key,
    observe,
    to_html,
)
from shared.watching.alerts import addresses
from shared.watching.lines import append_lines
from shared.watching.observations import OBSERVATION

NO_WORDS = Vocabulary(np.empty(0, np.uint32))
ONE = Observation(1.8e9, "r", "v1", "0" * 16, 900, 0.03, "Tools", 10.0, 5.0, 20.0, 0.001, None)


def reference(n=400, **columns):
    rng = np.random.default_rng(0)
    usual = {
        "length": rng.integers(200, 2_000, n), "unknown": np.round(rng.random(n) / 10, 4),
        "category": rng.choice(np.array(["a", "b", "c"], object), n),
        "price": np.exp(rng.normal(4, 1, n)).round(2), "error": rng.normal(0, 0.4, n),
    }  # fmt: skip
    return Reference(**(usual | columns), vocabulary=NO_WORDS)


def some(n=100, **changes):
    rng = np.random.default_rng(1)
    return [
        replace(ONE, item=f"{i:016x}", length=int(rng.integers(200, 2_000)),
                unknown=float(np.round(rng.random() / 10, 4)), category="abc"[i % 3],
                price=float(np.exp(rng.normal(4, 1))), **changes)
        for i in range(n)
    ]  # fmt: skip


def test_observations_come_back_as_they_went(tmp_path):
    failed = replace(ONE, price=math.nan, low=math.nan, high=math.nan, error="no price")
    log = ObservationLog(tmp_path / "deep" / "log.jsonl")
    assert log.read() == []
    log.append([ONE, failed])
    log.append([])
    log.append([replace(ONE, category='a "b"\n\u2028c', error="\\")])
    one, two, three = log.read()
    assert one == ONE
    assert math.isnan(two.price)
    assert two.error == "no price"
    assert three.category == 'a "b"\n\u2028c'
    assert log.damaged == 0


def test_what_a_seller_writes_stays_short_and_text():
    strange = Product("p", "t", "x\ud800y" * 10, "c\ud83d\n" * 500, "{}")
    found = observe([strange], Estimates([1.0]), vocabulary=NO_WORDS, version="v" * 999)[0]
    assert len(found.category) <= 100
    assert len(found.version) == 100
    assert "\n" not in found.category
    json.dumps(found.category).encode()
    assert found.item == item_key(strange.text)
    with pytest.raises(ValueError, match="2 estimates for 1"):
        observe([strange], Estimates([1.0, 2.0]), vocabulary=NO_WORDS, version="v")


@pytest.mark.parametrize(
    "line",
    [b"not JSON", b'{"foo": 1}', b"[1, 2]", b"null", b"\xff\xfe\x00", b'{"time": "noon"}',
     json.dumps({"time": 1, "request": None}).encode(), b'"' + b"x" * 100_000 + b'"'],
)  # fmt: skip
def test_foreign_lines_are_left_out_and_counted(line, tmp_path):
    log = ObservationLog(tmp_path / "log.jsonl")
    log.append(some(3))
    with log.path.open("ab") as file:
        file.write(line + b"\n\n")
    log.append(some(2))
    assert len(log.table()) == 5
    assert log.damaged == 1


def test_a_line_cut_by_a_kill_costs_itself_alone(tmp_path):
    """Incident: the line after the one that was cut was glued to it, and lost, too."""
    log = ObservationLog(tmp_path / "log.jsonl")
    log.append(some(3))
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-20])
    assert len(log.table()) == 2
    assert log.damaged == 0  # it may still be being written
    log.append(some(2))
    assert len(log.table()) == 4
    assert log.damaged == 1


WRITER = """
import sys
from pathlib import Path
from tests.test_watching_hostile import ONE
from dataclasses import replace
from shared.watching import ObservationLog
log = ObservationLog(Path(sys.argv[1]))
print("ready", flush=True)
n = int(sys.argv[3])
for i in range(n):
    log.append([replace(ONE, request=sys.argv[2], item=f"{i:08x}", category="k" * 90)] * 7)
    if n > 10**6 and i % 50 == 0:
        print(i, flush=True)
"""


def writer(path, name, n):
    root = Path(__file__).resolve().parent.parent
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(n)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(root)}, cwd=root,
    )  # fmt: skip


def test_two_processes_append_at_once_and_nothing_is_lost(tmp_path):
    path = tmp_path / "log.jsonl"
    with writer(path, "a", 300) as one, writer(path, "b", 300) as two:
        assert one.wait(60) == two.wait(60) == 0
    log = ObservationLog(path)
    table = log.table()
    assert len(table) == 2 * 300 * 7
    assert log.damaged == 0
    for name in "ab":
        items = [r["item"] for r in table.to_pylist() if r["request"] == name]
        assert items == [f"{i:08x}" for i in range(300) for _ in range(7)]


def test_a_killed_writer_loses_at_most_the_line_it_was_writing(tmp_path):
    path = tmp_path / "log.jsonl"
    with writer(path, "a", 10**9) as process:
        told = 0
        for line in process.stdout:
            told = int(line) if line.strip().isdigit() else told
            if told >= 200:
                break
        process.send_signal(signal.SIGKILL)
    log = ObservationLog(path)
    assert len(log.table()) >= (told + 1) * 7
    log.append([ONE])
    assert log.read()[-1] == ONE
    assert log.damaged <= 1


def test_truths_are_checked_kept_and_corrected(tmp_path):
    truths = Truths(tmp_path / "truths.jsonl")
    truths.add({"a": 10, "b": 2.5})
    truths.add({"a": 11.0})
    for wrong in (0, -1, math.nan, math.inf, True, None, "dear"):
        with pytest.raises((ValueError, TypeError)):
            truths.add({"c": 1.0, "d": wrong})
    with pytest.raises(ValueError, match="item"):
        truths.add({"": 1.0})
    with truths.path.open("ab") as file:
        file.write(b'{"item": "e", "price": "1"}\nrubbish\n{"item": 7, "price": 1}\n{"item": "f"')
    again = Truths(truths.path)
    assert dict(again) == {"a": 11.0, "b": 2.5, "e": 1.0}
    assert list(again)[:2] == ["a", "b"]
    assert again.damaged == 2


def test_an_empty_window_says_so_and_draws_a_page():
    watch = Watch(reference(), window=50)
    (found,) = watch.look([])
    assert not found.alarm
    assert found.said.startswith("0 of 50")
    assert "no whole window yet" in to_html(watch, [])
    assert "49 of 50" in watch.look(some(49))[0].said
    assert len(watch.look(some(50))) == 8
    assert len(watch.look(some(50), {})) == 10


def test_what_could_not_be_tested_is_neither_quiet_nor_cleared(tmp_path, capsys):
    """Incident: true prices of other products, and the page said that nothing had changed."""
    watch = Watch(reference(), window=50)
    found = watch.look(some(49), {"other": 3.0})
    assert [s.state for s in found] == ["untested"] * 3
    assert "No alarm" not in to_html(watch, some(49), {"other": 3.0})
    alerts = Alerts([], tmp_path / "alerts.jsonl")
    alerts.take([loud("error level")])
    alerts.take(found)
    assert list(alerts.open()) == ["error level"]
    assert "cleared" not in capsys.readouterr().out


@pytest.mark.filterwarnings("error")
def test_windows_without_any_price_are_failures_and_nothing_else():
    """Incident: the median of nothing was a warning in the log, and "nan dollars" in an alert."""
    watch = Watch(reference(), window=50)
    found = {s.name: s for s in watch.look(some(50, error="down") and [
        replace(o, price=math.nan, error="down") for o in some(50)
    ], {"0" * 16: 3.0})}  # fmt: skip
    assert found["failed share"].alarm
    assert not found["price PSI"].alarm
    assert math.isnan(found["price KS"].value)
    assert "nan" not in "".join(s.said for s in found.values())
    assert "No true price" in found["error level"].said
    half = [replace(o, price=math.nan) if i % 2 else o for i, o in enumerate(some(50))]
    assert "nan" not in "".join(s.said for s in watch.look(half))


@pytest.mark.filterwarnings("error")
def test_constant_columns_and_one_category_are_no_trouble():
    n = 400
    one = reference(
        length=np.full(n, 900), unknown=np.zeros(n), category=np.full(n, "a", object),
        price=np.full(n, 10.0), error=np.full(n, 0.1),
    )  # fmt: skip
    watch = Watch(one, window=50)
    same = [replace(o, length=900, unknown=0.0, category="a", price=10.0) for o in some(50)]
    assert not any(s.alarm for s in watch.look(same))
    other = [replace(o, length=100, unknown=0.5, category="b", price=99.0) for o in same]
    alarms = {s.name for s in watch.look(other) if s.alarm}
    assert {"length KS", "unknown KS", "category PSI", "price KS"} <= alarms
    assert np.isfinite([c.threshold for c in watch.cusums]).all()


def test_a_category_each_is_said_in_one_breath():
    """Incident: what is said of a window took a minute for 20,000 invented categories."""
    watch = Watch(reference(), window=20_000)
    usual = some(100)
    found = watch.look([replace(usual[i % 100], category=f"c{i}") for i in range(20_000)])
    said = next(s.said for s in found if s.name == "category PSI")
    assert said.startswith("20,000 products of categories never seen, most often 'c0'.")


def test_reference_without_prices_watches_inputs_alone():
    n = 400
    nothing = np.full(n, math.nan)
    blind = replace_reference(price=nothing, error=nothing, priced=False)
    watch = Watch(blind, window=50)
    found = watch.look(some(50), {"0" * 16: 3.0})
    assert len(found) == 8
    assert not any(s.alarm for s in found if s.name.startswith(("price", "failed")))
    assert "too few errors" in to_html(watch, some(50), {"0" * 16: 3.0})


def replace_reference(**changes):
    return replace(reference(), **changes)


def test_clocks_that_jump_change_nothing_but_the_dates_shown():
    watch = Watch(reference(), window=50)
    usual = some(100)
    jumping = [
        replace(o, time=(1e300, -1e12, 0.0, 1.8e9)[i % 4] * (1 + i % 3))
        for i, o in enumerate(usual)
    ]
    assert watch.look(jumping) == watch.look(usual)
    assert "a time that no calendar has" in to_html(watch, jumping)


def test_a_page_runs_nothing_that_a_seller_wrote():
    evil = "<script>alert(1)</script>$x{{"
    watch = Watch(reference(), window=50)
    page = to_html(watch, [replace(o, category=evil, version=evil) for o in some(50)])
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_long_log_fits_into_memory(tmp_path):
    """The log is read in blocks; what is kept are columns, some 150 bytes an observation."""
    import resource

    path = tmp_path / "log.jsonl"
    ObservationLog(path).append(some(1_000))
    block = path.read_bytes()
    with path.open("ab") as file:
        for at in range(199):
            file.write(block)
            if at == 100:
                file.write(b"rubbish\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    log = ObservationLog(path)
    table = log.table()
    assert (len(table), log.damaged) == (200_000, 1)
    assert table.schema == OBSERVATION
    truths = dict.fromkeys(table["item"].to_pylist(), 50.0)
    found = Watch(reference(), window=200_000).look(table, truths)
    assert len(found) == 10
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 600, f"{grown:,.0f} MiB for 200,000 observations"


def loud(name="price PSI", said="Dearer.", alarm=True, value=1.0):
    return Signal(name, value, 0.5, 0.001, alarm, said)


def test_an_incident_is_told_once_until_it_has_cleared(tmp_path, capsys):
    alerts = Alerts([], tmp_path / "alerts.jsonl")
    assert [i.name for i in alerts.take([loud(), loud("price KS", "Other.")])] == ["price"]
    assert alerts.take([loud()]) == []
    assert Alerts([], alerts.log).take([loud()]) == []  # another process, the same record
    alerts.take([loud(alarm=False, value=math.nan)])  # could not be tested: still open
    alerts.take([loud("length KS", alarm=False)])  # another signal
    assert list(alerts.open()) == ["price"]
    alerts.take([loud(alarm=False), loud("price KS", alarm=False)])
    assert alerts.open() == {}
    assert len(alerts.take([loud()])) == 1
    assert capsys.readouterr().out.count("ALERT price") == 2


class Inbox(HTTPServer):
    """A messenger's server on loopback; ``broken`` ones answer 500."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Take)
        self.got, self.broken = [], False
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Take(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500 if self.server.broken else 200)
        self.end_headers()
        if not self.server.broken:
            self.server.got.append(json.loads(body))

    def log_message(self, *_):
        pass


@pytest.fixture
def inbox():
    server = Inbox()
    yield server
    server.shutdown()
    server.server_close()


def test_a_failing_messenger_is_asked_again_and_the_others_are_not(inbox, tmp_path, caplog, capsys):
    inbox.broken = True
    other = Inbox()
    token = "s3cret-t0ken"
    named = [f"json://user:{token}@127.0.0.1:{s.server_port}/{token}" for s in (inbox, other)]
    alerts = Alerts(named, tmp_path / "alerts.jsonl")
    with caplog.at_level(logging.DEBUG):
        alerts.take([loud()])
        assert (inbox.got, len(other.got)) == ([], 1)
        alerts.take([loud()])
        inbox.broken = False
        Alerts(named, alerts.log).take([loud()])
        alerts.take([loud()])
    other.shutdown()
    other.server_close()
    assert (len(inbox.got), len(other.got)) == (1, 1)
    assert inbox.got[0]["title"] == "Price watch: price"
    assert inbox.got[0]["message"] == "Dearer."
    shown = capsys.readouterr()
    said = shown.out + shown.err + caplog.text + alerts.log.read_text() + repr(alerts)
    assert "messenger 1 failed" in said
    assert token not in said


def test_a_messenger_that_raises_does_not_stop_the_watch(tmp_path, monkeypatch):
    alerts = Alerts(["json://127.0.0.1:9/x"], tmp_path / "alerts.jsonl")

    def explode(**_):
        raise RuntimeError("of a plugin's own")

    monkeypatch.setattr(alerts._messengers[0], "notify", explode)
    assert len(alerts.take([loud()])) == 1
    assert alerts.open()["price"].told == set()


@pytest.mark.parametrize("address", ["nonsense://t0ken", "t0ken", "", "http://t0ken@@@:x:y"])
def test_a_wrong_address_is_refused_and_not_shown(address, tmp_path, caplog, capfd):
    with pytest.raises(ValueError, match="2 of 2") as caught:
        Alerts(["json://127.0.0.1:9/x", address], tmp_path / "alerts.jsonl")
    shown = capfd.readouterr()
    assert "t0ken" not in str(caught.value) + caplog.text + shown.out + shown.err


def test_addresses_come_from_a_private_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PRICE_ALERTS", " json://one  json://two ")
    assert addresses() == ["json://one", "json://two"]
    monkeypatch.delenv("PRICE_ALERTS")
    assert addresses() == []
    monkeypatch.setenv("DEALS_ALERT", "json://other")
    assert addresses(variable="DEALS_ALERT") == ["json://other"]
    file = tmp_path / "addresses"
    file.write_text("# mine\njson://three\n\n")
    file.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        addresses(file)
    file.chmod(0o600)
    assert addresses(file) == ["json://three"]
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="no text"):
        addresses(file)
    with pytest.raises(ValueError, match="cannot be read"):
        addresses(tmp_path / "none")


DYING = """
import os, signal, sys
from pathlib import Path
import shared.watching.alerts as module
from tests.test_watching_hostile import loud
alerts = module.Alerts([sys.argv[1]], Path(sys.argv[2]))
sent = module.sent
def dies(*what):
    if sys.argv[3] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    sent(*what)
    os.kill(os.getpid(), signal.SIGKILL)
module.sent = dies
alerts.take([loud()])
"""


@pytest.mark.parametrize(("when", "messages"), [("before", 1), ("after", 2)])
def test_a_kill_9_loses_no_alert_and_records_the_incident_once(inbox, tmp_path, when, messages):
    """Between sending and writing that it was sent, nothing helps: there it is sent twice."""
    root = Path(__file__).resolve().parent.parent
    address, log = f"json://127.0.0.1:{inbox.server_port}/x", tmp_path / "alerts.jsonl"
    command = [sys.executable, "-c", DYING, address, str(log), when]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(root)}, cwd=root, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    log.open("ab").write(b'{"event": "to')  # and it was killed while it wrote
    alerts = Alerts([address], log)
    assert alerts.take([loud()]) == []
    assert alerts.take([loud()]) == []
    assert len(inbox.got) == messages
    assert log.read_bytes().count(b'"opened"') == 1


def test_a_damaged_record_of_alerts_is_read_as_far_as_it_goes(tmp_path):
    log = tmp_path / "alerts.jsonl"
    append_lines(log, [{"event": "opened", "incident": "price", "said": "x", "time": 1.0}])
    with log.open("ab") as file:
        file.write(b'7\n"x"\n[]\n{"event": "told", "incident": "price", "messenger": "x"}\n\xff\n')
        file.write(b'{"event": "opened", "incident": ["y"], "said": "x", "time": 1.0}\n')
    assert list(Alerts([], log).open()) == ["price"]
