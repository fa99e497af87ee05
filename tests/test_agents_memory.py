"""What is remembered, and alerts that come exactly once although the process is killed."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from agents_kit import FAIR, GOOD, Knowing, feeds_of, offer, run, states

from shared.agents.fixtures import FeedServer
from shared.agents.memory import Entry, Memory, deliver, set_aside
from shared.agents.messenger import AppriseMessenger, LogMessenger, Message, MessengerError
from shared.feeds.scanner import Deal

DIES = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from agents_kit import Knowing
from shared.feeds.fetching import Fetcher
from shared.agents.finder import find_deals
from shared.agents.messenger import LogMessenger

url, policy = sys.argv[1], sys.argv[4]

class Forgetful(LogMessenger):
    deduplicates = False
    def send(self, message):
        with self.path.open("ab") as file:
            file.write((message.key + "\\n").encode())

def run(die_at):
    passed = 0
    def step(name):
        nonlocal passed
        passed += 1
        if passed == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
    messenger = (Forgetful if policy != "log" else LogMessenger)(folder / "alerts")
    find_deals([url], Knowing(), messenger, folder / "memory.sqlite",
               fetcher=Fetcher(allow=(url,)), step=step, again=policy != "never")
    return passed

def child(die_at, wait=None):
    made = os.fork()
    if not made:
        run(die_at)
        os._exit(0)
    if wait is not None:  # killed from outside, at a moment that nobody chose
        time.sleep(wait)
        os.kill(made, signal.SIGKILL)
    _, status = os.waitpid(made, 0)
    return str(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else "lived"

places = Path(sys.argv[2])
for line in sys.stdin:  # a folder, and when to die in it: moments, or seconds
    name, *whens = line.split()
    folder = places / name
    folder.mkdir(exist_ok=True)
    ends = [child(0, float(w)) if "." in w else child(int(w)) for w in whens]
    print(name, *ends, flush=True)
"""


@pytest.fixture
def server():
    with FeedServer(feeds_of(*GOOD, *FAIR)) as server:
        yield server


def die(server, folder, messenger, plans):
    """Run in folders, each killed as its plan says: a moment, or seconds; 0 runs to the end.

    Returns folder -> how each run in it ended: by which signal, or "lived".
    """
    command = [sys.executable, "-c", DIES, server.feeds[0], str(folder), str(Path(__file__).parent)]
    lines = "".join(f"{name} {' '.join(map(str, whens))}\n" for name, whens in plans.items())
    done = subprocess.run(
        [*command, messenger], input=lines, capture_output=True, text=True, check=True, timeout=240
    )
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}


def keys(folder):
    lines = (folder / "alerts").read_text().splitlines()
    return [json.loads(line)["key"] if line.startswith("{") else line for line in lines]


MOMENTS = 1 + 4 + 2 + 2 * 3
"""Taken, four priced, two intended, and for two alerts: sending, sent, marked."""


def test_killed_at_any_moment_every_alert_is_logged_exactly_once(server, tmp_path):
    """Each moment in a folder of its own; the run after it dies early, too, the third may end."""
    plans = {f"at-{moment}": [moment, 2, 0] for moment in range(1, MOMENTS + 2)}
    ends = die(server, tmp_path, "log", plans)
    killed = str(int(signal.SIGKILL))
    assert [ends[f"at-{moment}"][0] for moment in range(1, MOMENTS + 1)] == [killed] * MOMENTS
    assert ends[f"at-{MOMENTS + 1}"][0] == "lived", "there are more moments than are tested"
    for name in plans:
        assert ends[name][-1] == "lived"
        assert len(keys(tmp_path / name)) == len(set(keys(tmp_path / name))) == 2, name
        with Memory(tmp_path / name / "memory.sqlite") as memory:
            assert memory.outbox() == {"sent": 2}
            found = sorted(entry.state for entry in memory.entries())
        assert found == ["alerted", "alerted", "rejected", "rejected"]


def test_with_a_forgetful_messenger_it_is_at_least_once_or_at_most_once(server, tmp_path):
    """Killed between sending and marking: the guarantee that is stated, both ways."""
    sent = MOMENTS - 4  # the first alert's "sent"
    die(server, tmp_path, "again", {"again": [sent, 0]})
    die(server, tmp_path, "never", {"never": [sent, 0], "lost": [sent - 1, 0]})
    for policy, times in (("again", [2, 1]), ("never", [1, 1])):
        found = keys(tmp_path / policy)
        assert sorted(map(found.count, set(found)), reverse=True) == times
    # Killed before sending: at most once may be never, and says so.
    assert len(keys(tmp_path / "lost")) == 1
    with Memory(tmp_path / "lost" / "memory.sqlite") as memory:
        assert memory.outbox() == {"sent": 1, "doubtful": 1}


def test_killed_from_outside_at_moments_that_nobody_chose(server, tmp_path):
    server.documents = feeds_of(*(offer(f"lamp-{n}", f"Lamp {n}", 30) for n in range(40)))
    seconds = np.random.default_rng(0).uniform(0.01, 0.4, 20).round(3)
    ends = die(server, tmp_path, "log", {"x": [*seconds, 0]})["x"]
    assert ends.count(str(int(signal.SIGKILL))) > 2
    assert ends[-1] == "lived"
    assert len(keys(tmp_path / "x")) == len(set(keys(tmp_path / "x"))) == 40


# The outbox


class Down:
    """A messenger that is down until told otherwise."""

    deduplicates, down = True, True

    def __init__(self):
        self.sent = []

    def send(self, message):
        if self.down:
            raise MessengerError("the receiver is down")
        self.sent.append(message.key)


