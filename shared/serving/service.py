"""The service without HTTP: records in, prices out, through one queue and one pricing thread."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.data.schema import Product
from shared.evaluation import Estimates, Pricer
from shared.serving.batching import Closed, Failure, Full, MicroBatcher, Worker
from shared.serving.limits import Limits, Refusal
from shared.serving.logs import Call
from shared.serving.metrics import Metrics
from shared.serving.schemas import EXAMPLE, products_of

Router = Callable[[str], tuple[Pricer, str]]
"""Request id -> who prices that request, and under which version: a canary release is one."""

Observe = Callable[..., Any]
"""Called as ``observe(products, estimates, version=…, request=…)`` after each request, in a thread
of its own."""

MOST_UNOBSERVED = 1_000
"""Requests that may wait to be observed; more are counted, and not observed."""

UNWELL = 3
"""After so many hangs a worker says it is not healthy, so that somebody restarts it."""


@dataclass(frozen=True)
class Job:
    """One record, who is to price it, and as which version."""

    record: dict[str, Any]
    pricer: Any
    version: str


@dataclass(frozen=True)
class Priced:
    """One product and its estimate in dollars; NaN with the reason where there is none."""

    price: float = math.nan
    low: float = math.nan
    high: float = math.nan
    error: str | None = None
    product: Product | None = None
    seconds: float = math.nan
    version: str = ""
    unit: str = "USD"


class Service:
    """A pricer behind a queue; ``pricer`` may also be a function that opens one, without arguments.

    It is opened and warmed up in the thread that prices, by ``start``. ``ready`` is set from then
    until ``close`` is called.
    """

    def __init__(
        self, pricer: Any, version: str, limits: Limits, *, router: Router | None = None,
        observe: Observe | None = None, metrics: Metrics | None = None,
    ) -> None:  # fmt: skip
        self.limits, self.version, self.metrics = limits, version, metrics or Metrics()
        self._given, self._router, self._observe = pricer, router, observe
        self._pricer: Any = None
        self._observer = Worker("observer") if observe else None
        self.warm, self.closing = asyncio.Event(), False
        self.failure: str | None = None
        self._unwell: asyncio.Task | None = None
        self.batcher: MicroBatcher[Job, Priced] = MicroBatcher(
            price_jobs, max_batch=limits.max_batch, max_wait=limits.max_wait, queue=limits.queue,
            patience=limits.patience, worked=self._worked,
        )  # fmt: skip

    @property
    def ready(self) -> bool:
        """Tell whether requests are welcome."""
        return self.warm.is_set() and not self.closing and self.healthy

    @property
    def current(self) -> str:
        """The version that answers whoever is not part of a trial."""
        if getattr(self._router, "status", None) == "promoted":  # since this process has begun
            return self._router("")[1]
        return self.version

    @property
    def healthy(self) -> bool:
        """Tell whether this process can go on."""
        return self.failure is None and self.batcher.hung < UNWELL

    async def start(self) -> None:
        """Open the pricer, and price a little, so that the first client does not wait for that.

        Raises whatever opening raises.
        """
        await self.batcher.start()
        loop, opened = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def job() -> None:
            try:
                pricer = self._given if hasattr(self._given, "price") else self._given()
                for count in (1, self.limits.max_batch):
                    price_jobs([Job(EXAMPLE, pricer, self.version)] * count)
                told = (opened.set_result, pricer)
            except BaseException as error:
                told = (opened.set_exception, RuntimeError(f"{type(error).__name__}: {error}"))
                told = (told[0], error) if isinstance(error, Exception) else told
            if not loop.is_closed():
                loop.call_soon_threadsafe(*told)

        self.batcher.first(job)
        try:
            self._pricer = await opened
        except Exception as error:
            self.failure = str(error)
            raise
        named = getattr(self._pricer, "version", "") or getattr(self._pricer, "name", "model")
        self.version = self.version or str(named)
        self.warm.set()

    def when_unwell(self, end: Callable[[], Any]) -> None:
        """Call ``end`` once the model hangs for good, so that a supervisor starts a new worker."""

        async def watch() -> None:
            while self.healthy:
                await asyncio.sleep(1)
            end()

        self._unwell = asyncio.get_running_loop().create_task(watch())

    async def close(self) -> None:
        """Finish what was taken, and stop."""
        self.closing = True
        if self._unwell:
            self._unwell.cancel()
        await self.batcher.close(self.limits.timeout)
        if self._observer:
            await asyncio.to_thread(self._observer.stop, 10.0)

    async def price(self, records: Sequence[dict], call: Call) -> list[Priced]:
        """Return a priced product for each record.

        Raises Refusal while the service is too busy (429), not ready or shutting down (503).
        """
        if self.failure is not None or not self.healthy:
            raise Refusal(
                503, "unhealthy", "the model of this service does not work", retry_after=5
            )
        await self.warm.wait()
        pricer, version = self._router(call.id) if self._router else (self._pricer, self.version)
        jobs = [Job(record, pricer, version) for record in records]
        try:
            found = await self.batcher.submit(jobs)
        except Full as full:
            raise Refusal(
                429, "queue_full", "too many products are waiting already", retry_after=full.seconds
            ) from None
        except Closed:
            raise Refusal(
                503, "shutting_down", "this service is shutting down", retry_after=1
            ) from None
        priced = [Priced(error=one.reason) if isinstance(one, Failure) else one for one in found]
        self._note(priced, call, version)
        return priced

    def _note(self, priced: list[Priced], call: Call, version: str) -> None:
        failed = [one.error or "no price" for one in priced if not math.isfinite(one.price)]
        call.n, call.failed = len(priced), len(failed)
        # The rest of a reason may quote the product.
        call.reason = re.split("[:'\"]", failed[0])[0][:80] if failed else None
        # A canary that could not price a product leaves it to the old version, and says so.
        by_version: dict[str, list[Priced]] = {}
        for one in priced:
            by_version.setdefault(one.version or version, []).append(one)
        call.version = next(iter(by_version)) if len(by_version) == 1 else version
        for name, some in by_version.items():
            lost = sum(not math.isfinite(one.price) for one in some)
            self.metrics.products.labels(name, "failed").inc(lost)
            self.metrics.products.labels(name, "priced").inc(len(some) - lost)
            self._watch([one for one in some if one.product is not None], call.id, name)

    def _worked(self, size: int, waited: float, worked: float) -> None:
        self.metrics.batch_done(size, waited, worked)
        self.metrics.depth.set(self.batcher.depth)  # a scrape asks one worker, and adds up all

    def _watch(self, priced: list[Priced], request: str, version: str) -> None:
        if self._observer is None or not priced:
            return
        if self._observer.waiting() >= MOST_UNOBSERVED:
            self.metrics.unobserved.inc()
            return
        self._observer.do(lambda: self._observed(priced, request, version))

    def _observed(self, priced: list[Priced], request: str, version: str) -> None:
        """Hand on what was priced; whoever watches must not break what is watched."""
        columns = {
            column: [getattr(one, column) for one in priced]
            for column in ("price", "error", "low", "high", "seconds")
        }
        try:
            products = [one.product for one in priced]
            self._observe(products, Estimates(**columns), version=version, request=request)
        except Exception:
            self.metrics.unobserved.inc()


NOTHING_LEFT = "nothing is left of the text after cleaning"


def price_jobs(jobs: Sequence[Job]) -> list[Priced]:
    """Clean all records together, and let each pricer price its own together."""
    products = products_of([job.record for job in jobs])
    found: list[Priced] = [Priced(error=NOTHING_LEFT, product=one) for one in products]
    groups: dict[int, list[int]] = {}
    for place, job in enumerate(jobs):
        if products[place].text.strip():
            groups.setdefault(id(job.pricer), []).append(place)
    for places in groups.values():
        asked = [products[place] for place in places]
        for place, priced in zip(places, _priced(jobs[places[0]].pricer, asked), strict=True):
            found[place] = priced
    return found


def _priced(pricer: Pricer, products: list[Product]) -> list[Priced]:
    found = pricer.price(products)
    if not isinstance(found, Estimates):
        found = Estimates(found)
    nothing = np.full(len(products), math.nan)
    columns = [
        nothing if values is None else values
        for values in (found.price, found.low, found.high, found.seconds)
    ]
    versions = getattr(found, "versions", None) or [""] * len(products)
    rows = zip(products, np.column_stack(columns).tolist(), found.error, versions, strict=True)
    unit = getattr(pricer, "unit", "USD")
    return [
        Priced(
            price, low, high, str(error)[:300] if error else None, product, seconds, version, unit
        )
        for product, (price, low, high, seconds), error, version in rows
    ]
