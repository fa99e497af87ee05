"""Fill the {slots} of sentence patterns: from word lists, from makers, from a product's facts."""

from __future__ import annotations

import re
import string
from functools import cache

from shared.embedded.prices import Product
from shared.embedded.vocabulary import (
    MANNERS,
    TOPICS,
    manner,
    plain_material,
    pools,
    spellings,
    table,
    topic,
)

Template = tuple[tuple[str, object], ...]
"""A sentence pattern, parsed: pairs of literal text and what fills the slot after it."""

Facts = dict[str, tuple[str, ...]]
"""What the slots may say about one product: equally good wordings by slot name."""


def _digits(draw) -> str:
    return str(int(10 ** (2 + 3 * draw())))


def part_number(draw) -> str:
    """Coin a part number in one of five notations."""
    number, letter = int(draw() * 9e7) + 10**7, "ABCDEFGHKLMNPRSTWX"
    one, two = letter[int(draw() * 18)], letter[int(draw() * 18)]
    return (
        f"W{one}{two}{number}", f"{one}{two}{number % 90 + 10}-{number // 90 % 90000:05}A",
        f"{one}{two}-{number % 9000 + 1000}", f"{number % 900 + 100}-{number // 900 % 9000}",
        f"{one}{number % 900000 + 100000}{two}",
    )[int(draw() * 5)]  # fmt: skip


def pick(words: tuple, draw):
    """Draw one of some words."""
    return words[int(draw() * len(words))]


def word(pool: str, draw) -> str:
    """Draw one word of a list of words.toml."""
    return pick(pools()[pool], draw)


def _surname(draw) -> str:
    middle = word("syllable_b", draw) if draw() < 0.35 else ""
    return (word("syllable_a", draw) + middle + word("syllable_c", draw)).capitalize()


MAKERS = {
    "number": lambda draw: str(int(2 + 60 * draw() ** 1.5)),
    "digits": _digits,
    "small": lambda draw: str(int(1 + 9 * draw())),
    "day": lambda draw: str(int(1 + 28 * draw())),
    "year": lambda draw: str(int(2023 - 30 * draw() ** 1.6)),
    "upc": lambda draw: str(int(draw() * 9e11 + 1e11)),
    "fits": part_number,
    "tech": lambda draw: word("tech_a", draw) + word("tech_b", draw) + "™" * (draw() < 0.2),
    "surname": _surname,
    "brand_other": _surname,
    "shop": lambda draw: f"{_surname(draw)} {word('suffix', draw)}",
}
"""Slots whose words are made up on the spot."""


def parse(pattern: str) -> Template:
    """Resolve the slots of a pattern: a maker, a word list, or the name of a product's fact."""
    from_facts = TOPICS.keys() | MANNERS.keys()
    sources = {**pools(), **MAKERS, **{slot: slot for slot in from_facts}}
    parts = string.Formatter().parse(pattern)
    return tuple((literal, sources.get(slot, slot)) for literal, slot, _, _ in parts)


@cache
def sentences(name: str, group: str | None = None, file: str = "sentences") -> tuple[Template, ...]:
    """Return the parsed lines of one text of a vocabulary file."""
    text = table(file)[name] if group is None else table(file)[group][name]
    return tuple(parse(line) for line in text.splitlines() if line)


_ARTICLE = re.compile(r"\b([Aa]) (?=[aeioAEIO]|u(?!s|ni|ti))")
"""Where "a" should be "an": the template cannot know which word a slot will get."""


def fill(template: Template, facts: Facts, draw) -> str:
    """Write one sentence."""
    words = []
    for literal, source in template:
        words.append(literal)
        if type(source) is str:
            source = facts[source]
        if type(source) is tuple:
            words.append(source[int(draw() * len(source))])
        elif source is not None:
            words.append(source(draw))
    sentence = "".join(words)
    if " a " not in sentence and not sentence.startswith("A "):  # most: spare them the pattern
        return sentence
    return _ARTICLE.sub(r"\1n ", sentence)


@cache
def _detail_key(unit: str) -> str:
    return table("words")["detail_keys"].get(unit, "Size")


@cache
def _pack_words(count: int) -> tuple[str, ...]:
    special = {2: ("pair", "twin pack"), 6: ("half-dozen pack",), 12: ("dozen", "full dozen")}
    words = (f"set of {count}", f"{count}-pack", f"pack of {count}", f"{count} pack")
    return words + special.get(count, ())


def _bulk(product: Product, draw) -> Facts:
    """Return weight and dimensions: dear and big things tend to be heavy, a hint and no more."""
    size = product.size / product.type.size.middle
    pounds = 0.04 * product.type.base**0.95 * size**0.5 * 2 ** (draw() - 0.5) * product.pack**0.8
    sides = sorted(5 * pounds ** (1 / 3) * (0.5 + draw()) for _ in range(3))
    weight = f"{pounds * 16:.1f} ounces" if pounds < 1 else f"{pounds:.2g} pounds"
    return {"weight": (weight,), "dimensions": (" x ".join(f"{side:.2g}" for side in sides),)}


def collect_facts(product: Product, draw) -> Facts:
    """Collect what the slots may say about this product."""
    kind, second, styles = product.type, product.type.second, table("styles")
    return {
        **topic(kind.name),
        **manner(product.tier.name),
        **_bulk(product, draw),
        "name": kind.names,
        "plural": tuple(f"{name}s" for name in kind.names[1:]),
        "part": kind.parts,
        "part_cap": tuple(part.capitalize() for part in kind.parts),
        "brand": (product.brand,),
        "line": (word("line", draw),),
        "model": (part_number(draw),),
        "hue": (product.color,),
        "color_cap": (product.color.capitalize(),),
        "made": (product.made[0],),
        "plain": (plain_material(product.made[0]),),
        "size": spellings(kind.size.unit, product.size),
        "size_key": (_detail_key(kind.size.unit),),
        "second": spellings(second.unit, product.second) if second else ("",),
        "second_key": (_detail_key(second.unit) if second else "",),
        "pack": _pack_words(product.pack),
        "condition": tuple(styles["conditions"][product.condition]),
        "grade": (styles["grades"].get(kind.kind, "Professional"), "Professional"),
        "kit": (kind.kit[0] if kind.kit else "",),
    }
