"""Metrics in the format of Prometheus, summed over all workers of a service.

A scrape reaches one worker, by chance. So several workers write to files in one folder, and the
one that is asked adds them up (the multiprocess mode of ``prometheus_client``): counters go on
where a killed worker left them, and its gauges go with it. One worker alone needs no files.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import psutil
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable: the folder that several workers share, set before they start."""

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """What is counted of one service. Labels have few values: no ids, no texts, no free paths."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        common = {"registry": self.registry, "namespace": "price"}
        self.requests = Counter("requests", "Requests by path and status", ["path", "status"],
                                **common)  # fmt: skip
        self.seconds = Histogram("request_seconds", "Seconds from request to answer", ["path"],
                                 buckets=_SECONDS, **common)  # fmt: skip
        self.products = Counter("products", "Products by version and outcome",
                                ["version", "outcome"], **common)  # fmt: skip
        self.batch = Histogram("batch_size", "Products priced at once", buckets=_SIZES, **common)
        self.waited = Histogram("wait_seconds", "Seconds the first of a batch waited",
                                buckets=_SECONDS, **common)  # fmt: skip
        self.worked = Histogram("batch_seconds", "Seconds a batch took", buckets=_SECONDS, **common)
        self.depth = Gauge("queue_products", "Products waiting", multiprocess_mode="livesum",
                           **common)  # fmt: skip
        self.unobserved = Counter("unobserved", "Requests nobody kept an observation of", **common)

    def batch_done(self, size: int, waited: float, worked: float) -> None:
        """Count one batch: products, seconds its first one waited, seconds of work."""
        self.batch.observe(size)
        self.waited.observe(waited)
        self.worked.observe(worked)

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        folder = os.environ.get(FOLDER)
        if not folder:
            return generate_latest(self.registry)
        for pid in _gone(Path(folder)):
            with contextlib.suppress(OSError):  # another worker was faster
                multiprocess.mark_process_dead(pid)
        everything = CollectorRegistry()
        multiprocess.MultiProcessCollector(everything)
        return generate_latest(everything)


def _gone(folder: Path) -> set[int]:
    """Return the processes that left gauges of the living behind, and do not live."""
    found = (re.fullmatch(r"gauge_live\w*_(\d+)\.db", path.name) for path in folder.iterdir())
    return {int(one[1]) for one in found if one and not psutil.pid_exists(int(one[1]))}
