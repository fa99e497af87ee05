"""Running a trace again, offline: recorded replies, recorded estimates, the same code in between.

What has to be the same is every decision. Where it is not, the code has changed since, or the
trace is damaged; it is said where the two part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.agents.finder import PLAIN, decisions, work_through
from shared.agents.memory import Entry, Memory
from shared.agents.planner import Limits
from shared.agents.rules import Rule
from shared.agents.trace import Recorded, Trace, read_trace, readable
from shared.agents.workbench import Purse, Workbench
from shared.data import Product
from shared.evaluation import Estimates
from shared.frontier.clients import CallError
from shared.frontier.messages import Call, Reply, Request, Usage
from shared.frontier.models import find_model


@dataclass(frozen=True)
class Replayed:
    """What a replay came to. ``differences``: where it parts from the trace, in words.

    ``whole``: the trace has its end, and no line of it is damaged. ``decisions``: deal -> state,
    estimate in dollars, reason.
    """

    decisions: dict[str, list]
    differences: tuple[str, ...]
    whole: bool
    why: str

    @property
    def same(self) -> bool:
        """Whether the whole run came out as it did before."""
        return self.whole and not self.differences


def replay(path: Path) -> Replayed:
    """Run a trace again, without network, model, pricer or messages.

    A damaged trace is replayed as far as it goes. Raises ValueError if its beginning is lost or
    says what cannot be.
    """
    recorded = read_trace(path)
    with readable(recorded):
        return _replayed(recorded)


def _replayed(recorded: Recorded) -> Replayed:
    run, end = recorded.first("run"), recorded.first("end")
    entries = [Entry(text="", **entry) for entry in recorded.first("deals").get("entries", ())]
    connection = None if run["planner"] == PLAIN else _Replies(recorded, run["planner"])
    pricer = _Estimates(recorded, run["pricer"], run["pricer_label"])
    # The clock is not recorded: a run that met its limit shows that in where its replies end.
    limits = Limits(**run["limits"] | {"seconds": 1e9})
    with Memory(":memory:") as memory:
        memory.restore(entries)
        bench = Workbench(memory, pricer, Rule(**run["rule"]), Purse(limits.dollars), Trace())
        ending = work_through(bench, connection, limits, run["sweep"], Trace())
        found = decisions(bench.entries())
    differences = list(connection.differences) if connection else []
    differences += _differences(end.get("decisions"), found)
    whole = recorded.finished and not recorded.damaged
    return Replayed(found, tuple(differences), whole, ending.why)


def _differences(before: Any, after: dict[str, list]) -> list[str]:
    if not isinstance(before, dict):
        return []
    return [
        f"deal {name}: {before.get(name)} in the trace, {after.get(name)} now"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


class _Replies:
    """A connection that gives the recorded replies, and notes where it is asked something else."""

    label = ""

    def __init__(self, recorded: Recorded, model: str) -> None:
        self.card = find_model(model)
        self.differences: list[str] = []
        self._keys = {e.get("step"): e.get("key") for e in recorded.all("request")}
        self._replies = {e.get("step"): e for e in recorded.all("reply")}
        planned = recorded.first("planned")
        late = str(planned.get("why", "")).endswith("seconds")
        self._last = planned.get("steps") if late else None
        self._step = 0

    def ask(self, request: Request) -> Reply:
        self._step += 1
        if self._last is not None and self._step > self._last:
            raise CallError("here the clock ended it")
        kept = self._replies.get(self._step, {})
        if self._keys.get(self._step) not in (None, request.key("")):
            self.differences.append(f"step {self._step}: the model is asked something else now")
        try:
            if kept.get("error"):
                raise CallError(kept["error"], paid=bool(kept.get("lost")))
            value = kept["reply"]
            calls = tuple(Call(**call) for call in value["calls"])
            return Reply(**value | {"usage": Usage(**value["usage"]), "calls": calls})
        except (KeyError, TypeError) as error:
            self.differences.append(f"step {self._step}: no reply in the trace")
            raise CallError("the trace ends here") from error


class _Estimates:
    """A pricer that gives the recorded estimates."""

    def __init__(self, recorded: Recorded, name: str, label: str) -> None:
        self.name, self.label = name, label
        self._found = {e.get("id"): e for e in recorded.all("priced")}

    def price(self, products: Sequence[Product]) -> Estimates:
        rows = [self._found.get(product.id, {}) for product in products]
        return Estimates(
            np.array([_number(row.get("price")) for row in rows]),
            error=[row.get("error", "its estimate is lost from the trace") or None for row in rows],
            low=np.array([_number(row.get("low")) for row in rows]),
            high=np.array([_number(row.get("high")) for row in rows]),
            cost_usd=np.array([_number(row.get("cost_usd")) for row in rows]),
        )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
