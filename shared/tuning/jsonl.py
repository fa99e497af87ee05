"""Examples to fine-tune on: written from items, and checked line by line before money is spent.

One JSON object a line, in the chat format that every vendor takes. The wording is the course's
own (``shared.prompts``): a model is taught the very question that it will be asked.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from shared.data import price_mix
from shared.data.duplicates import Sketches, clusters, jaccard
from shared.data.storage import fingerprint, replacing
from shared.frontier.models import find_model
from shared.frontier.money import CHARS_PER_TOKEN
from shared.prompting.techniques import MOST_CHARS
from shared.prompts import SYSTEM, NotAPrice, answer, parse_price, question

LEAST = 10
"""Examples that OpenAI asks for at least."""

MOST_TOKENS = 65_536
"""Tokens of one example; OpenAI cuts longer ones off, and with them their answer."""

SHOWN = 8
"""Problems that a printed report lists; ``Check.problems`` has all."""

ROLES = ["system", "user", "assistant"]


class JsonlError(ValueError):
    """Examples that cannot be taught; the message names file, line, field and remedy."""


@dataclass(frozen=True)
class Example:
    """One example: its line (from 1), the product's text, dollars, and about how many tokens."""

    line: int
    text: str
    price: float
    tokens: int


@dataclass(frozen=True)
class Prepared:
    """A file of examples that was written. ``items`` is the fingerprint of what it was drawn from.

    ``digest`` is the file's own: equal arguments give equal bytes.
    """

    path: Path
    examples: int
    items: str
    seed: int
    digest: str


def prepare(items: pa.Table, path: Path, *, examples: int = 500, seed: int = 42) -> Prepared:
    """Write a seeded sample of training items (ITEM schema) as chat examples, one a line.

    Texts are cut as the pricers cut them, and a text is used once. Raises ValueError for items of
    the test split, for prices that no answer can name, and if there are too few items.
    """
    if "split" in items.column_names and "test" in items["split"].unique().to_pylist():
        raise ValueError("items of the test split: a model that was taught them cannot be tested")
    order = np.random.default_rng(seed).permutation(len(items))
    lines: dict[str, str] = {}
    for item in items.take(order).to_pylist():
        if len(lines) == examples:
            break
        asked = question(item["text"][:MOST_CHARS])
        lines.setdefault(same_text(asked), _line(asked, item))
    if examples < 1 or len(lines) < examples:
        raise ValueError(f"{examples:,} examples from {len(lines):,} different items: ask for less")
    data = "".join(lines.values()).encode()
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(data)
    return Prepared(Path(path), len(lines), fingerprint(items), seed, digest(data))


def _line(asked: str, item: dict) -> str:
    said = answer(item["price"] or 0.0)
    try:
        parse_price(said)
    except NotAPrice as error:
        raise ValueError(f"item {item['id']}: {error}; leave it out") from None
    turns = zip(ROLES, (SYSTEM, asked, said), strict=True)
    # Escaped to ASCII: a line separator of Unicode in a text is a line end to some readers.
    return json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]}) + "\n"


def text_of(asked: str) -> str | None:
    """Return the product's text from a question, or None if it is not ``prompts.question``'s."""
    before, after = question("\n").split("\n\n\n")
    text = asked.removeprefix(before + "\n").removesuffix("\n" + after)
    return text if asked == f"{before}\n{text}\n{after}" else None


