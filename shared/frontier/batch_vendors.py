"""The batch APIs of two vendors, each as four calls: submit, find, progress, results.

They raise what their SDKs raise, and BatchError for what only they can know.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.data.storage import write_json
from shared.frontier import anthropic_wire, openai_wire
from shared.frontier.messages import Reply, Request
from shared.frontier.secrets import redact

SKEW = 24 * 3600.0
"""Seconds that a vendor's clock may be behind ours, when a batch whose id got lost is sought."""


class BatchError(RuntimeError):
    """A batch that cannot be submitted or followed; the message says what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(redact(reason))


class Over(BatchError):
    """The vendor gave the batch up, or does not know it: there is nothing to wait for."""


@dataclass
class Note:
    """A batch that may be under way, on disk. ``since``: Unix seconds, just before it was made."""

    path: Path
    address: str
    model: str
    keys: list[str]
    file: str = ""
    batch: str = ""
    doubt: str = "the process ended while it submitted a batch"
    since: float = field(default_factory=time.time)

    def write(self) -> None:
        """Put it on disk, whole or not at all."""
        write_json({name: value for name, value in vars(self).items() if name != "path"}, self.path)

    @classmethod
    def read(cls, path: Path) -> Note:
        """Return what was written; BatchError if that is no note."""
        try:
            return cls(path, **json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            why = "look for its batch on the vendor's page, then delete the file and run again"
            raise BatchError(f"{path} is damaged: {why}") from None


def _nowhere(note: Note) -> BatchError:
    return BatchError(
        f"{note.doubt}, and the vendor does not list it, or not yet: run again in some minutes. If "
        "it is not on the vendor's page of batches then, or you cancelled it there, delete "
        f"{note.path} and run again"
    )


def rows(data: bytes) -> Iterator[tuple[str, dict]]:
    """Yield the objects in JSON lines by their id; a line that is none has the id ''."""
    for line in filter(bytes.strip, data.split(b"\n")):  # answers hold other ends of lines
        try:
            row = json.loads(line)
            key = str(row["custom_id"])
        except (ValueError, TypeError, LookupError, RecursionError):
            row, key = {}, ""
        yield key, row


class OpenAIBatches:
    """Files of JSON lines, one request a line."""

    def __init__(self, sdk: Any, chat: bool) -> None:
        self.sdk = sdk
        self._endpoint = "/v1/chat/completions" if chat else "/v1/responses"
        self._body = openai_wire.chat_body if chat else openai_wire.responses_body
        self._read = openai_wire.chat_reply if chat else openai_wire.responses_reply

    def submit(self, requests: dict[str, Request], note: Note) -> str:
        """Upload the file and create the batch, marked so that it is found; return its id."""
        lines = (
            {"custom_id": k, "method": "POST", "url": self._endpoint, "body": self._body(r)}
            for k, r in requests.items()
        )
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        note.file = self.sdk.files.create(file=("requests.jsonl", data), purpose="batch").id
        note.write()
        once = self.sdk.with_options(max_retries=0)  # if the reply got lost, it would be another
        return once.batches.create(
            input_file_id=note.file, endpoint=self._endpoint, completion_window="24h",
            metadata={"mark": note.path.stem},
        ).id  # fmt: skip

    def find(self, note: Note) -> str:
        """Return the id of the batch with the note's mark; BatchError if none is listed."""
        for batch in self.sdk.batches.list(limit=100):  # the newest first
            if batch.created_at < note.since - SKEW:
                break
            if (batch.metadata or {}).get("mark") == note.path.stem:
                return batch.id
        raise _nowhere(note)

    def progress(self, batch: str) -> tuple[bool, int]:
        """Return whether a batch has ended, and how many of its requests are done."""
        found = self.sdk.batches.retrieve(batch)
        if found.status == "failed":
            errors = (found.errors.data if found.errors else None) or []
            why = "; ".join(e.message or "" for e in errors[:3]) or "no reason given"
            raise Over(f"batch {batch} failed: {why}")
        counts = found.request_counts
        done = counts.completed + counts.failed if counts else 0
        return found.status in ("completed", "expired", "cancelled"), done

    def results(self, batch: str) -> bytes:
        """Return the lines of the file of answers and of the file of errors, in any order."""
        found = self.sdk.batches.retrieve(batch)
        files = filter(None, (found.output_file_id, found.error_file_id))
        return b"\n".join(self.sdk.files.content(file).content for file in files)

    def read(self, row: dict) -> Reply | str:
        """Return the reply in a line, or the reason why there is none."""
        response, error = row.get("response") or {}, row.get("error") or {}
        body = response.get("body") or {}
        if response.get("status_code") == 200:
            return self._read(body)
        error = error or body.get("error") or {}
        return f"{error.get('code') or ''} {error.get('message') or ''}".strip() or "failed"


class AnthropicBatches:
    """Requests in one call, results in one answer; no file, and no mark."""

    def __init__(self, sdk: Any) -> None:
        self.sdk, self._batches = sdk, sdk.messages.batches

    def submit(self, requests: dict[str, Request], note: Note) -> str:
        """Create the batch and return its id."""
        entries = [
            {"custom_id": key, "params": anthropic_wire.messages_body(request)}
            for key, request in requests.items()
        ]
        note.write()
        return self.sdk.with_options(max_retries=0).messages.batches.create(requests=entries).id

    def find(self, note: Note) -> str:
        """Return the batch that holds the note's keys; '' while one that may be it goes on.

        Only the results of a batch tell whose it is. BatchError if there is none.
        """
        for batch in self._batches.list(limit=100):  # the newest first
            if batch.created_at.timestamp() < note.since - SKEW:
                break
            counts = batch.request_counts.to_dict()
            if batch.archived_at or sum(counts.values()) != len(note.keys):
                continue
            if batch.processing_status != "ended":
                return ""
            if {key for key, _ in rows(self.results(batch.id))} == set(note.keys):
                return batch.id
        raise _nowhere(note)

    def progress(self, batch: str) -> tuple[bool, int]:
        """Return whether a batch has ended, and how many of its requests are done."""
        found = self._batches.retrieve(batch)
        if found.archived_at:
            raise Over(f"batch {batch} is archived: its results are gone")
        counts = found.request_counts.to_dict()
        return found.processing_status == "ended", sum(counts.values()) - counts["processing"]

    def results(self, batch: str) -> bytes:
        """Return the lines of results, in any order."""
        return self._batches.results(batch).http_response.read()

    def read(self, row: dict) -> Reply | str:
        """Return the reply in a line, or the reason why there is none."""
        result = row["result"]
        if result["type"] == "succeeded":
            return anthropic_wire.messages_reply(result["message"])
        if result["type"] == "errored":
            return f"errored: {result['error']['error']['message']}"
        return result["type"]


Worker = OpenAIBatches | AnthropicBatches
