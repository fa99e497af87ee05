"""Feeds to practise on: offers made from the catalogue's test items, served from this machine.

Which of them are good is known, since the catalogue's prices are. What they say of themselves is
what shops say: loud titles, list prices nobody ever asked, no price at all, twice the same.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xml.sax.saxutils import escape

import pyarrow as pa

GOOD = 0.5
"""An offer is good if it asks for at most this share of the product's true price."""

KINDS = {
    "good": (0.22, 0.15, 0.45),
    "tempting": (0.22, 0.60, 0.80),
    "fair": (0.28, 0.85, 1.15),
    "bad": (0.20, 1.30, 2.50),
    "unpriced": (0.08, 1.0, 1.0),
}
"""Kind -> share of offers, and the least and most of the true price that is asked."""

_LOUD = ("HOT DEAL: ", "70% OFF! ", "Price error? ", "Today only: ", "")


@dataclass(frozen=True)
class Offer:
    """What is true of an offer: ``price`` the product's, ``asked`` the offer's, in dollars."""

    link: str
    kind: str
    price: float
    asked: float

    @property
    def good(self) -> bool:
        """Whether it should be alerted."""
        return self.kind != "unpriced" and self.asked <= GOOD * self.price


@dataclass(frozen=True)
class Feeds:
    """Documents by path, and what is true of the offers in them, by link."""

    documents: Mapping[str, bytes]
    truth: Mapping[str, Offer]


def make_feeds(
    items: pa.Table, seed: int = 42, *, offers: int = 60, feeds: int = 3, repeated: float = 0.1,
    extra: Sequence[str] = (),
) -> Feeds:  # fmt: skip
    """Make feeds of offers of items (ITEM schema, with prices), the same for the same seed.

    A share ``repeated`` of the offers is in two feeds. ``extra``: items in XML, put into the first
    feed. Raises ValueError if there are fewer items than offers.
    """
    if items.num_rows < offers:
        raise ValueError(f"{items.num_rows} items are too few for {offers} offers")
    rng = random.Random(f"feeds {seed}")
    rows = [items.slice(at, 1).to_pylist()[0] for at in rng.sample(range(items.num_rows), offers)]
    written: list[list[str]] = [[] for _ in range(feeds)]
    truth = {}
    for row in rows:
        offer, xml = _offer(row, rng)
        truth[offer.link] = offer
        first = rng.randrange(feeds)
        written[first].append(xml)
        if feeds > 1 and rng.random() < repeated:
            written[(first + 1) % feeds].append(xml)
    written[0] += extra
    documents = {f"/feed-{n}.xml": document(xml) for n, xml in enumerate(written, start=1)}
    return Feeds(documents, truth)


def _offer(row: Mapping[str, Any], rng: random.Random) -> tuple[Offer, str]:
    kind = rng.choices(list(KINDS), [share for share, _, _ in KINDS.values()])[0]
    asked = max(round(row["price"] * rng.uniform(*KINDS[kind][1:]), 2), 0.5)
    link = f"https://shop.example/item/{row['id']}"
    loud = "" if kind == "fair" else rng.choice(_LOUD)
    before = round(max(row["price"], asked) * rng.uniform(1.2, 3.0), 2)
    where = "none" if kind == "unpriced" else rng.choice(["field", "field", "title", "text"])
    text = row["text"].removeprefix(row["title"]).strip()
    body = f"<p>Price: ${asked:,.2f} (was ${before:,.2f})</p>" if where == "text" else ""
    body += "".join(f"<p>{escape(line)}</p>" for line in text.split("\n"))
    title = loud + row["title"] + (f" - ${asked:,.2f}" if where == "title" else "")
    prices = {"g:price": before, "g:sale_price": asked} if where == "field" else {}
    return Offer(link, kind, row["price"], asked), item(row["id"], title, body, link, **prices)


def item(name: str, title: str, body: str = "", link: str = "", **prices: float | str) -> str:
    """Return an item of an RSS feed; numbers among ``prices`` become dollars."""
    fields = {"guid": name, "title": title, "link": link, "description": body}
    said = {n: f"{p:.2f} USD" if isinstance(p, float) else str(p) for n, p in prices.items()}
    lines = "".join(f"<{n}>{escape(text)}</{n}>" for n, text in (fields | said).items() if text)
    return f"<item>{lines}</item>"


def document(items: Sequence[str]) -> bytes:
    """Return an RSS feed of items."""
    head = "<?xml version='1.0' encoding='utf-8'?><rss version='2.0'"
    head += " xmlns:g='http://base.google.com/ns/1.0'><channel><title>Offers</title>"
    return f"{head}{''.join(items)}</channel></rss>".encode("utf-8", "replace")


Page = bytes | Callable[[BaseHTTPRequestHandler], None]


class FeedServer:
    """Serves documents from a free port of this machine, for a ``with``.

    ``documents``: path -> bytes, or a function that gets the request and answers as it likes. They
    may be changed meanwhile. Documents have an ETag. ``asked`` lists (path, headers) of all
    requests, and ``url`` is the server's address, to be allowed by a ``Fetcher``.
    """

    def __init__(self, documents: Mapping[str, Page]) -> None:
        self.documents = dict(documents)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def feeds(self) -> list[str]:
        """The addresses of all documents but robots.txt."""
        return [self.url + path for path in self.documents if path != "/robots.txt"]

    def __enter__(self) -> FeedServer:
        """Listen, in threads of its own."""
        handler = type("Handler", (_Handler,), {"feeds": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False  # who hangs on purpose is not waited for
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="feeds", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening; pages that wait for ``stopping`` end."""
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    feeds: FeedServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.feeds.asked.append((path, dict(self.headers.items())))
        page = self.feeds.documents.get(path)
        try:
            if callable(page):
                self.close_connection = True
                page(self)
            else:
                self._document(page)
        except OSError:  # a client that hangs up is no error of ours
            self.close_connection = True

    def _document(self, page: bytes | None) -> None:
        tag = f'"{hash(page) & 0xFFFFFFFF:08x}"'
        known = page is not None and self.headers.get("If-None-Match") == tag
        self.send_response(404 if page is None else 304 if known else 200)
        body = b"" if page is None or known else page
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write no log: it would mix with what a notebook shows."""
