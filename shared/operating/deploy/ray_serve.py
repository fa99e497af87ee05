"""The same app on a Ray cluster: as many replicas as it takes, on as many machines as there are.

    pip install -r requirements.txt -e '.[cluster]' -c constraints.txt    # `make` has done that
    python -m shared.operating.deploy.ray_serve --replicas 4
    serve run shared.operating.deploy.ray_serve:application replicas=4    # the same in Ray's words

Without RAY_ADDRESS the cluster is this machine. With it, every machine has the course installed,
and sees a folder that is served under the same path. Ray starts replicas, replaces those that die
or hang, spreads requests over them, and scales between two numbers. Everything else, batching
included, stays as it is: each replica is one worker, with a queue, rates and metrics of its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

from ray import serve

from shared.operating.opening import open_served
from shared.serving.app import create_app
from shared.serving.limits import KEYS, read_keys
from shared.standin import is_local

WAITING = 64
"""Requests under way in a replica before Ray starts another one."""
SCALING = {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": WAITING}
LOOKING = 2
"""Seconds between two looks at a replica: so long one that died may go unnoticed."""


class Prices:
    """The service; what it answers is in ``shared.serving.app``."""

    def check_health(self) -> None:
        """Tell Ray, which asks by this name, to replace a replica whose model hangs."""
        if not self.app.state.service.healthy:  # type: ignore[attr-defined]
            raise RuntimeError("the model of this replica does not work")


def application(options: Mapping[str, Any]) -> serve.Application:
    """Return what Ray is to run. ``options``: ``replicas``, so many instead of scaling, and those
    of ``open_served``.

    Keys are those of this process's environment. Their hashes travel to the replicas, which were
    started elsewhere: in their environment there may be none, and everybody would come in.
    """
    model, keys = {**options}, read_keys()
    replicas = model.pop("replicas", None)

    def app() -> Any:  # called in each replica: a model is opened where it is used, and never sent
        served = open_served(**model)
        return create_app(
            served.pricer, served.version, keys=keys, router=served.router, wait_until_warm=True
        )

    count = {"num_replicas": int(replicas)} if replicas else {"autoscaling_config": SCALING}
    deployment = serve.deployment(
        serve.ingress(app)(Prices), max_ongoing_requests=4 * WAITING, health_check_period_s=LOOKING,
        graceful_shutdown_timeout_s=30, logging_config={"enable_access_log": False}, **count,
    )  # fmt: skip
    return deployment.bind()


def main() -> None:
    """Serve on the cluster that RAY_ADDRESS names, or on this machine, until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, help="a fixed number, instead of scaling")
    parser.add_argument("--pricer", help="as of `python -m shared serve`")
    parser.add_argument("--registry", help="as of `python -m shared serve`")
    parser.add_argument("--host", default="127.0.0.1", help="others than this need a key")
    parser.add_argument("--port", type=int, default=8000)
    options = vars(parser.parse_args())
    host, port = options.pop("host"), options.pop("port")
    if not read_keys() and not is_local(f"http://{host}"):
        parser.error(f"{host} can be reached from other machines: set {KEYS}")
    try:  # here first, where an error is one line and not a page of a replica's
        open_served(options["pricer"], registry=options["registry"])
    except (ValueError, OSError) as error:
        parser.error(str(error))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    serve.start(http_options={"host": host, "port": port})
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what stops a container
    try:
        serve.run(application(options), name="prices")
        print(f"Serving at http://{host}:{port}", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        serve.shutdown()


if __name__ == "__main__":
    main()
