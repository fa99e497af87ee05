"""Fit an ensemble: weights on validation estimates, and an interval for each set of members.

The interval is cross-conformal (Vovk, 2015): each product's error is that of weights fitted without
its fold, so that weights which know the product do not make the interval look better than it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from shared.data.storage import versions
from shared.ensembles.model import Case, Ensemble, Member
from shared.ensembles.stored import Recorded, recorded
from shared.ensembles.weights import fit_scale, fit_weights, log_mix, to_logs
from shared.pricers.conformal import conformal_quantile
from shared.pricers.fitted import grouped_folds

COVERAGE, BALANCE = 0.9, 0.25
MOST_MEMBERS = 8
"""With more, there are over 255 sets of members that may answer, each with its own interval."""

FEWEST = 50
"""Products, at least: with fewer, weights and intervals are luck."""

_FOLDS = 5
_NOTHING = 0.02
"""A weight below this is luck on a thousand products, and not worth asking the member for."""


class _Fit(NamedTuple):
    """How weights are fitted: see ``fit_ensemble``."""

    balance: float
    scaled: bool
    least: float
    seed: int

    def weights(self, runs: Recorded, rows: np.ndarray) -> np.ndarray:
        logs, prices = to_logs(runs.estimates[rows]), runs.prices[rows]
        return fit_weights(logs, np.log(prices), prices**self.balance, self.least)

    def scale(self, mixed: np.ndarray, prices: np.ndarray) -> float:
        known = np.isfinite(mixed)
        if not self.scaled or not known.any():
            return 1.0
        return fit_scale(mixed[known], np.log(prices[known]), prices[known] ** self.balance)


def fit_ensemble(
    runs: Recorded | Sequence[Any],
    *,
    items: pa.Table | None = None,
    name: str = "ensemble",
    balance: float = BALANCE,
    scaled: bool = True,
    least: float = 0.0,
    coverage: float = COVERAGE,
    seed: int = 42,
) -> Ensemble:
    """Fit weights and intervals on stored predictions of the validation split.

    Args:
        runs: what ``recorded`` takes, or returned. Other splits and unequal items are refused.
        items: the validation items, if they are at hand (see ``recorded``).
        name: how the leaderboard calls it.
        balance: each product counts its price to this power. On a log scale, 1 would count
            dollars, and pay for the few dear products with all others; 0 counts shares.
        scaled: fit a factor on the mix, too. Without it, one member alone is left as it is.
        least: the least weight of a member. Above 0, nobody is dropped, and there is more to
            stand in when members fail; it costs a little accuracy when none does.
        coverage: share of prices that the intervals shall cover.
        seed: of the folds.

    Raises ValueError for too few products or too many members, and if a member never answered.
    """
    runs = recorded(runs, items=items)
    if not 0 < coverage < 1:
        raise ValueError(f"coverage {coverage} is not between 0 and 1")
    _refuse_unfit(runs)
    how = _Fit(balance, scaled, least, seed)
    weights = how.weights(runs, np.arange(len(runs.prices)))
    used = weights >= (0 if least else _NOTHING)
    dropped = [name for name, u in zip(runs.names, used, strict=True) if not u]
    tried = _members(runs, weights)
    for unused in dropped:
        runs = runs.without(unused)
    if dropped:
        weights = how.weights(runs, np.arange(len(runs.prices)))
    return Ensemble(
        name=name,
        members=_members(runs, weights / weights.sum()),
        cases=tuple(_cases(runs, weights, how, coverage)),
        coverage=coverage,
        fitted_on=runs.items,
        settings=how._asdict() | {"versions": versions()},
        dropped=tuple(member for member in tried if member.name in dropped),
    )


def out_of_fold(
    runs: Recorded,
    *,
    balance: float = BALANCE,
    scaled: bool = True,
    least: float = 0.0,
    seed: int = 42,
) -> np.ndarray:
    """Return the ensemble's prices (n,) in dollars, by weights that did not see the product."""
    how = _Fit(balance, scaled, least, seed)
    logs, found = to_logs(runs.estimates), np.full(len(runs.prices), np.nan)
    for learn, held_out, weights in _folds(runs, how):
        mixed = log_mix(logs, weights)
        found[held_out] = np.exp(mixed[held_out]) * how.scale(mixed[learn], runs.prices[learn])
    return found


