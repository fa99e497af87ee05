"""Files and batches: work that goes on by the clock, whether anybody polls or not."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from shared.standin.bodies import read_object
from shared.standin.wire import BadRequest, need, new_id, shape, shuffled

DURATION = 1.0
"""Seconds of a batch or a job at speed 1."""

DAY = 24 * 3600

Run = Callable[[str, dict, bytes], tuple[int, dict]]
"""Does one request of a batch: (path, body, its line) -> (status, body of the answer)."""


def page(rows: list[dict], query: dict[str, str], cursor: str = "after", limit: int = 20) -> dict:
    """Return one page of a list, from behind the row whose id is ``query[cursor]``."""
    if not query.get("limit", str(limit)).isdigit():
        raise BadRequest("Invalid value for 'limit': a whole number is expected.", param="limit")
    ids = [row["id"] for row in rows]
    start = ids.index(query[cursor]) + 1 if query.get(cursor) in ids else 0
    shown = rows[start : start + int(query.get("limit", limit))]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {}
    more = start + len(shown) < len(rows)
    empty = {"first_id": None, "last_id": None}
    return {"object": "list", "data": shown, "has_more": more, **empty, **ends}


class Files:
    """The files of an account, in memory: id -> (what the API shows, bytes)."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[dict, bytes]] = {}

    def add(self, name: str, data: bytes, purpose: str) -> dict:
        """Keep a file and return what the API shows of it."""
        about = {"filename": name, "purpose": purpose, "created_at": int(time.time())}
        shown = shape("file", id=new_id("file"), bytes=len(data), **about)
        self.held[shown["id"]] = (shown, data)
        return shown

    def upload(self, content_type: str, body: bytes) -> dict:
        """Keep the file of a multipart form; raise BadRequest if it holds none."""
        boundary = b"--" + content_type.partition("boundary=")[2].strip('"').encode()
        fields: dict[str, tuple[str, bytes]] = {}
        for part in body.split(boundary)[1:-1]:
            head, _, data = part.partition(b"\r\n\r\n")
            names = dict(re.findall(r'(name|filename)="([^"]*)"', head.decode("utf-8", "replace")))
            fields[names.get("name", "")] = (names.get("filename", ""), data.removesuffix(b"\r\n"))
        for name in ("file", "purpose"):
            if name not in fields:
                raise BadRequest(f"Missing required parameter: '{name}'.", param=name)
        return self.add(*fields["file"], fields["purpose"][1].decode())

    def get(self, name: str, param: str = "id") -> tuple[dict, bytes]:
        """Return a file; raise BadRequest (404) if there is none of that id."""
        if name not in self.held:
            raise BadRequest(f"No such File object: {name}", status=404, param=param)
        return self.held[name]

    def delete(self, name: str) -> dict:
        """Forget a file."""
        self.get(name)
        del self.held[name]
        return {"id": name, "object": "file", "deleted": True}


@dataclass
class Batch:
    """One batch of either vendor: its lines (custom id, path, body), and what became of them."""

    id: str
    lines: list[tuple[str, str, dict]]
    created: float
    about: dict = field(default_factory=dict)
    cancelled: float | None = None
    expires: bool = False
    done: list[tuple[str, int, dict]] | None = None
    undone: list[str] = field(default_factory=list)


