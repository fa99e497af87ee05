"""What a watch notices, how late, and how often wrongly: streams whose change point is known.

A stream is drawn from products that were priced once; so is the reference, anew for each run, as
what is known of unchanged products is luck, too.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import ttest_rel

from shared.data import Product, products
from shared.evaluation.inputs import item_table
from shared.mind.answering import answer
from shared.mind.conversation import Ask, Turn
from shared.watching.noticed import Noticed, Outcome, summed
from shared.watching.reference import Reference, Vocabulary
from shared.watching.watch import Watch, corrected_levels

KINDS = {"inputs": ("length", "unknown", "category"), "outputs": ("price", "failed")}
CANARIES, ALPHA = 200, 0.01
"""Items of the canary, and how often an unchanged model is taken for a changed one."""

HOSTED = 1_000
"""Products that the stand-in's models price: a second each model."""


@dataclass(frozen=True)
class Setting:
    """How a stream is watched.

    ``before`` and ``after`` the change: windows of ``window`` products. ``reference``: products
    in it. True prices become known of a share ``known`` of the products, ``late`` products later.
    ``day``: products between two runs of the canary. Rates as in ``Watch``.
    """

    runs: int = 60
    window: int = 500
    before: int = 6
    after: int = 14
    reference: int = 2_000
    known: float = 0.5
    late: int = 1_000
    day: int = 1_000
    windows_per_alarm: int = 100
    products_per_alarm: int = 10_000
    seed: int = 42


Stream = Mapping[str, np.ndarray]


def simulate(
    items: Any, prices: np.ndarray, setting: Setting | None = None, *,
    category: str | None = None, share: float = 0.10, inflation: float = 0.08,
    hosted: tuple[str, str] = ("gpt-6-sol", "gpt-6-nano"),
) -> list[Noticed]:  # fmt: skip
    """Return what is noticed of four changes: none, a new category, dearer products, another model.

    ``items`` the pricer did not learn from, with their estimates in dollars. ``category`` is kept
    out of the reference, then it is a ``share`` of what is asked. ``inflation``: true prices rise
    by so much, estimates do not. ``hosted``: the stand-in's models before and after a silent
    replacement; only in that stream the prices are theirs.
    """
    setting, table = setting or Setting(), item_table(items)
    asked = products(table)
    names = [p.category for p in asked]
    category = category or _second(names)
    strange = np.array([name == category for name in names])
    if not strange.any() or strange.all():
        raise ValueError(f"no products of {category!r}, or no others: choose another category")
    usual = _stream(table, prices)
    dear = dict(usual) | {"error": usual["error"] - math.log1p(inflation)}
    known = Reference.fit(table.filter(pa.array(~strange)), prices[~strange])
    new = _stream(table.filter(pa.array(strange)), prices[strange], known)
    rest = _stream(table.filter(pa.array(~strange)), prices[~strange])
    fewer = table.slice(0, HOSTED)
    daily = _daily(asked[:HOSTED], hosted, setting)
    theirs, changed = (_stream(fewer, answers[0]) for answers in daily)
    title = f"hosted model replaced: {hosted[1]} for {hosted[0]} (stand-in)"
    changes = {
        "no change": (usual, usual, 1.0),
        f"new category: {share:.0%} {category}": (rest, new, share),
        f"prices rise by {inflation:.0%}": (usual, dear, 1.0),
    }
    base = _watch(usual, setting, None)
    found = [row for name, how in changes.items() for row in _watched(name, *how, base, setting)]
    found += _watched(title, theirs, changed, 1.0, _watch(theirs, setting, None), setting)
    true = fewer["price"].to_numpy(zero_copy_only=False)
    return [*found, _canary(title, true, *daily, setting)]


def stand_in_prices(asked: Sequence[Product], model: str, salt: str = "") -> np.ndarray:
    """Return what the stand-in's ``model`` answers for products, in dollars, without a server.

    ``salt``: asked again, it answers a little differently, as hosted models do.
    """
    texts = [f"How much does it cost?\n<product>\n{p.text}\n</product>" for p in asked]
    said = [answer(Ask(model, (Turn("user", text),), salt=salt), 42).text for text in texts]
    return np.array([float(re.sub(r"[^\d.]", "", text)) for text in said])


