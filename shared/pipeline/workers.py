"""Worker processes: plain subprocesses that do one call after the other, over their pipes.

Not ``multiprocessing``: a fork copies locks that threads of a notebook hold, a spawned process
runs the learner's script once more, and both wait forever for a parent that was killed. These
read calls from standard input, and end with it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

IN_PROCESS = 2
"""So few calls are done here: to start workers would take longer."""

_ENVIRONMENT = {
    "POLARS_MAX_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Memory that one shard has used is kept for the next: to ask for it anew takes a tenth of the
    # time. For glibc (and Arrow, which is told to use it), and for the allocator of Polars.
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1",
}


class WorkerError(RuntimeError):
    """A worker process is gone; the message says what to do."""


def run(step: Callable, tasks: Iterable, *, workers: int | None = None) -> Iterator[Any]:
    """Yield ``step(task)`` for each task, in order, computed by ``workers`` processes.

    By default one for each core. Step, tasks and results are pickled. Tasks are taken as
    workers get free, so few are in memory at a time. What a step raises is raised here, and what
    ``tasks`` raises too, after the tasks before it. When the iteration ends, however it does,
    the workers are gone.
    """
    failed: list[Exception] = []
    tasks = _until_failure(tasks, failed)
    few = list(islice(tasks, IN_PROCESS + 1))
    here = len(few) <= IN_PROCESS or workers == 1
    tasks = chain(_emptying(few), tasks)
    yield from map(step, tasks) if here else _in_order(step, tasks, workers or os.cpu_count() or 1)
    if failed:
        raise failed[0]


def _until_failure(tasks: Iterable, failed: list[Exception]) -> Iterator:
    try:
        yield from tasks
    except Exception as error:
        failed.append(error)


def _emptying(held: list) -> Iterator:
    """Yield what is held and let go of it: a task may be large."""
    while held:
        yield held.pop(0)


def _in_order(step: Callable, tasks: Iterator, workers: int) -> Iterator[Any]:
    crew = [Worker() for _ in range(workers)]
    idle: SimpleQueue[Worker] = SimpleQueue()
    for worker in crew:
        idle.put(worker)

    def call(task: Any) -> Any:
        worker = idle.get()
        try:
            return worker.call(step, task)
        finally:
            idle.put(worker)

    threads, pending = ThreadPoolExecutor(workers), deque()
    try:
        for task in tasks:
            pending.append(threads.submit(call, task))
            del task
            if len(pending) > workers:  # one waits, so that no worker does
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for worker in crew:
            worker.end()  # which also ends the calls that threads are waiting for
        threads.shutdown(cancel_futures=True)


class Worker:
    """One process that does calls. A group of its own, so that Ctrl-C is for its parent alone."""

    def __init__(self) -> None:
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from shared.pipeline.workers import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": path},
            start_new_session=True,
        )

    def call(self, step: Callable, task: Any) -> Any:
        """Return ``step(task)``, or raise what it raised; WorkerError if the process is gone."""
        try:
            pickle.dump((step, task), self.process.stdin, protocol=5)
            self.process.stdin.flush()
            succeeded, value = pickle.load(self.process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise WorkerError(
                f"a worker process ended with code {self.process.wait()} (-9: killed, often for "
                "want of memory). Run the same command again: what is finished is kept"
            ) from error
        if not succeeded:
            raise value
        return value

    def end(self) -> None:
        """Kill the process and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what it still held goes nowhere now
                pipe.close()


def serve() -> None:
    """Do calls until standard input ends. What a library prints must not mix with the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            step, task = pickle.load(sys.stdin.buffer)
        except (EOFError, pickle.UnpicklingError):
            return
        try:
            answer = True, step(task)
        except Exception as error:
            answer = False, error
        del task
        pickle.dump(answer, answers)
        answers.flush()
