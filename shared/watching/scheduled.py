"""The canary of a hosted model as a scheduled job: is it due, run it, compare, tell.

A run is compared with the one that was accepted last, at first the first, and not with the one
before: a model that creeps by a little each week never differs much from a week ago.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date as Date
from pathlib import Path

from shared.data.storage import write_json
from shared.evaluation.store import file_stem
from shared.frontier_uses.canary import ALPHA, Canary, Change
from shared.prompting.pricer import FrontierPricer
from shared.watching.alerts import Alerts
from shared.watching.watch import Signal

ACCEPTED = "accepted.json"
"""In the canary's folder: by model and technique, the date of the run that others are held to."""

CRON = "17 6 * * * cd {folder} && {command} >> canary.log 2>&1"
"""A line for ``crontab -e``: at 6:17 every day, since at full hours everybody calls."""

WORKFLOW = Path(__file__).with_name("canary.yaml")
"""The same for GitHub: copy it to ``.github/workflows/`` of your own repository."""


@dataclass(frozen=True)
class CanaryRun:
    """What a day's run found. ``change`` is None for the first run, which others are held to."""

    date: str
    path: Path
    against: Path | None
    change: Change | None
    signal: Signal


class CanaryJob:
    """A canary, and how its model is reached: ``reach`` returns a pricer for a ``with``.

    What is due depends on all runs in the canary's folder: each model needs its own.
    ``every``: days from one run to the next. Each comparison takes an unchanged model for a
    changed one with probability ``alpha``.
    """

    def __init__(
        self,
        canary: Canary,
        reach: Callable[[], AbstractContextManager[FrontierPricer]],
        *,
        every: int = 1,
        alpha: float = ALPHA,
    ) -> None:
        if every < 1:
            raise ValueError(f"every {every} days: at least 1")
        self.canary, self.reach, self.every, self.alpha = canary, reach, every, alpha

    def due(self, date: Date | str) -> bool:
        """Tell whether a run is to be made on this date; without runs, it is."""
        last, wanted = self.last(), Date.fromisoformat(str(date))
        return last is None or (wanted - Date.fromisoformat(last)).days >= self.every

    def last(self) -> str | None:
        """Return the date of the newest finished run, None if there is none."""
        return max(map(_date_of, self.canary.runs()), default=None)

    def made(self, date: Date | str) -> bool:
        """Tell whether there is a finished run of this date."""
        return str(date) in map(_date_of, self.canary.runs())

    def run(self, date: Date | str, alerts: Alerts | None = None) -> CanaryRun:
        """Run the canary, compare, and tell if the model has changed.

        For the same date it asks nothing anew, and tells nobody twice. Raises ValueError for a
        date before a run that was made already: the clock is wrong, or the date is.
        """
        wanted = Date.fromisoformat(str(date)).isoformat()
        last = self.last()
        if (last or wanted) > wanted:
            raise ValueError(f"{wanted} is before the run of {last}: is the clock right?")
        with self.reach() as pricer:
            path = self.canary.run(pricer, wanted, progress=False)
            name, label = pricer.connection.card.name, pricer.connection.label
        against = self._accepted(path)
        change = None if against == path else self.canary.compare(against, path, self.alpha)
        name += f" ({label})" if label else ""
        signal = _signal(f"canary {name}", change, _date_of(against), self.alpha)
        if alerts is not None:
            alerts.take([signal])
        return CanaryRun(wanted, path, None if change is None else against, change, signal)

    def accept(self, date: Date | str) -> list[Path]:
        """Hold later runs to those of this date: the change is known, and it is all right.

        Returns these runs. Raises ValueError if there is none.
        """
        wanted = Date.fromisoformat(str(date)).isoformat()
        runs = [run for run in self.canary.runs() if _date_of(run) == wanted]
        if not runs:
            raise ValueError(f"no finished run of {wanted} in {self.canary.folder}")
        accepted = self._dates() | {_what(run): wanted for run in runs}
        write_json(accepted, self.canary.folder / ACCEPTED)
        return runs

    def _dates(self) -> dict[str, str]:
        path = self.canary.folder / ACCEPTED
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{path}: damaged ({error!r}); remove it and accept again") from error

    def _accepted(self, path: Path) -> Path:
        """Return the run that this one is held to: of the same model, asked in the same way."""
        same = [run for run in self.canary.runs() if _what(run) == _what(path)]
        wanted = self._dates().get(_what(path), "")
        return next((run for run in same if _date_of(run) >= wanted), path)


def _signal(name: str, change: Change | None, since: str, alpha: float) -> Signal:
    """Return a comparison as a signal; its value is -log10(p), NaN if there is nothing to say."""
    level = -math.log10(alpha)
    if change is None:
        said = "The first run: later ones are held to it."
        return Signal(name, math.nan, level, math.nan, False, said)
    value = math.nan if math.isnan(change.p) else -math.log10(max(change.p, 1e-300))
    said = f"Against the run of {since}: {change}."
    if change.changed:
        said += " Score it on your own data, then accept this run, or pin another model."
    return Signal(name, value, level, change.p, change.changed, said)


def _date_of(run: Path) -> str:
    return run.parent.parent.name


def _what(run: Path) -> str:
    """Return the model and the technique of a run, as its path has them."""
    return f"{run.parent.name}/{file_stem(run.stem)}"
