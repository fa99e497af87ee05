"""Batches: the same requests at half the price, answered within a day.

What comes back goes into the connection's cache, so whoever asks afterwards finds the answers
there. A note of a batch is on disk before the vendor has it, and until its answers are stored: who
was killed, lost the vendor's reply or wants more by now goes on with it, and buys nothing twice.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from weakref import WeakKeyDictionary

from tqdm.auto import tqdm

from shared.frontier.batch_vendors import (
    AnthropicBatches,
    BatchError,
    Note,
    OpenAIBatches,
    Over,
    Worker,
    rows,
)
from shared.frontier.clients import AnthropicClient, OpenAIClient, cleaned, explained
from shared.frontier.connection import Connection
from shared.frontier.messages import Reply, Request
from shared.frontier.models import find_model
from shared.frontier.money import Bill, at_most, cost
from shared.frontier.secrets import redact

POLL_SECONDS = 30.0
"""Between two looks at a vendor's batch; a stand-in, which is quick, is looked at more often."""
_billed: WeakKeyDictionary[Connection, set[tuple[str, str]]] = WeakKeyDictionary()
"""Connection -> (batch, key) of the answers that its budget has paid."""


@dataclass
class BatchReport:
    """What was bought, for how many dollars, and what was not: key of a request -> the reason.

    ``id`` is the last batch's. Answers that were stored already are not counted again.
    """

    id: str = ""
    ended: bool = True
    bought: int = 0
    cost_usd: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.ended:
            return f"batch {self.id} is still being worked on; run the same again to go on waiting"
        counts = Counter(why[:80] for why in self.failed.values())
        reasons = "".join(f"; {count} {why}" for why, count in counts.items())
        return f"{self.bought:,} answers for ${self.cost_usd:.4f}{reasons}"


def buy_batch(
    connection: Connection,
    requests: Iterable[Request],
    folder: Path,
    *,
    poll: float | None = None,
    patience: float = float("inf"),
    progress: bool = True,
) -> BatchReport:
    """Have requests answered at half price, into the connection's cache.

    Requests that are answered already are left out. Batches noted in ``folder`` that hold some of
    the others are waited for first, and what is in none is submitted; several processes may do so
    at once. Run again if ``patience`` seconds were not enough, or to submit what failed.
    Raises BudgetError before anything is submitted if the cap might not hold, and BatchError if
    the vendor refuses a batch, fails it or cannot be reached.
    """
    from filelock import FileLock

    if connection.cache is None:
        raise ValueError("a batch needs a connection with a cache: that is where answers go")
    worker, until = _worker(connection), time.monotonic() + patience
    poll = poll or (0.2 if connection.server else POLL_SECONDS)
    folder, report = Path(folder), BatchReport()
    wanted = {r.key(connection.address): r for r in requests}
    while _missing(connection, wanted, report):
        with contextlib.ExitStack() as until_collected:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "batches.lock"):  # of two processes, the second finds a note
                if not (most := _missing(connection, wanted, report)):
                    break  # another process has bought them while this one waited for the lock
                note = _noted(folder, connection.address, most)
                dollars = sum(most[key] for key in (note.keys if note else most) if key in most)
                if note:  # it is paid for: no cap keeps its answers away
                    dollars = min(dollars, connection.budget.left)
                bill = until_collected.enter_context(connection.budget.reserve(dollars))
                ours = None if note else {key: wanted[key] for key in most}
                note = note or _submitted(worker, ours, connection, folder)
            try:
                report.ended = _ended(worker, note, until, poll, progress)
                report.id = note.batch
                if not report.ended:
                    break
                _collect(worker, note, connection, most, report, bill)
            except Over as error:
                _close(worker, note)
                raise BatchError(f"{error}; run again to submit it anew") from None
            _close(worker, note)
        if ours:
            break  # whatever became of it, one run submits once
    return report


def _missing(
    connection: Connection, wanted: dict[str, Request], report: BatchReport
) -> dict[str, float]:
    """Return the keys to buy, and dollars that each may cost. What failed waits for another run."""
    share = 1 - connection.card.batch_discount
    return {
        key: at_most(connection.card, request) * share
        for key, request in wanted.items()
        if key not in report.failed and connection.cache.get(key) is None
    }


def _noted(folder: Path, address: str, keys: Iterable[str]) -> Note | None:
    """Return a batch at this address that holds one of the keys."""
    for note in map(Note.read, sorted(folder.glob("batch-*.json"))):
        if note.address == address and not set(note.keys).isdisjoint(keys):
            return note
    return None