def test_a_messenger_that_is_down_loses_nothing(server, tmp_path):
    messenger = Down()
    outcome = run(server, tmp_path, messenger=messenger)
    assert len(outcome.alerts) == 2
    assert len(outcome.unsent) == 2
    assert "receiver is down" in str(outcome)
    messenger.down = False
    again = run(server, tmp_path, messenger=messenger)
    assert (len(messenger.sent), again.unsent) == (2, ())
    run(server, tmp_path, messenger=messenger)
    assert len(messenger.sent) == 2


def test_the_log_is_written_once_a_key_and_mends_a_torn_line(tmp_path):
    log = LogMessenger(tmp_path / "log.jsonl")
    log.send(Message("a", "A", "text"))
    with log.path.open("ab") as file:
        file.write(b'{"key": "b", "title": "half of')
    for _ in range(2):
        log.send(Message("b", "B", "text"))
        log.send(Message("a", "A", "text"))
    assert [m["key"] for m in log.messages()] == ["a", "b"]


def test_a_log_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(MessengerError, match="cannot be written"):
        LogMessenger(tmp_path).send(Message("a", "A", "text"))


def test_apprise_sends_and_shows_no_address(tmp_path, caplog, capfd):
    """A real service of apprise, and a real server; the address never shows, nor is it logged."""
    caplog.set_level(logging.DEBUG)
    received = []

    def hook(request):
        received.append(request.rfile.read(int(request.headers["Content-Length"])))
        request.send_response(200)
        request.send_header("Content-Length", "0")
        request.end_headers()

    with FeedServer({"/hook": hook}) as server:
        place = server.url.removeprefix("http://")
        server.documents["/hook"] = hook
        handler = server._server.RequestHandlerClass
        handler.do_POST = handler.do_GET
        messenger = AppriseMessenger([f"json://user:secret-word@{place}/hook"])
        messenger.send(Message("k", "Title", "Body"))
    assert json.loads(received[0])["message"] == "Body"
    with pytest.raises(MessengerError) as gone:
        messenger.send(Message("k", "Title", "Body"))
    said = [str(gone.value)]
    for address in ("nonsense-secret-word", "http://secret-word@@@:x:y"):
        with pytest.raises(ValueError, match="1 of 1 is none") as wrong:
            AppriseMessenger([address])
        said.append(str(wrong.value))
    shown = capfd.readouterr()
    assert "secret-word" not in "".join([*said, caplog.text, shown.out, shown.err])
    with pytest.raises(ValueError, match="no address"):
        AppriseMessenger([])


# The memory


def entry(name="a", **more):
    return Entry(name, "s", "T", "x", 10.0, None, "", "", **more)


def test_one_run_at_a_time(tmp_path):
    with Memory(tmp_path / "m") as memory:
        with pytest.raises(ValueError, match="another run is using it"):
            Memory(tmp_path / "m")
        memory.take([Deal("a", "s", "T", "x", 10.0)])
    with Memory(tmp_path / "m") as memory:
        assert memory.entry("a").state == "seen"


@pytest.mark.parametrize("damage", ["text", "middle", "other", "folder"])
def test_a_damaged_memory_is_named_with_the_remedy(tmp_path, damage):
    path = tmp_path / "m.sqlite"
    if damage == "folder":
        path.mkdir()
    elif damage == "other":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE deals (something)")
    elif damage == "text":
        path.write_text("this is no database, and quite long enough to be read as one" * 100)
    else:
        with Memory(path) as memory:
            memory.restore([entry(str(n)) for n in range(500)])
        content = bytearray(path.read_bytes())
        content[5_000:20_000] = os.urandom(15_000)
        path.write_bytes(content)
    with pytest.raises(ValueError, match="move it away"):
        Memory(path)


def test_a_memory_that_another_program_locks_is_said(server, tmp_path):
    run(server, tmp_path)
    with sqlite3.connect(tmp_path / "memory.sqlite.lock", timeout=0) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ValueError, match="another run is using it"):
            run(server, tmp_path)
        other.rollback()


def test_an_intent_and_its_state_are_one_change(tmp_path):
    with Memory(tmp_path / "m") as memory:
        memory.restore([entry(state="priced", price=100.0)])
        broken = Message("k", "t", "b")
        object.__setattr__(broken, "key", object())  # cannot be stored
        with pytest.raises((sqlite3.Error, TypeError)):
            memory.intend(memory.entry("a"), broken)
        assert memory.entry("a").state == "priced"
        assert not memory.outbox()


def test_what_is_doubtful_is_named_and_not_sent(tmp_path):
    with Memory(tmp_path / "m") as memory:
        memory.restore([entry(state="priced", price=100.0)])
        memory.intend(memory.entry("a"), Message("k", "A lamp", "b"))
        memory.mark("k", "sending")
        assert set_aside(memory) == ["A lamp: may have been sent before a crash"]
        messenger = Down()
        messenger.down = False
        assert deliver(memory, messenger) == []
        assert messenger.sent == []


def test_unfinished_deals_of_a_run_before_are_finished(server, tmp_path):
    """Seen but not priced, as a kill leaves them, and gone from the feed since."""
    with Memory(tmp_path / "memory.sqlite") as memory:
        memory.take([Deal("old", "elsewhere", "A lamp", "", 20.0, link="https://x.example/old")])
    assert states(run(server, tmp_path, Knowing()))["old"][0] == "alerted"
