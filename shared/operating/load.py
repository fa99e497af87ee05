"""Load: many requests at a service, from a process of their own, and what became of them.

Two ways to ask. *Open loop*: requests are sent at times that were drawn beforehand, as customers
come, whether or not the service keeps up; a latency counts from the moment a request was due.
*Closed loop*: so many clients, each of which asks again when it has its answer; that finds out how
much a service can do. It also hides trouble: while the service stands still nobody asks, so nobody
waits. Tene (2013) named that coordinated omission. ``Load.latency`` and ``Load.service`` show both.

Why not locust: it needs gevent, which has no wheel for Python 3.11 on macOS, so a learner would
have to compile it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.serving.limits import AGAIN, retry_after

CENT = 0.011
"""Dollars by which an answer may differ from the expected one: rounding."""


@dataclass
class Load:
    """What became of many requests.

    ``latency``: seconds from when an answered request was due; ``service``: from when it was sent.
    ``when``: seconds into the run at which it was due. ``refused``: answered 429 or 503 at last;
    ``lost``: no answer, or another status; ``wrong``: another price than the expected one;
    ``retried``: attempts after the first. ``seconds``: from the first request to the last answer.
    """

    asked: int
    products: int
    seconds: float
    latency: list[float] = field(repr=False)
    service: list[float] = field(repr=False)
    when: list[float] = field(repr=False)
    refused: int = 0
    lost: int = 0
    wrong: int = 0
    retried: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """Requests that got their prices."""
        return len(self.latency)

    @property
    def throughput(self) -> float:
        """Products priced a second."""
        return self.products / self.seconds if self.seconds else 0.0

    def percentile(self, share: float, *, from_sent: bool = False) -> float:
        """Return the seconds that a share (0.95, say) of the answers took at most."""
        values = self.service if from_sent else self.latency
        return float(np.quantile(values, share)) if values else float("nan")

    p50 = property(lambda self: self.percentile(0.50), doc="Median latency, seconds.")
    p95 = property(lambda self: self.percentile(0.95), doc="95th percentile of latency, seconds.")
    p99 = property(lambda self: self.percentile(0.99), doc="99th percentile of latency, seconds.")

    def summary(self) -> dict[str, Any]:
        """Return the figures, without the single latencies; times in milliseconds."""
        counts = ("asked", "answered", "refused", "lost", "wrong", "retried", "reasons")
        found = {name: getattr(self, name) for name in counts}
        times = {
            f"{name}_ms": _rounded(getattr(self, name) * 1000) for name in ("p50", "p95", "p99")
        }
        rest = {"seconds": round(self.seconds, 2), "products_a_second": round(self.throughput, 1)}
        return found | rest | times

    def __str__(self) -> str:
        return (
            f"{self.throughput:,.0f} products a second; p50 {self.p50 * 1000:.0f} ms, p95 "
            f"{self.p95 * 1000:.0f} ms, p99 {self.p99 * 1000:.0f} ms; of {self.asked:,} requests "
            f"{self.refused:,} refused, {self.lost:,} lost, {self.wrong:,} wrong"
        )


def run_load(
    url: str, records: Sequence[Mapping[str, Any]], *, rate: float | None = None,
    clients: int | None = None, seconds: float = 10.0, expected: Sequence[float] | None = None,
    each: int = 1, key: str | None = None, retries: int = 0, timeout: float = 30.0, seed: int = 42,
) -> Load:  # fmt: skip
    """Ask a service for ``seconds`` seconds, and return what became of it.

    ``rate``: requests a second, at random times (a Poisson process, seeded): an open loop. Or
    ``clients``: so many at once, a closed loop. Each request has ``each`` of the records, which are
    gone through in a circle; ``expected`` are their right prices in dollars. Runs in a process of
    its own, so that what asks does not slow down what measures.
    """
    if (rate is None) == (clients is None):
        raise ValueError("say rate=… for an open loop, or clients=… for a closed one")
    if not records or not 1 <= each <= len(records):
        raise ValueError(f"{len(records)} records, {each} a request: at least one each")
    if min(one for one in (rate, clients, seconds) if one is not None) <= 0:
        raise ValueError("rate, clients and seconds are above 0")
    plan = {
        "url": url, "records": [dict(one) for one in records], "rate": rate, "clients": clients,
        "seconds": seconds,
        "expected": None if expected is None else [float(price) for price in expected],
        "each": each, "retries": retries, "timeout": timeout, "seed": seed, "key": key,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", __name__], input=json.dumps(plan), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr.strip()[-500:]}")
    return Load(**json.loads(done.stdout))


def capacity(
    url: str, records: Sequence[Mapping[str, Any]], clients: int = 32, **more: Any
) -> float:
    """Return how many products a second a service prices when so many clients never stop asking.

    ``more`` goes to ``run_load``.
    """
    return run_load(url, records, clients=clients, **more).throughput


def _rounded(milliseconds: float) -> float | None:
    return round(milliseconds, 2) if np.isfinite(milliseconds) else None


class _Run:
    """One run, inside the process that asks."""

    def __init__(self, plan: dict[str, Any], session: Any) -> None:
        self.plan, self.session = plan, session
        each, records = plan["each"], plan["records"]
        places = [
            [(at * each + i) % len(records) for i in range(each)] for at in range(len(records))
        ]
        self.bodies = [json.dumps({"products": [records[i] for i in some]}).encode()
                       for some in places]  # fmt: skip
        expected = plan["expected"]
        self.expected = [expected and [expected[i] for i in some] for some in places]
        self.headers = {"content-type": "application/json"}
        if plan["key"]:
            self.headers["authorization"] = f"Bearer {plan['key']}"
        self.found: dict[str, Any] = {name: [] for name in ("latency", "service", "when")}
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.start = time.perf_counter()

    async def open_loop(self) -> None:
        """Send each request when it is due, however many are under way."""
        rate, seconds = self.plan["rate"], self.plan["seconds"]
        draw = np.random.default_rng(self.plan["seed"])
        due = np.cumsum(draw.exponential(1 / rate, int(rate * seconds * 1.5) + 20))
        tasks = []
        self.start = time.perf_counter()
        for number, moment in enumerate(due[due < seconds].tolist()):
            if (left := self.start + moment - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            tasks.append(asyncio.ensure_future(self.one(number, self.start + moment)))
        await asyncio.gather(*tasks)

    async def closed_loop(self) -> None:
        """Let every client ask again when it has its answer."""
        self.start = time.perf_counter()
        end, numbers = self.start + self.plan["seconds"], iter(range(10**9))

        async def client() -> None:
            while time.perf_counter() < end:
                await self.one(next(numbers), time.perf_counter())

        await asyncio.gather(*[client() for _ in range(self.plan["clients"])])

    async def one(self, number: int, due: float) -> None:
        """Ask once, and again as often as is allowed."""
        at = number % len(self.bodies)
        sent = time.perf_counter()
        self.counts["asked"] += 1
        for attempt in range(self.plan["retries"] + 1):
            outcome, wait = await self._attempt(at)
            if outcome not in ("refused", "lost") or attempt == self.plan["retries"]:
                break
            self.counts["retried"] += 1
            await asyncio.sleep(min(wait or 0.05 * 2**attempt, 2.0))
        now = time.perf_counter()
        self.counts[outcome] += 1
        if outcome in ("answered", "wrong"):
            for name, value in (("latency", now - due), ("service", now - sent),
                                ("when", due - self.start)):  # fmt: skip
                self.found[name].append(round(value, 6))

    async def _attempt(self, at: int) -> tuple[str, float]:
        try:
            async with self.session.post(
                f"{self.plan['url']}/v1/price", data=self.bodies[at], headers=self.headers
            ) as response:
                body = await response.read()
                if response.status == 200:
                    return self._judged(at, body), 0.0
                self.reasons[f"HTTP {response.status}"] += 1
                known = response.status in AGAIN
                return "refused" if known else "lost", retry_after(response.headers, 0.0)
        except Exception as error:  # whatever keeps the answer away
            self.reasons[type(error).__name__] += 1
            return "lost", 0.0

    def _judged(self, at: int, body: bytes) -> str:
        results = json.loads(body)["results"]
        expected = self.expected[at]
        if len(results) != self.plan["each"]:
            return "wrong"
        right = expected is None or all(
            one["price"] is not None and abs(one["price"] - price) <= CENT
            for one, price in zip(results, expected, strict=True)
        )
        return "answered" if right else "wrong"

    def result(self) -> dict[str, Any]:
        """Return what ``Load`` is made of."""
        answered = len(self.found["latency"])
        return self.found | {
            "asked": self.counts["asked"], "products": answered * self.plan["each"],
            "seconds": time.perf_counter() - self.start, "reasons": dict(self.reasons),
            **{name: self.counts[name] for name in ("refused", "lost", "wrong", "retried")},
        }  # fmt: skip


async def _main() -> None:
    import aiohttp

    plan = json.load(sys.stdin)
    timeout = aiohttp.ClientTimeout(total=plan["timeout"])
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        run = _Run(plan, session)
        await (run.open_loop() if plan["rate"] else run.closed_loop())
        json.dump(run.result(), sys.stdout)


if __name__ == "__main__":
    asyncio.run(_main())
