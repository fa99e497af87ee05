"""Does a hosted model still answer as it did, under the same name? A fixed set of items will tell.

Vendors change what is behind a name, and tell nobody. So the same items are priced anew on several
days, and two days are compared product by product: how far off the answers are, and how high.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date as Date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest, ttest_rel

from shared.data.storage import fingerprint
from shared.evaluation import compare, evaluate, holm
from shared.evaluation.bootstrap import CHUNK, mean_intervals
from shared.evaluation.compare import p_text
from shared.evaluation.inputs import item_table
from shared.evaluation.predictions import read_predictions, scored
from shared.evaluation.store import file_stem, load
from shared.prompting.pricer import FrontierPricer

ALPHA = 0.01  # how often an unchanged model is taken for a changed one
KEPT = 0.75
"""Assumed share of products that a changed model errs on as before; between stand-in models the
absolute log errors correlate by 0.7 to 0.9."""
BATCH = 32  # products: so many are lost, and paid for again, when a run is killed


@dataclass(frozen=True)
class Change:
    """What became of a model's answers, on the ``n`` products that both runs priced.

    In percent, with 95 % BCa intervals (low, high): ``error``, the change of the mean absolute
    log error |ln(estimate / price)|, and ``level``, that of the answers' geometric mean.
    ``moved`` is the median percentage by which an answer moved: luck or change, it does not say.
    ``failed`` counts the products without an estimate (before, after), which are left out there;
    that these became more or fewer is tested, too (McNemar, exact), where any did.
    ``p`` is the smallest of the paired tests' p-values after Holm.
    ``models``: the names under which the model answered, before and after.
    """

    n: int
    failed: tuple[int, int]
    error: float
    error_interval: tuple[float, float]
    level: float
    level_interval: tuple[float, float]
    moved: float
    p_error: float
    p_level: float
    p_failed: float
    p: float
    alpha: float = ALPHA
    models: tuple[str, str] = ("", "")

    @property
    def changed(self) -> bool:
        """Whether that is too much to be luck; wrongly so in a share ``alpha`` of comparisons."""
        return self.p < self.alpha

    def __str__(self) -> str:
        failed = f"failed {self.failed[0]:,} before, {self.failed[1]:,} now"
        if not self.n:
            said = "CHANGED" if self.changed else "CANNOT BE COMPARED"
            return f"{said} ({p_text(self.p)}): no product has two estimates, {failed}"
        ends = [f"[{a:+.1f} to {b:+.1f}]" for a, b in (self.error_interval, self.level_interval)]
        renamed = "; the vendor says it: {} answered before, {} now".format(*self.models)
        return (
            f"{'CHANGED' if self.changed else 'no change found'} ({p_text(self.p)}, {self.n:,} "
            f"products, {failed}): error {self.error:+.1f} % {ends[0]}, "
            f"level {self.level:+.1f} % {ends[1]}, median answer moved by {self.moved:.1f} %"
            f"{renamed if self.models[0] != self.models[1] else ''}"
        )


class Canary:
    """Fixed items, all prices known (else ValueError), and a folder: a run a date and model."""

    def __init__(self, items: Any, folder: Path) -> None:
        self.items, self.folder = item_table(items), Path(folder)
        if not len(self.items) or self.items["price"].null_count:
            raise ValueError("a canary needs items whose prices are all known")
        self.fingerprint = fingerprint(self.items.drop_columns(["cluster", "split"]))

    def run(self, pricer: FrontierPricer, date: Date | str, progress: bool = True) -> Path:
        """Price the items and return the stored predictions: ``folder/date/model/….parquet``.

        A run that was killed goes on where it was; one that is finished is not made again. Raises
        ValueError if the connection has a cache, and if the folder has runs of other items.
        """
        if pricer.connection.cache is not None:
            raise ValueError(
                "the connection has a cache: it would give the answers of last time, and nothing "
                "would ever change. Connect without one: connect(model, cache=None)"
            )
        self.runs()  # refuses other items
        store = self.folder / Date.fromisoformat(str(date)).isoformat()
        store /= file_stem(pricer.connection.card.name)
        evaluate(pricer, self.items, store=store, batch_size=BATCH, progress=progress)
        return store / f"{file_stem(pricer.name)}.parquet"

    def runs(self) -> list[Path]:
        """Return all finished runs, the oldest first; ValueError if one is of other items."""
        found = [path for path in sorted(self.folder.glob("*/*/*.parquet")) if load(path)]
        return [path for path in found if self._open(path)]

    def compare(self, first: Path, second: Path, alpha: float = ALPHA) -> Change:
        """Compare two runs of one pricer; ValueError if they are not that. See ``change``."""
        (before, told), (after, now) = self._open(first), self._open(second)
        names = [f"{run['pricer']} {run['label']}".strip() for run in (told, now)]
        if names[0] != names[1]:
            raise ValueError(
                f"the runs are by {names[0]!r} and {names[1]!r}: a canary watches one model; "
                "shared.evaluation.compare compares two"
            )
        return change(before, after, alpha)

    def power(
        self, n: int = 200, shift: float = 0.10, alpha: float = ALPHA, *, kept: float = KEPT,
        stored: Path | None = None, simulations: int = 2_000, seed: int = 42,
    ) -> float:  # fmt: skip
        """Return the chance to notice that the absolute log error has grown by a share ``shift``.

        Simulated from the errors of a stored run (default: the newest). Assumed: the n canaries
        are drawn like the stored products; the changed model errs as before on a share ``kept``
        of them, on the others as on a product drawn at random; then all errors grow by ``shift``.
        Only the test of the error counts, at half of ``alpha`` as Holm has it at worst, and as a
        paired t test, which at these n agrees with sign flips.
        """
        runs = [stored] if stored else self.runs()
        if not runs:
            raise ValueError(f"no run in {self.folder}: power is simulated from a stored one")
        if len({load(run)[1]["pricer"] for run in runs}) > 1:
            raise ValueError(f"{self.folder} has runs of several pricers: say which, stored=…")
        errors = np.abs(_logs(self._open(runs[-1])[0]))
        errors = errors[np.isfinite(errors)]
        if n < 1 or not len(errors):
            raise ValueError(f"power of {n} products from {len(errors)} errors of {runs[-1]}")
        rng, alarms, chunk = np.random.default_rng(seed), 0, max(1, CHUNK // n)
        for start in range(0, simulations, chunk):
            shape = (min(chunk, simulations - start), n)
            before = rng.choice(errors, shape)
            same = rng.random(shape) < kept
            after = np.where(same, before, rng.choice(errors, shape)) * (1 + shift)
            with np.errstate(invalid="ignore", divide="ignore"):  # kept=1, shift=0: 0/0, no alarm
                alarms += np.count_nonzero(ttest_rel(after, before, axis=1).pvalue < alpha / 2)
        return float(alarms / simulations)

    def needed(self, power: float = 0.8, *, most: int = 20_000, **options: Any) -> int:
        """Return how many canaries give that power, to 5 %; ``options`` are those of ``power``.

        Raises ValueError if ``most`` are too few.
        """
        if self.power(most, **options) < power:
            raise ValueError(f"even {most:,} canaries have less than a chance of {power:.0%}")
        low, high = 2, most
        while high - low > max(1, high // 20):
            middle = max(low + 1, int(np.sqrt(low * high)))
            low, high = (low, middle) if self.power(middle, **options) >= power else (middle, high)
        return high

    def _open(self, path: Path) -> tuple[pa.Table, dict]:
        found = load(Path(path))
        if found is None:
            raise ValueError(f"{path} is no finished run; run the canary again to finish it")
        if found[1]["items"]["fingerprint"] != self.fingerprint:
            raise ValueError(f"{path} is a run of other items; another set needs another folder")
        return found


def change(before: pa.Table, after: pa.Table, alpha: float = ALPHA) -> Change:
    """Compare two sets of predictions of the same items by the same model.

    Tested by the sign flips of ``shared.evaluation.compare``, on logs: in dollars a few dear
    products drown out the rest. A model as good as the old one, and as dear, is not told from it.
    """
    old, new = _logs(before), _logs(after)
    both = np.isfinite(old) & np.isfinite(new)
    errors = np.abs(np.column_stack([old, new])[both])
    moved = (new - old)[both]
    with np.errstate(invalid="ignore", divide="ignore"):
        error, ends = mean_intervals(errors, lambda m: (m[..., 1:] / m[..., :1] - 1) * 100)
    level, levels = mean_intervals(moved[:, None], lambda m: np.expm1(m) * 100)
    p_error = compare(_in_logs(after), _in_logs(before)).p
    p_level = compare(_in_logs(after, level=True), _in_logs(before, level=True)).p
    typical = float(np.median(np.abs(np.expm1(moved)))) * 100 if len(moved) else float("nan")
    figures = [(float(v[0]), tuple(map(float, e[0]))) for v, e in ((error, ends), (level, levels))]
    p_failed = _failing(np.isfinite(old), np.isfinite(new))
    tested = [p for p in (p_error, p_level, p_failed) if np.isfinite(p)]
    tests = p_error, p_level, p_failed, min(holm(tested), default=float("nan"))
    names = (_models(before), _models(after))
    failed = (int(np.isnan(old).sum()), int(np.isnan(new).sum()))
    return Change(len(moved), failed, *figures[0], *figures[1], typical, *tests, alpha, names)


def _failing(answered: np.ndarray, answers: np.ndarray) -> float:
    """Return McNemar's exact p-value for two runs' successes; NaN if they succeed alike."""
    lost, won = int((answered & ~answers).sum()), int((~answered & answers).sum())
    return float(binomtest(lost, lost + won).pvalue) if lost + won else float("nan")


def _models(predictions: pa.Table) -> str:
    names = read_predictions(predictions)["model"].unique().to_pylist()
    return ", ".join(sorted(filter(None, names)))


def _logs(predictions: pa.Table) -> np.ndarray:
    """Return ln(estimate / price) of each product, NaN where there is no estimate."""
    rows = scored(predictions)
    return np.log(np.maximum(rows.estimate, 0.01) / np.maximum(rows.true, 0.01))


def _in_logs(predictions: pa.Table, level: bool = False) -> pa.Table:
    """Return predictions as logs of cents, never below 0, so that their "dollars" are logs.

    With ``level`` all prices are 0, which makes the "error" the log of the answer itself.
    """
    for name in ("price_true", "price_estimate"):
        cents = np.maximum(predictions[name].to_numpy(zero_copy_only=False) * 100, 1)
        logs = cents * 0 if level and name == "price_true" else np.log(cents)
        at = predictions.schema.get_field_index(name)
        column = pa.array(logs, pa.float64(), from_pandas=True)
        predictions = predictions.set_column(at, name, column)
    return predictions
