"""What the service promises over real HTTP: right prices, plain words, limits that hold."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import http.server
import io
import json
import os
import socket
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from browsers import BROWSER, needs_browser
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.compression import Opening, StudentPricer
from shared.compression.recorded import shipped
from shared.compression.scaled import write_scaled
from shared.data import Product
from shared.evaluation import Estimates
from shared.operating import PriceClient, ServedPricer, in_thread, open_served
from shared.operating.client import ServiceError, record_of
from shared.operating.started import ServerError
from shared.pipeline import read_products
from shared.releases.shadow import VersionedEstimates
from shared.serving import Limits, create_app
from shared.serving.limits import Buckets, Keys, read_keys
from shared.serving.logs import to_stderr
from shared.serving.schemas import MOST_PRODUCTS, products_of

KEY, OTHER = "a-key-of-the-tests-0001", "a-key-of-the-tests-0002"
SCREENSHOT = os.environ.get("COURSE_SCREENSHOT")
KETTLE = {"title": "Electric kettle, 1.7 litres", "features": ["Boils fast"]}


class Fake:
    """A pricer whose prices say which text they are for, and that can be told to fail."""

    name, label = "fake", ""

    def __init__(self):
        self.gate, self.batches, self.texts = threading.Event(), [], []
        self.gate.set()
        self.busy = threading.Event()

    def price(self, products):
        self.busy.set()
        self.gate.wait(20)
        self.batches.append(len(products))
        self.texts += [one.text for one in products]
        if any("poison" in one.text for one in products):
            raise RuntimeError(f"cannot read {products[0].text}")
        prices = [np.nan if "unknown" in one.text else len(one.text) / 2 for one in products]
        errors = ["never seen such a thing" if np.isnan(price) else None for price in prices]
        return Estimates(prices, errors)


@pytest.fixture(scope="module")
def lines():
    return []


@pytest.fixture(scope="module")
def url(lines):
    """A service of the shipped student, with keys."""
    limits = Limits(body_seconds=1.0, body_bytes=200_000)
    pricer = StudentPricer(shipped("small"))
    app = create_app(pricer, "v1", limits=limits, keys=Keys([KEY, OTHER]), log=lines.append)
    with in_thread(app, keep_alive=1) as address:
        yield address


def ask(url, body=b"", path="/v1/price", method="POST", key=KEY, **headers):
    """Send one request, byte for byte, and return status, headers and body."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
    named = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    if key:
        named["authorization"] = f"Bearer {key}"
    body = json.dumps(body).encode() if isinstance(body, dict | list) else body
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data


def refused(url, body, **more):
    status, _, data = ask(url, body, **more)
    error = json.loads(data)["error"]
    assert error["message"]
    assert error["code"]
    return status, error["message"]


def local(app_pricer, **options):
    return in_thread(create_app(app_pricer, "v1", log=lambda line: None, **options))


# ----- prices ------------------------------------------------------------------------------------


def test_prices_are_those_of_the_pricer_on_records_cleaned_as_for_training(url, tmp_path):
    """Incident: a service cleaned texts by its own rules, and was worse than any test had said."""
    records = [
        KETTLE,
        {"title": "Lamp &amp; shade  <b>new</b>", "description": "only $19.99 today!",
         "details": {"Brand": "X", "price": "19.99"}, "price": 12.5, "store": "S"},
        {"title": "Drill", "details": '{"Voltage": "18 V"}', "main_category": "Tools & Home"},
    ]  # fmt: skip
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in records))
    items, _ = read_products(str(file))
    asked = [Product.from_item(one) for one in items.to_pylist()]
    expected = StudentPricer(shipped("small")).price(asked).price
    found = PriceClient(url, KEY).price(records)
    assert [one["price"] for one in found] == pytest.approx(expected, abs=0.006)
    assert products_of(records) == asked


def test_a_price_in_the_record_never_reaches_the_pricer():
    fake = Fake()
    with local(fake) as url:
        PriceClient(url).price([{"title": "Lamp", "price": 777.77, "details": {"MSRP": "777.77"}}])
    assert not any("777" in text for text in fake.texts)


def test_a_failed_product_has_no_price_but_a_reason_and_others_are_not_affected():
    with local(Fake()) as url:
        found = PriceClient(url).price([KETTLE, {"title": "unknown"}, {"title": "poison"}])
    assert found[0]["price"] > 0
    assert found[0]["error"] is None
    assert found[1] == {"price": None, "low": None, "high": None, "currency": "USD",
                        "error": "never seen such a thing"}  # fmt: skip
    assert found[2]["price"] is None
    assert found[2]["error"] == "the pricer failed (RuntimeError)"  # whose text was it? nobody's


