"""Is it time to train again? Why, why not yet, and how much there is to be gained at most.

Drift of what is asked is no reason by itself: a model may price new kinds of products as well as
the old ones. Errors that have grown are one, and so is age; neither helps without new true prices
to learn from. A new model is only a candidate: a canary release decides whether it answers.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.data import ITEM, SPLITS, Items
from shared.evaluation.metrics import number
from shared.releases.registry import Registry
from shared.releases.release import Release, ReleaseError

LEAST = 500
"""New true prices that a new model, its interval and its test can be made from."""
OLD_DAYS = 90.0
"""Age in days from which a model is looked at again, whatever the signals say."""
_DAY = 86_400


@dataclass(frozen=True)
class Advice:
    """Whether to train again now: reasons ``why``, and what stands ``against`` it.

    ``gain``: dollars by which the mean absolute error is above that at release, with its 95 %
    interval ``low`` to ``high``: what there is to win back, and no promise that it will be. NaN
    where no recent errors are known.
    """

    due: bool
    why: tuple[str, ...]
    against: tuple[str, ...]
    gain: float = math.nan
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        lines = ["Train again." if self.due else "Do not train again yet."]
        lines += [f"  for it: {reason}" for reason in self.why or ("nothing",)]
        lines += [f"  against it: {reason}" for reason in self.against]
        if math.isfinite(self.gain):
            ends = f"[{number(self.low)} to {number(self.high)}]"
            lines.append(f"  to win back at most: {number(self.gain)} {ends} of the error")
        return "\n".join(lines)


def should_retrain(
    release: Release, *, signals: Sequence[Any] = (), new_truths: int = 0,
    errors: np.ndarray | None = None, now: datetime | None = None,
    old_days: float = OLD_DAYS, least: int = LEAST,
) -> Advice:  # fmt: skip
    """Say whether it is time to train again.

    ``signals``: what ``shared.watching.Watch`` found; ``new_truths``: how many true prices came
    since the model was trained; ``errors``: absolute errors in dollars of recent estimates.
    """
    gain = _gain(release, errors)
    # Two tests of one thing say the same.
    why = [f"alarm: {said}" for said in dict.fromkeys(s.said for s in signals if s.alarm)]
    if gain[1] > 0:
        why.append(f"the error is {number(gain[0])} higher than at release")
    age = ((now or datetime.now(UTC)) - datetime.fromisoformat(release.created)).total_seconds()
    if age > old_days * _DAY:
        why.append(f"{release.version} is {age / _DAY:,.0f} days old, and {old_days:g} are agreed")
    against = []
    if new_truths < least:
        against.append(f"there are {new_truths:,} new true prices, and {least:,} are needed")
    if age < 0:
        against.append(f"{release.version} is from the future: set the clock, then ask again")
    return Advice(bool(why) and not against, tuple(why), tuple(against), *gain)


def refit(
    registry: Registry, pricer: str, old: Items | Mapping[str, pa.Table],
    new: Items | Mapping[str, pa.Table], *, seed: int = 42, note: str = "", by: str | None = None,
) -> Release:  # fmt: skip
    """Fit one of ``shared.pricers.registry.PRICERS`` on old and new items, and add it as a version.

    Both are curated: split -> table. An item that is in both has its new price. What is in
    validation or test, itself or a near-duplicate, is not learnt from. The version is a candidate,
    and answers nothing yet. Raises ReleaseError if nothing is left to learn from.
    """
    from shared.pricers.registry import make_pricer
    from shared.pricers.saving import save_pricer

    items = together(old, new)
    if not items["train"].num_rows:
        raise ReleaseError("there are no items to learn from that are not in validation or test")
    fitted = make_pricer(pricer, seed).fit(items["train"])
    said = note or f"{pricer} fitted again, on {items['train'].num_rows:,} old and new items"
    with tempfile.TemporaryDirectory() as work:
        folder = save_pricer(fitted, Path(work) / "model")
        return registry.add("fitted", folder, items=items, note=said, seed=seed, by=by)


def together(
    old: Items | Mapping[str, pa.Table], new: Items | Mapping[str, pa.Table]
) -> dict[str, pa.Table]:
    """Return old and new items by split, each item once, and nothing held out in train.

    What was held out by either of them stays held out, or new errors would not compare with old.
    """
    before, after = _rows(old), _rows(new)
    place: dict[str, int] = {}
    for table in (before, after):
        for item, split in zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True):
            place[item] = max(place.get(item, 0), SPLITS.index(split))
    before = before.filter(pc.invert(pc.is_in(before["id"], after["id"].combine_chunks())))
    rows = pa.concat_tables([before, after]).combine_chunks()
    where = np.array([place[item] for item in rows["id"].to_pylist()], dtype=int)
    for name in ("text", "cluster"):  # near-duplicates
        held = rows[name].filter(pa.array(where > 0)).drop_null().combine_chunks()
        kept = (where > 0) | ~np.asarray(pc.is_in(rows[name], held))
        rows, where = rows.filter(pa.array(kept)), where[kept]
    return {
        split: _named(rows.filter(pa.array(where == i)), split) for i, split in enumerate(SPLITS)
    }


def _rows(items: Items | Mapping[str, pa.Table]) -> pa.Table:
    """Return all items, each with the name of its split."""
    tables = {s: items.table(s) if isinstance(items, Items) else items.get(s) for s in SPLITS}
    found = [
        _named(table.cast(ITEM), split) for split, table in tables.items() if table is not None
    ]
    return pa.concat_tables([ITEM.empty_table(), *found])


def _named(items: pa.Table, split: str) -> pa.Table:
    names = pa.array([split] * items.num_rows, pa.string())
    return items.set_column(ITEM.get_field_index("split"), ITEM.field("split"), names)


def _gain(release: Release, errors: np.ndarray | None) -> tuple[float, float, float]:
    """Return recent error minus that at release, and its 95 % interval (normal), in dollars."""
    before = release.metrics.get("test") or release.metrics.get("validation") or {}
    recent = np.asarray([] if errors is None else errors, dtype=float)
    recent = recent[np.isfinite(recent)]
    if len(recent) < 2 or not isinstance(before.get("mae"), float):
        return math.nan, math.nan, math.nan
    gain = float(recent.mean()) - before["mae"]
    half = 1.96 * recent.std(ddof=1) / math.sqrt(len(recent))
    half = float(np.hypot(half, (before["mae_high"] - before["mae_low"]) / 2))
    return gain, gain - half, gain + half
