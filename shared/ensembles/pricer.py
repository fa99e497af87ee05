"""The ensemble as a Pricer: asks its members at the same time, and mixes what comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.data import Product
from shared.ensembles.asking import Answer, Asked, ask_all
from shared.ensembles.model import Ensemble
from shared.ensembles.stored import joined, nan_or
from shared.evaluation.inputs import StoredPredictions, as_pricer
from shared.evaluation.predictions import STAND_IN, TOKENS
from shared.evaluation.protocol import Estimates

TIME_LIMIT = 30.0
"""Seconds for a call, unless told otherwise."""


@dataclass(frozen=True)
class Tally:
    """What became of a member's calls so far; ``why`` is the last reason for a missing estimate.

    ``left_out`` counts the calls that gave nothing at all, ``failed`` the missing estimates,
    those included. ``seconds`` are of all calls together.
    """

    calls: int = 0
    products: int = 0
    left_out: int = 0
    failed: int = 0
    seconds: float = 0.0
    why: str | None = None

    def plus(self, answer: Answer) -> Tally:
        """Return the tally with one more answer in it."""
        missing = np.flatnonzero(np.isnan(answer.estimates.price))
        why = answer.left_out or (answer.estimates.error[missing[-1]] if len(missing) else self.why)
        return Tally(
            self.calls + 1, self.products + len(answer.estimates.price),
            self.left_out + (answer.left_out is not None), self.failed + len(missing),
            self.seconds + answer.seconds, why,
        )  # fmt: skip


class EnsemblePricer:
    """Prices with all members at once; those that fail are left out, product by product.

    The others' weights then sum to 1 again, and the interval is the wider one of those that
    answered. Only where all of them fail is there no price, with all their reasons. ``tallies``
    says, for each member, how often it was asked and left out, why, and how long it took.

    ``members``: pricers, stored predictions or functions, by the names the ensemble has.
    ``time_limit``: seconds for a call, for all members or by name; None waits for ever. It is for
    a call however many products it has: evaluate with a small ``batch_size``, or give more.
    ``parallel``: how many calls a member takes at a time. A hosted model that was given up on may
    still bill its answer; that is not in ``cost_usd``.

    Raises ValueError for a member that is not there, or not the one the weights were fitted for;
    ``strict=False`` accepts the latter.
    """

    retries_failures = True

    def __init__(
        self,
        ensemble: Ensemble,
        members: Sequence[Any],
        *,
        time_limit: float | Mapping[str, float | None] | None = TIME_LIMIT,
        parallel: int = 1,
        strict: bool = True,
    ) -> None:
        pricers = {pricer.name: pricer for pricer in map(as_pricer, members)}
        if lacking := [name for name in ensemble.names if name not in pricers]:
            raise ValueError(
                f"{ensemble.name}: no pricer for {', '.join(map(repr, lacking))} among: "
                f"{', '.join(pricers) or 'none'}"
            )
        limits = time_limit if isinstance(time_limit, Mapping) else {}
        if unknown := sorted(set(limits) - set(ensemble.names)):
            raise ValueError(f"time limits for {unknown}, which are no members of {ensemble.name}")
        otherwise = TIME_LIMIT if isinstance(time_limit, Mapping) else time_limit
        self._pricers = [pricers[name] for name in ensemble.names]
        if strict:
            _refuse_others(ensemble, self._pricers)
        self._asked = [Asked(p, limits.get(p.name, otherwise), parallel) for p in self._pricers]
        self.ensemble, self.name = ensemble, ensemble.name
        self._tallies = {name: Tally() for name in ensemble.names}
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        """'stand-in' if a member is one, now or when the weights were fitted."""
        live = any(getattr(pricer, "label", "") for pricer in self._pricers)
        return STAND_IN if live else self.ensemble.label

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the estimates: the ensemble as fitted, its members, their time limits."""
        return {
            "ensemble": self.ensemble.fingerprint,
            "members": {p.name: getattr(p, "settings", None) for p in self._pricers},
            "time_limits": {asked.name: asked.limit for asked in self._asked},
        }

    @property
    def tallies(self) -> dict[str, Tally]:
        """What became of each member's calls so far."""
        with self._lock:
            return dict(self._tallies)

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product in dollars, with its interval."""
        return self.mixed(*self.ask(products))

    def ask(self, products: Sequence[Product]) -> tuple[list[Answer], float]:
        """Ask all members; return their answers, and how many seconds that took."""
        if not len(products):
            return [Answer(name, Estimates(np.empty(0)), 0.0) for name in self.ensemble.names], 0.0
        began = time.perf_counter()
        answers = ask_all(self._asked, products)
        with self._lock:
            for answer in answers:
                self._tallies[answer.name] = self._tallies[answer.name].plus(answer)
        return answers, time.perf_counter() - began

    def mixed(self, answers: Sequence[Answer], seconds: float) -> Estimates:
        """Return the mix of the members' answers, in the order of the ensemble's members."""
        found = [answer.estimates for answer in answers]
        price, low, high = self.ensemble.mix(np.column_stack([e.price for e in found]))
        errors = [
            joined(zip(self.ensemble.names, reasons, strict=True)) if np.isnan(p) else None
            for p, reasons in zip(price, zip(*(e.error for e in found), strict=True), strict=True)
        ]
        # A member that says how long a product took knows better than the clock around all of
        # them: its calls overlapped, or its estimates were stored and cost nothing now.
        shared_out = np.full(len(price), seconds / max(len(price), 1))
        said = [e.seconds for e in found if e.seconds is not None]
        each = np.fmax.reduce([shared_out, *said])
        return Estimates(price, errors, low, high, each, _cost(found), _usage(found))


def _cost(found: Sequence[Estimates]) -> np.ndarray | None:
    known = [e.cost_usd for e in found if e.cost_usd is not None]
    return nan_or(np.sum, np.column_stack(known)) if known else None


def _usage(found: Sequence[Estimates]) -> list[dict[str, int]] | None:
    known = [e.usage for e in found if e.usage is not None]
    if not known:
        return None
    return [
        {token: sum(used.get(token) or 0 for used in row) for token in TOKENS}
        for row in zip(*known, strict=True)
    ]


def _refuse_others(ensemble: Ensemble, pricers: Sequence[Any]) -> None:
    for member, pricer in zip(ensemble.members, pricers, strict=True):
        if not isinstance(pricer, StoredPredictions):  # these only know which file they are
            member.refuse_another(getattr(pricer, "settings", None))
