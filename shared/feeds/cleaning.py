"""What strangers wrote, made harmless: plain text without invisible characters, and strict prices.

None of this makes a text trustworthy. It takes away what a person would not see and a model would
read, and what could end the quotes around it; the walls against orders in it are elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from shared.frontier.secrets import redact

TITLE, TEXT, LINK = 250, 4_000, 500
"""Characters of a title, a text, an address that are kept."""

HIGHEST = 100_000.0
"""Dollars above which an asked price is a mistake."""

_INVISIBLE = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef\u034f\u115f\u1160\u3164\uffa0]")
_PILED = re.compile(r"(\S)([\u0300-\u036f]{2})[\u0300-\u036f]+")
_BLOCKS = frozenset("p br div li ul ol tr td th table h1 h2 h3 h4 h5 h6 hr section article".split())
_UNSEEN = frozenset(("script", "style", "template", "noscript", "iframe", "object", "svg"))

_AMOUNT = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d{1,2})?"
_FIELD = re.compile(rf"\s*(?:(?:US ?)?\$ ?|USD ?)?({_AMOUNT})(?: ?USD)?\s*", re.ASCII | re.I)
_OLD = r"(?:was|list(?: price)?|msrp|rrp|reg(?:ular)?(?: price)?|retail(?: price)?|instead of)"
_NAMED = re.compile(
    rf"(?P<old>\b{_OLD}[: ]*)?(?P<joined>[^\s(|$:]*)"
    r"\$ ?(?P<amount>-?\d(?:[\d,.]*\d)?)(?P<unit>[\w%]?)",
    re.IGNORECASE,
)


def plain(text: str, longest: int = TITLE) -> str:
    """Return a text on one line, without what is invisible, and without anything like a key."""
    return " ".join(_visible(text[: 20 * longest]).split())[:longest].strip()


def _visible(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    text = "".join(" " if c in "\n\t" else c for c in text if c in "\n\t" or _is_seen(c))
    return redact(_PILED.sub(r"\1\2", _SELECTORS.sub("", text)))


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in _INVISIBLE


def paragraphs(markup: str, longest: int = TEXT) -> str:
    """Return the text of HTML, a line a paragraph; what a browser would not show is left out."""
    reader = _Reader()
    reader.feed(markup[: 5 * longest])
    reader.close()
    lines = (plain(line, longest) for line in "".join(reader.found).split("\n"))
    return "\n".join(line for line in lines if line)[:longest].strip()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self._hidden += tag in _UNSEEN
        self.found += "\n" if tag in _BLOCKS else ""

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.found += "\n" if tag in _BLOCKS else ""

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(self._hidden - (tag in _UNSEEN), 0)
        self.found += "\n" if tag in _BLOCKS else ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.found.append(data)


def field_price(text: str) -> float | None:
    """Read a field that holds a price and nothing else: "29.99 USD", "$1,299.00", "30".

    None for all else: other currencies, "1.299,00", ranges, words, nothing above zero.
    """
    match = _FIELD.fullmatch(text[:40])
    return _possible(match[1]) if match else None


def named_prices(text: str) -> tuple[list[float], list[float]]:
    """Return the dollars that a text asks for, and those it says a thing cost before.

    Raises ValueError for an amount that is none: negative, foreign, or with digits as in "1.299".
    """
    asked, before = [], []
    for match in _NAMED.finditer(text):
        dollars = match["joined"].upper() in ("", "US") and not match["unit"]
        value = field_price(match["amount"]) if dollars else None
        if value is None:
            raise ValueError(f"{match[0].strip()[:30]!r} is no price in dollars")
        (before if match["old"] else asked).append(value)
    return asked, before


def _possible(digits: str) -> float | None:
    value = float(digits.replace(",", ""))
    return value if 0 < value <= HIGHEST else None


def web_link(url: str) -> str:
    """Return an http(s) address without fragment and campaign, or "" for any other."""
    try:
        parts = urlsplit(url.strip())
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname or parts.username:
            return ""
        kept = [(n, v) for n, v in parse_qsl(parts.query) if not n.lower().startswith("utm_")]
        place = parts.netloc.lower()
        link = urlunsplit((parts.scheme.lower(), place, parts.path, urlencode(kept), ""))
    except ValueError:
        return ""
    harmless = all(_is_seen(c) and not c.isspace() and c not in "<>\"'`\\" for c in link)
    return link if harmless and len(link) <= LINK and redact(link) == link else ""