class Batches:
    """The batches of one vendor. ``expire``: tells whether a batch made now will expire."""

    def __init__(self, run: Run, speed: float, seed: int, expire: Callable[[], bool]) -> None:
        self._run, self._speed, self._seed, self._expire = run, speed, seed, expire
        self.held: dict[str, Batch] = {}

    def add(self, prefix: str, lines: list, **about: Any) -> Batch:
        """Start a batch."""
        batch = Batch(new_id(prefix), lines, time.time(), about, expires=self._expire())
        self.held[batch.id] = batch
        return batch

    def get(self, name: str) -> Batch:
        """Return a batch; raise BadRequest (404) if there is none of that id."""
        if name not in self.held:
            raise BadRequest(f"No batch found with id '{name}'.", status=404)
        return self.held[name]

    def cancel(self, name: str) -> Batch:
        """Stop a batch where it is, if it is not done yet."""
        batch = self.get(name)
        if self.progress(batch) < 1 and batch.cancelled is None:
            batch.cancelled = time.time()
        return batch

    def progress(self, batch: Batch) -> float:
        """Return how far a batch got, 1 at its end; it stays where it was cancelled."""
        now = batch.cancelled or time.time()
        return min((now - batch.created) * self._speed / DURATION, 1.0)

    def over(self, batch: Batch) -> bool:
        """Return whether all is done that will be; the answers are then in ``done``.

        In no order: whoever relies on the order of a batch has to notice here. Of a batch that
        was cancelled or expires, a part is done and paid for.
        """
        if batch.cancelled is None and self.progress(batch) < 1:
            return False
        if batch.done is None:
            order = shuffled(batch.lines, self._seed)
            order = order[::-1] if order == batch.lines else order
            share = self.progress(batch) if batch.cancelled else 0.5 if batch.expires else 1.0
            count = int(len(order) * share)
            batch.undone = [line[0] for line in order[count:]]
            batch.done = [
                (key, *self._run(path, body, json.dumps([key, body]).encode()))
                for key, path, body in order[:count]
            ]
        return True


class OpenAIBatches(Batches):
    """OpenAI's batches: a file of requests becomes a file of answers and one of errors."""

    endpoints = ("/v1/responses", "/v1/chat/completions")

    def create(self, body: dict, files: Files) -> dict:
        """Start a batch on an uploaded file. Damaged lines fail it, once it has looked at them."""
        endpoint = need(body, "endpoint", str)
        if endpoint not in self.endpoints:
            raise BadRequest(f"Invalid value: '{endpoint}'.", param="endpoint")
        if need(body, "completion_window", str) != "24h":
            raise BadRequest("Invalid value. Supported value is: '24h'.", param="completion_window")
        _, data = files.get(need(body, "input_file_id", str), "input_file_id")
        lines, errors, seen = [], [], set()
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            try:
                asked = read_object(line)
                key, path, inner = asked["custom_id"], asked["url"], asked["body"]
                problem = "duplicate_custom_id" if key in seen else ""
                problem = problem or ("mismatched_url" if path != endpoint else "")
            except (BadRequest, KeyError, TypeError):
                problem, key, path, inner = "invalid_json_line", "", "", {}
            if problem:
                message = f"Line {number} of the file: {problem.replace('_', ' ')}."
                errors.append({"code": problem, "message": message, "line": number, "param": None})
            seen.add(key)
            lines.append((key, path, inner))
        if not lines:
            errors.append({"code": "empty_file", "message": "The batch input file is empty."})
        return self.view(self.add("batch", lines, request=body, errors=errors), files)

    def view(self, batch: Batch, files: Files) -> dict:
        """Return what the API shows of a batch now."""
        request, errors, at = batch.about["request"], batch.about["errors"], self.progress(batch)
        failed = bool(errors) and at >= 0.2
        over = not failed and self.over(batch)
        status = "validating" if at < 0.2 else "in_progress" if at < 0.9 else "finalizing"
        ends = "cancelled" if batch.cancelled else "expired" if batch.expires else "completed"
        status = "failed" if failed else ends if over else status
        if over and "files" not in batch.about:
            batch.about["files"] = self._results(batch, files)
        good, created = sum(code == 200 for _, code, _ in batch.done or ()), int(batch.created)
        counts = {"completed": int(len(batch.lines) * max(at - 0.2, 0)), "failed": 0}
        if over:
            counts = {"completed": good, "failed": len(batch.done) - good}
        times = {} if failed or at < 0.2 else {"in_progress_at": created}
        if over or failed:
            end = batch.cancelled or batch.created + at * DURATION / self._speed
            times[f"{status}_at"] = int(end)
        asked = {n: request[n] for n in ("endpoint", "input_file_id", "metadata") if n in request}
        return shape(
            "batch",
            id=batch.id,
            errors={"object": "list", "data": errors} if failed else None,
            status=status,
            created_at=created,
            expires_at=created + DAY,
            request_counts={"total": 0 if failed else len(batch.lines), **counts},
            **asked,
            **times,
            **batch.about.get("files", {}),
        )

    def _results(self, batch: Batch, files: Files) -> dict:
        rows: dict[bool, list[dict]] = {True: [], False: []}
        for key, status, body in batch.done or ():
            answer = {"status_code": status, "request_id": new_id("req"), "body": body}
            rows[status == 200].append({"custom_id": key, "response": answer, "error": None})
        expired = "This request could not be executed before the completion window expired."
        for key in batch.undone:
            code = "batch_cancelled" if batch.cancelled else "batch_expired"
            error = {"code": code, "message": expired if batch.expires else "Cancelled."}
            rows[False].append({"custom_id": key, "response": None, "error": error})
        names = {}
        for good, name in ((True, "output_file_id"), (False, "error_file_id")):
            lines = "".join(json.dumps({"id": new_id("req"), **r}) + "\n" for r in rows[good])
            file = files.add(f"{batch.id}.jsonl", lines.encode(), "batch_output") if lines else {}
            names[name] = file.get("id")
        return names


