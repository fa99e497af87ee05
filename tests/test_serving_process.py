"""The service as a process: it starts warm, stops gently, and loses nothing when it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import aiohttp
import psutil
import pytest

from shared.commands.cli import main
from shared.compression.recorded import shipped
from shared.operating import PriceClient, Server, run_load
from shared.operating.client import ServiceError
from shared.operating.started import ServerError
from shared.pricers import PRICERS
from shared.releases import Registry
from shared.serving.limits import KEYS
from shared.watching import ObservationLog
from tests.test_releases import ITEMS

KEY = "a-key-of-the-tests-0001"
RECORDS = [
    {"title": f"Electric kettle number {n}, {n / 10} litres", "features": ["Boils fast"] * (n % 5)}
    for n in range(1, 31)
]


@pytest.fixture(scope="module")
def expected():
    """What the shipped release says of the records, in this process."""
    from shared.releases import shipped_release
    from shared.serving.schemas import products_of

    return [round(p, 2) for p in shipped_release().open().price(products_of(RECORDS)).price]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A service of two workers, which writes observations."""
    file = tmp_path_factory.mktemp("two") / "observations.jsonl"
    with Server(workers=2, observations=file, max_batch=8) as server:
        server.file = file
        yield server


def metrics(url):
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, _, value in
            (line.rpartition(" ") for line in lines if not line.startswith("#"))}  # fmt: skip


def priced_by(url):
    return metrics(url).get(PRICED, 0.0)


PRICED = 'price_products_total{outcome="priced",version="shipped"}'


def test_workers_are_several_and_metrics_are_those_of_all(two, expected):
    """Incident: a scrape showed the counters of one worker, by chance, and rates were negative."""
    before = priced_by(two.url)
    found = run_load(two.url, RECORDS, clients=8, seconds=1.0, expected=expected)
    assert (found.lost, found.refused, found.wrong) == (0, 0, 0)
    assert found.answered > 0
    for _ in range(5):
        assert priced_by(two.url) - before == found.answered
    assert len(two.workers()) == 2


def test_killed_workers_are_replaced_and_clients_lose_nothing(two, expected):
    """kill -9 in the middle of the load: clients ask again, and nobody gets a wrong price.

    Both workers at once, since one of the two may hold all connections.
    """
    victims, found = two.workers(), []
    before = priced_by(two.url)
    load = threading.Thread(target=lambda: found.append(
        run_load(two.url, RECORDS, clients=8, seconds=4.0, expected=expected, retries=20)
    ))  # fmt: skip
    load.start()
    while priced_by(two.url) < before + 50:
        time.sleep(0.02)
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    load.join(90)
    assert (found[0].lost, found[0].refused, found[0].wrong) == (0, 0, 0)
    assert found[0].retried > 0, "nobody noticed: the kill hit no request under way"
    end = time.monotonic() + 60
    while set(victims) & set(two.workers()) or len(two.workers()) < 2:
        assert time.monotonic() < end, "nobody started another worker"
        time.sleep(0.1)
    # What a dead worker had counted is not lost, and its gauges do not count as living.
    assert priced_by(two.url) >= before + found[0].answered
    assert metrics(two.url)["price_queue_products"] == 0


def test_observations_of_all_workers_are_in_one_file_without_texts(two):
    PriceClient(two.url).price(RECORDS[:3])
    end = time.monotonic() + 20
    while len(ObservationLog(two.file).read()) < 3:
        assert time.monotonic() < end
        time.sleep(0.05)
    kept = ObservationLog(two.file).read()
    assert {one.version for one in kept} == {"shipped"}
    assert all(one.low < one.price < one.high for one in kept)
    assert "kettle" not in two.file.read_text()


async def ask_all(url, count, started):
    """Send requests at once; tell when all were sent, and return their statuses."""
    sent = 0

    async def one(session, number):
        nonlocal sent
        body = json.dumps({"products": RECORDS[:4]}).encode()

        async def stream():
            nonlocal sent
            yield body
            sent += 1
            if sent == count:
                started.set()

        headers = {"content-type": "application/json"}
        async with session.post(f"{url}/v1/price", data=stream(), headers=headers) as response:
            return response.status, await response.json()

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await asyncio.gather(*[one(session, n) for n in range(count)])


@pytest.mark.parametrize("workers", [1, 2])
def test_told_to_stop_it_finishes_what_it_has_taken(workers):
    with Server(workers=workers, max_batch=1, max_wait_ms=0, queue=1024) as server:
        started, found = threading.Event(), []
        clients = threading.Thread(
            target=lambda: found.extend(asyncio.run(ask_all(server.url, 40, started)))
        )
        clients.start()
        assert started.wait(20)
        code = server.stop()
        clients.join(60)
        log = server.log()
    assert code == 0
    assert [status for status, _ in found] == [200] * 40
    assert all(one["price"] > 0 for _, body in found for one in body["results"])
    assert "Traceback" not in log


