"""Running the service: one process or several, from the first warm-up to the last answer.

Stopping is half of it. Told to stop (SIGTERM, Ctrl-C), a worker first says at /ready that it is not
ready any more, and goes on for a moment, so that whoever spreads the load looks elsewhere; then it
takes no new connections, answers what it has taken, and ends. A worker that is killed is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from shared.operating.opening import Served, observer, open_served
from shared.operating.patience import PatientProtocol
from shared.serving.app import create_app
from shared.serving.limits import KEYS, PARENT, Limits, read_keys
from shared.serving.metrics import FOLDER
from shared.serving.service import Observe, Service

PLAN = "COURSE_SERVE_PLAN"
"""Environment variable: what a worker is to serve."""
HEALTH_SECONDS = 10
"""Until a worker that does not answer its supervisor is replaced; one that is killed while it is
being asked is missed for as long."""
MOST_CONNECTIONS = 1_000
"""Of one worker; those above it are answered 503."""


@dataclass(frozen=True)
class Plan:
    """What is served, and how. ``observations``: a file that gets one line for each product."""

    pricer: str | None = None
    registry: str | None = None
    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    keys_file: str | None = None
    observations: str | None = None
    log_texts: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse what cannot be served."""
        if self.workers < 1:
            raise ValueError(f"workers={self.workers}: at least 1")

    def opened(self) -> Served:
        """Open the model."""
        return open_served(self.pricer, registry=self.registry, version=self.model)  # type: ignore[arg-type]

    def to_json(self) -> str:
        """Return the plan as a worker reads it; it holds no keys."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that ``to_json`` was called on."""
        value = json.loads(text)
        return cls(**value | {"limits": Limits(**value["limits"])})


def serve(plan: Plan) -> None:
    """Serve until told to stop; the first line on standard output is the address.

    Raises ValueError if other machines could reach the service without a key, and whatever
    opening the model raises.
    """
    keys = read_keys(Path(plan.keys_file) if plan.keys_file else None)
    if not keys and not _loopback(plan.host):
        raise ValueError(
            f"{plan.host} can be reached from other machines: give --keys-file FILE or {KEYS}, or "
            "stay with --host 127.0.0.1"
        )
    end_with_parent()
    with _listening(plan) as listener:
        host = f"[{plan.host}]" if ":" in plan.host else plan.host
        address = f"http://{host}:{listener.getsockname()[1]}"
        (_serve_one if plan.workers == 1 else _serve_many)(plan, listener, address)


def worker_app() -> FastAPI:
    """Return the app of one of several workers, as the environment describes it."""
    end_with_parent()
    plan = Plan.from_json(os.environ[PLAN])
    return _app(plan, plan.opened(), started=_worker_started, wait_until_warm=True)


def end_with_parent() -> None:
    """Stop this process when the one that started it is gone: a kernel, say, that was killed."""
    parent = int(os.environ.get(PARENT, 0))
    if not parent:
        return

    def watch() -> None:
        # On Windows a launcher may stand between, and the parent's id stays when it is gone.
        while psutil.pid_exists(parent) and (os.name == "nt" or os.getppid() == parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _serve_one(plan: Plan, listener: socket.socket, address: str) -> None:
    served, problem = plan.opened(), []

    def failed(error: Exception) -> None:
        problem.append(error)
        server.should_exit = True

    app = _app(plan, served, failed=failed)
    server = uvicorn.Server(_config(plan, app))
    _announce(served.version, address)
    with _quiet_end():
        server.run(sockets=[listener])
    if problem:
        raise problem[0]


def _serve_many(plan: Plan, listener: socket.socket, address: str) -> None:
    version, plan = _tried(plan)
    with tempfile.TemporaryDirectory(prefix="price-metrics-") as folder:
        os.environ |= {FOLDER: folder, PLAN: plan.to_json(), PARENT: str(os.getpid())}
        try:
            _announce(f"{version}, {plan.workers} workers", address)
            Multiprocess(_config(plan, f"{__name__}:worker_app", factory=True), [listener]).run()
        finally:
            for name in (FOLDER, PLAN, PARENT):
                os.environ.pop(name, None)


def _tried(plan: Plan) -> tuple[str, Plan]:
    """Open what workers will: what cannot be served is said here, once, and not by them for ever.

    A worker that replaces another one opens the same version, whatever was promoted since.
    """
    served = plan.opened()
    _observe(plan, served)
    stays = plan.registry is not None and served.router is None
    return served.version, replace(plan, model=served.version) if stays else plan


def _announce(what: str, address: str) -> None:
    print(f"Serving {what} at {address} (its description: {address}/docs)", flush=True)


def _observe(plan: Plan, served: Served) -> Observe | None:
    return observer(served, Path(plan.observations)) if plan.observations else None


def _worker_started(service: Service) -> None:
    _stop_gently(service)
    service.when_unwell(functools.partial(os.kill, os.getpid(), signal.SIGTERM))


def _app(plan: Plan, served: Served, **more: Any) -> FastAPI:
    limits = plan.limits
    if limits.rate:  # each worker sees its share of the requests
        limits = replace(limits, rate=limits.rate / plan.workers)
    return create_app(
        served.pricer, served.version, limits=limits, router=served.router,
        keys=read_keys(Path(plan.keys_file) if plan.keys_file else None),
        observe=_observe(plan, served), log_texts=plan.log_texts,
        **{"started": _stop_gently} | more,
    )  # fmt: skip


def _config(plan: Plan, app: Any, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app, host=plan.host, port=plan.port, workers=plan.workers, http=PatientProtocol, ws="none",
        log_level="warning", access_log=False, server_header=False, lifespan="on", backlog=2048,
        timeout_keep_alive=max(1, round(plan.limits.head_seconds)),
        timeout_graceful_shutdown=round(plan.limits.timeout) + 1,
        timeout_worker_healthcheck=HEALTH_SECONDS, limit_concurrency=MOST_CONNECTIONS,
        proxy_headers=False, **more,
    )  # fmt: skip


def _stop_gently(service: Service) -> None:
    """Put a moment between the signal to stop and its effect, in which /ready says no."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        stop = signal.getsignal(number)
        if callable(stop):
            signal.signal(number, functools.partial(_begin_to_stop, service, loop, stop))


def _begin_to_stop(
    service: Service, loop: asyncio.AbstractEventLoop, stop: Any, number: int, frame: Any
) -> None:
    if service.closing:  # asked again: at once, then
        stop(number, frame)
        return
    service.closing = True
    # Always as SIGTERM: a second SIGINT would make uvicorn drop what it has taken.
    end = functools.partial(stop, signal.SIGTERM, None)
    loop.call_soon_threadsafe(loop.call_later, service.limits.grace, end)


@contextlib.contextmanager
def _quiet_end() -> Iterator[None]:
    """Let uvicorn's last signal, which it sends to itself when all is done, end nothing."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _listening(plan: Plan) -> Iterator[socket.socket]:
    """Yield a socket at the address. Raises ValueError if that is taken, or not of this machine."""
    family = socket.AF_INET6 if ":" in plan.host else socket.AF_INET
    with socket.socket(family) as listener:
        if os.name == "posix":  # on Windows two could then listen at one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((plan.host, plan.port))
        except OSError as error:
            raise ValueError(
                f"cannot listen at {plan.host}:{plan.port} ({error.strerror}); choose another "
                "--port (0: a free one), or --host"
            ) from None
        listener.set_inheritable(True)
        yield listener


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
