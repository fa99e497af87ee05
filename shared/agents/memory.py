"""What the deal finder remembers, in SQLite: seen, priced, rejected, alerted, and an outbox.

An alert is recorded as intended together with the state of its deal, in one transaction; then it
is sent, then marked as sent. Whoever dies in between has it still in the outbox, and the next run
sends it again with the same key: at least once with any messenger, exactly once with one that
sends a key only once. ``set_aside`` before delivering makes it at most once: what was being sent
when the process died is then doubtful, and said. A power cut may take the last moments with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from shared.agents.messenger import Message, Messenger, MessengerError
from shared.agents.rules import Value
from shared.feeds.scanner import Deal

Step = Callable[[str], None]

CHEAPER = 0.95
"""Share of the lowest price alerted so far that an offer has to reach to be alerted again."""

STATES = ("seen", "priced", "rejected", "alerted", "failed")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS deals (
    id TEXT PRIMARY KEY, source TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL,
    asked REAL, listed REAL, link TEXT NOT NULL, reason TEXT NOT NULL,
    state TEXT NOT NULL, price REAL, low REAL, high REAL, told REAL);
CREATE TABLE IF NOT EXISTS outbox (
    key TEXT PRIMARY KEY, deal TEXT NOT NULL, message TEXT NOT NULL,
    state TEXT NOT NULL, made REAL NOT NULL);
"""


@dataclass(frozen=True)
class Entry(Deal):
    """A deal as it is remembered. ``told``: the lowest price in dollars that was alerted, or None.

    ``state``: seen, priced (and good enough to alert), rejected or failed (``reason`` says why:
    failed ones are tried again in the next run), alerted.
    """

    state: str = "seen"
    price: float | None = None
    low: float | None = None
    high: float | None = None
    told: float | None = None

    @property
    def value(self) -> Value:
        """What it costs, as it was priced; NaN where it was not."""
        found = (math.nan if v is None else v for v in (self.price, self.low, self.high))
        return Value(*found, error=self.reason)

    @property
    def key(self) -> str:
        """The name of an alert: the same link at the same price is one alert, in any feed."""
        offer = f"{self.link or self.id}|{round((self.asked or 0) * 100)}"
        return hashlib.sha256(offer.encode()).hexdigest()[:16]


_COLUMNS = [f.name for f in fields(Entry)]
_MARKS = ", ".join("?" * len(_COLUMNS))