class AnthropicBatches(Batches):
    """Anthropic's message batches: requests in the body, results as lines of JSON."""

    def create(self, body: dict, address: str) -> dict:
        """Start a batch; raise BadRequest if a request lacks its id or two have the same."""
        requests = need(body, "requests", list)
        keys = [need(request, "custom_id", str) for request in requests]
        if not requests or len(set(keys)) < len(keys):
            raise BadRequest("requests: at least one is needed, each with its own custom_id")
        lines = [(r["custom_id"], "/v1/messages", need(r, "params", dict)) for r in requests]
        return self.view(self.add("msgbatch", lines, address=address))

    def view(self, batch: Batch) -> dict:
        """Return what the API shows of a batch now."""
        over = self.over(batch)
        good = sum(status == 200 for _, status, _ in batch.done or ())
        left, lost = len(batch.undone), "canceled" if batch.cancelled else "expired"
        counts = {"processing": len(batch.lines)}
        if over:
            counts = {"processing": 0, "succeeded": good, lost: left}
            counts["errored"] = len(batch.done) - good
        shown = shape("message_batch", id=batch.id, created_at=_rfc3339(batch.created))
        shown["request_counts"] |= counts
        shown["expires_at"] = _rfc3339(batch.created + DAY)
        shown["cancel_initiated_at"] = batch.cancelled and _rfc3339(batch.cancelled)
        if over:
            ended = batch.cancelled or batch.created + DURATION / self._speed
            results = f"{batch.about['address']}/v1/messages/batches/{batch.id}/results"
            shown |= {"processing_status": "ended", "ended_at": _rfc3339(ended)}
            shown["results_url"] = results
        return shown

    def delete(self, name: str) -> dict:
        """Forget a batch; raise BadRequest before it has ended."""
        if not self.over(self.get(name)):
            raise BadRequest(f"Batch {name} is in progress: cancel it before deleting it.")
        del self.held[name]
        return {"id": name, "type": "message_batch_deleted"}

    def results(self, name: str) -> str:
        """Return the results as JSON lines; raise BadRequest (404) before the batch has ended."""
        batch = self.get(name)
        if not self.over(batch):
            raise BadRequest(f"Batch {name} has no results yet", status=404)
        rows = []
        for key, status, body in batch.done or ():
            kind, field = ("succeeded", "message") if status == 200 else ("errored", "error")
            rows.append((key, {"type": kind, field: body}))
        lost = {"type": "canceled" if batch.cancelled else "expired"}
        rows += [(key, lost) for key in batch.undone]
        return "".join(json.dumps({"custom_id": k, "result": r}) + "\n" for k, r in rows)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
