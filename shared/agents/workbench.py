"""What can be done in a run: list, price, alert. Whoever plans, the rule and the numbers are here.

A planner names deals; it cannot name a price, a text or a receiver. What it does not get done, or
is talked out of, ``rest`` does: no text in a feed can cost another deal its alert.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.agents.memory import CHEAPER, Entry, Memory, Step
from shared.agents.messenger import Message
from shared.agents.rules import Rule, Value, as_json, value_deals
from shared.agents.trace import Trace

AT_ONCE = 20
"""Deals that are priced in one call."""


@dataclass
class Purse:
    """Dollars that a run may spend, on the planner's model and on the pricer."""

    limit: float
    spent: float = 0.0

    @property
    def left(self) -> float:
        """Dollars that may still be spent."""
        return self.limit - self.spent


class Workbench:
    """The deals of a run, and all that may be done with them. ``step`` is called between writes."""

    def __init__(
        self, memory: Memory, pricer: Any, rule: Rule, purse: Purse, trace: Trace,
        step: Step = lambda name: None,
    ) -> None:  # fmt: skip
        self.memory, self.pricer, self.rule, self.purse = memory, pricer, rule, purse
        self._trace, self._step = trace, step
        self.names = tuple(entry.id for entry in memory.unfinished())

    def entries(self) -> list[Entry]:
        """Return the deals of this run as they are now."""
        return [entry for name in self.names if (entry := self.memory.entry(name))]

    def unpriced(self) -> list[Entry]:
        """Return the deals that wait for a price."""
        return [entry for entry in self.entries() if entry.state == "seen"]

    def price(self, names: Sequence[str]) -> dict[str, Value]:
        """Price deals of this run, each once, and return what they cost.

        The rule is applied at once: who does not meet it is rejected. Raises ValueError for a name
        that is none of this run's, for more than ``AT_ONCE``, and when the dollars are spent.
        """
        if len(names) > AT_ONCE:
            raise ValueError(f"{len(names)} deals at once: at most {AT_ONCE}")
        entries = [self._named(name) for name in dict.fromkeys(names)]
        # A deal whose price changed has its estimate still, and only the rule is asked again.
        missing = [e for e in entries if e.state == "seen" and e.price is None]
        if missing and self.purse.left <= 0:
            raise ValueError(f"the {self.purse.limit:g} dollars of this run are spent")
        found = dict(zip([e.id for e in missing], self._priced(missing), strict=True))
        values = {entry.id: found.get(entry.id, entry.value) for entry in entries}
        for entry in entries:
            if entry.state == "seen":
                self._decide(entry, values[entry.id])
        return values

    def _named(self, name: Any) -> Entry:
        entry = self.memory.entry(name) if name in self.names else None
        if entry is None:
            raise ValueError(f"there is no deal {str(name)[:40]!r} in this run")
        return entry

    def _priced(self, entries: Sequence[Entry]) -> list[Value]:
        if not entries:
            return []
        values = value_deals(entries, self.pricer)
        for entry, value in zip(entries, values, strict=True):
            self.purse.spent += value.cost_usd
            self._trace.write("priced", id=entry.id, **vars(value))
        return values

    def _decide(self, entry: Entry, value: Value) -> None:
        refusal = self._refusal(entry, value)
        self.memory.priced(entry.id, value, refusal)
        self._step("priced")

    def _refusal(self, entry: Entry, value: Value) -> str:
        refusal = self.rule.refusal(entry.asked or math.nan, value)
        if not refusal and entry.told and (entry.asked or 0) > CHEAPER * entry.told:
            return f"alerted before, at ${entry.told:,.2f}"
        return refusal

    def alert(self, name: str) -> str:
        """Alert a deal if it meets the rule; return why not, or "".

        Raises ValueError for a name that is none of this run's. One that is alerted stays so.
        """
        entry = self._named(name)
        if entry.state == "alerted":
            return ""
        if entry.state != "priced":
            return entry.reason or "not priced yet"
        refusal = self._refusal(entry, entry.value)
        if refusal:
            self.memory.rejected(entry.id, refusal)
            return refusal
        self.memory.intend(entry, self._message(entry))
        self._trace.write("alert", id=entry.id, key=entry.key, **as_json(entry.value))
        self._step("intended")
        return ""

    def _message(self, entry: Entry) -> Message:
        label = f" ({label})" if (label := getattr(self.pricer, "label", "")) else ""
        title = _quiet(entry.title)
        interval = (entry.low, entry.high)
        lines = [
            title,
            f"Asked: ${entry.asked:,.2f}",
            f"Estimate: ${entry.price:,.2f} by {self.pricer.name}{label}",
            "Interval: ${:,.2f} to ${:,.2f}".format(*interval) if all(interval) else "",
            f"The seller says it was: ${entry.listed:,.2f}" if entry.listed else "",
            entry.link,
        ]
        heading = f"${entry.asked:,.2f}, worth about ${entry.price:,.2f}: {title[:80]}"
        return Message(entry.key, heading, "\n".join(line for line in lines if line))

    def rest(self) -> None:
        """Price what is not priced, and alert all that meet the rule: the plan without a model.

        What cannot be paid for stays as it is, for the next run.
        """
        waiting = [entry.id for entry in self.unpriced()]
        for at in range(0, len(waiting), AT_ONCE):
            try:
                self.price(waiting[at : at + AT_ONCE])
            except ValueError as error:  # the dollars are spent
                self._trace.write("left", why=str(error), deals=len(waiting) - at)
                break
        for entry in self.entries():
            if entry.state == "priced":
                self.alert(entry.id)


def _quiet(text: str) -> str:
    """Take from a text what chat services read as a call to somebody, or as markup."""
    return text.translate(str.maketrans({"@": "(at)", "<": "‹", ">": "›"}))
