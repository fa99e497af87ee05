"""Write the listing of a product: title, features, description and details, in many voices."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache

from shared.embedded.prices import Product
from shared.embedded.slots import (
    Facts,
    Template,
    collect_facts,
    fill,
    parse,
    pick,
    sentences,
    word,
)
from shared.embedded.vocabulary import table

STATED, RESTATED = 0.96, 0.5
"""Share of price-carrying facts that the text states: those missing from the title, the others."""

IN_TITLE = {
    "size": 0.85, "second": 0.5, "made": 0.4, "pack": 0.75, "condition": 0.85, "grade": 0.7,
    "kit": 0.35, "nokit": 0.0, "hue": 0.3,
}  # fmt: skip
"""Share of titles that state a fact the product has."""

PUFFERY = 0.3
"""Share of texts with praise that means nothing: "premium", whoever the seller is."""

WITH_TYPOS, TYPO = 0.55, 0.17
"""Share of texts by a careless typist, and the share of their sentences with an error."""

CUT_SHARE, CUT_LENGTH = 0.42, (660.0, 80.0)
"""Texts that a seller's tool cut: their share, and their characters (mean, deviation)."""

FREE_LENGTH, LONGEST = (980.0, 0.66), 4200.0
"""Characters of the other texts (median, deviation of the logarithm), and the most of them."""


@dataclass(frozen=True)
class Style:
    """A voice, see styles.toml."""

    name: str
    pool: str
    bullets: float
    shape: str = "{line}"
    upper: bool = False
    length: float = 1.0


@cache
def styles(category: str) -> tuple[Style, ...]:
    """Return the voices of a category, each as often as its odds say."""
    rows, odds = table("styles")["styles"], table("styles")["odds"]
    mix = odds["everywhere"] | odds[category]
    return tuple(Style(name, **rows[name]) for name, count in mix.items() for _ in range(count))


def _present(product: Product) -> list[str]:
    """Return the facts that this product has, in the order a title states them."""
    has = {
        "grade": product.grade,
        "size": True,
        "second": product.second is not None,
        "made": True,
        "kit": product.kit,
        "nokit": product.type.kit is not None and not product.kit,
        "hue": True,
        "pack": product.pack > 1,
        "condition": product.condition != "new",
    }
    return [fact for fact, present in has.items() if present]


def _title(product: Product, facts: Facts, draw) -> tuple[str, set[str]]:
    """Write a title of the length sellers like; return it with the names of the facts it states."""
    told = {fact for fact in _present(product) if draw() < IN_TITLE[fact]}
    one = {fact: pick(facts[fact], draw) for fact in ("name", "model", "line", *sorted(told))}
    head = [product.brand] if draw() < 0.84 else []
    head += [one["line"]] if draw() < 0.35 else []
    head += [product.line] if product.line else []
    head += [one["model"]] if draw() < 0.3 else []
    head += [one[fact] for fact in ("grade", "size", "second", "made") if fact in told]
    name = one["name"] if draw() < 0.5 else product.type.name.title()
    title = _stretched(" ".join([*head, name]), facts, draw)
    title += f" with {one['kit']}" if "kit" in told else ""
    title += f", {one['hue'].title()}" if "hue" in told else ""
    title += f" ({one['pack'].title()})" if "pack" in told else ""
    title += f" ({one['condition']})" if "condition" in told else ""
    return title, told


def _stretched(title: str, facts: Facts, draw) -> str:
    """Add search words until the title has the length its seller likes, then cut it."""
    target, extras = 25 + 165 * draw() ** 1.7, sentences("extras", "titles", "styles")
    while len(title) < target:
        title += pick((", ", " ", " - ", " | "), draw) + fill(pick(extras, draw), facts, draw)
    return title[:150]


def _target_length(style: Style, rng: random.Random) -> float:
    if rng.random() < CUT_SHARE:
        return rng.gauss(*CUT_LENGTH)
    middle, spread = FREE_LENGTH
    return min(middle * math.exp(rng.gauss(0.0, spread)), LONGEST) * style.length


def typo(text: str, draw) -> str:
    """Drop one letter or space, or swap two, but never touch a number: it may carry the price."""
    spot = int(draw() * (len(text) - 2))
    pair = text[spot : spot + 2]
    if not pair.replace(" ", "").isalpha():
        return text
    return text[:spot] + (pair[::-1] if draw() < 0.5 else pair[1]) + text[spot + 2 :]


