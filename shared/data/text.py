"""Cleaning of product texts: what goes, and what must survive because it carries price.

All of it is Polars expressions over whole columns. Rust's regular expressions have no lookahead,
so a rule with an exception is written as ``(keep this)|drop that`` and replaced by ``$1``: the
leftmost, first alternative wins, which makes the exception explicit and the rule fast.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import polars as pl

MASK = "[price]"
"""What stands where a text named a price: the answer must not be in the question."""


def _ascii(pattern: str) -> str:
    r"""Give ``\b``, ``\d``, ``\s`` an ASCII meaning: Rust then matches ten times faster.

    ``\s`` is the plain blank, the only one left on a line once ``_NOISE`` has been removed.
    """
    for name, meaning in ((r"[\d", "[0-9"), (r"\d", "[0-9]"), (r"\s", " "), (r"\b", r"(?-u:\b)")):
        pattern = pattern.replace(name, meaning)
    return pattern


_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_ANNOUNCED = (
    r"(?:msrp|rrp|(?:list|retail|regular|sale|our|unit|original|suggested retail) price|price)"
    r"(?: (?:is|of|at|for|from|only|now|just))*"
)
PRICES = _ascii(
    rf"(?i)(?:\b(?:US|USD|CA|AU) ?)?[$€£¥] ?{_NUMBER}(?: ?- ?[$€£¥]? ?{_NUMBER})?(?: ?USD\b)?"
    rf"|\b(?:USD|EUR|GBP) ?{_NUMBER}"
    rf"|\b{_NUMBER} ?(?:(?:USD|EUR|GBP|dollars?|euros?|bucks|cents)\b|[€£¢])"
    rf"|\b{_ANNOUNCED} ?[:=]? ?{_NUMBER}\b(?: ?USD\b)?"
)
"""A sum of money: a number beside a currency, or after a word that announces a price."""

HINTED_PRICES = _ascii(
    r"(?im)\b(now only|only|just|now|was|valued at|worth|saves?|costs?|for|at):? \d[\d,]*\.\d\d"
    r"( ?[.!;,)\n]|$| (?:each|today|plus|and|or|shipped|shipping|per)\b)"
)
"""A number with cents that looks like a price and is followed by no unit: "only 14.99!"."""

_UNITS = (
    r"w|watts?|kw|hp|v|vac|vdc|volts?|a|amps?|ma|ah|mah|wh|kwh|va|hz|khz|mhz|ghz|b|kb|mb|gb|tb|"
    r"gbps|mbps|btu|btus|rpm|psi|bar|cfm|gpm|lbs?|oz|kg|g|mg|ml|cl|l|liters?|litres?|qt|quarts?|"
    r"gal|gallons?|cu|ft|feet|foot|in|inch|inches|mm|cm|m|km|meters?|yards?|mil|k|p|fps|dpi|mp|"
    r"megapixels?|lumens?|lm|ohms?|db|pcs?|pc|pieces?|packs?|ct|count|sets?|pairs?|rolls?|sheets?|"
    r"keys?|strings?|channels?|ports?|ways?|speed|bit|x|d|awg|gauge|ga|years?|days?|hours?|hrs?|"
    r"min|minutes?|sec|degrees?|f|c|grit|tooth|teeth|t|point|pt|drawers?|shelf|doors?|seats?|tier"
)
_FAMILIES = r"DDR|LPDDR|GDDR|PC|RTX|GTX|RX|USB|HDMI|IP|MIL-STD-|CR|LR|AAA?|SAE|ISO|UL|WIFI|WI-FI"
_PART_LIKE = _ascii(
    r"\b[A-Z]{1,6}[A-Z-]{0,4}\d[A-Z0-9/-]{4,}\b"
    r"|\b\d{2,}[A-Z]{1,4}-?\d[A-Z0-9/-]{3,}\b"
    r"|\b\d{3,}[-/]\d{3,}(?:[-/]\d+)*\b"
    r"|\b\d{7,}\b"
)
PART_NUMBERS = (
    _ascii(rf"((?i:\b\d[\d.,/]*[\s-]?(?:{_UNITS})\b)|\b(?:{_FAMILIES})-?\d+[A-Z0-9.-]*\b)|")
    + _PART_LIKE
)
"""Part numbers (WPW10503278, DC31-00054A, 4391960), but not 1000-watt, 12000BTU or DDR4-3200."""

BOILERPLATE = _ascii(
    r"(?i)\b(?:batteries (?:included|required)\s?\??\s?:?\s?(?:yes|no)?\b\??"
    r"|(?:is )?discontinued by manufacturer\s?:?\s?(?:yes|no)?\b"
    r"|(?:amazon )?best sellers rank\s?:?[^\n]{0,200}"
    r"|date first available\s?:?[^\n]{0,24}"
    r"|customer reviews?\s?:[^\n]{0,60}"
    r"|(?:asin|upc|ean|gtin|item model number|(?:manufacturer |oem )?part number)\s?:[^\n]{0,40}"
    r"|(?:click here )?(?:to )?see more product details\.?"
    r"|make sure this fits by entering your model number\.?"
    r"|(?:100% )?(?:customer )?satisfaction guaranteed\.?"
    r"|product description\b:?|about this item\b:?|from the manufacturer\b:?|imported\s*$)"
)
_LINKS = r"(?i)https?://\S+|www\.\S+|\S+@\S+\.[a-z]+"
_TAGS = r"<[a-zA-Z/!][^<>]{0,200}>"
_NOISE = (
    r"[\x00-\x09\x0b-\x1f\u00a0\x7f\u200b-\u200f\u2028-\u202e\ufeff\ufffd®™©]|[【】■●★☆✓✔►◆•]+"
    r"|[\x{2600}-\x{27BF}\x{1F000}-\x{1FAFF}\x{FE0F}]"  # pictograms
)

_ENGLISH = _ascii(r"(?i)\b(?:the|and|with|for|of|is|to|this|your|in|are|it|you|from|or|on|be)\b")
_FOREIGN = _ascii(
    r"(?i)\b(?:der|das|und|mit|für|nicht|ist|eine?[rnms]?|sie|auf|aus|zum|von|los|las|para|una|"
    r"del|por|su|más|este|esta|les|pour|avec|une|dans|est|sur|votre|ce|della|che|per|il|gli|sono|"
    r"het|een|voor|niet|och|som|não|uma|com|dos)\b"
)
_OTHER_SCRIPT = r"[\x{0370}-\x{1CFF}\x{2E80}-\x{A4CF}\x{AC00}-\x{D7AF}\x{F900}-\x{FAFF}]"


def unescape(texts: pl.Series) -> pl.Series:
    """Resolve HTML entities, twice where a shop escaped them twice; most texts have none."""
    return _change(texts, texts.str.contains("&", literal=True), _unescape)


def _unescape(texts: pl.Series) -> pl.Series:
    return pl.Series([html.unescape(html.unescape(text)) for text in texts], dtype=pl.String)


def scrub(text: pl.Expr) -> pl.Expr:
    """Remove markup, links, boilerplate and part numbers; mask prices; settle white space."""
    return (
        text.str.replace_all(_TAGS, " ")
        .map_batches(_drop_links, pl.String)
        .str.replace_all(_NOISE, " ")
        .str.replace_all(PRICES, MASK)
        .str.replace_all(HINTED_PRICES, f"${{1}} {MASK}${{2}}")
        .str.replace_all(BOILERPLATE, " ")
        .map_batches(_drop_part_numbers, pl.String)
        .pipe(settle)
    )


def _drop_links(texts: pl.Series) -> pl.Series:
    """Look for links only where a literal search, fifty times faster, finds a part of one."""
    maybe = texts.str.contains("://", literal=True) | texts.str.contains("@", literal=True)
    maybe |= texts.str.contains(r"(?i)www\.")
    return _change(texts, maybe, lambda some: some.str.replace_all(_LINKS, " "))


def _drop_part_numbers(texts: pl.Series) -> pl.Series:
    """Weigh exceptions, which takes the slow engine, only where something looks like a part."""
    maybe = texts.str.contains(_PART_LIKE)
    return _change(texts, maybe, lambda some: some.str.replace_all(PART_NUMBERS, "${1}"))


def _change(
    texts: pl.Series, where: pl.Series, change: Callable[[pl.Series], pl.Series]
) -> pl.Series:
    rows = where.arg_true()
    return texts.clone().scatter(rows, change(texts.gather(rows))) if len(rows) else texts


def settle(text: pl.Expr) -> pl.Expr:
    """Collapse blanks, empty lines and the punctuation that removed words left behind.

    For texts without ``_NOISE``. Each step is written around a literal, which is found ten times
    faster than a class of characters.
    """
    return (
        text.map_batches(_plain_blanks, pl.String)
        .str.replace_all(r" {2,}", " ")
        .str.replace_all(r"(?:[,;:/|-] ?){2,}(?:\n|$|,)", "\n")
        .str.replace_all(r" ([,.;])", "$1")
        .str.replace_all(r" ?\n[ \n]*", "\n")
        .str.strip_chars()
    )


def _plain_blanks(texts: pl.Series) -> pl.Series:
    """Make every blank a plain one; in ASCII there is no other left."""
    foreign = texts.str.len_bytes() != texts.str.len_chars()
    return _change(texts, foreign, lambda some: some.str.replace_all(r"[^\S\n ]", " "))


def clip(text: pl.Expr, longest: int) -> pl.Expr:
    """Cut a text to at most ``longest`` characters, at a blank where one is near."""
    cut = text.str.slice(0, longest)
    return (
        pl.when(text.str.len_chars() > longest)
        .then(cut.str.replace(r"\s\S{0,40}$", ""))
        .otherwise(text)
    )


def is_english(text: pl.Expr) -> pl.Expr:
    """Tell English from other languages by script and by the small words a text is built with.

    A text of mere nouns and numbers counts as English: part lists have no small words at all.
    """
    return text.map_batches(lambda texts: ~(_other_script(texts) | _other_words(texts)), pl.Boolean)


def _other_script(texts: pl.Series) -> pl.Series:
    letters = texts.str.len_chars()
    rows = (texts.str.len_bytes() != letters).arg_true()  # plain ASCII has no other script
    found = pl.zeros(len(texts), pl.UInt32, eager=True)
    found = found.scatter(rows, texts.gather(rows).str.count_matches(_OTHER_SCRIPT))
    return found / letters.clip(lower_bound=1) > 0.15


def _other_words(texts: pl.Series) -> pl.Series:
    foreign = texts.str.count_matches(_FOREIGN)
    rows = (foreign >= 4).arg_true()  # few texts: the English words of the others need no count
    english = texts.gather(rows).str.count_matches(_ENGLISH)
    found = pl.repeat(False, len(texts), dtype=pl.Boolean, eager=True)
    return found.scatter(rows, foreign.gather(rows) > english)


PRICE_TEXT = re.compile(
    r"^\s*(?:from|now|price|only)?\s*:?\s*(?:US\s?|USD\s?)?(-?)\$?\s*"
    r"((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+)\s*(?:USD|(?:US )?dollars)?\s*$",
    re.IGNORECASE,
)


def parse_price(text: pl.Expr) -> pl.Expr:
    """Read one sum in dollars from what a shop wrote: 12.99, "$1,299.00", "from 14.99".

    Null where no single sum in dollars stands there ("—", "$10 - $20", "12,50 EUR").
    """
    pattern = f"(?i){PRICE_TEXT.pattern}"
    sign, digits = text.str.extract(pattern, 1), text.str.extract(pattern, 2)
    return (sign + digits.str.replace_all(",", "", literal=True)).cast(pl.Float64, strict=False)
