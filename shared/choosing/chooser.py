"""Requirements in, techniques with their reasons out; if none is left, what would have to give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.choosing.facts import SETUPS, Technique, techniques
from shared.choosing.measured import Row
from shared.choosing.requirements import Requirements
from shared.choosing.rules import RULES, Finding, Verdict, duration, usd_per_month


@dataclass(frozen=True)
class Judged:
    """A technique, the measured result it was judged by (None: none is there), the findings."""

    technique: Technique
    row: Row | None
    findings: tuple[Finding, ...]
    usd_per_month: float | None = None

    @property
    def out(self) -> tuple[Finding, ...]:
        """The findings that rule it out; empty if it is possible."""
        return tuple(f for f in self.findings if f.verdict is Verdict.OUT)

    @property
    def possible(self) -> bool:
        """Whether it breaks no requirement, as far as is known."""
        return not self.out

    def __repr__(self) -> str:
        head = f"{self.technique.title}: {'possible' if self.possible else 'out'}"
        marks = {Verdict.OUT: "x", Verdict.FOR: "+", Verdict.AGAINST: "-"}
        order = list(marks)
        findings = sorted(self.findings, key=lambda f: order.index(f.verdict))
        return "\n".join([head, *(f"  {marks[f.verdict]} {f.reason}" for f in findings)])


@dataclass(frozen=True)
class Relax:
    """Requirements that, changed to ``values`` together, make ``technique`` possible."""

    technique: Technique
    values: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self.technique.title}, with {' and '.join(map(_said, self.values.items()))}"


@dataclass(frozen=True)
class Choice:
    """All techniques, the possible ones first and best first; ``relax`` if none is possible."""

    requirements: Requirements
    judged: tuple[Judged, ...]
    relax: tuple[Relax, ...]

    @property
    def possible(self) -> tuple[Judged, ...]:
        """The techniques that break no requirement."""
        return tuple(j for j in self.judged if j.possible)

    @property
    def best(self) -> Judged | None:
        """The first of the possible techniques, if there is one."""
        return self.possible[0] if self.possible else None

    def __repr__(self) -> str:
        if self.best:
            head = [f"Take {self.best.technique.title}."]
            if self.best.row is None:
                head = [f"Try {self.best.technique.title}, and measure it: it is not measured yet."]
        else:
            head = ["No technique meets all requirements. Possible would be:"]
            head += [f"  {relax}" for relax in self.relax]
        return "\n".join([repr(self.requirements), *head, "", *map(repr, self.judged)])


def choose(
    requirements: Requirements,
    rows: Sequence[Row] = (),
    *,
    known: Sequence[Technique] | None = None,
) -> Choice:
    """Judge every technique by the requirements and by the rows that ``measured`` returned.

    A technique with several results is judged by the one that breaks the fewest requirements, and
    of these by the best. Possible techniques are ordered: first those that err no more than the
    best, as far as a paired test can tell, the cheapest of them first (then the quickest to set
    up); then the others by error; last what was not measured, the quickest to set up first.
    """
    judged = [_judge(technique, rows, requirements) for technique in known or techniques()]
    judged.sort(key=_order)
    relax = () if any(j.possible for j in judged) else tuple(_relaxed(judged))
    return Choice(requirements, tuple(judged), relax)


def _judge(technique: Technique, rows: Sequence[Row], need: Requirements) -> Judged:
    mine = [row for row in rows if row.technique == technique.id] or [None]
    found = [_findings(technique, row, need) for row in mine]
    return min(found, key=lambda judged: (len(judged.out), _order(judged)))


def _findings(technique: Technique, row: Row | None, need: Requirements) -> Judged:
    findings = tuple(finding for rule in RULES for finding in rule(technique, row, need))
    return Judged(technique, row, findings, usd_per_month(technique, row, need)[0])


def _order(judged: Judged) -> tuple:
    row, setup = judged.row, SETUPS.index(judged.technique.setup.value)
    if row is None or not row.ranked:
        return not judged.possible, 2, setup, 0.0
    if row.may_be_best:
        return not judged.possible, 0, judged.usd_per_month or 0.0, setup, row.mae
    return not judged.possible, 1, row.mae, setup


def _relaxed(judged: Sequence[Judged]) -> list[Relax]:
    """Return what would have to give for the techniques that lack the least."""
    values = [{f.requirement: f.enough for f in j.out} for j in judged]
    fewest = min(map(len, values))
    return [Relax(j.technique, v) for j, v in zip(judged, values, strict=True) if len(v) == fewest]


def _said(pair: tuple[str, Any]) -> str:
    name, value = pair
    words = {
        "data_may_leave": "data that may leave the house",
        "has_gpu": "a GPU",
        "needs_sources": "answers that need no sources",
        "facts_change_days": "facts that do not change",
    }
    if isinstance(value, bool) or value is None:
        return words[name]
    if name == "facts_change_days":
        return f"facts that change every {duration(value)}"
    forms = {
        "examples": "{:,} examples",
        "latency_ms": "a latency of {:,g} ms",
        "budget_usd": "${:,.2f} a month",
        "error_usd": "an error of ${:,.2f}",
    }
    return forms[name].format(value)
