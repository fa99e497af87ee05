"""The service as replicas on a real Ray cluster: the same answers, and none is lost to kill -9."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time

import psutil
import pytest

from shared.operating import PriceClient, in_thread, open_served
from shared.operating.client import ServiceError
from shared.serving import Limits, create_app
from shared.serving.limits import KEYS

KEY = "a-key-of-the-tests-0001"
RECORDS = [
    {"title": f"Electric kettle number {n}, {n / 10} litres", "features": ["Boils fast"] * (n % 5)}
    for n in range(1, 41)
]
CLIENTS = 6


@pytest.fixture(scope="module")
def ray_serve():
    """The module that is deployed; skipped where there is no Ray Serve, as on Colab."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    missing = "no Ray Serve here: pip install -e '.[cluster]' -c constraints.txt"
    pytest.importorskip("ray.serve", reason=missing, exc_type=ImportError)
    from shared.operating.deploy import ray_serve

    return ray_serve


@pytest.fixture(scope="module")
def raylet(ray_serve):
    """A cluster of one node; yields its process, below which all others are."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    quiet = {"include_dashboard": False, "dashboard_agent_listen_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=node | quiet)
    raylet = psutil.Process(cluster.head_node.all_processes["raylet"][0].process.pid)
    ray.init(address=cluster.address, log_to_driver=False)
    yield raylet
    processes = [raylet, *raylet.children(recursive=True)]
    ray.shutdown()
    cluster.shutdown()
    _, left = psutil.wait_procs(processes, timeout=30)
    assert not left, f"Ray left processes behind: {left}"


@pytest.fixture(scope="module")
def url(ray_serve, raylet):
    """Two replicas behind a port of this machine; the key is set after the cluster has begun."""
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(KEYS, KEY)
        serve.run(ray_serve.application({"replicas": 2}), name="prices")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def expected():
    """What one worker without Ray answers."""
    served = open_served()
    app = create_app(served.pricer, served.version, log=lambda line: None)
    with in_thread(app) as alone:
        return PriceClient(alone).price(RECORDS)


def replicas(raylet):
    """Return the processes that price."""
    found = set()
    for process in raylet.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            if "ServeReplica" in "".join(process.cmdline()):
                found.add(process)
    return found


def test_replicas_answer_what_one_worker_answers(url, expected):
    client = PriceClient(url, KEY)
    assert client.price(RECORDS) == expected
    assert client.model == open_served().version
    assert all(one["low"] < one["price"] < one["high"] for one in expected)


def test_replicas_ask_for_keys_that_their_cluster_does_not_know(url):
    """Incident: replicas read their own environment, found no key, and let everybody in."""
    for key in (None, KEY + "2"):
        with pytest.raises(ServiceError, match="401"):
            PriceClient(url, key).price(RECORDS[:1])


def test_a_killed_replica_is_replaced_and_clients_lose_nothing(url, raylet, expected):
    """Incident: a replica that died took its requests along; Ray said 500, and clients gave up."""
    from ray import serve

    found, failed, stop = [], [], threading.Event()

    def ask():
        client = PriceClient(url, KEY)
        while not stop.is_set():
            try:
                found.append(client.price(RECORDS))
            except ServiceError as error:
                failed.append(str(error))

    def wait_until(reached):
        end = time.monotonic() + 120
        while not reached():
            assert time.monotonic() < end
            time.sleep(0.1)

    def running():
        return serve.status().applications["prices"].deployments["Prices"].replica_states

    before, asking = replicas(raylet), [threading.Thread(target=ask) for _ in range(CLIENTS)]
    assert len(before) == 2
    for thread in asking:
        thread.start()
    try:
        wait_until(lambda: len(found) > 2 * CLIENTS)
        min(before, key=lambda process: process.pid).kill()
        wait_until(lambda: replicas(raylet) - before and running().get("RUNNING") == 2)
        after = len(found)
        wait_until(lambda: len(found) > after + 2 * CLIENTS)
    finally:
        stop.set()
        for thread in asking:
            thread.join()
    assert failed == []
    assert all(answer == expected for answer in found)
    assert len(replicas(raylet) & before) == 1


def test_a_500_of_whoever_stands_between_is_asked_again(httpserver):
    httpserver.expect_ordered_request("/v1/price").respond_with_data("Internal Server Error", 500)
    httpserver.expect_ordered_request("/v1/price").respond_with_json({"results": [{}]})
    assert PriceClient(httpserver.url_for("")).price(RECORDS[:1]) == [{}]
    own = {"error": {"message": "something went wrong here", "code": "internal"}}
    httpserver.expect_ordered_request("/v1/price").respond_with_json(own, 500)
    client = PriceClient(httpserver.url_for(""))
    with pytest.raises(ServiceError, match="HTTP 500: something went wrong here"):
        client.price(RECORDS[:1])
    assert client.attempts == 1


def test_a_replica_whose_model_hangs_asks_to_be_replaced(ray_serve):
    class Hangs:
        name, stuck = "hangs", threading.Event()

        def price(self, products):
            if "forever" in products[0].text:
                self.stuck.wait(60)
            return [1.0] * len(products)

    replica = ray_serve.Prices()
    replica.app = create_app(Hangs(), "v1", limits=Limits(patience=0.1), log=lambda line: None)
    with in_thread(replica.app) as alone:
        client = PriceClient(alone)
        replica.check_health()
        for _ in range(3):
            assert client.price([{"title": "Takes forever"}])[0]["error"]
        with pytest.raises(RuntimeError, match="does not work"):
            replica.check_health()
        Hangs.stuck.set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--host", "0.0.0.0"], f"set {KEYS}"), (["--pricer", "x/y"], "no folder x/y")],
)
def test_what_cannot_be_deployed_is_refused_in_a_line(
    ray_serve, arguments, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["ray_serve", *arguments])
    monkeypatch.delenv(KEYS, raising=False)
    with pytest.raises(SystemExit):
        ray_serve.main()
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