def _daily(asked: Sequence[Product], hosted: tuple[str, str], setting: Setting) -> list[np.ndarray]:
    """Return what two models answer on each day before and after the change, (days, products).

    There is one day more before: the one that the others are compared with.
    """
    days = [max(n * setting.window // setting.day, 1) for n in (setting.before, setting.after)]
    return [
        np.array([stand_in_prices(asked, model, str(day)) for day in range(count)])
        for model, count in zip(hosted, (days[0] + 1, days[1]), strict=True)
    ]


def _second(names: Sequence[str]) -> str:
    """Return the category that is second in frequency: neither the rest, nor a rare one."""
    ranked = sorted(set(names), key=lambda name: (-names.count(name), name))
    return ranked[min(1, len(ranked) - 1)]


def _stream(table: pa.Table, prices: np.ndarray, known: Reference | None = None) -> Stream:
    """Return products as columns; their words are judged by each other, or by a reference."""
    own = Reference.fit(table, prices)
    texts = table["text"].to_pylist()
    if len(own) < len(texts):
        raise ValueError(f"{len(texts):,} items: at most {len(own):,} are drawn from, pass fewer")
    unknown = own.unknown if known is None else known.vocabulary.unknown(texts)
    codes = [zlib.crc32(name.encode("utf-8", "replace")) for name in own.category]
    return {
        "length": own.length, "unknown": unknown, "category": np.array(codes),
        "price": own.price, "error": own.error,
    }  # fmt: skip


def _watched(
    name: str, before: Stream, after: Stream, share: float, base: Watch, setting: Setting
) -> list[Noticed]:
    """Run the watch over many streams that change from one population to another."""
    outcomes = []
    for run in range(setting.runs):
        rng = np.random.default_rng([setting.seed, run])
        rows = rng.integers(len(before["length"]), size=setting.reference)
        watch = _watch(_take(before, rows), setting, base)
        outcomes.append(_one_run(watch, before, after, share, setting, rng))
    return [
        summed(name, by, [o[by] for o in outcomes], setting.window) for by in (*KINDS, "errors")
    ]


def _watch(stream: Stream, setting: Setting, like: Watch | None) -> Watch:
    """Return a watch with products as its reference; its thresholds are drawn once, not anew."""
    reference = Reference(**stream, vocabulary=Vocabulary(np.empty(0, np.uint32)))
    return Watch(
        reference, window=setting.window, windows_per_alarm=setting.windows_per_alarm,
        products_per_alarm=setting.products_per_alarm, like=like,
    )  # fmt: skip


def _one_run(
    watch: Watch, before: Stream, after: Stream, share: float, setting: Setting,
    rng: np.random.Generator,
) -> dict[str, Outcome]:  # fmt: skip
    """Return for each way to watch: delay in products, false alarms, and out of how many."""
    change, end = (n * setting.window for n in (setting.before, setting.before + setting.after))
    old = _take(before, rng.integers(len(before["length"]), size=end))
    new = _take(after, rng.integers(len(after["length"]), size=end))
    moved = (np.arange(end) >= change) & (rng.random(end) < share)
    stream = {name: np.where(moved, new[name], old[name]) for name in old}
    found = {by: [] for by in KINDS}
    for start in range(0, end, setting.window):
        tests = watch.tests({n: v[start : start + setting.window] for n, v in stream.items()})
        p, _ = corrected_levels([test.p for test in tests.values()], watch.alpha)
        alarms = {n.split()[0] for n, value in zip(tests, p, strict=True) if value < watch.alpha}
        for by, features in KINDS.items():
            found[by].append(bool(alarms & set(features)))
    outcome = {by: _in_windows(alarms, setting) for by, alarms in found.items()}
    return outcome | {"errors": _in_errors(watch, stream["error"], change, setting, rng)}


def _in_windows(alarms: list[bool], setting: Setting) -> Outcome:
    later = np.flatnonzero(alarms[setting.before :])
    delay = float((later[0] + 1) * setting.window) if len(later) else math.inf
    return delay, sum(alarms[: setting.before]), setting.before


def _in_errors(
    watch: Watch, errors: np.ndarray, change: int, setting: Setting, rng: np.random.Generator
) -> Outcome:
    """Chart the errors as their true prices arrive; after a false alarm the charts start anew.

    They do so at the change, too, if there was one.
    """
    known = np.flatnonzero(np.isfinite(errors) & (rng.random(len(errors)) < setting.known))
    early = known < change
    wrong = _first(watch, errors[known[early]])
    exposed = wrong if wrong > 0 else int(early.sum())
    rest = known[~early] if wrong > 0 else known
    first = _first(watch, errors[rest])
    place = rest[first - 1] + setting.late if first > 0 else math.inf
    delay = place - change + 1 if place < len(errors) else math.inf
    return float(delay), int(wrong > 0), float(exposed)


def _first(watch: Watch, errors: np.ndarray) -> int:
    """Return after how many errors one of the charts alarms, -1 for never."""
    values = (errors, np.abs(errors))
    found = [
        int(chart.first_alarm(v)) for chart, v in zip(watch.cusums, values, strict=True) if len(v)
    ]
    return min((n for n in found if n > 0), default=-1)


def _canary(
    name: str, true: np.ndarray, before: np.ndarray, after: np.ndarray, setting: Setting
) -> Noticed:
    """Compare each day's run with the first, tested as in ``Canary.power``, level included."""
    rng = np.random.default_rng(setting.seed)
    rows = rng.integers(len(true), size=(setting.runs, CANARIES))
    wrong = np.array([_paired(rows, true, before[0], now) for now in before[1:]])
    alarms = np.array([_paired(rows, true, before[0], now) for now in after])
    first = rng.integers(1, setting.day + 1, setting.runs)  # the change comes at some hour
    delay = np.where(alarms.any(axis=0), alarms.argmax(axis=0) * setting.day + first, math.inf)
    outcomes = zip(delay, wrong.sum(axis=0), np.full(setting.runs, len(wrong)), strict=True)
    return summed(name, "canary", list(outcomes), setting.window)


def _paired(rows: np.ndarray, true: np.ndarray, old: np.ndarray, now: np.ndarray) -> np.ndarray:
    logs = [np.log(prices / true)[rows] for prices in (old, now)]
    tests = [ttest_rel(f(logs[1]), f(logs[0]), axis=1).pvalue for f in (np.abs, np.positive)]
    return np.minimum(*tests) < ALPHA / 2


def _take(stream: Stream, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in stream.items()}
