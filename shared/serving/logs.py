"""Logs: one line of JSON for each request, without the text of anybody's product."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

Log = Callable[[dict[str, Any]], None]
"""Where a line goes."""

_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
LONGEST_ID = 64


@dataclass
class Call:
    """What is known of one request while it is answered; its line in the log is made of it.

    ``caller`` is the first digits of the key's hash, or an address. ``n`` products, of which
    ``failed`` got no price; ``reason`` is why the first of them did.
    """

    id: str
    method: str
    path: str
    caller: str = ""
    n: int = 0
    failed: int = 0
    version: str = ""
    reason: str | None = None
    texts: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the request came in."""
        return time.perf_counter() - self.start

    def line(self, status: int) -> dict[str, Any]:
        """Return the line of the log; ``texts`` are in it only where somebody asked for them."""
        found = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "request": self.id,
            "method": self.method, "path": self.path, "status": status,
            "seconds": round(self.seconds, 6), "n": self.n, "failed": self.failed,
            "version": self.version, "caller": self.caller, "reason": self.reason,
        }  # fmt: skip
        return found | ({"texts": self.texts} if self.texts else {})


def request_id(sent: bytes | None) -> str:
    """Return the id a client gave to its request if it can stand in a log, else a new one."""
    name = (sent or b"").decode("latin-1")
    return name if 0 < len(name) <= LONGEST_ID and _ID.issuperset(name) else uuid.uuid4().hex


def to_stderr(line: dict[str, Any]) -> None:
    """Write a line to standard error, in one piece: several workers share it."""
    sys.stderr.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).decode())
    sys.stderr.flush()
