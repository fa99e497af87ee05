"""An ensemble as fitted: weights, a correction for every set of members that answers, its file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shared.data.curation import MAX_PRICE, MIN_PRICE
from shared.data.storage import write_json
from shared.ensembles.weights import log_mix, to_logs
from shared.evaluation.predictions import STAND_IN

KIND, VERSION = "ensemble", 1


class EnsembleError(ValueError):
    """A saved ensemble cannot be opened; the message names the file, what is wrong, the remedy."""


@dataclass(frozen=True)
class Member:
    """A member and what its weight was fitted on.

    ``mae``: its mean absolute error on those items, in dollars, where it answered; ``failed``: on
    how many it did not. ``settings`` are the pricer's, ``predictions`` the fingerprint of its run.
    """

    name: str
    weight: float
    mae: float
    failed: int
    predictions: str
    label: str = ""
    settings: dict[str, Any] | None = None

    def refuse_another(self, settings: Any) -> None:
        """Raise ValueError if a pricer of this name has other settings than the one fitted for."""
        if settings is None or self.settings is None:
            return
        settings = json.loads(json.dumps(settings, default=str))
        keys = {*settings, *self.settings}
        if other := sorted(k for k in keys if settings.get(k) != self.settings.get(k)):
            raise ValueError(
                f"{self.name}: this is not the member that the weights were fitted for, it differs "
                f"in {', '.join(other)}. Evaluate it on validation and fit the ensemble again"
            )


@dataclass(frozen=True)
class Case:
    """What holds where exactly these members answer.

    The price is ``scale`` times their mix, and the interval reaches from price / ``factor`` to
    price * ``factor``; None: as far as prices go, since ``n`` products were too few to say.
    """

    members: tuple[str, ...]
    scale: float
    factor: float | None
    n: int


@dataclass(frozen=True)
class Ensemble:
    """Weights (0 or more, their sum is 1) on the log estimates of members, and intervals.

    ``coverage`` is the share of prices that the intervals cover. ``dropped``: pricers that were
    tried and got no weight worth asking them for. ``fitted_on``: fingerprint, n and splits of the
    items. ``settings``: how it was fitted.
    """

    name: str
    members: tuple[Member, ...]
    cases: tuple[Case, ...]
    coverage: float
    fitted_on: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[Member, ...] = ()

    def __post_init__(self) -> None:
        """Refuse weights and cases that could not have been fitted."""
        weights = self.weights
        if not len(weights) or not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError(f"weights are 0 or more, one a member, not {weights.tolist()}")
        if abs(weights.sum() - 1) > 1e-6:
            raise ValueError(f"the weights sum to {weights.sum():.6f}, not to 1")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"two members have the same name: {', '.join(self.names)}")
        wanted = 2 ** len(self.members) - 1
        if len(self._cases) != wanted or not all(set(k) <= set(self.names) for k in self._cases):
            raise ValueError(f"{len(self._cases)} cases, and {wanted} sets of members may answer")
        for case in self.cases:
            if not 0 < case.scale < math.inf or not (case.factor is None or case.factor >= 1):
                raise ValueError(f"the case of {', '.join(case.members)} is impossible: {case}")

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in the order of their estimates."""
        return tuple(member.name for member in self.members)

    @property
    def weights(self) -> np.ndarray:
        """The members' weights, shape (members,)."""
        return np.array([member.weight for member in self.members], dtype=float)

    @property
    def label(self) -> str:
        """'stand-in' if one of the members is one."""
        return STAND_IN if any(member.label for member in self.members) else ""

    @cached_property
    def _cases(self) -> dict[frozenset[str], Case]:
        return {frozenset(case.members): case for case in self.cases}

    def case(self, answered: Any) -> Case:
        """Return what holds where these members answered; KeyError if none did."""
        return self._cases[frozenset(answered)]

    def mix(self, estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return price, low and high, each (n,) dollars; NaN where no member has an estimate.

        ``estimates`` in dollars, (n, members) in the order of ``names``, NaN where one failed.
        """
        logs = to_logs(np.asarray(estimates, dtype=float))
        price = np.exp(log_mix(logs, self.weights))
        factor = np.full(len(price), np.nan)
        patterns, place = np.unique(np.isfinite(logs), axis=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            if pattern.any():
                case = self.case(name for name, there in zip(self.names, pattern, strict=True)
                                 if there)  # fmt: skip
                rows = place.ravel() == i
                price[rows] *= case.scale
                factor[rows] = np.inf if case.factor is None else case.factor
        price = np.clip(price, MIN_PRICE, MAX_PRICE)
        # All prices are within the window, so an interval need not reach beyond it.
        low, high = np.maximum(price / factor, MIN_PRICE), np.minimum(price * factor, MAX_PRICE)
        return price, low, high

    def save(self, path: str | Path) -> Path:
        """Write the ensemble as JSON, with a checksum of its content, and return the path."""
        path = Path(path)
        content = json.loads(json.dumps(asdict(self)))
        head = {"kind": KIND, "version": VERSION, "sha256": _digest(content)}
        write_json(head | content, path)
        return path

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides its estimates."""
        return _digest(json.loads(json.dumps(asdict(self))))[:16]

    def __repr__(self) -> str:
        lines = [f"{self.name}: fitted on {self.fitted_on['n']:,} products"]
        for member in sorted(self.members, key=lambda m: -m.weight):
            label = f" ({member.label})" if member.label else ""
            failed = f", {member.failed:,} failed" if member.failed else ""
            lines.append(
                f"  {member.weight:>6.1%}  {member.name}{label}: ${member.mae:,.2f} there{failed}"
            )
        if self.dropped:
            lines.append(f"  dropped: {', '.join(member.name for member in self.dropped)}")
        return "\n".join(lines)


def open_ensemble(path: str | Path) -> Ensemble:
    """Open what ``Ensemble.save`` wrote; raise EnsembleError if it is not that, or was changed."""
    path = Path(path)
    remedy = "fit the ensemble again and save it"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EnsembleError(f"{path}: no ensemble is there; {remedy}") from None
    except (ValueError, OSError) as error:
        raise EnsembleError(f"{path}: cannot be read ({error}); {remedy}") from error
    if not isinstance(content, dict) or content.pop("kind", None) != KIND:
        raise EnsembleError(f"{path}: is not an ensemble; {remedy}")
    if (version := content.pop("version", None)) != VERSION:
        raise EnsembleError(f"{path}: has version {version!r}, and this code reads {VERSION}")
    if content.pop("sha256", None) != _digest(content):
        raise EnsembleError(f"{path}: was changed since it was saved; {remedy}")
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise EnsembleError(f"{path}: {error}; {remedy}") from error


def _from_json(content: Mapping[str, Any]) -> Ensemble:
    cases = [Case(**case | {"members": tuple(case["members"])}) for case in content["cases"]]
    members = {k: tuple(Member(**m) for m in content[k]) for k in ("members", "dropped")}
    return Ensemble(**{**content, **members, "cases": tuple(cases)})


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