@dataclass
class Check:
    """What ``validate`` found. Tokens are about; prices and costs are dollars.

    ``too_long``: lines above the limit of tokens. ``duplicates``: (line, earlier line with the
    same product). ``leaks``: (line, id of the test item). ``quartiles``: 25, 50 and 75 % of the
    prices; ``bands``: price band -> share. ``cost_usd``: None without a price of training.
    """

    path: Path
    epochs: int
    model: str = ""
    examples: list[Example] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    too_long: list[int] = field(default_factory=list)
    duplicates: list[tuple[int, int]] = field(default_factory=list)
    leaks: list[tuple[int, str]] = field(default_factory=list)
    tokens: int = 0
    longest: int = 0
    quartiles: tuple[float, ...] = ()
    bands: dict[str, float] = field(default_factory=dict)
    cost_usd: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the file may be taught."""
        return not self.problems

    def __str__(self) -> str:
        cost = "" if self.cost_usd is None else f": about ${self.cost_usd:.2f}"
        quartiles = ", ".join(f"${price:.2f}" for price in self.quartiles)
        bands = ", ".join(f"{name}: {share:.0%}" for name, share in self.bands.items())
        lines = [
            f"{self.path.name}{self.model and f' for {self.model}'}: "
            f"{len(self.examples):,} examples, {len(self.problems):,} problems",
            f"about {self.tokens:,} tokens (the longest example: {self.longest:,}), "
            f"{self.tokens * self.epochs:,} in {self.epochs} epochs{cost}",
            f"quartiles of the prices: {quartiles}; dollars {bands}",
        ]
        lines += self.problems[:SHOWN]
        lines += [f"… {len(self.problems):,} in all"] * (len(self.problems) > SHOWN)
        return "\n  ".join(lines)

    def complain(self, line: int, what: str) -> None:
        """Add a problem of a line."""
        self.problems.append(f"{self.path.name}, line {line}{what}")


def validate(
    path: Path, *, test_items: pa.Table | None = None, model: str = "", epochs: int = 3,
    training_price: float | None = None, least: int = LEAST, most_tokens: int = MOST_TOKENS,
) -> Check:  # fmt: skip
    """Check every line of a file of examples; nothing is raised for what is wrong in it.

    ``test_items`` (ITEM schema) are looked for among the examples, near-duplicates too.
    ``model`` is the one to be tuned, ``training_price`` dollars per million tokens trained on.
    Raises JsonlError if the file cannot be read, ValueError for a model that is not known, for
    epochs that are no number of 1 or more, and for a price below 0.
    """
    check_epochs(epochs)
    check_price(training_price)
    check = Check(Path(path), epochs, model)
    if model and not find_model(model).fine_tuning:
        check.problems.append(f"{model} cannot be fine-tuned: choose another base")
    _read_lines(check)
    if len(check.examples) < least:
        check.problems.append(f"{len(check.examples)} good examples: {least} are needed at least")
    if check.examples:
        _measure(check, most_tokens)
        _find_duplicates(check)
        if test_items is not None and len(test_items):
            _find_leaks(check, test_items)
    check.cost_usd = training_price and check.tokens * epochs * training_price / 1e6
    return check


def check_epochs(epochs: int) -> None:
    """Raise ValueError unless these are whole epochs, 1 or more."""
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise ValueError(f"epochs={epochs!r}: a whole number of 1 or more")


def check_price(dollars: float | None) -> None:
    """Raise ValueError for a price of training that is none: it would let a job pass any cap."""
    if dollars is not None and not 0 <= dollars < math.inf:
        raise ValueError(f"training_price={dollars!r}: dollars per million tokens, 0 or more")


def same_text(text: str) -> str:
    """Return a text without what makes two copies of it look different: spaces and case."""
    return " ".join(text.split()).casefold()


def digest(data: bytes) -> str:
    """Return a short hash of bytes, 16 hex digits."""
    return hashlib.sha256(data).hexdigest()[:16]


def _read_lines(check: Check) -> None:
    try:
        data = check.path.read_bytes()
    except OSError as error:
        raise JsonlError(f"{check.path}: {error.strerror}; prepare() writes it") from None
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else (), 1):
        try:
            check.examples.append(_example(number, line))
        except _Fault as fault:
            check.complain(number, str(fault))


class _Fault(Exception):
    """What is wrong in a line: the field, the fault, the remedy."""

    def __init__(self, where: str, what: str, remedy: str) -> None:
        super().__init__(f"{f', {where}' if where else ''}: {what}; {remedy}")


def _example(number: int, line: bytes) -> Example:
    asked, said = _contents(line)[1:]
    text = text_of(asked)
    if text is None or not text.strip():
        raise _Fault("messages[1].content", "another question", "use shared.prompts.question")
    try:
        price = parse_price(said)
    except NotAPrice as error:
        raise _Fault("messages[2].content", str(error), "use shared.prompts.answer") from None
    tokens = math.ceil(len(SYSTEM + asked + said) / CHARS_PER_TOKEN)
    return Example(number, text, price, tokens)


def _contents(line: bytes) -> list[str]:
    """Return what system, user and assistant say in a line."""
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _Fault("", f"no JSON ({str(error)[:80]})", "write one object a line") from None
    turns = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(turns, list) or len(value) != 1:
        raise _Fault("messages", "missing, no list, or not alone", "a line has this field only")
    roles = [turn.get("role") if isinstance(turn, dict) else None for turn in turns]
    if roles != ROLES:
        raise _Fault("role", str(roles)[:80], f"there have to be {', '.join(ROLES)}")
    for place, turn in enumerate(turns):
        where, content = f"messages[{place}].content", turn.get("content")
        if not isinstance(content, str) or not content.strip():
            raise _Fault(where, "empty, missing or not a text", "fill it in, or drop the example")
        if re.search("[\ud800-\udfff]", content):
            raise _Fault(where, "half a character (a lone surrogate)", "remove it")
        if len(turn) != 2:
            raise _Fault(f"messages[{place}]", "fields beside role and content", "remove them")
    if turns[0]["content"] != SYSTEM:
        raise _Fault("messages[0].content", "other instructions", "use shared.prompts.SYSTEM")
    return [turn["content"] for turn in turns]


def _measure(check: Check, most_tokens: int) -> None:
    tokens, prices = np.array([(e.tokens, e.price) for e in check.examples]).T
    check.tokens, check.longest = int(tokens.sum()), int(tokens.max())
    check.quartiles = tuple(np.quantile(prices, (0.25, 0.5, 0.75)).tolist())
    check.bands = price_mix(prices)
    check.too_long = [e.line for e in check.examples if e.tokens > most_tokens]
    for line in check.too_long:
        check.complain(line, f": longer than {most_tokens:,} tokens; cut the text")


def _find_duplicates(check: Check) -> None:
    first: dict[str, int] = {}
    for example in check.examples:
        earlier = first.setdefault(same_text(example.text), example.line)
        if earlier != example.line:
            check.duplicates.append((example.line, earlier))
            check.complain(example.line, f": the product of line {earlier} again; delete one")


def _find_leaks(check: Check, items: pa.Table) -> None:
    """Cluster examples and test items together, as curation did before the split."""
    ids, titles, texts = (items[name].to_pylist() for name in ("id", "title", "text"))
    lines = [example.text for example in check.examples]
    tests = [text_of(question(text[:MOST_CHARS])) for text in texts]
    # The first line is the title, but not of a product that has none.
    known = set(titles)
    heads = [head if (head := text.partition("\n")[0]) in known else "" for text in lines]
    labels = clusters(Sketches.of(heads + titles, lines + tests)).tolist()
    tested: dict[int, list[int]] = {}
    for place, label in enumerate(labels[len(lines) :]):
        tested.setdefault(label, []).append(place)
    for example, label in zip(check.examples, labels, strict=False):
        alike = [(jaccard(example.text, tests[at]), ids[at]) for at in tested.get(label, ())]
        for share, item in sorted(alike)[-1:]:  # the most similar one
            check.leaks.append((example.line, item))
            check.complain(example.line, f": {share:.0%} like test item {item}; delete the line")
