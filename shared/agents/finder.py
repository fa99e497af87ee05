"""One run of the deal finder: scan, remember, plan, alert; safe to kill at any moment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.agents.memory import Entry, Memory, Step, deliver, set_aside
from shared.agents.messenger import Messenger
from shared.agents.planner import Ending, Limits, plan
from shared.agents.rules import Rule
from shared.agents.trace import Listener, Trace
from shared.agents.workbench import Purse, Workbench
from shared.feeds.fetching import Fetcher
from shared.feeds.scanner import Feed, scan

PLAIN = "plain plan"


@dataclass(frozen=True)
class Outcome:
    """What a run did. ``deals``: those it worked on; ``taken``: what feeds offered, by kind.

    ``planner`` is a model or the plain plan, ``label`` "stand-in" where the model is none; ``why``
    its end, after ``steps``; ``dollars`` spent by planner and pricer, all in ``seconds``.
    ``unsent``: alerts that are in the outbox still, and why.
    """

    planner: str
    label: str
    why: str
    steps: int
    seconds: float
    dollars: float
    feeds: tuple[Feed, ...]
    taken: Mapping[str, int]
    deals: tuple[Entry, ...]
    unsent: tuple[str, ...]

    @property
    def alerts(self) -> list[Entry]:
        """The deals of this run that were alerted."""
        return [deal for deal in self.deals if deal.state == "alerted"]

    def __str__(self) -> str:
        label = f" ({self.label})" if self.label else ""
        lines = [
            f"{len(self.deals)} new deals from {len(self.feeds)} feeds, {len(self.alerts)} alerts",
            f"Planner: {self.planner}{label}, {self.steps} steps, {self.why}; "
            f"{self.seconds:.1f} s, ${self.dollars:.4f}",
            *(f"Feed failed: {feed.error}" for feed in self.feeds if feed.error),
            *(f"Not sent yet: {why}" for why in self.unsent),
        ]
        return "\n".join(lines)


def find_deals(
    feeds: Sequence[str], pricer: Any, messenger: Messenger, memory: Path | str, *,
    rule: Rule = Rule(),  # noqa: B008  frozen
    connection: Any = None, limits: Limits = Limits(), sweep: bool = True,  # noqa: B008  frozen
    fetcher: Fetcher | None = None, trace: Path | None = None, listener: Listener | None = None,
    again: bool = True, step: Step = lambda name: None,
) -> Outcome:  # fmt: skip
    """Read feeds, price what is new, and alert what meets the rule; each offer once.

    ``pricer`` has to give intervals if the rule is by them. With a ``connection`` a language model
    plans, within ``limits``; with ``sweep`` the rest is then done without it, so that nothing it
    forgets, or is told to forget, is lost. ``memory``: a file of its own. ``trace``: a new file;
    ``listener`` is told the same events. ``again``: send once more what may have been sent before a
    crash, unless the messenger itself sends a key only once; ``step``: see ``memory.deliver``.

    Raises ValueError if the memory cannot be used, FileExistsError if the trace is there.
    """
    start, purse = time.perf_counter(), Purse(limits.dollars)
    with Memory(memory) as kept, Trace(trace, listener) as told:
        told.write(
            "run", planner=_planner(connection), label=getattr(connection, "label", ""),
            feeds=list(feeds), rule=asdict(rule), limits=asdict(limits), sweep=sweep,
            pricer=pricer.name, pricer_label=getattr(pricer, "label", ""), time=time.time(),
        )  # fmt: skip
        doubtful = [] if again or messenger.deduplicates else set_aside(kept)
        deliver(kept, messenger, step)  # what a crash left
        deals, read = scan(feeds, fetcher or Fetcher())
        for feed in read:
            told.write("feed", **asdict(feed))
        taken = kept.take(deals)
        step("taken")
        bench = Workbench(kept, pricer, rule, purse, told, step)
        told.write("deals", taken=dict(taken), entries=[_shown(e) for e in bench.entries()])
        ending = work_through(bench, connection, limits, sweep, told)
        unsent = deliver(kept, messenger, step)
        outcome = Outcome(
            _planner(connection), getattr(connection, "label", ""), ending.why, ending.steps,
            time.perf_counter() - start, purse.spent, tuple(read), dict(taken),
            tuple(bench.entries()), (*doubtful, *unsent),
        )  # fmt: skip
        told.write(
            "end", why=ending.why, steps=ending.steps, seconds=round(outcome.seconds, 3),
            dollars=purse.spent, outbox=dict(kept.outbox()), unsent=list(outcome.unsent),
            decisions=decisions(outcome.deals),
        )  # fmt: skip
    return outcome


def work_through(
    bench: Workbench, connection: Any, limits: Limits, sweep: bool, trace: Trace
) -> Ending:
    """Let the model plan if there is one, and do what is left by the plain plan."""
    ending = Ending("no model")
    if connection is not None and bench.names:
        ending = plan(bench, connection, limits, trace)
        trace.write("planned", **asdict(ending), decisions=decisions(bench.entries()))
    if connection is None or sweep:
        bench.rest()
    return ending


def decisions(entries: Sequence[Entry]) -> dict[str, list]:
    """Return what became of each deal: its state, its estimate in dollars, and why."""
    return {entry.id: [entry.state, entry.price, entry.reason] for entry in entries}


def _planner(connection: Any) -> str:
    return PLAIN if connection is None else connection.card.name


def _shown(entry: Entry) -> dict[str, Any]:
    """Return a deal for the trace, without the long text that only the pricer reads."""
    return {name: value for name, value in asdict(entry).items() if name != "text"}
