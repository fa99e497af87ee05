"""Does the finder find? Precision, recall and cost on feeds whose good offers are known.

Rules are compared on the same feeds: one that believes the estimate, and one that uses the
interval; and planners: a language model, and the plan that needs none.

Where every interval is the same factor wide, a rule by its low end is a rule by the estimate with
another margin. What the interval buys there is that the margin is measured, not guessed; a pricer
whose intervals differ from product to product buys more.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
from scipy.stats import binomtest

from shared.agents.finder import PLAIN, Outcome, find_deals
from shared.agents.fixtures import FeedServer, Offer, make_feeds
from shared.agents.messenger import LogMessenger
from shared.agents.planner import Limits
from shared.agents.rules import Rule
from shared.feeds.fetching import Fetcher
from shared.reports.tables import aligned, pipes

RULES = (Rule("estimate", 0.1), Rule("estimate", 0.3), Rule("estimate", 0.5), Rule("interval", 0.1))


@dataclass(frozen=True)
class AgentScore:
    """How a planner and a rule did, over all seeds. Offers in two feeds count once.

    ``alerts``, and ``right`` ones among them, of ``good`` offers. ``promised`` and ``kept``: how
    far below the estimate, and below the true price, the alerts ask, as mean shares. ``dollars``,
    ``seconds`` and ``steps`` are means of a run.
    """

    planner: str
    rule: str
    label: str
    runs: int
    alerts: int
    right: int
    good: int
    promised: float
    kept: float
    dollars: float
    seconds: float
    steps: float

    @property
    def precision(self) -> tuple[float, float, float]:
        """The share of alerts that are right, and its 95 % interval (Wilson); NaN without any."""
        return proportion(self.right, self.alerts)

    @property
    def recall(self) -> tuple[float, float, float]:
        """The share of good offers that were alerted, and its 95 % interval (Wilson)."""
        return proportion(self.right, self.good)


def proportion(part: int, whole: int) -> tuple[float, float, float]:
    """Return a share and its 95 % Wilson interval; NaN of nothing."""
    if not whole:
        return math.nan, math.nan, math.nan
    ends = binomtest(part, whole).proportion_ci(method="wilson")
    return part / whole, float(ends.low), float(ends.high)


def evaluate_finder(
    items: pa.Table, pricer: Any, *, rules: Sequence[Rule] = RULES,
    planners: Mapping[str, Callable[[], Any]] | None = None, seeds: Iterable[int] = range(1, 6),
    offers: int = 60, limits: Limits = Limits(), sweep: bool = False,  # noqa: B008  frozen
) -> list[AgentScore]:  # fmt: skip
    """Run the finder on the feeds of each seed, for each planner and rule, and score its alerts.

    ``items`` (ITEM schema) should be ones the pricer has not learnt from. ``planners``: name ->
    what connects to its model; the plain plan is always there. Without ``sweep`` a planner is
    scored on what it does itself.
    """
    connects: dict[str, Callable[[], Any] | None] = {PLAIN: None, **(planners or {})}
    runs: dict[tuple[str, str], list[tuple[Outcome, Mapping[str, Offer]]]] = {}
    for seed in seeds:
        made = make_feeds(items, seed, offers=offers)
        with FeedServer(made.documents) as server:
            for name, connect in connects.items():
                for rule in rules:
                    outcome = _run(server, pricer, rule, connect, limits, sweep)
                    runs.setdefault((name, str(rule)), []).append((outcome, made.truth))
    return [_scored(name, rule, found) for (name, rule), found in runs.items()]


def _run(
    server: FeedServer, pricer: Any, rule: Rule, connect: Callable[[], Any] | None,
    limits: Limits, sweep: bool,
) -> Outcome:  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        how = {"rule": rule, "limits": limits, "sweep": sweep}
        how["fetcher"] = Fetcher(allow=(server.url,))
        place = (LogMessenger(Path(folder) / "alerts.jsonl"), Path(folder) / "memory.sqlite")
        if connect is None:
            return find_deals(server.feeds, pricer, *place, **how)
        with connect() as connection:
            return find_deals(server.feeds, pricer, *place, connection=connection, **how)


def _scored(
    name: str, rule: str, runs: Sequence[tuple[Outcome, Mapping[str, Offer]]]
) -> AgentScore:
    alerts = [
        (deal, truth[link])
        for outcome, truth in runs
        for link, deal in {deal.link: deal for deal in outcome.alerts}.items()
        if link in truth
    ]
    below = [1 - offer.asked / deal.price for deal, offer in alerts if deal.price]
    truly = [1 - offer.asked / offer.price for _, offer in alerts]
    outcomes = [outcome for outcome, _ in runs]
    return AgentScore(
        name, rule, outcomes[0].label, len(runs), len(alerts),
        sum(offer.good for _, offer in alerts),
        sum(offer.good for _, truth in runs for offer in truth.values()),
        fmean(below) if below else math.nan, fmean(truly) if truly else math.nan,
        *(fmean(getattr(o, n) for o in outcomes) for n in ("dollars", "seconds", "steps")),
    )  # fmt: skip


_TITLES = ("Planner", "Rule", "Runs", "Alerts", "Precision", "Recall", "Promised", "Kept",
           "Steps", "$ a run", "s a run")  # fmt: skip


def to_console(scores: Sequence[AgentScore]) -> str:
    """Return the scores as a table for a console; shares in per cent."""
    return aligned(_TITLES, [_cells(score) for score in scores], words=_TITLES[:2])


def to_markdown(scores: Sequence[AgentScore]) -> str:
    """Return the scores as a table in Markdown."""
    return pipes(_TITLES, [_cells(score) for score in scores], words=_TITLES[:2])


def _cells(score: AgentScore) -> list[str]:
    label = f" ({score.label})" if score.label else ""
    return [
        score.planner + label, score.rule, str(score.runs), str(score.alerts),
        _share(*score.precision), _share(*score.recall), _share(score.promised), _share(score.kept),
        f"{score.steps:.1f}", f"{score.dollars:.5f}", f"{score.seconds:.2f}",
    ]  # fmt: skip


def _share(share: float, *ends: float) -> str:
    if math.isnan(share):
        return "-"
    return f"{share:.0%}" + (f" [{ends[0]:.0%}, {ends[1]:.0%}]" if ends else "")