def test_a_text_of_which_nothing_is_left_gets_a_reason(url):
    found = PriceClient(url, KEY).price([{"title": "★★★ https://spam.example"}])
    assert found[0]["price"] is None
    assert "nothing is left" in found[0]["error"]


def test_the_answer_names_version_and_latency(url):
    status, headers, data = ask(url, {"products": [KETTLE]}, x_request_id="my-id.1")
    body = json.loads(data)
    assert status == 200
    assert body["model"] == "v1"
    assert body["latency_ms"] > 0
    assert headers["x-request-id"] == "my-id.1"


def test_a_served_pricer_is_judged_like_any_other(url):
    from shared.evaluation import evaluate

    products = products_of([KETTLE, {"title": "Garden chair", "main_category": "Patio"}])
    items = [
        {"id": one.id, "title": one.title, "text": one.text, "category": one.category,
         "details": one.details, "price": 30.0, "split": "test", "cluster": one.id}
        for one in products
    ]  # fmt: skip
    served = evaluate(ServedPricer(PriceClient(url, KEY)), items, progress=False)
    here = evaluate(StudentPricer(shipped("small")), items, progress=False)
    pairs = [one.predictions["price_estimate"].to_pylist() for one in (served, here)]
    assert pairs[0] == pytest.approx(pairs[1], abs=0.006)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_a_product_survives_the_way_to_the_service(text):
    """What was cleaned once is not changed by being cleaned again: chat and client rely on it."""
    once = products_of([{"title": text, "description": [text]}])[0]
    again = products_of([record_of(once)])[0]
    assert again.text == (once.text or "?")
    assert again.category == once.category


