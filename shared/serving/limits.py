"""What a client may send: how much, how often, with which key; and what it is told otherwise."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

KEYS = "COURSE_SERVE_KEYS"
"""Environment variable: keys that clients may use, separated by commas or blanks."""
PARENT = "COURSE_SERVE_PARENT"
"""Environment variable: the process that a service must not outlive."""
SHORTEST_KEY = 16
AGAIN = (429, 502, 503, 504)
"""Statuses after which the same request may succeed."""
MOST_BUCKETS = 10_000
"""Callers whose rates are remembered; the one longest silent is forgotten."""


@dataclass(frozen=True)
class Limits:
    """What one worker of the service takes on. Times are seconds.

    ``max_batch``: products priced at once; ``max_wait``: how long the first of a batch waits for
    others; ``queue``: products that may wait; ``rate``: products a second for each key (None: as
    many as there are); ``timeout``: until a request is given up; ``patience``: until a pricer
    counts as hanging; ``body_bytes`` and ``body_seconds``: of a request's body; ``head_seconds``:
    until its headers have arrived; ``grace``: how long a service that is told to stop goes on
    taking requests, so that whoever spreads the load sees it is not ready any more.
    """

    max_batch: int = 32
    max_wait: float = 0.005
    queue: int = 1024
    rate: float | None = None
    timeout: float = 30.0
    patience: float = 8.0
    body_bytes: int = 2 * 2**20
    body_seconds: float = 10.0
    head_seconds: float = 10.0
    grace: float = 0.5

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing would ever be answered."""
        if self.max_batch < 1 or self.queue < self.max_batch:
            raise ValueError(
                f"max_batch={self.max_batch}, queue={self.queue}: a batch is at least 1 product, "
                "and the queue has to hold a batch"
            )
        if not 0 <= self.max_wait < self.timeout:
            raise ValueError(
                f"max_wait={self.max_wait}: from 0 seconds to less than the timeout, {self.timeout}"
            )
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ValueError(f"rate={self.rate}: more than 0 products a second, or None")


class Refusal(Exception):
    """A request is refused: the HTTP status, a code for programs, and words for people.

    ``retry_after``: seconds until another try may succeed.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: float | None = None,
        fields: list[dict[str, str]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after, self.fields = retry_after, fields

    def body(self) -> dict:
        """Return the JSON body, in the shape that OpenAI's clients read."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "code": self.code}
        return {"error": error | ({"fields": self.fields} if self.fields else {})}

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        found = {"www-authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after is not None:
            wait = min(max(self.retry_after, 0.001), 3600.0)
            # Seconds are all that HTTP knows; the SDKs of OpenAI and ours read the exact one first.
            found |= {"retry-after": str(math.ceil(wait)), "retry-after-ms": f"{wait * 1000:.0f}"}
        return found


class Keys:
    """The keys that open the service, as hashes: the keys themselves are kept nowhere.

    No keys at all means that everybody may come in.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def __repr__(self) -> str:
        return f"Keys({len(self._hashes)} of them)"

    def name_of(self, authorization: bytes) -> str | None:
        """Return who sent an Authorization header, 8 hex digits of the key's hash; None: nobody.

        Every key is compared, each in constant time: how long that takes says nothing.
        """
        scheme, _, key = authorization.strip().partition(b" ")
        sent, found = hashlib.sha256(key.strip()).digest(), None
        for known in self._hashes:
            if hmac.compare_digest(known, sent):
                found = known.hex()[:8]
        return found if scheme.lower() == b"bearer" else None


def read_keys(file: Path | None = None) -> Keys:
    """Return the keys of a file, one a line, and of the environment variable ``KEYS``.

    Lines that begin with # are comments. Raises ValueError for an empty file, and for keys that
    are too short or hold what no header can carry; the message never holds a key.
    """
    named = [(f"{KEYS}, key {n}", key) for n, key in enumerate(_in_environment(), start=1)]
    if file is not None:
        lines = enumerate(Path(file).read_text(encoding="utf-8").splitlines(), start=1)
        listed = [(f"{file}, line {n}", line.strip()) for n, line in lines]
        listed = [(where, key) for where, key in listed if key and not key.startswith("#")]
        if not listed:
            raise ValueError(f"{file}: holds no key; write one a line")
        named += listed
    for where, key in named:
        if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(
                f"{where}: a key is {SHORTEST_KEY} or more letters, digits and signs, no blanks; "
                "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
    return Keys(key for _, key in named)


def _in_environment() -> list[str]:
    return os.environ.get(KEYS, "").replace(",", " ").split()


class Buckets:
    """A token bucket for each caller: ``rate`` products a second, and ``burst`` at once.

    A request is let in while a token is left, and then pays for all its products: the bucket may
    go below zero, and its owner waits longer. So a request of any size gets its turn.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, caller: str, now: float | None = None) -> float:
        """Return the seconds until a caller may come in; 0 takes one token."""
        now = time.monotonic() if now is None else now
        tokens = self._tokens(caller, now)
        if tokens < 1:
            return (1 - tokens) / self.rate
        self._keep(caller, tokens - 1, now)
        return 0.0

    def charge(self, caller: str, products: int, now: float | None = None) -> None:
        """Take tokens from a caller that is in already."""
        now = time.monotonic() if now is None else now
        self._keep(caller, self._tokens(caller, now) - products, now)

    def _tokens(self, caller: str, now: float) -> float:
        tokens, since = self._left.get(caller, (self.burst, now))
        return min(self.burst, tokens + (now - since) * self.rate)

    def _keep(self, caller: str, tokens: float, now: float) -> None:
        self._left[caller] = tokens, now
        self._left.move_to_end(caller)
        if len(self._left) > MOST_BUCKETS:
            self._left.popitem(last=False)


def retry_after(headers: Mapping[str, str], otherwise: float) -> float:
    """Return the seconds that a refusal asks to wait, and otherwise these."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except (TypeError, ValueError):
            continue
        if 0 <= seconds < 3600:
            return seconds
    return otherwise
