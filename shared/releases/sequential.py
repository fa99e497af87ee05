"""Is the new version good enough? Asked several times while true prices arrive, at a stated risk.

Who tests at 5 % after every new price finds a difference sooner or later, even between equals
(Armitage et al., 1969). So the looks are planned, and each has a K-th of the risk: by Bonferroni
the risk of all K together is at most what was stated, however they depend on each other. Pocock's
or O'Brien and Fleming's bounds (Jennison and Turnbull, 2000) need some percent fewer products, but
a normal distribution. Tests for any moment (e-values; Ramdas et al., 2023) need a bound on the
error: that of prices is $999, a typical difference $30, and they then wait several times as long.

Each look is the paired test of ``shared.evaluation.compare``. It is exact where differences are
symmetric around the margin, and near it otherwise. Simulated by ``chances`` with the errors of the
two shipped students, 5 % became 4.2 % (promoted) and 2.7 % (rolled back); with those of a student
and of the median price, which are as skewed as they get, 5.7 % and 2.4 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import ndtr

from shared.data.schema import PREDICTION
from shared.evaluation import compare
from shared.evaluation.compare import p_text
from shared.evaluation.metrics import number

PROMOTE, ROLL_BACK, GO_ON = "promote", "roll back", "go on"
LEAST = 100
"""Products that a first look needs: with fewer the skew of price errors breaks the promise."""


@dataclass(frozen=True)
class Plan:
    """When a new version is looked at, and what is asked of it.

    ``looks``: numbers of products with known prices. ``margin_usd`` and ``margin_share``: its mean
    absolute error may be so many dollars, and this share of the old one's error, higher than the
    old one's (0 and 0: it has to be lower). ``false_promotion``: the risk to promote a version
    that is worse by the margin or more; ``false_rollback``: the risk to roll back one that is not.
    Both hold for all looks together. Raises ValueError naming what is impossible.
    """

    looks: tuple[int, ...] = (200, 400, 700, 1_000)
    margin_usd: float = 0.0
    margin_share: float = 0.0
    false_promotion: float = 0.05
    false_rollback: float = 0.05

    def __post_init__(self) -> None:
        """Refuse a plan that decides nothing."""
        looks = tuple(self.looks)
        object.__setattr__(self, "looks", looks)
        if not looks or looks[0] < LEAST or any(b <= a for a, b in pairwise(looks)):
            raise ValueError(f"looks {looks}: they are rising numbers of products, from {LEAST}")
        for name in ("margin_usd", "margin_share"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}: a number of 0 or more")
        for name in ("false_promotion", "false_rollback"):
            if not 0.001 <= getattr(self, name) <= 0.5:
                raise ValueError(f"{name} is {getattr(self, name)!r}: a risk from 0.001 to 0.5")

    def allowed(self, old: np.ndarray) -> np.ndarray:
        """Return the errors that are good enough, from the old version's errors in dollars."""
        return old * (1 + self.margin_share) + self.margin_usd


@dataclass(frozen=True)
class Look:
    """What a look found on ``n`` products.

    In dollars: the mean absolute errors ``old`` and ``new``, and ``excess``, by how much the new
    one is above what is allowed, with its 95 % interval ``low`` to ``high``. ``p`` is two-sided.
    """

    n: int
    old: float
    new: float
    excess: float
    low: float
    high: float
    p: float
    decision: str

    def __str__(self) -> str:
        ends = f"[{number(self.low)} to {number(self.high)}]"
        return (
            f"{self.n:,} products: error {number(self.old)} before, {number(self.new)} now; "
            f"{number(self.excess)} {ends} above what is allowed, {p_text(self.p)}: {self.decision}"
        )


def look(plan: Plan, old: np.ndarray, new: np.ndarray, *, seed: int = 42) -> Look:
    """Compare the absolute errors (n,) of both versions on the same products, in dollars.

    One of the planned looks: whoever looks more often has a higher risk than stated.
    """
    found = compare(_table("new", new), _table("allowed", plan.allowed(old)), seed=seed)
    side = found.p / 2
    decision = GO_ON
    if found.difference < 0 and side <= plan.false_promotion / len(plan.looks):
        decision = PROMOTE
    elif found.difference > 0 and side <= plan.false_rollback / len(plan.looks):
        decision = ROLL_BACK
    means = (float(old.mean()), float(new.mean()))
    return Look(len(old), *means, found.difference, found.low, found.high, found.p, decision)


def chances(
    plan: Plan, old: np.ndarray, new: np.ndarray, *, simulations: int = 4_000, seed: int = 42
) -> dict[str, Any]:
    """Simulate rollouts from the absolute errors (n,) of both versions on the same products.

    Returns the shares that end with "promote", with "roll back" and with "go on" (undecided), and
    "products", the mean number of true prices until the end. Products are drawn with replacement.
    Sign flips are replaced by their normal approximation, which at these n agrees with them.
    """
    rng, looks = np.random.default_rng(seed), np.array(plan.looks)
    over = np.asarray(new - plan.allowed(old))
    ended, at = np.full(simulations, GO_ON, dtype="U9"), np.full(simulations, looks[-1])
    for i in range(simulations):
        drawn = rng.choice(over, looks[-1])
        sums, squares = np.cumsum(drawn)[looks - 1], np.cumsum(drawn**2)[looks - 1]
        z = sums / np.sqrt(np.maximum(squares, 1e-300))
        good = ndtr(z) <= plan.false_promotion / len(looks)
        bad = ndtr(-z) <= plan.false_rollback / len(looks)
        if (good | bad).any():
            first = int(np.argmax(good | bad))
            ended[i], at[i] = PROMOTE if good[first] else ROLL_BACK, looks[first]
    shares = {name: float((ended == name).mean()) for name in (PROMOTE, ROLL_BACK, GO_ON)}
    return shares | {"products": float(at.mean())}


def _table(name: str, errors: np.ndarray) -> pa.Table:
    """Return errors as predictions of products that cost nothing: an estimate is its own error."""
    n = len(errors)
    columns = {
        "pricer": [name] * n, "item_id": [str(i) for i in range(n)],
        "price_true": np.zeros(n), "price_estimate": np.asarray(errors, dtype=float),
    }  # fmt: skip
    return pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in PREDICTION], PREDICTION)
