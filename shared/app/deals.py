"""A run of the deal finder that is watched live, and can be stopped: the deals tab without gradio.

The feeds are made of test items and served from this machine, so what is really a good offer is
known. Each run starts with an empty memory, and leaves nothing behind but what is on the screen.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.agents import (
    FeedServer,
    Fetcher,
    Limits,
    LogMessenger,
    Outcome,
    Rule,
    find_deals,
    make_feeds,
    read_trace,
    to_text,
)
from shared.app.worker import Worker
from shared.evaluation.inputs import reason

LIMITS = Limits(steps=30, seconds=60.0, dollars=0.02)
"""What the planner of one run may use."""

OFFERS = 60
RULES = {
    "careful: 10 % below the low end of the interval": Rule("interval", 0.1),
    "bold: 10 % below the estimate": Rule("estimate", 0.1),
}
PLAIN = "plain plan, no language model"
TICK = 0.25
"""Seconds between two looks at whether somebody wants the run to stop."""


class _Stopped(Exception):
    """Somebody pressed stop, or closed the page."""


@dataclass
class Run:
    """A run as it is known so far. ``said``: its log; ``state``: running, done, stopped, failed."""

    offers: int = 0
    priced: int = 0
    said: list[str] = field(default_factory=list)
    state: str = "running"
    outcome: Outcome | None = None
    truth: dict[str, Any] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    trace: str = ""
    error: str = ""


class Hunt:
    """The one deal finder of a process: one run at a time, ``stop`` ends it between two steps."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._alone, self._stop = threading.Lock(), threading.Event()

    def planners(self) -> list[str]:
        """Return who may plan: the plain plan, and the hosted models (or their stand-in)."""
        return [PLAIN, *(name for name, model in self.worker.models.items() if model.hosted)]

    def stop(self) -> None:
        """Ask the run to end; what it has written is whole."""
        self._stop.set()

    def run(self, planner: str = PLAIN, rule: str = "", seed: int = 42) -> Iterator[Run]:
        """Yield the run whenever something has happened; closing the iterator stops it.

        Raises RuntimeError if another run is under way.
        """
        if not self._alone.acquire(blocking=False):
            raise RuntimeError("the deal finder is at work already; wait for it, or stop it")
        run, events = Run(), queue.SimpleQueue()
        self._stop.clear()
        thread = threading.Thread(
            target=self._work, args=(run, events, planner, rule, seed), name="deals", daemon=True
        )
        try:
            thread.start()
            while thread.is_alive() or not events.empty():
                try:
                    _take(run, events.get(timeout=TICK))
                except queue.Empty:
                    continue
                yield run
            yield run
        finally:
            self._stop.set()
            thread.join(LIMITS.seconds)
            self._alone.release()

    def _work(
        self, run: Run, events: queue.SimpleQueue, planner: str, rule: str, seed: int
    ) -> None:  # fmt: skip
        def listen(event: dict[str, Any]) -> None:
            events.put(event)
            self._heed()

        try:
            with tempfile.TemporaryDirectory() as folder:
                self._find(run, Path(folder), planner, RULES.get(rule), seed, listen)
        except _Stopped:
            run.state = "stopped"
        except Exception as error:
            run.state, run.error = "failed", reason(error)

    def _find(self, run: Run, folder: Path, planner: str, rule: Rule | None, seed: int, listen):
        items = self.worker.knowledge.items.table("test")
        run.offers = min(OFFERS, items.num_rows)
        feeds = make_feeds(items, seed, offers=run.offers)
        run.truth = dict(feeds.truth)
        model = self.worker.models.get(planner)
        connection = model.pricer().connection if model and model.hosted else None
        trace = folder / "trace.jsonl"
        try:
            with FeedServer(feeds.documents) as server:
                run.outcome = find_deals(
                    server.feeds, self.worker.model, LogMessenger(folder / "alerts.jsonl"),
                    folder / "memory.sqlite", rule=rule or next(iter(RULES.values())),
                    connection=connection, limits=LIMITS, trace=trace, listener=listen,
                    fetcher=Fetcher(allow=(server.url,)), step=lambda name: self._heed(),
                )  # fmt: skip
            run.state = "done"
        finally:
            if trace.exists():
                run.trace = to_text(read_trace(trace))

    def _heed(self) -> None:
        if self._stop.is_set():
            raise _Stopped


def _take(run: Run, event: dict[str, Any]) -> None:
    """Count an event, and write down in words what happened."""
    if event["event"] == "deals":
        run.titles = {entry["id"]: entry["title"] for entry in event["entries"]}
        run.offers = len(run.titles)
    run.priced += event["event"] == "priced"
    if line := said(event, run.titles):
        run.said.append(line)


def said(event: dict[str, Any], titles: dict[str, str]) -> str:
    """Return an event as a line of the log, "" for one that says nothing to people."""
    kind, title = event["event"], titles.get(event.get("id", ""), "")[:60]
    if kind == "run":
        return f"start: {event['planner']}, {len(event['feeds'])} feeds"
    if kind == "feed":
        came = event["error"] or f"{event['items']} offers in {event['seconds']:.2f} s"
        return f"read {event['url']}: {came}"
    if kind == "deals":
        return f"{len(event['entries'])} new offers with a price to work on"
    if kind == "reply":
        return f"model, step {event.get('step', '?')}: {event.get('error') or 'answered'}"
    if kind == "call":
        return f"model called {event.get('name')}"
    if kind == "priced":
        worth = event.get("price")
        found = f"${worth:,.2f}" if worth is not None else event.get("error") or "no price"
        return f"priced at {found}: {title}"
    if kind == "alert":
        return f"ALERT: {title}"
    if kind == "planned":
        return f"planner ended: {event.get('why')}"
    return f"end: {event.get('why')}" if kind == "end" else ""
