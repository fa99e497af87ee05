"""The rules of the chooser: each looks at one thing, and says what it found and why.

A rule takes a technique, a measured row of it (or None) and the requirements. Its docstring is the
rule as a person would state it; ``rules_text`` prints them all.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from shared.choosing.facts import Technique
from shared.choosing.measured import Row
from shared.choosing.requirements import Requirements
from shared.evaluation.compare import p_text
from shared.evaluation.metrics import number

HOURS_A_MONTH = 730
LOAD = 0.5
"""Share of the time a machine can be kept busy: customers do not come evenly."""


class Verdict(Enum):
    """What a finding means for a technique."""

    OUT = "out"
    AGAINST = "against"
    FOR = "for"


@dataclass(frozen=True)
class Finding:
    """What a rule found. Where it is OUT: which ``requirement`` it breaks, and what would do.

    ``enough`` is a value of the requirement with which this finding would not be one.
    """

    verdict: Verdict
    reason: str
    requirement: str = ""
    enough: Any = None


Rule = Callable[[Technique, Row | None, Requirements], Iterator[Finding]]


def privacy(t: Technique, row: Row | None, need: Requirements) -> Iterator[Finding]:
    """If data may not leave the house, whatever a vendor reads is out."""
    if t.hosted and not need.data_may_leave:
        yield _out(f"data may not leave, and {t.privacy.reason}", "data_may_leave", True)
    elif not t.hosted:
        yield Finding(Verdict.FOR, t.privacy.reason)


def examples(t: Technique, row: Row | None, need: Requirements) -> Iterator[Finding]:
    """What needs more examples than there are is out."""
    least = t.examples.value
    if least > need.examples:
        reason = f"needs about {least:,} examples, and there are {need.examples:,}"
        yield _out(f"{reason}: {t.examples.reason}", "examples", least)


def freshness(t: Technique, row: Row | None, need: Requirements) -> Iterator[Finding]:
    """What takes longer to learn a new fact than the facts take to change is out."""
    change, takes = need.facts_change_days, t.freshness.value
    if change is not None and takes > change:
        after = "are never in the answers"
        if not math.isinf(takes):
            after = f"are in the answers after {duration(takes)}"
        reason = f"facts change every {duration(change)}, and new ones {after}"
        enough = None if math.isinf(takes) else float(takes)
        yield _out(f"{reason}: {t.freshness.reason}", "facts_change_days", enough)


def gpu(t: Technique, row: Row | None, need: Requirements) -> Iterator[Finding]:
    """What needs a GPU is out where there is none, unless it was measured on a CPU."""
    if not t.gpu.value or need.has_gpu:
        return
    if row is not None and row.device == "cpu":
        yield Finding(Verdict.FOR, f"{row.title}: was measured on a CPU, without a GPU")
    else:
        yield _out(f"there is no GPU, and {t.gpu.reason}", "has_gpu", True)


def sources(t: Technique, row: Row | None, need: Requirements) -> Iterator[Finding]:
    """If answers have to name what they rest on, what cannot is out."""
    if need.needs_sources and not t.sources.value:
        yield _out(f"answers need sources, and {t.sources.reason}", "needs_sources", False)
    elif need.needs_sources:
        yield Finding(Verdict.FOR, t.sources.reason)


def accuracy(t: Technique, row: Row | None, need: Requirements) -> Iterator[Finding]:
    """What errs more than is good enough is out; without a measurement nothing is claimed."""
    if row is None:
        yield Finding(Verdict.AGAINST, "not measured here: evaluate it on your items first")
    elif row.mae is None or not row.ranked:
        failed = f"{row.failed:,} of {row.n:,} products failed"
        yield Finding(Verdict.AGAINST, f"{row.title}: {failed}, so its error says little")
    elif need.error_usd is not None and row.mae > need.error_usd:
        reason = f"{_error(row)}, and {number(need.error_usd)} are good enough"
        if row.mae_low is not None and row.mae_low <= need.error_usd:
            reason += ". The interval reaches below that: more test items would tell"
        yield _out(reason, "error_usd", _up(row.mae))
    elif row.is_best:
        yield Finding(Verdict.FOR, f"{_error(row)}, the lowest measured")
    elif row.may_be_best:
        p = p_text(row.p_against_best)
        yield Finding(Verdict.FOR, f"{_error(row)}; its distance from the best may be luck, {p}")
    else:
        yield Finding(Verdict.AGAINST, f"{_error(row)}, worse than the best measured")
    if row is not None and row.label:
        reason = f"measured on a {row.label}, which says nothing about the model it stands in for"
        yield Finding(Verdict.AGAINST, reason)


def latency(t: Technique, row: Row | None, need: Requirements) -> Iterator[Finding]:
    """What was measured to be slower than it may be, for 1 answer in 20, is out."""
    if row is None or row.p95 is None or need.latency_ms is None:
        return
    if 1000 * row.p95 > need.latency_ms:
        reason = f"{_ms(row)} ms measured, and {need.latency_ms:g} ms are allowed"
        yield _out(f"{row.title}: {reason}", "latency_ms", _up(1000 * row.p95))


def budget(t: Technique, row: Row | None, need: Requirements) -> Iterator[Finding]:
    """What costs more a month than there is, in calls or in machines, is out."""
    monthly, how = usd_per_month(t, row, need)
    if monthly is None:
        return
    costs = f"about {number(monthly, '${:,.2f}')} a month {how}"
    if need.budget_usd is not None and monthly > need.budget_usd:
        yield _out(f"{costs}, and {number(need.budget_usd)} are there", "budget_usd", _up(monthly))
    else:
        yield Finding(Verdict.FOR, costs)


def drift(t: Technique, row: Row | None, need: Requirements) -> Iterator[Finding]:
    """That a vendor may change what answers counts against a technique."""
    verdict = Verdict.AGAINST if t.drift.value == "vendor" else Verdict.FOR
    yield Finding(verdict, t.drift.reason)


def setup(t: Technique, row: Row | None, need: Requirements) -> Iterator[Finding]:
    """Hours until a first version count for a technique, weeks against it."""
    verdict = Verdict.AGAINST if t.setup.value == "weeks" else Verdict.FOR
    yield Finding(verdict, f"{t.setup.value} to a first version: {t.setup.reason}")


RULES: tuple[Rule, ...] = (
    privacy, examples, freshness, gpu, sources, accuracy, latency, budget, drift, setup,
)  # fmt: skip
"""All rules, in the order in which their findings are listed."""


def rules_text() -> str:
    """Return the rules in words, a line each."""
    return "\n".join(f"{rule.__name__:<10}{inspect.getdoc(rule)}" for rule in RULES)


def usd_per_month(t: Technique, row: Row | None, need: Requirements) -> tuple[float | None, str]:
    """Return dollars for 30 days and how they come about; None where nothing is known.

    Calls cost what they were measured to cost. A machine of one's own is paid around the clock,
    and there have to be as many as the volume takes if each can be busy half of the time.
    """
    if row is None:
        return None, ""
    if row.usd_per_thousand is not None and (t.hosted or row.usd_per_thousand > 0):
        calls = f"for {need.per_day:,.0f} calls a day at {number(row.usd_per_thousand, '${:,.4f}')}"
        return row.usd_per_month(need.per_day), f"{calls} per thousand ({row.title})"
    if t.hosted or row.seconds is None:
        return None, ""
    machines = max(math.ceil(need.per_day * row.seconds / (86_400 * LOAD)), 1)
    word = "machine" if machines == 1 else "machines"
    monthly = machines * need.machine_usd_hour * HOURS_A_MONTH
    price = f"{number(need.machine_usd_hour)} an hour" if monthly else "no price (it is there)"
    return monthly, f"for {machines:,} {word} of one's own at {price} ({row.title})"


def duration(days: float) -> str:
    """Return days as people say them: hours if they are few, never if they are infinite."""
    if math.isinf(days):
        return "never"
    value, unit = (days, "day") if days >= 1 else (24 * days, "hour")
    return f"{value:,.3g} {unit}{'' if value == 1 else 's'}"


def _out(reason: str, requirement: str, enough: Any) -> Finding:
    return Finding(Verdict.OUT, reason, requirement, enough)


def _error(row: Row) -> str:
    ends = "" if row.mae_low is None else f" [{number(row.mae_low)} to {number(row.mae_high)}]"
    return f"{row.title}: off by {number(row.mae)}{ends}"


def _ms(row: Row) -> str:
    return f"{1000 * row.p95:,.3g}"


def _up(value: float) -> float:
    """Round up to three digits: what a person would write as the new limit."""
    if value <= 0:
        return 0.0
    digits = 2 - math.floor(math.log10(value))
    if abs(digits) > 300:  # where a power of ten is no float any more
        return value
    rounded = round(math.ceil(value * 10.0**digits) / 10.0**digits, max(digits, 0))
    return rounded if rounded >= value else value
