"""Load the catalogue's vocabulary (the TOML files beside this module), once a process."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

QUALIFIERS = frozenset(
    {
        "solid", "genuine", "faux", "vegan", "bonded", "full", "grain", "veneer", "laminate",
        "laminated", "look", "print", "finish", "tone", "color", "colored", "plated", "coated",
        "aged", "wrap", "original", "compatible", "remanufactured", "painted",
    }
)  # fmt: skip
"""Words that tell real walnut from printed walnut; ``details`` leaves them out, texts keep them."""


@dataclass(frozen=True)
class Measure:
    """A measured attribute: its unit, the values on sale, and how strongly price follows it."""

    unit: str
    values: tuple[float, ...]
    exponent: float

    @property
    def middle(self) -> float:
        """The value at which a type has its base price."""
        return self.values[len(self.values) // 2]


@dataclass(frozen=True, eq=False)
class ProductType:
    """One kind of thing the shop sells; ``base`` in dollars, see types.toml for the rest."""

    name: str
    category: str
    kind: str
    base: float
    size: Measure
    second: Measure | None
    made: tuple[tuple[str, float], ...]
    pro: float | None
    packs: tuple[int, ...]
    kit: tuple[str, float] | None
    names: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Tier:
    """How brands of one tier price: the numbers are explained in brands.toml."""

    name: str
    share: float
    factor: float
    slope: float
    renewed: float
    used: float
    open: float
    bulk: float
    spread: float


@cache
def table(name: str) -> dict:
    """Return one vocabulary file as a dictionary."""
    text = files("shared.embedded").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _split(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := " ".join(part.split())))


def _measure(text: str | None) -> Measure | None:
    if text is None:
        return None
    unit, *values, exponent = text.split()
    return Measure(unit, tuple(float(value) for value in values), float(exponent.lstrip("^")))


def _factor(text: str) -> tuple[str, float]:
    words, number = text.rsplit(" ", 1)
    return words, float(number)


def _product_type(category: str, name: str, row: dict) -> ProductType:
    return ProductType(
        name=name,
        category=category,
        kind=row["kind"],
        base=row["base"],
        size=_measure(row["size"]),
        second=_measure(row.get("second")),
        made=tuple(_factor(option) for option in _split(row["made"])),
        pro=row.get("pro"),
        packs=tuple(row.get("packs", ())),
        kit=_factor(row["kit"]) if "kit" in row else None,
        names=(name, name, *_split(row["also"])),
        parts=_split(row["parts"]),
    )


@cache
def product_types() -> dict[str, tuple[ProductType, ...]]:
    """Return the product types of each category."""
    return {
        category: tuple(_product_type(category, name, row) for name, row in rows.items())
        for category, rows in table("types").items()
    }


@cache
def tiers() -> dict[str, Tier]:
    """Return the brand tiers by name."""
    return {name: Tier(name, **row) for name, row in table("brands")["tiers"].items()}


@cache
def brands(category: str, tier: str) -> tuple[str, ...]:
    """Return the known brands of a tier that sell in a category (none for ``noname``)."""
    row = table("brands").get(tier, {})
    return _split(row.get(category, "")) + _split(row.get("everywhere", ""))


@cache
def coined_syllables() -> tuple[tuple[str, ...], ...]:
    """Return the syllables from which the names of unknown sellers are coined."""
    return tuple(tuple(row.split()) for row in table("brands")["coined"].values())


@cache
def pools() -> dict[str, tuple[str, ...]]:
    """Return the word lists by slot name; ``x_cap`` is list ``x`` with a capital."""
    lists = {name: _split(text) for name, text in table("words")["words"].items()}
    for name in ("syllable_a", "syllable_b", "syllable_c", "tech_a", "tech_b"):
        lists[name] = tuple(table("words")["words"][name].split())
    capitals = {f"{name}_cap": tuple(w[0].upper() + w[1:] for w in lists[name]) for name in lists}
    return capitals | lists | {"vehicle": _vehicles(lists)}


def _vehicles(lists: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Invent car models from the syllables: the same ones in every run."""
    rng = random.Random("vehicles")
    draw = rng.random

    def part(name: str) -> str:
        return lists[name][int(draw() * len(lists[name]))]

    makers = [(part("syllable_a") + part("syllable_c")).capitalize() for _ in range(25)]
    models = [(part("syllable_a") + part("syllable_b")).capitalize() for _ in range(160)]
    return tuple(f"{makers[int(draw() ** 1.5 * 25)]} {model}" for model in models)


TOPICS = {
    "rare": 40, "activity": 10, "room": 5, "people": 10, "problem": 8, "hazard": 8, "food": 8,
    "object_plural": 12, "extra": 9, "place_noun": 7, "animal": 6, "tool": 5, "furnishing": 6,
    "material_noun": 8, "nature": 8, "shaped": 5, "occasion": 4, "verb_cap": 4, "vehicle_kind": 4,
}  # fmt: skip
"""Word list -> how many of its words belong to the topic of one product type."""

MANNERS = {"adjective": 14, "adverb": 5, "good": 4, "verbs": 5, "benefit": 7, "style_word": 4}
"""Word list -> how many of its words sellers of one tier prefer."""

FOCUS = 0.94
"""Share of words drawn from the topic or the manner; the rest comes from the whole list."""


def _focused(words: tuple[str, ...], count: int, key: str) -> tuple[str, ...]:
    """Return the list with some of its words repeated, so that they are drawn most of the time."""
    rng = random.Random(key)
    chosen = tuple(words[int(rng.random() * len(words))] for _ in range(count))
    return chosen * round(FOCUS / (1 - FOCUS) * len(words) / count) + words


@cache
def topic(name: str) -> dict[str, tuple[str, ...]]:
    """Return the word lists as texts about one product type use them."""
    return {pool: _focused(pools()[pool], n, f"{name} {pool}") for pool, n in TOPICS.items()}


@cache
def manner(tier: str) -> dict[str, tuple[str, ...]]:
    """Return the word lists as sellers of one tier use them."""
    return {pool: _focused(pools()[pool], n, f"{tier} {pool}") for pool, n in MANNERS.items()}


@cache
def spellings(unit: str, value: float) -> tuple[str, ...]:
    """Return the ways shops write a measured value, the one of ``details`` first."""
    if unit == "gb" and value >= 1000:
        unit, value = "tb", round(value / 1000)
    plain = f"{value:g}"
    forms = table("words")["units"][unit]
    joined = [form for form in forms if form[2] not in " -"]
    texts = [form.format(plain) for form in forms + joined]
    if value >= 1000:
        texts += [form.format(f"{value:,.0f}") for form in forms[:3]]
    return tuple(texts)


@cache
def plain_material(made: str) -> str:
    """Return a material as ``details`` has it: solid walnut and walnut print are both Walnut."""
    words = [word for word in made.replace("-", " ").split() if word not in QUALIFIERS]
    return " ".join(words[:2]).title() or made.title()