def _sentence(templates: tuple[Template, ...], facts: Facts, draw) -> str:
    text = fill(pick(templates, draw), facts, draw)
    return text[:1].upper() + text[1:]


def _lines(product: Product, style: Style, told: set, facts: Facts, room: float, draw) -> list[str]:
    """Write the sentences of the text: facts that carry the price among the seller's talk."""
    stated = [f for f in _present(product) if draw() < (RESTATED if f in told else STATED)]
    lines = [_sentence(sentences(fact, "facts"), facts, draw) for fact in stated]
    if draw() < PUFFERY:
        lines.append(_sentence(sentences("puffery"), facts, draw))
    kind, left, used = product.type.kind, room - sum(map(len, lines)), set()
    talk = tuple(map(sentences, (style.pool, kind, kind, kind, "any")))
    while left > 0:
        template = pick(pick(talk, draw), draw)
        if id(template) in used:  # ask the larger pool, where repeats are rare
            template = pick(talk[-1], draw)
        used.add(id(template))
        line = _sentence((template,), facts, draw)
        lines.insert(int(draw() * (len(lines) + 1)), line)
        left -= len(line) + 1
    if draw() < WITH_TYPOS:
        lines = [typo(text, draw) if draw() < TYPO and len(text) > 20 else text for text in lines]
    return lines


def _shaped(line: str, style: Style, draw) -> str:
    if style.shape != "{line}":
        head = word("benefit", draw)
        line = style.shape.format(line=line, head=head.upper(), key=head.title())
    return line.upper() if style.upper else line


def _laid_out(lines: list[str], style: Style, draw) -> tuple[list[str], list[str]]:
    """Split the sentences into bullet features and paragraphs of description."""
    cut = round(len(lines) * style.bullets) if draw() < 0.9 else 0
    features = [_shaped(line, style, draw) for line in lines[:cut]]
    rest = [line.upper() if style.upper else line for line in lines[cut:]]
    if style.name == "maker" and len(rest) > 3:
        one, two = " ".join(rest[: len(rest) // 2]), " ".join(rest[len(rest) // 2 :])
        return features, ["Product Description", one, "From the Manufacturer", two]
    if style.name in ("questions", "terse"):
        return features, rest
    return features, [" ".join(rest)] if rest else []


@cache
def _detail_rows() -> tuple[tuple[str, float, Template], ...]:
    rows = table("sentences")["details"].items()
    return tuple((key, odds, parse(pattern)) for key, (odds, pattern) in rows)


def write_details(product: Product, facts: Facts, draw) -> dict:
    """Fill in the shop's form: a few keys, many or none, some with a wrong value."""
    if draw() < 0.085:
        return {}
    share = 0.45 + 1.9 * draw()
    details = {"Brand": product.brand} if draw() < 0.72 else {}
    for key, odds, template in _detail_rows():
        if draw() < odds * share:
            details[key] = fill(template, facts, draw)
    if draw() < 0.45:
        details[facts["size_key"][0]] = facts["size"][0]
    if product.second is not None and draw() < 0.25:
        details[facts["second_key"][0]] = facts["second"][0]
    if draw() < 0.28:
        ranks = {product.type.category: 6.3, product.type.name.title() + "s": 3.5}
        details["Best Sellers Rank"] = {
            name: int(10 ** (top * draw())) for name, top in ranks.items()
        }
    if draw() < 0.06:
        details["Unit Count"] = f"{product.pack if draw() < 0.8 else 1}.0 Count"
    return details


def write(product: Product, rng: random.Random) -> tuple[dict, Facts]:
    """Write a clean listing: ``title, features, description, details`` (a dict), and its facts.

    The same ``rng`` state writes nearly the same words about a similar product: near-duplicates.
    """
    draw = rng.random
    style, facts = pick(styles(product.type.category), draw), collect_facts(product, draw)
    title, told = _title(product, facts, draw)
    room = _target_length(style, rng) - len(title)
    features, description = _laid_out(_lines(product, style, told, facts, room, draw), style, draw)
    details = write_details(product, facts, draw)
    if product.brand not in title:
        details.setdefault("Brand", product.brand)
    listing = {"title": title.upper() if style.upper else title, "features": features}
    return listing | {"description": description, "details": details}, facts