def test_a_key_is_needed_and_never_shown_and_ready_says_no_before_the_end():
    with Server(pricer="smallest", keys=(KEY,), rate=1000.0, log_texts=True) as server:
        with pytest.raises(ServiceError, match="401"):
            PriceClient(server.url, retries=0).price(RECORDS[:1])
        client = PriceClient(server.url, KEY)
        assert client.price(RECORDS[:1])[0]["price"] > 0
        assert client.model.startswith("smallest-")
        seen = server.log() + " ".join(psutil.Process(server.pid).cmdline()) + repr(client)
        assert KEY not in seen
        assert RECORDS[0]["title"] in seen  # texts are logged if one asks for it
        os.kill(server.pid, signal.SIGTERM)
        assert "shutting down" in last_words(server)
        assert server.process.wait(30) == 0


def last_words(server):
    """Ask /ready, on a new connection each time as balancers do, until nobody answers."""
    words = ""
    while server.process.poll() is None:
        try:
            urllib.request.urlopen(f"{server.url}/ready", timeout=5).close()
        except urllib.error.HTTPError as error:
            words += error.read().decode()
        except OSError:
            break
    return words


def test_a_client_waits_for_a_service_that_comes_back(expected):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client, found = PriceClient(f"http://127.0.0.1:{port}", retries=200), []
    waiting = threading.Thread(target=lambda: found.append(client.price(RECORDS)))
    waiting.start()
    with Server(port=port):
        waiting.join(60)
    assert [one["price"] for one in found[0]] == expected
    assert client.attempts > 1


def test_a_service_that_cannot_start_says_why(tmp_path):
    with pytest.raises(ServerError, match="no folder"), Server(pricer=tmp_path / "nowhere"):
        pass


def test_a_service_does_not_outlive_the_process_that_started_it(tmp_path):
    """Incident: a notebook's kernel was killed, and its servers kept their ports for days."""
    code = (
        "from shared.operating import Server\nimport time\n"
        "with Server(pricer='smallest', workers=2) as s:\n"
        " print(s.pid, *s.workers(), flush=True)\n time.sleep(100)"
    )
    kernel = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in kernel.stdout.readline().split()]
    assert len(pids) == 3
    kernel.kill()
    kernel.wait()
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 30)
    assert not alive


def test_workers_do_not_outlive_a_supervisor_that_is_killed():
    """Incident to be: its workers kept the port, and nobody replaced or ended them."""
    with Server(pricer="smallest", workers=2) as server:
        workers = [psutil.Process(pid) for pid in server.workers()]
        os.kill(server.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, 30)
        for one in alive:
            one.kill()
    assert len(workers) == 2
    assert not alive


def test_a_worker_that_replaces_another_opens_the_same_version(tmp_path):
    """Incident to be: after a promotion, and a crash, half of the answers came from each."""
    registry = Registry(tmp_path / "registry")
    for name in ("smallest", "small"):
        registry.add("student", shipped(name), items=ITEMS)
    registry.promote("v1", "made")
    with Server(registry=registry.folder, workers=2) as server:
        registry.promote("v2", "better")
        victims = server.workers()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        client = PriceClient(server.url, retries=100)
        client.price(RECORDS[:1])
        assert client.model == "v1"
    with Server(registry=registry.folder) as server:
        client = PriceClient(server.url)
        client.price(RECORDS[:1])
        assert client.model == "v2"


# ----- the command -------------------------------------------------------------------------------


def said(capsys, *arguments):
    code = main(["serve", *map(str, arguments)])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "give --keys-file FILE or COURSE_SERVE_KEYS"),
        (["--host", "192.168.1.5"], "can be reached from other machines"),
        (["--host", "::"], "can be reached from other machines"),
        (["--pricer", next(iter(PRICERS))], "has to learn first"),
        (["--pricer", "nonsense"], "small, smallest, tuned"),
        (["--model", "v3"], "--registry"),
        (["--model", "v3", "--registry", "nowhere"], "nowhere"),
        (["--pricer", "small", "--registry", "x"], "leave one of them out"),
        (["--max-wait-ms", "40000"], "max_wait"),
        (["--pricer", "small", "--port", "0", "--observations", "x"], "no reference"),
        (["--pricer", "small", "--port", "0", "--observations", "x", "--workers", "2"],
         "no reference"),
        (["--port", "0", "--observations", "."], "irectory"),
        (["--port", "0", "--observations", ".", "--workers", "2"], "irectory"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_said_in_words(capsys, monkeypatch, tmp_path, arguments, words):
    monkeypatch.delenv(KEYS, raising=False)
    monkeypatch.chdir(tmp_path)
    code, error = said(capsys, *arguments)
    assert code == 1
    assert words in error
    assert "Traceback" not in error


def test_a_port_that_is_taken_is_said(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, error = said(capsys, "--port", taken.getsockname()[1])
    assert code == 1
    assert "choose another --port" in error


def test_an_empty_file_of_keys_opens_nothing(capsys, tmp_path, monkeypatch):
    """Incident: a service whose file of keys was empty let everybody in."""
    monkeypatch.delenv(KEYS, raising=False)
    (tmp_path / "keys").write_text("\n")
    code, error = said(capsys, "--host", "0.0.0.0", "--keys-file", tmp_path / "keys")
    assert code == 1
    assert "holds no key" in error
