"""Feeds of offers (RSS, Atom) read into deals: what is on offer, for how much, and where.

A deal is named after its feed and the feed's own name for it: no feed can speak for another's.
"""

from __future__ import annotations

import hashlib
import io
import time
import xml.parsers.expat
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from shared.feeds.cleaning import field_price, named_prices, paragraphs, plain, web_link
from shared.feeds.fetching import Fetcher, FetchError

ITEMS = 500
"""Items of one feed that are read; the rest is counted."""

FORGIVEN = 250_000
"""Bytes up to which a feed that is not well-formed is read all the same, which takes long."""

WHOLE = 1_000
"""Characters of a title in which its price is looked for, which often comes last."""

TOGETHER = 8
"""Feeds that are fetched at a time."""

_ASKED, _LISTED = ("g_sale_price", "sale_price"), ("g_price", "price")


@dataclass(frozen=True)
class Deal:
    """One offer. ``asked`` and ``listed`` are dollars, None where unknown (``reason`` says why).

    ``title`` and ``text`` are plain text, and still nobody's but the feed's; ``link`` may be "".
    """

    id: str
    source: str
    title: str
    text: str
    asked: float | None
    listed: float | None = None
    link: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Feed:
    """What came of a feed. ``error``: why nothing did; ``dropped``: reason -> items left out."""

    url: str
    items: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    unchanged: bool = False
    seconds: float = 0.0
    error: str = ""


def scan(urls: Sequence[str], fetcher: Fetcher) -> tuple[list[Deal], list[Feed]]:
    """Fetch feeds, some at a time, and return their deals, and what came of each feed.

    A feed that fails costs the others nothing. The order is that of the addresses.
    """
    urls = list(dict.fromkeys(urls))
    with ThreadPoolExecutor(TOGETHER) as threads:
        found = list(threads.map(lambda url: _scanned(url, fetcher), urls))
    return [deal for deals, _ in found for deal in deals], [feed for _, feed in found]


def _scanned(url: str, fetcher: Fetcher) -> tuple[list[Deal], Feed]:
    start = time.perf_counter()
    try:
        fetched = fetcher.get(url)
        deals, dropped = read_feed(fetched.body, url)
    except (FetchError, ValueError) as error:
        return [], Feed(url, seconds=time.perf_counter() - start, error=plain(str(error), 300))
    seconds = time.perf_counter() - start
    return deals, Feed(url, len(deals), dropped, fetched.unchanged, seconds)


def read_feed(document: bytes, source: str) -> tuple[list[Deal], dict[str, int]]:
    """Return the deals of a feed, and how many items were dropped for which reason.

    Of several items with one name the first counts, whatever the others ask for. Raises ValueError
    if the document is no feed.
    """
    import feedparser

    if len(document) > FORGIVEN and (wrong := _not_well_formed(document)):
        raise ValueError(f"{source}: XML that is damaged ({wrong}), and too long to be guessed at")
    try:
        found = feedparser.parse(
            io.BytesIO(document), sanitize_html=False, resolve_relative_uris=False
        )
    except Exception as error:  # a parser of broken things breaks in ways of its own
        raise ValueError(f"{source}: cannot be read as a feed ({type(error).__name__})") from error
    if not found.get("version") and not found.entries:
        raise ValueError(f"{source}: no RSS or Atom feed")
    deals: dict[str, Deal] = {}
    dropped: Counter[str] = Counter()
    for entry in found.entries[:ITEMS]:
        deal = _deal(entry, source)
        why = "no title" if not deal.title else "repeated name" if deal.id in deals else ""
        dropped[why] += 1
        if not why:
            deals[deal.id] = deal
    dropped[f"beyond the first {ITEMS}"] = max(len(found.entries) - ITEMS, 0)
    return list(deals.values()), {why: n for why, n in dropped.items() if why and n}


def _not_well_formed(document: bytes) -> str:
    parser = xml.parsers.expat.ParserCreate()
    try:
        parser.Parse(document, True)
    except (xml.parsers.expat.ExpatError, ValueError, LookupError) as error:
        return str(error)
    return ""


def _deal(entry: Mapping[str, Any], source: str) -> Deal:
    title, link = plain(_text(entry, "title")), web_link(_text(entry, "link"))
    body = entry.get("content") or [{"value": entry.get("summary")}]
    markup = next((str(part.get("value")) for part in body if part.get("value")), "")
    text = paragraphs(markup)
    name = _text(entry, "id")[:2_000] or link or f"{title}\n{text}"
    digest = hashlib.sha256(f"{source}\n{name}".encode("utf-8", "replace")).hexdigest()[:12]
    try:
        asked, listed = _prices(entry, plain(_text(entry, "title"), WHOLE), text)
        reason = "" if asked else "no price"
    except ValueError as error:
        asked, listed, reason = None, None, str(error)
    return Deal(digest, source, title, text, asked, listed, link, reason)


def _prices(entry: Mapping[str, Any], title: str, text: str) -> tuple[float | None, float | None]:
    """Return what is asked and what was: fields for it count, then the title, then the text.

    Raises ValueError where that cannot be told: two prices are no price.
    """
    fields = {name: _text(entry, name) for name in (*_ASKED, *_LISTED)}
    said = {name: value for name, value in fields.items() if value.strip()}
    if said:
        read = {name: field_price(value) for name, value in said.items()}
        if wrong := next((name for name, value in read.items() if value is None), None):
            raise ValueError(f"{plain(said[wrong], 30)!r} is no price in dollars")
        asked, listed = (next((read[n] for n in names if n in read), None)
                         for names in (_ASKED, _LISTED))  # fmt: skip
        return (asked, listed) if asked else (listed, None)
    for where in (title, text):
        asked, listed = named_prices(where)
        if len(set(asked)) > 1:
            raise ValueError("several prices are named, and none is said to be asked")
        if asked:
            return asked[0], max(listed, default=None)
    return None, None


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""