class Memory:
    """A file of deals and alerts, for one run at a time; use it as a context manager.

    Raises ValueError if another run has it, or if it is damaged or no memory at all. The claim on
    it ends with the process, however it ends.
    """

    def __init__(self, path: Path | str) -> None:
        self.path, self._database, self._claim = str(path), None, None
        try:
            if self.path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._claim = self._claimed()
            self._database = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")  # survives kill -9
            self._database.executescript(_SCHEMA)
            self._check()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise ValueError(
                f"{self.path}: cannot be used as the finder's memory ({error}). If it is damaged, "
                "move it away; what was alerted may then be alerted once more"
            ) from error

    def _claimed(self) -> sqlite3.Connection | None:
        """Lock a file beside it: a lock that the system takes back from whoever is killed."""
        if self.path == ":memory:":
            return None
        claim = sqlite3.connect(f"{self.path}.lock", timeout=0, isolation_level=None)
        try:
            claim.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            claim.close()
            if "locked" not in str(error):
                raise
            raise ValueError(f"{self.path}: another run is using it; wait until it ends") from None
        return claim

    def _check(self) -> None:
        found = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        self._database.execute(f"SELECT {', '.join(_COLUMNS)} FROM deals LIMIT 0")
        self._database.execute("SELECT key, deal, message, state, made FROM outbox LIMIT 0")

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Do all of a change or nothing of it."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def take(self, deals: Iterable[Deal]) -> Counter[str]:
        """Remember what feeds offer now; return how many are new, changed, cheaper… or known.

        A deal of another text is priced anew. One of another price keeps its estimate, and the
        rule decides anew. What failed is tried again, and what has no price is rejected.
        """
        counts: Counter[str] = Counter()
        with self._change():
            for deal in deals:
                known = self.entry(deal.id)
                how, entry = _renewed(known, deal)
                counts[how] += 1
                if entry != known:
                    self._put(entry)
        return counts

    def restore(self, entries: Iterable[Entry]) -> None:
        """Remember entries just as they are."""
        with self._change():
            for entry in entries:
                self._put(entry)

    def _put(self, entry: Entry) -> None:
        self._database.execute(f"INSERT OR REPLACE INTO deals VALUES ({_MARKS})", astuple(entry))

    def entry(self, name: str) -> Entry | None:
        """Return the deal of an id, or None."""
        found = self._entries("id = ?", (name,))
        return found[0] if found else None

    def unfinished(self) -> list[Entry]:
        """Return the deals that are to be priced or decided, the oldest first."""
        return self._entries("state IN ('seen', 'priced')")

    def entries(self) -> list[Entry]:
        """Return all deals, the oldest first."""
        return self._entries("1")

    def _entries(self, where: str, values: Sequence = ()) -> list[Entry]:
        query = f"SELECT {', '.join(_COLUMNS)} FROM deals WHERE {where} ORDER BY rowid"
        return [Entry(*row) for row in self._database.execute(query, values)]

    def priced(self, name: str, value: Value, refusal: str) -> None:
        """Remember what a deal costs, and that it is ``priced`` or, with a reason, rejected.

        One that could not be priced has failed.
        """
        state = "rejected" if refusal else "priced"
        state = state if math.isfinite(value.price) else "failed"
        found = (v if math.isfinite(v) else None for v in (value.price, value.low, value.high))
        self._database.execute(
            "UPDATE deals SET price = ?, low = ?, high = ?, state = ?, reason = ? WHERE id = ?",
            (*found, state, refusal, name),
        )

    def rejected(self, name: str, reason: str) -> None:
        """Remember that a deal is none, and why."""
        self._database.execute(
            "UPDATE deals SET state = 'rejected', reason = ? WHERE id = ?", (reason, name)
        )

    def intend(self, entry: Entry, message: Message) -> None:
        """Put a message into the outbox and call its deal alerted, both or neither.

        A key that was in the outbox before is not put there again.
        """
        with self._change() as database:
            database.execute(
                "INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, 'intended', ?)",
                (message.key, entry.id, json.dumps(vars(message)), time.time()),
            )
            database.execute(
                "UPDATE deals SET state = 'alerted', reason = '', told = ? WHERE id = ?",
                (entry.asked, entry.id),
            )

    def outbox(self) -> Counter[str]:
        """Return how many messages are intended, sending, sent, or doubtful after a crash."""
        query = "SELECT state, count(*) FROM outbox GROUP BY state"
        return Counter(dict(self._database.execute(query).fetchall()))

    def waiting(self) -> list[tuple[Message, str]]:
        """Return the messages that are not known to be sent, and their states."""
        query = "SELECT message, state FROM outbox WHERE state IN ('intended', 'sending')"
        rows = self._database.execute(f"{query} ORDER BY rowid").fetchall()
        return [(Message(**json.loads(text)), state) for text, state in rows]

    def mark(self, key: str, state: str) -> None:
        """Remember what became of a message."""
        self._database.execute("UPDATE outbox SET state = ? WHERE key = ?", (state, key))

    def close(self) -> None:
        """Close the file, and let others use it."""
        for held in (self._database, self._claim):
            if held is not None:
                held.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _renewed(known: Entry | None, deal: Deal) -> tuple[str, Entry]:
    """Return what a deal that is offered now is to be remembered as, and how that differs."""
    fresh = Entry(*astuple(deal), state="seen" if deal.asked else "rejected")
    if known is None:
        return "new" if deal.asked else "without a price", fresh
    same_text = (known.title, known.text) == (deal.title, deal.text)
    if not (same_text and known.asked == deal.asked and known.link == deal.link):
        kept = {n: getattr(known, n) for n in ("price", "low", "high")} if same_text else {}
        how = "changed price" if same_text else "changed text"
        return how, Entry(*astuple(deal), state=fresh.state, told=known.told, **kept)
    if known.state == "failed":
        return "tried again", Entry(*astuple(deal), told=known.told)
    return "known", known


def set_aside(memory: Memory) -> list[str]:
    """Call doubtful what was being sent when a process died, and name it: it is not sent again."""
    doubtful = [message for message, state in memory.waiting() if state == "sending"]
    for message in doubtful:
        memory.mark(message.key, "doubtful")
    return [f"{message.title}: may have been sent before a crash" for message in doubtful]


def deliver(memory: Memory, messenger: Messenger, step: Step = lambda name: None) -> list[str]:
    """Send what is in the outbox; return why some of it could not be sent (it stays there).

    ``step`` is called at each moment at which a process could die.
    """
    failed = []
    for message, _ in memory.waiting():
        memory.mark(message.key, "sending")
        step("sending")
        try:
            messenger.send(message)
        except MessengerError as error:
            memory.mark(message.key, "intended")
            failed.append(f"{message.title}: {error}")
            continue
        step("sent")
        memory.mark(message.key, "sent")
        step("marked")
    return failed
