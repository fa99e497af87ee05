"""What the house needs: the knobs of the chooser."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Requirements:
    """What a pricer has to do, and with what. None is "does not matter".

    Args:
        examples: labelled examples that there are.
        facts_change_days: the facts that prices rest on change every so many days.
        per_day: products to price a day.
        latency_ms: milliseconds in which 95 of 100 answers have to be there.
        budget_usd: dollars a month, for calls or machines.
        data_may_leave: whether descriptions may go to a vendor.
        error_usd: mean absolute error that is good enough, in dollars.
        has_gpu: whether there is a GPU to answer with.
        needs_sources: whether an answer has to name what it rests on.
        machine_usd_hour: dollars an hour of a machine that answers without a vendor; 0 if it is
            there anyway.

    Raises ValueError naming the field that is impossible.
    """

    examples: int = 0
    facts_change_days: float | None = None
    per_day: float = 1000
    latency_ms: float | None = None
    budget_usd: float | None = None
    data_may_leave: bool = True
    error_usd: float | None = None
    has_gpu: bool = False
    needs_sources: bool = False
    machine_usd_hour: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for name in ("data_may_leave", "has_gpu", "needs_sources"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}: say True or False")
        for name in ("examples", "per_day", "budget_usd", "machine_usd_hour"):
            self._refuse(name, 0.0, "0 or more")
        for name in ("facts_change_days", "latency_ms", "error_usd"):
            self._refuse(name, math.ulp(0.0), "above 0, or None if it does not matter")

    def _refuse(self, name: str, least: float, meant: str) -> None:
        value = getattr(self, name)
        if value is None and next(f for f in fields(self) if f.name == name).default is None:
            return
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value < math.inf:
            raise ValueError(f"{name} is {value!r}: a number, {meant}")

    def __repr__(self) -> str:
        """Say only what was required: what differs from the default."""
        said = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if getattr(self, f.name) != f.default
        ]
        return f"Requirements({', '.join(said)})"
