"""A canary release: a new version answers a share of the requests until it has proved itself.

It is promoted when its error is shown to be good enough, rolled back when it is shown not to be,
and at once when it fails or is too slow too often. If neither is shown by the last look, or true
prices do not come in time, it is given up: the old version is known, so the new one has to prove
itself. Who would rather have the new one, for it is a hundredth of the size, says so beforehand,
with a margin. Every look, and how it ended, is written to the registry's history.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from filelock import FileLock

from shared.releases.guard import Guard
from shared.releases.history import read_lines
from shared.releases.registry import Registry
from shared.releases.release import ReleaseError
from shared.releases.rollout_state import (
    GIVEN_UP,
    PROMOTED,
    ROLLED_BACK,
    UNDER_WAY,
    StateFile,
)
from shared.releases.sequential import GO_ON, PROMOTE, Look, Plan, look
from shared.releases.shadow import ShadowedPricer
from shared.watching.lines import append_lines

MOST_PAIRS = 100_000
"""Products that are kept for the test: more are priced, but not remembered."""
BY = "rollout"
_DAY = 86_400


class Rollout:
    """The canary release of a version of a registry; several processes may share one.

    Made with the settings of one that is under way, it goes on where that was. ``share`` of the
    requests, by their id, are priced by the candidate within ``seconds`` a call (else by the old
    version); true prices may take ``days``. Raises ReleaseError if another rollout is under way,
    if nothing was promoted yet or the candidate answers already; ValueError for a share that is
    none.
    """

    def __init__(
        self, registry: Registry, candidate: str, share: float = 0.1, *, plan: Plan | None = None,
        seconds: float = 1.0, days: float = 14.0, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        if not (0 < share <= 1 and seconds > 0 and days > 0):
            raise ValueError(
                f"share {share}, seconds {seconds}, days {days}: a share is above 0 and up to 1, "
                "the others are above 0"
            )
        settings = {
            "candidate": candidate, "share": share, "seconds": seconds, "days": days,
            "plan": asdict(plan or Plan()) | {"looks": list((plan or Plan()).looks)},
        }  # fmt: skip
        self.registry, self._clock, self._mutex = registry, clock, threading.RLock()
        self._file = StateFile(registry.folder)
        registry.current()  # else a lock would be the first file of a registry
        with self._alone():
            state = self._file.read()
            if state is None or state["status"] != UNDER_WAY:
                state = self._begin(settings)
            elif any(state[name] != value for name, value in settings.items()):
                raise ReleaseError(
                    f"{registry.folder}: a rollout of {state['candidate']} is under way with its "
                    "own settings; wait for its end, or stop it: python -m shared release stop"
                )
        self._open(state)

    @classmethod
    def under_way(
        cls, registry: Registry, clock: Callable[[], float] = time.time
    ) -> Rollout | None:
        """Return the rollout that is under way in a registry, None if there is none.

        A candidate that cannot be opened any more is rolled back. Raises ReleaseError if the state
        or the old version is damaged.
        """
        self = cls.__new__(cls)
        self.registry, self._clock, self._mutex = registry, clock, threading.RLock()
        self._file = StateFile(registry.folder)
        state = self._file.read()
        if state is None or state["status"] != UNDER_WAY:
            return None
        try:
            self._open(state)
        except Exception:
            if self.status == UNDER_WAY:
                raise
            return None  # the candidate is broken: a service starts without it
        return self

    def __call__(self, request: str) -> tuple[Any, str]:
        """Return the pricer for a request, by its id, and the version that answers.

        The same id gets the same version, in every process. A product that the candidate could
        not price is priced by the old version: ``versions`` of the estimates says so.
        """
        try:
            self._refresh()
        except (OSError, ReleaseError) as error:  # somebody damaged a file: customers go on
            self.trouble = f"the canary rests in this process: {error}"
        if self.status == PROMOTED:
            return self._new, self._new.version
        if self.status != UNDER_WAY or self.trouble or not self._chosen(request):
            return self._old, self._old.version
        return self._shadowed, self._new.version

    @property
    def status(self) -> str:
        """One of under way, promoted, rolled back, given up."""
        return self._state["status"]

    @property
    def why(self) -> str:
        """Why it ended, "" while it is under way."""
        return self._state["why"]

    @property
    def plan(self) -> Plan:
        """When it is looked at, and what is asked of the candidate."""
        return Plan(**self._state["plan"])

    def look(self, truths: Mapping[str, float]) -> Look | None:
        """Compare both versions if a look is due, decide, and return what was found.

        ``truths``: true prices in dollars, by ``shared.watching.item_key`` of the product's text,
        such as ``shared.watching.Truths``; those of products that the candidate did not price are
        left out. None if it is not time for a look; the rollout may have ended for another reason.
        """
        with self._alone():
            self._refresh()
            self._follow()
            if self.status != UNDER_WAY:
                return None
            errors = self._errors(truths)
            due = self._due(errors.shape[1]) and not self._guard.tripped
            found = self._look(errors) if due else None
            self._end_if_over()
            return found

    def stop(self, why: str, by: str | None = None) -> None:
        """End the rollout; the old version stays. Does nothing if it has ended."""
        with self._alone():
            self._refresh()
            self._end(GIVEN_UP, why, by)

    def summary(self) -> dict[str, Any]:
        """Return where it stands: settings, status, attempts and failures, pairs, and looks."""
        self._refresh()
        self._follow()
        counted = {"of": self._guard.of, "failed": self._guard.failed, "pairs": len(self._pairs)}
        return {**self._state, **counted, "trouble": self.trouble}

    def _begin(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Check both versions and write the state of a new rollout."""
        candidate, old = settings["candidate"], self.registry.current()
        if old.version == candidate:
            raise ReleaseError(f"{candidate} is the current version already")
        self.registry.release(candidate).check()
        state = settings | {
            "id": secrets.token_hex(4), "old": old.version, "status": UNDER_WAY, "why": "",
            "started": self._clock(), "latest": self._clock(), "looks": [],
        }  # fmt: skip
        self._file.write(state)
        why = f"answers {state['share']:.0%} of the requests, beside {old.version}"
        self.registry.note("canary begun", candidate, why, BY, settings=settings)
        return state

    def _open(self, state: dict[str, Any]) -> None:
        self._state, self.trouble = state, ""
        self._log = self.registry.folder / f"rollout-{state['id']}.jsonl"
        self._pairs: dict[str, tuple[float, float]] = {}
        self._guard, self._at = Guard(), 0
        self._old = self.registry.release(state["old"]).open()
        try:
            self._new = self.registry.release(state["candidate"]).open()
        except Exception as error:  # of whatever room the model is from
            with self._alone():
                self._end(ROLLED_BACK, f"cannot be opened: {error}")
            raise
        self._shadowed = ShadowedPricer(self._old, self._new, state["seconds"], self._priced)
        self._follow()

    def _chosen(self, request: str) -> bool:
        digest = hashlib.sha256(
            f"canary:{self._state['id']}:{request}".encode("utf-8", "replace")
        ).digest()
        return int.from_bytes(digest[:8], "big") < self._state["share"] * 2**64

    def _priced(self, told: dict[str, Any]) -> None:
        """Keep what came of a call, and roll back if there were too many failures."""
        try:
            with self._mutex:
                if len(self._pairs) >= MOST_PAIRS:
                    told = told | {"pairs": []}
                append_lines(self._log, [told])
                self._follow()
            if self._guard.tripped and self.status == UNDER_WAY:
                with self._alone():
                    self._refresh()
                    self._end_if_over()
        except (OSError, ReleaseError) as error:  # the customer gets an answer nevertheless
            self.trouble = f"the canary rests in this process: {error}"

    def _follow(self) -> None:
        """Take in what this process and others have written of their calls."""
        with self._mutex:
            lines, self._at = read_lines(self._log, self._at)
            for line in lines:
                with contextlib.suppress(KeyError, TypeError, ValueError):  # not one of ours
                    self._guard.add(int(line["failed"]), int(line["of"]))
                    for item, old, new in line["pairs"]:
                        self._pairs.setdefault(item, (float(old), float(new)))

    def _errors(self, truths: Mapping[str, float]) -> np.ndarray:
        """Return the absolute errors (2, n) of old and new in dollars, a product once."""
        with self._mutex:
            known = [(*pair, truths[item]) for item, pair in self._pairs.items() if item in truths]
        old, new, true = np.array(known, dtype=float).reshape(-1, 3).T
        usable = np.isfinite(true) & (true > 0)
        return np.abs(np.stack([old, new]) - true)[:, usable]

    def _due(self, n: int) -> bool:
        """Whether a planned number is reached; those that were passed together are one look."""
        last = self._state["looks"][-1] if self._state["looks"] else {"n": 0, "decision": GO_ON}
        reached = any(last["n"] < planned <= n for planned in self.plan.looks)
        return reached and last["decision"] == GO_ON

    def _look(self, errors: np.ndarray) -> Look:
        found = look(self.plan, *errors)
        self._write(looks=[*self._state["looks"], asdict(found)])
        self.registry.note("canary look", self._new.version, str(found), BY, **asdict(found))
        return found

    def _end_if_over(self) -> None:
        latest = max(self._clock(), self._state["latest"])  # clocks are set back
        self._write(latest=latest)
        last = self._state["looks"][-1] if self._state["looks"] else None
        current = self.registry.current().version
        if current == self._state["candidate"]:
            self._end(PROMOTED, "the registry says so")
        elif current != self._state["old"]:
            self._end(GIVEN_UP, f"{current} was promoted meanwhile")
        elif self._guard.tripped:
            self._end(ROLLED_BACK, f"{self._guard}, or took more than "
                                   f"{self._state['seconds']:g} s")  # fmt: skip
        elif last and last["decision"] != GO_ON:
            status = PROMOTED if last["decision"] == PROMOTE else ROLLED_BACK
            self._end(status, str(Look(**last)))
        elif last and last["n"] >= self.plan.looks[-1]:
            self._end(GIVEN_UP, f"not shown to be good enough, nor not to be: {Look(**last)}")
        elif latest - self._state["started"] > self._state["days"] * _DAY:
            seen = last["n"] if last else 0
            self._end(GIVEN_UP, f"after {self._state['days']:g} days there were true prices for "
                                f"looks at {seen:,} products only")  # fmt: skip

    def _end(self, status: str, why: str, by: str | None = None) -> None:
        """End it: the pointer moves first, so that a kill in between is made up for."""
        if self.status != UNDER_WAY:
            return
        version = self._state["candidate"]
        if status == PROMOTED:
            try:
                self.registry.promote(version, why, by=BY)
            except ReleaseError as error:
                status, why = GIVEN_UP, f"shown to be good enough, but: {error}"
        self._write(status=status, why=why)
        self.registry.note(f"canary {status}", version, why, by or BY)

    def _write(self, **changes: Any) -> None:
        self._state = self._file.write(self._state | changes)

    def _refresh(self) -> None:
        """Take over what another process has changed."""
        self._state = self._file.latest(self._state)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with FileLock(self.registry.folder / ".rollout.lock"):
            yield
