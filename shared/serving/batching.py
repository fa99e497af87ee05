"""Micro-batching: requests that arrive together are worked on together.

A model prices 32 products in little more time than one. So the first request of a batch waits a
few milliseconds for others, and while a batch is at work the next one fills by itself: the busier
the service is, the larger its batches, and the less each product costs.
"""

from __future__ import annotations

import asyncio
import queue as queues
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T, R = TypeVar("T"), TypeVar("R")

MOST_HANGS = 2
"""After so many hangs over one batch the rest of it is given up, so that others get their turn."""


class Full(Exception):
    """The queue is full; ``seconds``: when there may be room again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the queue is full; try again in {seconds:.1f} s")
        self.seconds = seconds


class Closed(Exception):
    """The batcher takes nothing more: the service is shutting down."""


@dataclass(frozen=True)
class Failure:
    """Why there is no result for an item. ``hung``: the work did not come back."""

    reason: str
    hung: bool = False


_STOPPED = Failure("the service was stopped")


class Worker:
    """A thread that does one thing after another; a daemon, so that a hanging one stops nobody."""

    def __init__(self, name: str) -> None:
        self._jobs: queues.SimpleQueue = queues.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], Any]) -> None:
        """Do this after what was asked for before. What it raises is lost: catch it in the job."""
        self._jobs.put(job)

    def waiting(self) -> int:
        """Return about how many jobs have not begun."""
        return self._jobs.qsize()

    def stop(self, seconds: float | None = None) -> None:
        """End after what was asked for before, and wait for that; 0 seconds: do not wait."""
        self._jobs.put(None)
        if seconds != 0:
            self._thread.join(seconds)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class _Entry(Generic[T]):
    __slots__ = ("future", "item", "since", "waits")

    def __init__(self, item: T, future: asyncio.Future, since: float) -> None:
        self.item, self.future, self.since, self.waits = item, future, since, True


class MicroBatcher(Generic[T, R]):
    """Collects items from many callers, and works on them in batches, in one thread.

    ``work`` gets 1 to ``max_batch`` items and returns as many results. If it raises, or returns
    another number, its items are worked on one by one, so that the one at fault fails alone. If it
    does not come back within ``patience`` seconds, its thread is left behind and a new one begun.

    Use it inside a running event loop: ``start``, ``submit`` from many tasks, ``close``.
    """

    def __init__(
        self, work: Callable[[Sequence[T]], Sequence[R]], *, max_batch: int = 32,
        max_wait: float = 0.005, queue: int = 1024, patience: float = 8.0,
        worked: Callable[[int, float, float], None] | None = None,
    ) -> None:  # fmt: skip
        self._work, self._worked = work, worked
        self.max_batch, self.max_wait = max_batch, max_wait
        self.queue, self.patience = queue, patience
        self.depth, self.hung = 0, 0
        self._waiting: deque[_Entry[T]] = deque()
        self._closing, self._item_seconds = False, 0.0
        self._worker = Worker("pricer")

    async def start(self) -> None:
        """Begin to work."""
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def first(self, job: Callable[[], Any]) -> None:
        """Do something in the working thread before anything else."""
        self._worker.do(job)

    async def close(self, seconds: float | None = None) -> None:
        """Take nothing more, finish what was taken, within so many seconds; then give up."""
        self._closing = True
        self._arrived.set()
        done, _ = await asyncio.wait({self._task}, timeout=seconds)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._settle(list(self._waiting), [_STOPPED] * len(self._waiting))
        self._worker.stop(0)

    async def submit(self, items: Sequence[T]) -> list[R | Failure]:
        """Return a result for each item, in order, or why there is none.

        Raises Full if they do not fit into the queue, which an empty one never says, and Closed
        after ``close``. A caller that is cancelled takes its items along, unless they are at work.
        """
        if self._closing:
            raise Closed("the service is shutting down")
        if self.depth and self.depth + len(items) > self.queue:
            raise Full(self._seconds_ahead())
        loop = asyncio.get_running_loop()
        now = loop.time()
        entries = [_Entry(item, loop.create_future(), now) for item in items]
        before = len(self._waiting)
        self._waiting.extend(entries)
        self.depth += len(entries)
        if not before or len(self._waiting) >= self.max_batch:
            self._arrived.set()
        try:
            return [await entry.future for entry in entries]
        except asyncio.CancelledError:
            for entry in entries:
                self._drop(entry)
            raise

    def _drop(self, entry: _Entry) -> None:
        if not entry.future.done():
            entry.future.cancel()
        if entry.waits:  # its place is free now, and its text forgotten
            entry.waits, entry.item = False, None
            self.depth -= 1

    def _seconds_ahead(self) -> float:
        """Return how long what waits will take, judging by the batches so far."""
        return min(max(self.depth * self._item_seconds, 0.05), 60.0)

    async def _run(self) -> None:
        while batch := await self._gather():
            items = [entry.item for entry in batch]
            try:
                results = await self._results(batch, items)
            except asyncio.CancelledError:
                self._settle(batch, [_STOPPED] * len(batch))
                raise
            self._settle(batch, results)

    async def _gather(self) -> list[_Entry[T]]:
        """Return the next batch; an empty one when there is nothing more to come."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                if self._closing:
                    return []
                self._arrived.clear()
                await self._arrived.wait()
            end = self._waiting[0].since + self.max_wait
            while len(self._waiting) < self.max_batch and not self._closing:
                if (left := end - loop.time()) <= 0:
                    break
                self._arrived.clear()
                alarm = loop.call_later(left, self._arrived.set)
                await self._arrived.wait()
                alarm.cancel()
            if batch := self._take():
                return batch

    def _take(self) -> list[_Entry[T]]:
        batch: list[_Entry[T]] = []
        while self._waiting and len(batch) < self.max_batch:
            entry = self._waiting.popleft()
            if entry.waits:
                entry.waits = False
                batch.append(entry)
        self.depth -= len(batch)
        return batch

    async def _results(self, batch: list[_Entry], items: list[T]) -> list[R | Failure]:
        start, waited = time.perf_counter(), asyncio.get_running_loop().time() - batch[0].since
        found = await self._at_work(items)
        spent = time.perf_counter() - start
        each = spent / len(items)
        self._item_seconds = 0.9 * self._item_seconds + 0.1 * each if self._item_seconds else each
        if self._worked:
            self._worked(len(items), waited, spent)
        if not isinstance(found, Failure):
            return found
        return [found] if len(items) == 1 else await self._one_by_one(batch, items, found)

    async def _one_by_one(
        self, batch: list[_Entry], items: list[T], first: Failure
    ) -> list[R | Failure]:
        results: list[R | Failure] = []
        hangs = int(first.hung)
        for entry, item in zip(batch, items, strict=True):
            if hangs >= MOST_HANGS or entry.future.done():
                results.append(first)
                continue
            found = await self._at_work([item])
            failed = isinstance(found, Failure)
            hangs += failed and found.hung
            results.append(found if failed else found[0])
        return results

    async def _at_work(self, items: list[T]) -> list[R] | Failure:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future = loop.create_future()

        def tell(found: list[R] | Failure) -> None:
            if not answer.done():
                answer.set_result(found)

        def job() -> None:
            found = _guarded(self._work, items)
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell, found)

        self._worker.do(job)
        done, _ = await asyncio.wait({answer}, timeout=self.patience)
        if done:
            return answer.result()
        self.hung += 1
        self._worker.stop(0)
        self._worker = Worker("pricer")
        return Failure(f"the pricer did not answer within {self.patience:g} s", hung=True)

    @staticmethod
    def _settle(batch: Sequence[_Entry], results: Sequence[Any]) -> None:
        for entry, result in zip(batch, results, strict=True):
            if not entry.future.done():
                entry.future.set_result(result)


def _guarded(work: Callable[[Sequence[T]], Sequence[R]], items: list[T]) -> list[R] | Failure:
    """Work, and turn whatever goes wrong into a reason: the thread has to live on.

    The message of an error is left out: it may quote the text of somebody's product.
    """
    try:
        found = list(work(items))
    except BaseException as error:  # a pricer may even ask the process to exit
        return Failure(f"the pricer failed ({type(error).__name__})")
    if len(found) != len(items):
        return Failure(f"the pricer gave {len(found)} results for {len(items)} products")
    return found
