"""Ask members at the same time, each within its time limit; a stuck one holds up nobody.

A thread cannot be stopped from outside. One that runs over its limit goes on alone, as a daemon,
and its member is left out until it has come back: so a member that hangs costs one thread, and
its time limit once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.data import Product
from shared.evaluation.inputs import reason
from shared.evaluation.protocol import Estimates


@dataclass(frozen=True)
class Answer:
    """What a member said about n products: ``estimates``, or why it is ``left_out``.

    Left out as a whole, it has n failed estimates. Their reason is ``left_out``; of several
    products only the kind of error, since its message may quote one of them to whoever asked for
    another. ``seconds`` is the time from the question to the answer, or to giving up.
    """

    name: str
    estimates: Estimates
    seconds: float
    left_out: str | None = None


class Asked:
    """A member as it is asked: one call at a time unless ``parallel`` allows more.

    ``limit``: seconds for a call, however many products are in it; None waits for ever.
    """

    def __init__(self, pricer: Any, limit: float | None, parallel: int = 1) -> None:
        if limit is not None and not limit > 0:
            raise ValueError(f"{pricer.name}: a time limit of {limit} seconds: give more than 0")
        if parallel < 1:
            raise ValueError(f"{pricer.name}: {parallel} calls at a time: at least 1")
        self.pricer, self.name, self.limit, self.parallel = pricer, pricer.name, limit, parallel
        self._slots = threading.BoundedSemaphore(parallel)
        self._lock = threading.Lock()
        self._stuck: set[Future] = set()

    def start(self, products: Sequence[Product]) -> Future:
        """Begin a call in a thread of its own and return what its Estimates will be in."""
        call: Future = Future()
        with self._lock:
            if len(self._stuck) >= self.parallel:
                why = f"still busy with a call that took more than {self.limit:g} s"
                call.set_exception(_LeftOut(why))
                return call
        name = f"member {self.name}"
        threading.Thread(target=self._run, args=(call, products), name=name, daemon=True).start()
        return call

    def finish(self, call: Future, began: float, n: int) -> Answer:
        """Wait for a call until the limit is over, counted from ``began``, and return its answer.

        Whatever the member raises is a reason to leave it out, and so is a wrong number of prices.
        """
        left = None if self.limit is None else max(began + self.limit - time.perf_counter(), 0)
        wait([call], timeout=left)
        with self._lock:
            if not call.done():
                self._stuck.add(call)
        seconds = time.perf_counter() - began
        if not call.done():
            return self._left_out(f"no answer within {self.limit:g} s", seconds, n)
        if error := call.exception():
            why = str(error) if isinstance(error, _LeftOut) else reason(error)
            return self._left_out(why, seconds, n)
        return Answer(self.name, call.result(), seconds)

    def _run(self, call: Future, products: Sequence[Product]) -> None:
        error, found = None, None
        if not self._slots.acquire(timeout=-1 if self.limit is None else self.limit):
            error = _LeftOut(f"busy with other calls for {self.limit:g} s")
        else:
            try:
                found = _checked(self.pricer.price(products), len(products))
            except BaseException as raised:  # a member must not end the thread without a word
                error = raised
            finally:
                self._slots.release()
        with self._lock:
            self._stuck.discard(call)
            if error is None:
                call.set_result(found)
            else:
                call.set_exception(error)

    def _left_out(self, why: str, seconds: float, n: int) -> Answer:
        told = why if n == 1 else why.partition(":")[0]
        return Answer(self.name, Estimates([np.nan] * n, [told] * n), seconds, why)


def ask_all(members: Sequence[Asked], products: Sequence[Product]) -> list[Answer]:
    """Ask all members about the same products at the same time; return answers in their order."""
    began = time.perf_counter()
    calls = [member.start(products) for member in members]
    return [
        member.finish(call, began, len(products))
        for member, call in zip(members, calls, strict=True)
    ]


class _LeftOut(Exception):
    """The member was not asked, or not in time."""


def _checked(found: Any, n: int) -> Estimates:
    estimates = found if isinstance(found, Estimates) else Estimates(found)
    if len(estimates.price) != n:
        raise ValueError(f"returned {len(estimates.price)} estimates for {n} products")
    return estimates