def _submitted(
    worker: Worker, requests: dict[str, Request], connection: Connection, folder: Path
) -> Note:
    """Submit a batch; if the vendor's reply gets lost, its note has no id yet."""
    path = folder / f"batch-{secrets.token_hex(8)}.json"
    note = Note(path, connection.address, connection.card.name, list(requests))
    try:
        note.batch = worker.submit(requests, note)
    except Exception as error:
        why, status = explained(error), getattr(error, "status_code", None)
        refused = status != 408 and 400 <= status < 500 if status else not why.paid
        if refused or isinstance(error, UnicodeError) or not path.exists():  # nothing was made
            _close(worker, note)
            raise BatchError(f"the batch was refused: {why}") from None
        note.doubt = f"the vendor's reply to a new batch got lost ({why})"
    note.write()
    return note


def _close(worker: Worker, note: Note) -> None:
    note.path.unlink(missing_ok=True)
    if note.file:
        with contextlib.suppress(Exception):  # a file that stays there costs nothing
            worker.sdk.files.delete(note.file)


def _ended(worker: Worker, note: Note, until: float, poll: float, progress: bool) -> bool:
    """Wait for the end of a batch; false if it does not come by ``until``."""
    with tqdm(total=len(note.keys), desc="batch", unit="request", disable=not progress) as bar:
        while True:
            ended = False
            with _asking(note):
                if not note.batch and (found := worker.find(note)):
                    note.batch = found
                    note.write()
                if note.batch:
                    ended, done = worker.progress(note.batch)
                    bar.update(done - bar.n)
            if ended or time.monotonic() + poll > until:
                return ended
            time.sleep(poll)


def _collect(
    worker: Worker, note: Note, connection: Connection, most: dict[str, float],
    report: BatchReport, bill: Bill,
) -> None:  # fmt: skip
    """Put the answers where they are looked for; results come in any order, and not all come."""
    same = note.model == connection.card.name
    card = connection.card if same else find_model(note.model)
    billed, pending, unread = _billed.setdefault(connection, set()), set(note.keys), 0
    with _asking(note):
        data = worker.results(note.batch)
    for key, row in rows(data):
        unread += not key
        if key not in pending:
            continue
        pending.remove(key)
        try:
            reply = worker.read(row)
            if isinstance(reply, Reply):
                reply = cleaned(reply)
                reply = replace(reply, cost_usd=cost(card, reply.usage, batch=True))
        except (AttributeError, LookupError, TypeError, ArithmeticError, ValueError) as error:
            reply = f"the answer cannot be used ({type(error).__name__}: {error})"
            bill.lost += most.get(key, 0.0)
        if isinstance(reply, str):
            report.failed |= {key: redact(reply)} if key in most else {}
            continue
        if (note.batch, key) not in billed:  # else this process was interrupted while collecting
            billed.add((note.batch, key))
            bill.dollars += reply.cost_usd
            connection.usage += reply.usage
        if connection.cache.get(key) is None:
            connection.cache.put(key, reply)
            report.bought += 1
            report.cost_usd += reply.cost_usd
    if unread and len(pending) == len(note.keys):
        raise BatchError(
            f"no line of the results of batch {note.batch} can be read: run again to fetch them "
            f"once more, or delete {note.path} to buy them anew"
        )
    why = "without an answer" + f" ({unread} lines cannot be read)" * bool(unread)
    report.failed |= dict.fromkeys(pending & most.keys(), why)


@contextlib.contextmanager
def _asking(note: Note) -> Iterator[None]:
    """Turn what an SDK raises into a BatchError without keys, and a batch of nobody into Over."""
    try:
        yield
    except BatchError:
        raise
    except Exception as error:
        why = explained(error)
        if note.batch and getattr(error, "status_code", None) == 404:
            other = "or belongs to the account of another key"
            raise Over(f"batch {note.batch} is gone at the vendor, {other} ({why})") from None
        raise BatchError(f"{why}; run the same again to go on waiting for the batch") from None


def _worker(connection: Connection) -> Worker:
    if not connection.card.batch_discount:
        raise ValueError(f"{connection.card.name} has no batches, or none that are cheaper")
    client = connection.client
    if isinstance(client, AnthropicClient):
        return AnthropicBatches(client.sdk)
    assert isinstance(client, OpenAIClient)
    return OpenAIBatches(client.sdk, client.chat)
