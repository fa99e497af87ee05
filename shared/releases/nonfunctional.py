"""Were the requirements of the first lesson met? Each beside what was measured, and where.

Budget, latency, scale, error and time to market are written down before anything is built
(``shared.choosing.Requirements``). Here they are set against figures, and a figure that nobody
measured is "not measured", never a yes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from shared.choosing import Requirements
from shared.choosing.rules import HOURS_A_MONTH, LOAD, duration
from shared.evaluation.metrics import number
from shared.releases.release import Release
from shared.reports.tables import aligned, pipes

YES, NO, UNMEASURED, FREE = "yes", "no", "not measured", "not required"
_TITLES = ("requirement", "required", "measured", "holds", "where from")
_DAY = 86_400


@dataclass(frozen=True)
class Figure:
    """A measured value, where it comes from, and its 95 % interval if there is one.

    ``label``: "stand-in" for what says nothing about the real thing. Raises ValueError for a value
    that is no number of 0 or more, and for a figure without a source.
    """

    value: float
    source: str
    low: float | None = None
    high: float | None = None
    label: str = ""

    def __post_init__(self) -> None:
        """Refuse what was not measured: no number, or nobody knows where."""
        number_ = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not number_ or not 0 <= self.value < math.inf:
            raise ValueError(f"{self.value!r} ({self.source}) is no measured number of 0 or more")
        if not self.source.strip():
            raise ValueError(f"{self.value!r} comes from nowhere: say where it was measured")


@dataclass(frozen=True)
class Figures:
    """What was measured; None is what was not.

    ``per_second``: products that one machine prices; ``p95_seconds``: what 95 of 100 answers take
    at most; ``error_usd``: mean absolute error; ``usd_per_thousand``: of calls to a vendor;
    ``days_to_market``: from the first day to the first customer.
    """

    per_second: Figure | None = None
    p95_seconds: Figure | None = None
    error_usd: Figure | None = None
    usd_per_thousand: Figure | None = None
    days_to_market: Figure | None = None


@dataclass(frozen=True)
class Check:
    """A requirement, what was measured, and whether it holds: yes, no, not measured, not required.

    Texts, as they stand in the table.
    """

    requirement: str
    required: str
    measured: str
    holds: str
    source: str


def check_requirements(
    need: Requirements, figures: Figures, *, days_to_market: float | None = None, machines: int = 1
) -> list[Check]:
    """Set requirements against figures, with so many machines.

    ``days_to_market``: days until the first customer that were agreed. Raises ValueError for fewer
    than one machine.
    """
    if machines < 1:
        raise ValueError(f"{machines} machines: at least 1")
    return [
        _budget(need, figures, machines),
        _latency(need, figures.p95_seconds),
        _scale(need, figures.per_second, machines),
        _error(need, figures.error_usd),
        _time_to_market(days_to_market, figures.days_to_market),
    ]


def error_of(release: Release, split: str = "test") -> Figure | None:
    """Return a release's error in dollars as it was measured on a split, None if it was not."""
    scores = release.metrics.get(split)
    if not scores or scores.get("mae") is None:
        return None
    where = f"{release.name} ({release.version}), {scores['n']:,} {split} items"
    return Figure(scores["mae"], where, scores["mae_low"], scores["mae_high"], release.label)


def to_console(checks: Sequence[Check]) -> str:
    """Return the checks as a table of plain text."""
    return aligned(_TITLES, _cells(checks), _TITLES)


def to_markdown(checks: Sequence[Check]) -> str:
    """Return the checks as a table in Markdown."""
    return pipes(_TITLES, _cells(checks), _TITLES)


def _budget(need: Requirements, figures: Figures, machines: int) -> Check:
    """Machines are paid around the clock; calls by how many there are in a month of 730 hours."""
    required = "" if need.budget_usd is None else f"{number(need.budget_usd)} a month"
    rent, calls = machines * need.machine_usd_hour * HOURS_A_MONTH, figures.usd_per_thousand
    if figures.per_second is None and calls is None:
        return _unmeasured("budget", required)
    bill = calls.value * need.per_day / 1_000 * HOURS_A_MONTH / 24 if calls else 0.0
    if calls is None and figures.per_second.value * machines < _needed(need):
        text = f"{machines:,} machines do not price the volume: what would is not known"
        return Check("budget", required, text, UNMEASURED, figures.per_second.source)
    own = f"{machines:,} × {number(need.machine_usd_hour)} an hour, all {HOURS_A_MONTH} of a month"
    sources = [own if rent or calls is None else "", _source(calls) if calls else ""]
    measured = number(rent + bill) if rent + bill else "$0.00"
    said = Figure(rent + bill, "; ".join(filter(None, sources)))
    return _check("budget", required, f"{measured} a month", said, need.budget_usd)


def _latency(need: Requirements, p95: Figure | None) -> Check:
    required = "" if need.latency_ms is None else f"95 % within {need.latency_ms:,g} ms"
    if p95 is None:
        return _unmeasured("latency", required)
    limit = None if need.latency_ms is None else need.latency_ms / 1_000
    return _check("latency", required, f"95 % within {p95.value * 1_000:,.3g} ms", p95, limit)


def _scale(need: Requirements, per_second: Figure | None, machines: int) -> Check:
    least = _needed(need)
    required = (
        f"{need.per_day:,.0f} a day: {least:,.3g} a second, if machines are busy {LOAD:.0%} of it"
    )
    if per_second is None:
        return _unmeasured("scale", required)
    found = per_second.value * machines
    measured = f"{found:,.3g} a second with {machines:,} machine{'s' if machines > 1 else ''}"
    more = " (of one machine; more were not measured)" if machines > 1 else ""
    holds = YES if found >= least else NO
    return Check("scale", required, measured, holds, _source(per_second) + more)


def _error(need: Requirements, error: Figure | None) -> Check:
    required = "" if need.error_usd is None else f"off by at most {number(need.error_usd)}"
    if error is None:
        return _unmeasured("error", required)
    measured = number(error.value)
    if error.low is not None and error.high is not None:
        measured += f" [{number(error.low)} to {number(error.high)}]"
        if need.error_usd is not None and error.low <= need.error_usd <= error.high:
            measured += "; more test items would tell"
    return _check("error", required, measured, error, need.error_usd)


def _time_to_market(days: float | None, taken: Figure | None) -> Check:
    required = "" if days is None else f"within {duration(days)}"
    if taken is None:
        return _unmeasured("time to market", required)
    return _check("time to market", required, duration(taken.value), taken, days)


def _check(name: str, required: str, measured: str, found: Figure, limit: float | None) -> Check:
    holds = FREE if limit is None else YES if found.value <= limit else NO
    return Check(name, required, measured, holds, _source(found))


def _unmeasured(name: str, required: str) -> Check:
    return Check(name, required, "", UNMEASURED if required else FREE, "")


def _needed(need: Requirements) -> float:
    """Return products a second that machines have to manage: customers do not come evenly."""
    return need.per_day / _DAY / LOAD


def _source(figure: Figure) -> str:
    return f"{figure.source} ({figure.label})" if figure.label else figure.source


def _cells(checks: Sequence[Check]) -> list[list[str]]:
    return [[getattr(check, f.name) or "—" for f in fields(Check)] for check in checks]
