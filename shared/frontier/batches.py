"""Batches: the same requests at half the price, answered within a day.

What comes back goes into the connection's cache, so whoever asks afterwards finds the answers
there. A batch that was submitted is noted on disk at once: a notebook that was closed goes on
waiting for it the next day, and submits nothing twice.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from shared.data.storage import write_json
from shared.frontier import anthropic_wire, openai_wire
from shared.frontier.clients import AnthropicClient, OpenAIClient, explained
from shared.frontier.connection import Connection
from shared.frontier.messages import Reply, Request
from shared.frontier.money import at_most, cost
from shared.frontier.secrets import redact

POLL_SECONDS = 30.0
"""Between two looks at a vendor's batch; a stand-in, which is quick, is looked at more often."""


class BatchError(RuntimeError):
    """A batch that cannot be submitted or followed; the message says what to do."""


@dataclass
class BatchReport:
    """What became of a batch. ``failed``: key of a request -> why it has no answer."""

    id: str = ""
    ended: bool = True
    bought: int = 0
    cost_usd: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.ended:
            return f"batch {self.id} is still being worked on; run the same again to go on waiting"
        reasons = "".join(f"; {count} {why}" for why, count in self._reasons().items())
        return f"{self.bought:,} answers for ${self.cost_usd:.4f}{reasons}"

    def _reasons(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for why in self.failed.values():
            counts[why[:80]] = counts.get(why[:80], 0) + 1
        return counts


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

    Requests that are answered already are left out. The note of a batch under way lies in
    ``folder``; run again with the same requests to go on with it, also after ``patience`` seconds
    were not enough. Raises BudgetError before anything is submitted if the cap might not hold,
    and BatchError if the vendor refuses the batch.
    """
    if connection.cache is None:
        raise ValueError("a batch needs a connection with a cache: that is where answers go")
    wanted = {r.key(connection.address): r for r in requests}
    wanted = {key: r for key, r in wanted.items() if connection.cache.get(key) is None}
    if not wanted:
        return BatchReport()
    worker = _worker(connection)
    poll = poll or (0.2 if connection.server else POLL_SECONDS)
    note = Path(folder) / f"batch-{_digest(connection.address, wanted)}.json"
    most = sum(at_most(connection.card, r) for r in wanted.values())
    with connection.budget.reserve(most * (1 - connection.card.batch_discount)) as bill:
        batch = _submitted(worker, wanted, note)
        if not _ended(worker, batch, len(wanted), poll, patience, progress):
            return BatchReport(batch, ended=False)
        report = _collected(worker, batch, wanted, connection)
        bill.dollars = report.cost_usd
    note.unlink()
    return report


def _submitted(worker: Worker, wanted: dict[str, Request], note: Path) -> str:
    """Submit the batch, or find the one that was submitted before a restart."""
    mark = note.stem
    if note.exists():
        batch = json.loads(note.read_text(encoding="utf-8"))["batch"] or worker.find(mark)
        if not batch:
            raise BatchError(
                "the process ended while it submitted a batch, and it is not known whether the "
                f"vendor has it: look at the vendor's page of batches, cancel it there if it is "
                f"there, then delete {note} and run again"
            )
        return batch
    write_json({"batch": "", "requests": len(wanted)}, note)
    try:
        batch = worker.submit(wanted, mark)
    except Exception as error:
        note.unlink()
        raise BatchError(f"the batch was refused: {explained(error)}") from None
    write_json({"batch": batch, "requests": len(wanted)}, note)
    return batch


def _ended(
    worker: Worker, batch: str, total: int, poll: float, patience: float, progress: bool
) -> bool:
    """Wait for the end of a batch; false if patience ended first."""
    until = time.monotonic() + patience
    with tqdm(total=total, desc="batch", unit="request", disable=not progress) as bar:
        while True:
            ended, done = worker.progress(batch)
            bar.update(done - bar.n)
            if ended or time.monotonic() + poll > until:
                return ended
            time.sleep(poll)


def _collected(
    worker: Worker, batch: str, wanted: dict[str, Request], connection: Connection
) -> BatchReport:
    """Put the answers where they are looked for; results come in any order, and not all come."""
    report = BatchReport(batch, failed=dict.fromkeys(wanted, "without an answer"))
    for key, found in worker.results(batch):
        if key not in report.failed:
            continue
        if isinstance(found, Reply):
            price = cost(connection.card, found.usage, batch=True)
            connection.cache.put(key, replace(found, cost_usd=price))
            connection.usage += found.usage
            report.bought += 1
            report.cost_usd += price
            del report.failed[key]
        else:
            report.failed[key] = redact(found)
    return report


class Worker(Protocol):
    """A vendor's batch API."""

    def submit(self, requests: dict[str, Request], mark: str) -> str:
        """Submit requests by key; return the batch's id."""
        ...

    def find(self, mark: str) -> str:
        """Return the id of the batch that was submitted with this mark, or ''."""
        ...

    def progress(self, batch: str) -> tuple[bool, int]:
        """Return whether a batch has ended, and how many of its requests are done."""
        ...

    def results(self, batch: str) -> Iterator[tuple[str, Reply | str]]:
        """Yield key and reply, or key and the reason why there is none, in any order."""
        ...


class OpenAIBatches:
    """Files of JSON lines, one request a line."""

    def __init__(self, sdk: Any, chat: bool) -> None:
        self._sdk = sdk
        self._endpoint = "/v1/chat/completions" if chat else "/v1/responses"
        self._body = openai_wire.chat_body if chat else openai_wire.responses_body
        self._read = openai_wire.chat_reply if chat else openai_wire.responses_reply

    def submit(self, requests: dict[str, Request], mark: str) -> str:
        """Upload the file and create the batch, marked so that it is found after a crash."""
        lines = (
            {"custom_id": k, "method": "POST", "url": self._endpoint, "body": self._body(r)}
            for k, r in requests.items()
        )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        file = self._sdk.files.create(
            file=("requests.jsonl", io.BytesIO(text.encode())), purpose="batch"
        )
        made = self._sdk.batches.create(
            input_file_id=file.id, endpoint=self._endpoint, completion_window="24h",
            metadata={"mark": mark},
        )  # fmt: skip
        return made.id

    def find(self, mark: str) -> str:
        """Look through the batches of this account."""
        for batch in self._sdk.batches.list():
            if (batch.metadata or {}).get("mark") == mark:
                return batch.id
        return ""

    def progress(self, batch: str) -> tuple[bool, int]:
        """Ask once."""
        found = self._sdk.batches.retrieve(batch)
        if found.status == "failed":
            errors = found.errors.data if found.errors else []
            raise BatchError("; ".join(e.message or "" for e in errors[:3]) or "the batch failed")
        counts = found.request_counts
        done = counts.completed + counts.failed if counts else 0
        return found.status in ("completed", "expired", "cancelled"), done

    def results(self, batch: str) -> Iterator[tuple[str, Reply | str]]:
        """Read the file of answers and the file of errors, then delete what was uploaded."""
        found = self._sdk.batches.retrieve(batch)
        for file in filter(None, (found.output_file_id, found.error_file_id)):
            for line in self._sdk.files.content(file).text.splitlines():
                value = json.loads(line)
                yield value["custom_id"], self._reply(value)
        self._sdk.files.delete(found.input_file_id)

    def _reply(self, value: dict) -> Reply | str:
        response, error = value.get("response") or {}, value.get("error") or {}
        body = response.get("body") or {}
        if response.get("status_code") != 200:
            error = error or body.get("error") or {}
            return f"{error.get('code') or ''} {error.get('message') or ''}".strip() or "failed"
        return self._read(body)


class AnthropicBatches:
    """Requests in one call; results as a stream."""

    def __init__(self, sdk: Any) -> None:
        self._batches = sdk.messages.batches

    def submit(self, requests: dict[str, Request], mark: str) -> str:
        """Create the batch."""
        entries = [
            {"custom_id": key, "params": anthropic_wire.messages_body(request)}
            for key, request in requests.items()
        ]
        return self._batches.create(requests=entries).id

    def find(self, mark: str) -> str:
        """Batches carry no mark here: nobody can tell."""
        return ""

    def progress(self, batch: str) -> tuple[bool, int]:
        """Ask once."""
        found = self._batches.retrieve(batch)
        counts = found.request_counts
        done = counts.succeeded + counts.errored + counts.expired + counts.canceled
        return found.processing_status == "ended", done

    def results(self, batch: str) -> Iterator[tuple[str, Reply | str]]:
        """Read the results."""
        for entry in self._batches.results(batch):
            result = entry.result
            if result.type == "succeeded":
                yield entry.custom_id, anthropic_wire.messages_reply(result.message.to_dict())
            elif result.type == "errored":
                yield entry.custom_id, f"errored: {result.error.error.message}"
            else:
                yield entry.custom_id, result.type


def _worker(connection: Connection) -> Worker:
    if not connection.card.batch_discount:
        raise ValueError(f"{connection.card.name} has no batches, or none that are cheaper")
    client = connection.client
    if isinstance(client, AnthropicClient):
        return AnthropicBatches(client.sdk)
    assert isinstance(client, OpenAIClient)
    return OpenAIBatches(client.sdk, client.chat)


def _digest(address: str, keys: Iterable[str]) -> str:
    return hashlib.sha256("\n".join([address, *sorted(keys)]).encode()).hexdigest()[:16]