# ----- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "products is missing"),
        ({"products": []}, "products is empty"),
        ({"products": [KETTLE] * (MOST_PRODUCTS + 1)}, "products has more than 64 entries"),
        ({"products": "Lamp"}, "products must be a list"),
        ({"products": [KETTLE, {}]}, "products[1].title is missing"),
        ({"products": [{"title": " "}]}, "products[0].title is empty"),
        ({"products": [{"title": 5}]}, "products[0].title must be text"),
        ({"products": [{"title": "x" * 2001}]}, "products[0].title is longer than 2,000"),
        ({"products": [{"title": "x", "features": [1]}]}, "products[0].features[0] must be text"),
        ({"products": [{"title": "x", "features": {"a": 1}}]}, "products[0].features must be a"),
        ({"products": [{"title": "x", "details": 5}]}, "products[0].details must be an object"),
        ({"products": ["Lamp"]}, "products[0] must be an object"),
        ([], "body must be an object"),
        (b"{", "body is no valid JSON"),
        (b"", "body is missing"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_in_plain_words(url, body, words):
    status, message = refused(url, body)
    assert status == 422
    assert words in message


def test_unknown_fields_are_ignored_and_lists_may_be_texts(url):
    record = {"title": "Lamp", "features": "bright", "description": None, "asin": 5, "images": [1]}
    assert PriceClient(url, KEY).price([record])[0]["price"] > 0


def test_unknown_addresses_and_methods_are_refused_in_words(url):
    assert refused(url, b"", path="/v2/price")[0] == 404
    assert refused(url, b"", method="GET")[0] == 405


# ----- keys, rates, sizes ------------------------------------------------------------------------


def test_without_a_key_nothing_is_told_but_whether_it_lives(url):
    for path in ("/v1/price", "/v1/models", "/v1/chat/completions", "/metrics", "/nowhere"):
        assert refused(url, b"", path=path, key=None)[0] == 401
        assert refused(url, b"", path=path, key=KEY[:-1])[0] == 401
    for path in ("/health", "/ready", "/docs", "/openapi.json"):
        assert ask(url, path=path, method="GET", key=None)[0] == 200


def test_no_key_is_in_log_or_answer(url, lines):
    _, headers, data = ask(url, {"products": [KETTLE]}, key=OTHER)
    said = json.dumps(lines) + str(headers) + data.decode()
    assert KEY not in said
    assert OTHER not in said
    assert lines[-1]["caller"] == Keys([OTHER]).name_of(f"Bearer {OTHER}".encode())


def test_the_log_has_no_text_of_a_product(url, lines):
    secret = "Zanzibarium"
    ask(url, {"products": [{"title": secret, "description": secret}]})
    ask(url, {"products": [{"title": secret, "features": [5, secret]}]})
    ask(url, b'{"products": [{"title": "Zanzibarium"')
    assert secret not in json.dumps(lines)
    assert lines[-3] | {"status": 200, "n": 1, "version": "v1", "path": "/v1/price"} == lines[-3]


def test_a_reason_that_quotes_the_product_is_for_its_customer_and_not_for_the_log():
    class Quotes(Fake):
        def price(self, products):
            return Estimates([np.nan] * len(products), [f"odd: {one.text}" for one in products])

    lines = []
    with in_thread(create_app(Quotes(), "v1", log=lines.append)) as url:
        found = PriceClient(url).price([{"title": "Zanzibarium"}])
    assert "Zanzibarium" in found[0]["error"]
    assert "Zanzibarium" not in json.dumps(lines)
    assert lines[-1]["reason"] == "odd"


def test_the_log_is_written_in_a_notebook_too(monkeypatch):
    """Incident: a notebook's standard error takes text alone; each request ended its connection."""
    kept = io.StringIO()
    monkeypatch.setattr("sys.stderr", kept)
    to_stderr({"status": 200})
    assert json.loads(kept.getvalue()) == {"status": 200}


def test_a_key_out_of_a_file_works_and_no_error_shows_one_that_cannot(url):
    """Incident to be: the error about the line's end in a header held the key."""
    assert PriceClient(url, f"{KEY}\n", retries=0).price([KETTLE])[0]["price"] > 0
    with pytest.raises(ValueError, match="no header can carry") as error:
        PriceClient(url, f"{KEY}\n{OTHER}")
    assert KEY not in str(error.value)


def test_a_key_does_not_follow_a_redirection():
    """urllib takes the headers along, wherever it is sent."""
    seen = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(302)
            self.send_header("location", "/elsewhere")
            self.end_headers()

        def do_GET(self):
            seen.append(self.headers["authorization"])
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = PriceClient(f"http://127.0.0.1:{server.server_port}", KEY, retries=0)
        with pytest.raises(ServiceError, match="302"):
            client.price([KETTLE])
        server.shutdown()
    assert seen == []


def test_files_of_keys_are_read_and_wrong_ones_named_without_showing_them(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_SERVE_KEYS", raising=False)
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{KEY}\n\n{OTHER}\n")
    assert read_keys(file).name_of(f"bearer {OTHER}".encode())
    for text, words in (("", "holds no key"), ("# x\n", "holds no key"), ("tooshort\n", "line 1")):
        file.write_text(text)
        with pytest.raises(ValueError, match=words) as error:
            read_keys(file)
        assert "tooshort" not in str(error.value)
    monkeypatch.setenv("COURSE_SERVE_KEYS", f"{KEY}, {OTHER}")
    assert read_keys().name_of(f"Bearer {KEY}".encode())
    assert not Keys()
    assert Keys([KEY]).name_of(b"Bearer ") is None
    assert Keys([KEY]).name_of(f"Basic {KEY}".encode()) is None


def test_a_bucket_lets_in_at_its_rate_and_large_requests_pay_later():
    buckets = Buckets(rate=2.0, burst=4.0)
    assert [buckets.wait("a", 0.0) for _ in range(4)] == [0, 0, 0, 0]
    assert buckets.wait("a", 0.0) == pytest.approx(0.5)
    assert buckets.wait("b", 0.0) == 0  # everybody has a bucket
    assert buckets.wait("a", 0.5) == 0
    buckets.charge("a", 9, 0.5)
    assert buckets.wait("a", 0.5) == pytest.approx(5.0)
    assert buckets.wait("a", 5.5) == 0


def test_a_key_that_asks_too_often_is_told_when_to_come_back_and_others_are_not():
    limits = Limits(rate=0.5)
    with local(Fake(), limits=limits, keys=Keys([KEY, OTHER])) as url:
        assert ask(url, {"products": [KETTLE]})[0] == 200
        status, headers, _ = ask(url, {"products": [KETTLE]})
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 2
        assert ask(url, {"products": [KETTLE]}, key=OTHER)[0] == 200


def test_a_full_queue_is_429_and_the_client_comes_back():
    fake = Fake()
    fake_limits = Limits(max_batch=1, max_wait=0, queue=1)
    with local(fake, limits=fake_limits) as url:
        fake.gate.clear()
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(ask(url, {"products": [KETTLE]})))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        while len(found) < 4:  # one is at work, one waits
            time.sleep(0.01)
        assert {status for status, _, _ in found} == {429}
        assert all(float(headers["retry-after-ms"]) > 0 for _, headers, _ in found)
        client, prices = PriceClient(url, retries=50), []
        patient = threading.Thread(target=lambda: prices.append(client.price([KETTLE])))
        patient.start()
        while client.attempts < 2:
            time.sleep(0.01)
        fake.gate.set()
        for thread in [*threads, patient]:
            thread.join(20)
    assert prices[0][0]["price"] > 0
    assert sorted(status for status, _, _ in found) == [200, 200, 429, 429, 429, 429]


def test_a_request_that_takes_too_long_is_504():
    fake = Fake()
    with local(fake, limits=Limits(timeout=0.3)) as url:
        fake.gate.clear()
        assert refused(url, {"products": [KETTLE]})[0] == 504
        fake.gate.set()
        with pytest.raises(ServiceError, match="422"):
            PriceClient(url).price([{}])


def test_a_hanging_pricer_gets_a_reason_and_three_hangs_are_unhealthy():
    fake = Fake()
    with local(fake, limits=Limits(patience=0.1)) as url:
        fake.gate.clear()
        found = PriceClient(url).price([KETTLE])
        assert "did not answer within 0.1 s" in found[0]["error"]
        PriceClient(url).price([KETTLE, KETTLE])
        assert ask(url, path="/health", method="GET")[0] == 503
        assert ask(url, path="/ready", method="GET")[0] == 503
        assert refused(url, {"products": [KETTLE]})[0] == 503
        fake.gate.set()


def test_a_scaled_model_is_served_in_its_unit_and_has_a_version_of_its_own(tmp_path):
    """Incident: `serve` did not know what a project of one's own had released."""
    served = []
    for student in ("small", "smallest"):
        place = tmp_path / student / "rents"
        place.parent.mkdir()
        model = Opening("student", shipped(student))
        served.append(open_served(write_scaled(model, place, 10.0, "EUR a month")))
    with local(served[0].pricer) as url:
        found = PriceClient(url).price([KETTLE])[0]
    assert found["currency"] == "EUR a month"
    alone = StudentPricer(shipped("small")).price(products_of([KETTLE])).price[0]
    assert found["price"] == pytest.approx(10 * alone, abs=0.01)
    assert len({one.version for one in served}) == 2


def test_a_worker_whose_model_hangs_asks_to_be_replaced():
    """Incident: it answered 503 until somebody restarted the service, and its supervisor slept."""
    fake, ended = Fake(), threading.Event()
    app = create_app(
        lambda: fake, "v1", limits=Limits(patience=0.1), log=lambda line: None,
        started=lambda service: service.when_unwell(ended.set),
    )  # fmt: skip
    with in_thread(app) as url:
        PriceClient(url).price([KETTLE])
        assert not ended.is_set()
        fake.gate.clear()
        PriceClient(url).price([KETTLE])
        PriceClient(url).price([KETTLE, KETTLE])
        assert ended.wait(30)
        fake.gate.set()


# ----- hostile -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"products": [{"title": "x", "details": ' + b'{"a": ' * 60 + b"1" + b"}" * 60 + b"}]}",
        b'{"products": [{"title": NaN}]}',
        b'{"products": [{"title": "\\ud800"}]}',
        b'{"products": [{"title": "\xff\xfe"}]}',
        b'{"products": [{"title": "x"}]} trailing',
        b'\xef\xbb\xbf{"products": [{"title": "x"}]}',
        b'{"products": ' + b"9" * 5000 + b"}",
        b'{"products": 1e999}',
        b"null",
        b'"text"',
    ],
)  # fmt: skip
def test_hostile_json_is_422(url, body):
    assert refused(url, body)[0] == 422


