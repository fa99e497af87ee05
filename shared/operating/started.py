"""A service in a process of its own, for lessons and tests: it is there inside a ``with`` block."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shared.operating.client import opener
from shared.serving.limits import KEYS, PARENT

TAIL = 2_000
"""Characters of the log that are shown when the service dies."""


class ServerError(RuntimeError):
    """The service did not start, or died; the message shows the end of its log."""


@contextlib.contextmanager
def in_thread(app: Any, *, keep_alive: int = 10, seconds: float = 60.0) -> Iterator[str]:
    """Serve an app of ``create_app`` in a thread of this process, and yield its address.

    For a pricer of one's own, which no command line can name. Yields when it is ready; raises
    ServerError if it is not within ``seconds``, or its pricer cannot be opened.
    """
    import uvicorn

    from shared.operating.running import PatientProtocol

    config = uvicorn.Config(
        app, http=PatientProtocol, ws="none", log_level="critical", lifespan="on", port=0,
        timeout_keep_alive=keep_alive, server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="service", daemon=True)
    thread.start()
    end = time.monotonic() + seconds
    try:
        while not (server.started and app.state.service.ready):
            why = app.state.service.failure if server.started else None
            if why or not thread.is_alive() or time.monotonic() > end:
                raise ServerError(f"the service did not get ready: {why or 'nobody said why'}")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(seconds)


class Server:
    """Runs ``python -m shared serve`` on a free port of this machine.

        with Server(pricer="small", workers=2, max_batch=64) as server:
            PriceClient(server.url).price([{"title": "A kettle"}])

    ``options`` are those of the command: ``rate=5.0`` is ``--rate 5.0``. ``keys`` are given to it
    through its environment. ``seconds``: how long it may take until it is ready. Raises
    ServerError, with the end of the log, if it dies before.
    """

    def __init__(
        self, *, keys: tuple[str, ...] = (), seconds: float = 120.0, progress: bool = False,
        environment: Mapping[str, str] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self._options = {"port": 0, **options}
        self._seconds, self._progress = seconds, progress
        self._environment = {**os.environ, PARENT: str(os.getpid()), **(environment or {})}
        self._environment.pop(KEYS, None)
        if keys:
            self._environment[KEYS] = ",".join(keys)
        self.url = ""
        self.process: subprocess.Popen | None = None

    @property
    def pid(self) -> int:
        """The process that was started: the worker, or of several workers the supervisor."""
        return self.process.pid

    def __enter__(self) -> Server:
        """Start it, and wait until it is ready."""
        self._folder = tempfile.TemporaryDirectory(prefix="price-server-")
        self._out, self._log = (Path(self._folder.name) / name for name in ("out", "log"))
        command = [sys.executable, "-m", "shared", "serve", *_flags(self._options)]
        with self._out.open("wb") as out, self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=log, stdin=subprocess.DEVNULL, env=self._environment,
                start_new_session=True,  # Ctrl-C in a notebook is not meant for the service
            )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it; what it has taken is answered first."""
        self.stop()
        self._folder.cleanup()

    def stop(self, seconds: float = 60.0) -> int:
        """Tell it to stop, wait until it has, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def log(self) -> str:
        """Return what the service has written to its log."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def workers(self) -> list[int]:
        """Return the processes that answer, by their ids."""
        import psutil

        if int(self._options.get("workers") or 1) == 1:
            return [self.pid]
        found = []
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.Error):  # it was just killed
                # Python's own helper for shared memory is a child, too.
                found += [child.pid] if "spawn_main" in " ".join(child.cmdline()) else []
        return found

    def _wait(self) -> None:
        start = shown = time.monotonic()
        while not self._ready():
            now = time.monotonic()
            if self.process.poll() is not None:
                raise ServerError(f"the service ended before it was ready:\n{self._tail()}")
            if now - start > self._seconds:
                raise ServerError(
                    f"the service was not ready in {self._seconds:g} s:\n{self._tail()}"
                )
            if self._progress and now - shown > 2:
                shown = now
                print(f"waiting for the service: {now - start:.0f} s", flush=True)
            time.sleep(0.05)

    def _ready(self) -> bool:
        found = re.search(r" at (http://\S+)", self._out.read_text(encoding="utf-8"))
        if found is None:
            return False
        self.url = found[1].replace("//0.0.0.0", "//127.0.0.1")
        try:
            with opener(self.url).open(f"{self.url}/ready", timeout=5) as response:
                return response.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def _tail(self) -> str:
        said = self._log.read_text(encoding="utf-8", errors="replace")[-TAIL:].strip()
        return said or "its log is empty"


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Return options as a command line has them."""
    flags = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        flags.append(f"--{name.replace('_', '-')}")
        flags += [] if value is True else [str(value)]
    return flags