def _members(runs: Recorded, weights: np.ndarray) -> tuple[Member, ...]:
    errors = np.abs(runs.estimates - runs.prices[:, None])
    return tuple(
        Member(
            name, float(weight), float(np.nanmean(error)), int(np.isnan(error).sum()),
            manifest.get("predictions", ""),
            manifest.get("label") or "",
            json.loads(json.dumps(manifest.get("settings"), default=str)),
        )
        for name, weight, error, manifest in zip(
            runs.names, weights, errors.T, runs.manifests, strict=True
        )
    )  # fmt: skip


def _folds(runs: Recorded, how: _Fit) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (rows learnt from, rows held out, weights fitted on the former)."""
    keys = pa.table({"cluster": runs.clusters, "id": pa.array(runs.ids, pa.string())})
    for learn, held_out in grouped_folds(keys, _FOLDS, how.seed):
        if len(held_out):
            yield learn, held_out, how.weights(runs, learn)


def _cases(runs: Recorded, weights: np.ndarray, how: _Fit, coverage: float) -> Iterator[Case]:
    """Yield scale and interval of each set of members, the largest set first.

    The products of a set are those that all its members answered, whether or not the others did:
    the others are taken away by hand. It is assumed that members fail for reasons of their own,
    not because a product is hard. No set gets a narrower interval than all members together:
    where chance says that it might, theirs is taken (if it is known).
    """
    members = range(len(runs.names))
    folds, logs = list(_folds(runs, how)), to_logs(runs.estimates)
    of_all = 0.0
    for size in reversed(members):
        for chosen in combinations(members, size + 1):
            there, picked = np.isfinite(logs[:, chosen]).all(axis=1), list(chosen)
            errors = _errors(logs[:, picked], runs.prices, there, folds, picked, how)
            widest = max(conformal_quantile(errors, coverage), of_all)
            if size == members[-1] and np.isfinite(widest):  # the first one: all of them
                of_all = widest
            mixed = np.where(there, log_mix(logs[:, picked], weights[picked]), np.nan)
            names = tuple(runs.names[i] for i in chosen)
            factor = float(np.exp(widest)) if np.isfinite(widest) else None
            yield Case(names, how.scale(mixed, runs.prices), factor, int(there.sum()))


def _errors(
    logs: np.ndarray, prices: np.ndarray, there: np.ndarray,
    folds: list[tuple[np.ndarray, np.ndarray, np.ndarray]], picked: list[int], how: _Fit,
) -> np.ndarray:  # fmt: skip
    """Return how far off a set of members is, on the log scale, by weights of other folds."""
    found = np.full(len(prices), np.nan)
    for learn, held_out, weights in folds:
        mixed = np.where(there, log_mix(logs, weights[picked]), np.nan)
        scale = how.scale(mixed[learn], prices[learn])
        found[held_out] = np.abs(np.log(prices[held_out]) - mixed[held_out] - np.log(scale))
    return found[there]


def _refuse_unfit(runs: Recorded) -> None:
    n, members = runs.estimates.shape
    if members > MOST_MEMBERS:
        raise ValueError(f"{members} members: at most {MOST_MEMBERS}. Leave out the weakest")
    for name, answered in zip(runs.names, np.isfinite(runs.estimates).sum(axis=0), strict=True):
        if answered < FEWEST:
            raise ValueError(
                f"{name}: {answered} estimates for {n} products, and {FEWEST} are the least to "
                "fit a weight on"
            )
    if (runs.prices <= 0).any():
        raise ValueError("some prices are not above 0, and the mix is one of log prices")
