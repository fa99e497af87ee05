"""A model to ask, with everything around the asking: cache, cap, concurrency, progress.

``connect`` reaches the vendor if there is a key, and else a stand-in on this machine; whoever
asks cannot tell them apart, except by the label.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from shared import mind, standin
from shared.frontier.cache import Cache
from shared.frontier.clients import (
    AnthropicClient,
    CallError,
    Client,
    OpenAIClient,
)
from shared.frontier.messages import Reply, Request, Usage
from shared.frontier.models import ModelCard, find_model
from shared.frontier.money import Budget, about, at_most, cost
from shared.frontier.secrets import Secret, get_secret
from shared.standin import StandIn, is_local, is_stand_in

CONCURRENCY = 40
"""Calls under way at a time. Vendors' limits for new accounts are hundreds a minute."""

T, R = TypeVar("T"), TypeVar("R")


class Connection:
    """A model at an address. Thread-safe; use it as a context manager, or ``close`` it.

    ``label`` is 'stand-in' where the answers are not a real model's. ``budget`` says what was
    spent. ``card`` is the model's entry in the price list.
    """

    def __init__(
        self,
        card: ModelCard,
        client: Client,
        *,
        address: str,
        cache: Path | None = None,
        cap: float = float("inf"),
        concurrency: int = CONCURRENCY,
        label: str = "",
        server: StandIn | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: at least 1 call at a time")
        self.card, self.client, self.address, self.label = card, client, address, label
        self.server = server
        self.cache = Cache(cache) if cache else None
        self.budget = Budget(cap)
        self.concurrency = concurrency
        self.asked, self.remembered, self.usage = 0, 0, Usage()
        self._slots = threading.BoundedSemaphore(concurrency)
        self._lock = threading.Lock()
        self._same: dict[str, tuple[threading.Lock, int]] = {}  # of one request the second waits
        self._broken: str | None = None
        self._stopped = False

    def ask(self, request: Request) -> Reply:
        """Return the answer to a request: the stored one, or a new one within the cap.

        A stored reply still says what it did cost; only new ones count as spent.
        Raises CallError if the server gives none, and BudgetError if it might cost too much;
        after an error that no other call can escape (a wrong key, no quota), nothing is sent.
        """
        key = request.key(self.address)
        with self._one_at_a_time(key) if self.cache is not None else contextlib.nullcontext():
            return self._answer(request, key)

    @contextlib.contextmanager
    def _one_at_a_time(self, key: str) -> Iterator[None]:
        with self._lock:
            same, waiting = self._same.get(key, (threading.Lock(), 0))
            self._same[key] = same, waiting + 1
        try:
            with same:
                yield
        finally:
            with self._lock:
                same, waiting = self._same.pop(key)
                if waiting > 1:
                    self._same[key] = same, waiting - 1

    def _answer(self, request: Request, key: str) -> Reply:
        if found := self._stored(key):
            with self._lock:
                self.remembered += 1
            return found
        with self._slots:
            most = at_most(self.card, request)
            with self.budget.reserve(most) as bill:
                if self._broken or self._stopped:
                    raise CallError(self._broken or "stopped before this was asked", final=True)
                try:
                    reply = self.client.ask(request)
                except CallError as error:
                    bill.lost = most if error.paid else 0.0
                    if error.final:
                        self._broken = str(error)
                    raise
                bill.dollars = cost(self.card, reply.usage)
        reply = replace(reply, cost_usd=bill.dollars)
        with self._lock:
            self.asked += 1
            self.usage += reply.usage
        self._store(key, reply)
        return reply

    def _stored(self, key: str) -> Reply | None:
        try:
            return None if self.cache is None else self.cache.get(key)
        except sqlite3.Error as error:
            self._broken = (
                f"the cache {self.cache.path} cannot be read ({error}): nothing is bought"
            )
            return None

    def _store(self, key: str, reply: Reply) -> None:
        try:
            if self.cache is not None:
                self.cache.put(key, reply)
        except sqlite3.Error as error:  # this answer is used, but no other is bought
            self._broken = (
                f"the cache {self.cache.path} cannot be written ({error}): is the disk full?"
            )

    def map(
        self, work: Callable[[T], R], things: Sequence[T], *, desc: str = "", progress: bool = True
    ) -> list[R]:
        """Return ``work(thing)`` for each, in order; as many at a time as may be under way.

        What ``work`` raises ends the whole; Ctrl-C waits only for the calls under way.
        """
        results: dict[int, R] = {}
        threads = ThreadPoolExecutor(min(self.concurrency, max(len(things), 1)))
        with tqdm(total=len(things), desc=desc, unit="product", disable=not progress) as bar:
            try:
                futures = {threads.submit(work, thing): i for i, thing in enumerate(things)}
                for future in as_completed(futures):
                    results[futures[future]] = future.result()
                    bar.set_postfix_str(f"${self.budget.spent:.4f}", refresh=False)
                    bar.update()
            except BaseException:
                self._stopped = True
                raise
            finally:
                threads.shutdown(wait=True, cancel_futures=True)
                self._stopped = False
        return [results[i] for i in range(len(things))]

    def estimate(self, requests: Iterable[Request], output: int = 100, *, calls: int = 1) -> str:
        """Say what the requests will cost, before the first: probably, at most, and the cap.

        ``output`` tokens an answer are assumed, thinking included. With ``calls`` more than 1, the
        requests are the first of so many, which are longer: then there is no most but the cap.
        """
        wanted = {r.key(self.address): r for r in requests}
        new = [r for key, r in wanted.items() if self._stored(key) is None]
        probably = sum(about(self.card, r, output) for r in new) * calls
        most = 2 * sum(at_most(self.card, r) for r in new)  # each answer may be repaired once
        times = f", up to {calls} times each" if calls > 1 else ""
        limit = f", at most ${most:.4f}" if calls == 1 else ""
        return (
            f"{len(new):,} calls of {self.card.name}{times} ({len(wanted) - len(new):,} more are "
            f"stored): about ${probably:.4f}{limit}; cap ${self.budget.cap:.2f}"
        )

    def summary(self) -> str:
        """Say what was asked and spent so far."""
        u = self.usage
        return (
            f"{self.asked:,} calls ({self.remembered:,} answers were stored already), "
            f"{u.input:,} tokens in ({u.cached:,} cached), {u.output:,} out "
            f"({u.reasoning:,} reasoning), ${self.budget.spent:.4f} spent"
            + (f" (and up to ${lost:.4f} for lost answers)" if (lost := self.budget.lost) else "")
            + (f" by a {self.label}: no real money" if self.label else "")
        )

    def close(self) -> None:
        """Close the cache, and stop the stand-in if there is one."""
        if self.cache is not None:
            self.cache.close()
        if self.server:
            self.server.__exit__(None, None, None)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(
    model: str,
    *,
    cache: Path | None = None,
    cap: float = 1.0,
    concurrency: int = CONCURRENCY,
    stand_in: bool | StandIn | None = None,
    base_url: str | None = None,
    **options: Any,
) -> Connection:
    """Connect to a model of the price list: to its vendor if its key is set, else to a stand-in.

    ``cap`` is dollars, over everything asked through this connection. ``stand_in`` decides by
    hand (a real vendor without a key is an error), and may be a StandIn that is not started yet.
    ``base_url`` is another server that speaks the
    model's protocol. ``options`` go to the client (retries, timeout).
    """
    card = replace(find_model(model), name=model)  # a dated snapshot is asked for by its date
    key = get_secret(card.key) if card.key else Secret("none")
    if stand_in is None:
        stand_in = key is None and base_url is None
    with contextlib.ExitStack() as on_failure:
        server = None
        if stand_in:
            server = on_failure.enter_context(StandIn() if stand_in is True else stand_in)
            key = Secret("stand-in")
            base_url = server.url if card.protocol == "messages" else f"{server.url}/v1"
        base_url = base_url or card.base_url or None
        if key is None and is_local(base_url):
            key = Secret("none")  # a server of one's own
        if key is None:
            raise ValueError(f"{model} needs a key: set {card.key}, or use the stand-in")
        client = make_client(card, key, base_url, **options)
        # The environment may name another server, too; what that one answers is not the vendor's.
        url = str(client.sdk.base_url)
        stand_in = stand_in or is_stand_in(url)
        connection = Connection(
            card,
            client,
            address=f"stand-in {_stand_in_version()}" if stand_in else _address(card, url),
            cache=cache,
            cap=cap,
            concurrency=concurrency,
            label="stand-in" if stand_in else "",
            server=server,
        )
        on_failure.pop_all()
        return connection


def make_client(card: ModelCard, key: Secret, base_url: str | None, **options: Any) -> Client:
    """Return the client that speaks the model's protocol."""
    if card.protocol == "messages":
        return AnthropicClient(key, base_url, **options)
    return OpenAIClient(key, base_url, chat=card.protocol == "chat", **options)


_VENDORS = ("api.openai.com", "api.anthropic.com")


def _address(card: ModelCard, url: str) -> str:
    """Return who answers, for cache and manifest: the vendor's name, or a URL without secrets."""
    parts = urlsplit(url)
    if parts.hostname in _VENDORS:
        return card.vendor
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"


def _stand_in_version() -> str:
    """Hash the stand-in's files: what an older one answered is not what this one answers."""
    rooms = (Path(room.__file__).parent for room in (mind, standin))
    files = sorted(path for room in rooms for path in room.iterdir() if path.is_file())
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]