@pytest.mark.parametrize(
    "details",
    [
        '{"a": NaN}', "[1]", "null", "{" * 1000, '{"x": 1e400}', '{"\\ud800": 1}', "\x00",
        {"big": 10**400}, {"": {"": [[], {}]}}, {"Best Sellers Rank": {}}, {"a": [None, True]},
        {"Best Sellers Rank": {"A": 1}}, {"n": -1e308}, {"x": "\u202e\u0000"},
    ],
)  # fmt: skip
def test_odd_details_are_priced_or_refused_and_no_error(url, details):
    status, _, data = ask(url, {"products": [{"title": "Lamp", "details": details}]})
    assert status in (200, 422)
    if status == 200:
        assert json.loads(data)["results"][0]["price"] > 0


def test_a_body_of_100_megabytes_is_413_by_its_length_and_in_chunks(url):
    assert refused(url, b"x" * 300_000)[0] == 413
    where = urlsplit(url)
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        head = f"POST /v1/price HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(1600):
                connection.sendall(piece)
            connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it hung up, having said why
        assert b" 413 " in connection.recv(20)
    assert ask(url, {"products": [KETTLE]})[0] == 200


def test_packed_bodies_are_refused_unopened(url):
    """Incident: 100 kB that unpack to 100 MB."""
    bomb = gzip.compress(b" " * 10_000_000)
    status, message = refused(url, bomb, content_encoding="gzip")
    assert status == 415
    assert "content-encoding" in message


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 30, "+5"])
def test_a_nonsense_length_is_refused(url, length):
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        connection.sendall(
            f"POST /v1/price HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
            f"content-length: {length}\r\n\r\n".encode()
        )
        assert connection.recv(100).split(b" ")[1] in (b"400", b"413")


def test_a_slow_body_is_cut_off(url):
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        connection.sendall(
            f"POST /v1/price HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
            "content-type: application/json\r\ncontent-length: 100\r\n\r\n{".encode()
        )
        assert b" 408 " in connection.recv(100)


@pytest.mark.parametrize("said", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nhost: x\r\n"])
def test_slow_headers_are_cut_off(url, said):
    """Slow loris: a letter a minute kept a connection for ever, and a thousand such all of them."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        connection.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""


def test_slow_headers_of_a_second_request_are_cut_off_too(url):
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b" 200 " in connection.recv(1000)
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        try:
            while connection.recv(1000):
                pass
        except ConnectionResetError:
            pass


def test_a_client_that_hangs_up_is_not_priced(lines):
    fake, log = Fake(), []
    app = create_app(fake, "v1", limits=Limits(max_batch=1, max_wait=0), log=log.append)
    with in_thread(app) as url:
        fake.gate.clear()
        fake.busy.clear()
        before = len(fake.batches)
        first = threading.Thread(target=ask, args=(url, {"products": [KETTLE]}))
        first.start()
        assert fake.busy.wait(20)
        where = urlsplit(url)
        body = json.dumps({"products": [{"title": "of somebody who left"}] * 5}).encode()
        with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
            connection.sendall(
                b"POST /v1/price HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(body), body)
            )
            service = app.state.service
            while service.batcher.depth < 5:
                time.sleep(0.01)
        while service.batcher.depth:
            time.sleep(0.01)
        fake.gate.set()
        first.join(20)
    assert "of somebody who left" not in fake.texts
    assert len(fake.batches) > before
    assert 499 in [line["status"] for line in log]


def test_odd_request_ids_are_replaced(url):
    for name in ("x" * 65, "a b", "é", '"', "../../etc"):
        _, headers, _ = ask(url, b"", path="/health", method="GET", x_request_id=name)
        assert headers["x-request-id"] != name


# ----- seams -------------------------------------------------------------------------------------


def test_a_router_chooses_by_request_id_and_a_batch_may_hold_both():
    old, new = Fake(), Fake()
    routes = {"old": (old, "v1"), "new": (new, "v2")}
    app = create_app(old, "v1", router=lambda request: routes[request.split("-")[0]],
                     limits=Limits(max_wait=0.2), log=lambda line: None)  # fmt: skip
    with in_thread(app) as url:
        found = {}

        def one(name):
            data = ask(url, {"products": [{"title": f"thing {name}"}]}, x_request_id=name)[2]
            found[name] = json.loads(data)["model"]

        threads = [threading.Thread(target=one, args=(f"{which}-{n}",))
                   for n in range(3) for which in routes]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert {name: version for name, version in found.items()} == {
        f"{which}-{n}": routes[which][1] for n in range(3) for which in routes
    }
    assert all("new" in text for text in new.texts)


def test_what_the_old_version_priced_is_said_product_by_product():
    """A canary leaves what it cannot price to the old version: one answer, two versions."""

    class Canary(Fake):
        def price(self, products):
            found = VersionedEstimates(super().price(products).price)
            found.versions = ["v1" if "Lamp" in one.text else "v2" for one in products]
            return found

    kept, done, pricer = [], threading.Event(), Canary()

    def observe(products, estimates, *, version, request):
        kept.append((version, [one.title for one in products]))
        if len(kept) == 3:
            done.set()

    with local(pricer, router=lambda request: (pricer, "v2"), observe=observe) as url:
        mixed = json.loads(ask(url, {"products": [KETTLE, {"title": "Lamp"}]})[2])
        old = json.loads(ask(url, {"products": [{"title": "Lamp"}]})[2])
        assert done.wait(20)
    assert (mixed["model"], old["model"]) == ("v2", "v1")
    assert [one.get("model") for one in mixed["results"]] == [None, "v1"]
    assert "model" not in old["results"][0]
    assert kept == [("v2", [KETTLE["title"]]), ("v1", ["Lamp"]), ("v1", ["Lamp"])]


def test_observations_are_kept_and_a_broken_observer_breaks_nothing():
    kept, done = [], threading.Event()

    def observe(products, estimates, *, version, request):
        kept.append((products, estimates, version, request))
        done.set()
        raise OSError("the disk is full")

    with local(Fake(), observe=observe) as url:
        ask(url, {"products": [KETTLE, {"title": "unknown"}]}, x_request_id="mine")
        assert done.wait(20)
        assert ask(url, {"products": [KETTLE]})[0] == 200
    products, estimates, version, request = kept[0]
    assert (version, request) == ("v1", "mine")
    assert [one.title for one in products] == [KETTLE["title"], "unknown"]
    assert np.isnan(estimates.price[1])
    assert estimates.error[1] == "never seen such a thing"


def test_metrics_count_products_and_have_no_free_labels(url):
    for name in ("a", "b"):
        ask(url, b"", path=f"/{name}")
    text = ask(url, path="/metrics", method="GET")[2].decode()
    assert 'price_products_total{outcome="priced",version="v1"}' in text
    assert 'price_requests_total{path="other",status="404"}' in text
    assert "price_batch_size_bucket" in text
    assert 'path="/a"' not in text


def test_nobody_waits_any_more_after_the_last_batch():
    """Incident: of several workers, one that had been asked while it was busy was busy for ever."""
    fake = Fake()
    app = create_app(fake, "v1", limits=Limits(max_batch=1, max_wait=0), log=lambda line: None)
    with in_thread(app) as url:
        fake.gate.clear()
        asked = threading.Thread(target=ask, args=(url, {"products": [KETTLE] * 3}))
        asked.start()
        while app.state.service.batcher.depth < 2:
            time.sleep(0.01)
        assert b"price_queue_products 2.0" in ask(url, path="/metrics", method="GET")[2]
        fake.gate.set()
        asked.join(20)
        assert app.state.service.metrics.registry.get_sample_value("price_queue_products") == 0


def test_a_pricer_that_cannot_be_opened_is_said_and_not_ready():
    def broken():
        raise ValueError("no such model")

    told = []
    app = create_app(broken, "v1", failed=told.append, log=lambda line: None)
    with pytest.raises(ServerError, match="ready: no such model"), in_thread(app):
        pass
    assert str(told[0]) == "no such model"


def test_the_description_has_examples(url):
    found = json.loads(ask(url, path="/openapi.json", method="GET", key=None)[2])
    schemas = found["components"]["schemas"]
    for name in ("Record", "PriceRequest", "PriceResponse", "ChatRequest", "ResponsesRequest"):
        assert schemas[name]["examples"], name
    body = schemas["PriceRequest"]["examples"][0]
    assert ask(url, body)[0] == 200
    page = ask(url, path="/docs", method="GET", key=None)[2].decode()
    assert "http://" not in page.replace("http://127.0.0.1", "")
    assert "https://" not in page  # the page works without a network


@needs_browser
def test_the_page_prices_its_example_in_a_real_browser_without_any_other_server(url):
    """Incident: the usual page of documentation fetches its code elsewhere, and was blank."""
    from playwright.sync_api import sync_playwright

    problems, asked = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})  # a phone
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}/docs")
        page.get_by_label("Key").fill(KEY)
        box = page.locator("section", has=page.get_by_role("heading", name="POST /v1/price"))
        box.get_by_role("button", name="Send").click()
        answer = box.get_by_role("status")
        answer.get_by_text('"price"').wait_for(timeout=20_000)
        text, wide = answer.inner_text(), page.evaluate("document.documentElement.scrollWidth")
        if SCREENSHOT:
            page.screenshot(path=SCREENSHOT)
        browser.close()
    assert text.startswith("200")
    assert json.loads(text.partition("\n")[2])["results"][0]["price"] > 0
    assert not problems
    assert all(one.startswith(url) for one in asked)
    assert wide <= 390
